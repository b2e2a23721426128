//! `simulate`: plays ClearFeed against any URL, and tells what was answered.

use std::fs::File;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use anyhow::Context;
use clearfeed_relay::domain::signature::{MIN_SECRET_BYTES, Secret};
use clearfeed_relay::simulator::rest::{Health, Requests, Rest};
use clearfeed_relay::simulator::{self, Observer, Outcome, Settings, Summary, Target};
use hyper::StatusCode;
use jiff::Timestamp;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::{exit, progress};

/// What to send, and where.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where to send, such as `http://127.0.0.1:8080/clearfeed/events`. Given several times (several
    /// replicas), each delivery goes to one of them in turn, and a refused connection to the next
    #[arg(long, required = true, value_name = "URL", value_parser = Target::parse)]
    url: Vec<Target>,
    /// File with the signing secret, of at least 16 bytes; one newline at its end is not part of it
    #[arg(long, value_name = "FILE", value_parser = read_secret)]
    secret_file: Secret,
    /// The URL that is signed: the https URL saved in ClearFeed's Developer Settings, which is the
    /// relay's `public_url` [default: the first --url]
    #[arg(long, value_name = "URL")]
    signed_url: Option<String>,
    /// Send a signed test ping first, and fail unless it is answered 200; without --events, send nothing
    /// else
    #[arg(long)]
    ping: bool,
    /// Number of events [default: 1000, with --ping 0]
    #[arg(long, value_name = "N")]
    events: Option<u64>,
    /// Number of requests that the events are spread over
    #[arg(long, value_name = "K", default_value_t = simulator::DEFAULT_REQUESTS)]
    requests: NonZeroU64,
    /// Events a second, each sent when it is due and not when there is an answer to the one before
    /// [default: as fast as answers come]
    #[arg(long, value_name = "PER_SECOND")]
    rate: Option<NonZeroU32>,
    /// Connections, and so deliveries on their way at once; more than --requests are of no use
    #[arg(long, value_name = "C", default_value_t = simulator::DEFAULT_CONNECTIONS)]
    connections: NonZeroU64,
    /// How many of a hundred events are delivered again, with a higher retry count, after their 200: 0 to 100
    #[arg(long, value_name = "PERCENT", default_value_t = 0)]
    #[arg(value_parser = clap::value_parser!(u8).range(0..=100))]
    redeliver: u8,
    /// Try an event that was not answered 200 again, after 0.25 s, 0.5 s and 1 s, up to retry 3
    #[arg(long)]
    retries_on_failure: bool,
    /// What ids and texts are drawn from: the same seed and --requests give the same bodies
    /// [default: a random one, which is printed]
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// File for one line of each event answered 200, tab-separated: event id, request id, SHA-256 of the
    /// body, sent at, answered at (nanoseconds since 1970)
    #[arg(long, value_name = "OUT")]
    ids_file: Option<PathBuf>,
    /// Also be ClearFeed's REST API at this address, for the requests that the events are about: until Ctrl-C
    #[arg(long, value_name = "ADDRESS", requires = "api_token_file")]
    serve_api: Option<SocketAddr>,
    /// File with the token that the API takes, read for each request: another one in it is a regenerated token
    #[arg(long, value_name = "FILE")]
    api_token_file: Option<PathBuf>,
    /// Requests a second that the API answers; beyond: 429 [default: as many as come]
    #[arg(long, value_name = "PER_SECOND")]
    api_rate: Option<NonZeroU32>,
    /// How many of a hundred requests to the API fail: 0 to 100
    #[arg(long, value_name = "PERCENT", default_value_t = 0)]
    #[arg(value_parser = clap::value_parser!(u8).range(0..=100))]
    api_faults: u8,
    /// Print the summary as one JSON object
    #[arg(long)]
    json: bool,
}

/// Sends it all, prints what came of it.
pub(crate) fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    // One thread is enough for more events than one relay takes, and leaves the other cores to the relay.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let as_json = arguments.json;
        let settings = settings(&arguments);
        let signed_url = settings.signed_url.clone();
        let (stop, requests) = (stop_on_signal()?, Requests::new(settings.seed, settings.requests));
        let requests = Arc::new(requests);
        let api = serve_api(&arguments, &requests).await?;
        let summary = simulate(arguments, settings, requests, stop.clone()).await?;
        let text = if as_json { serde_json::to_string(&summary)? } else { summary.to_string() };
        writeln!(io::stdout(), "{text}").context("the summary could not be printed")?;
        if let Some(hint) = hint(&summary, &signed_url) {
            say(&hint)?;
        }
        if let Some(api) = &api {
            say(&format!("the API goes on at {} until Ctrl-C", api.base_url()))?;
            stop.cancelled().await;
        }
        Ok(exit_code(&summary))
    })
}

fn say(line: &str) -> anyhow::Result<()> {
    writeln!(io::stderr(), "{line}").context("nothing can be printed")
}

/// The API, listening, where it is wanted.
async fn serve_api(arguments: &Arguments, requests: &Arc<Requests>) -> anyhow::Result<Option<Rest>> {
    let (Some(address), Some(file)) = (arguments.serve_api, arguments.api_token_file.clone()) else {
        return Ok(None);
    };
    let token = move || Some(std::fs::read_to_string(&file).ok()?.trim().to_owned());
    let health = Health { rate: arguments.api_rate, fault_percent: arguments.api_faults };
    let api = Rest::listen(address, Arc::clone(requests), Box::new(token), health).await;
    let api = api.with_context(|| format!("--serve-api: cannot listen on {address}"))?;
    say(&format!("the API answers at {}", api.base_url()))?;
    Ok(Some(api))
}

async fn simulate(
    arguments: Arguments,
    settings: Settings,
    requests: Arc<Requests>,
    stop: CancellationToken,
) -> anyhow::Result<Summary> {
    let style = "{wide_bar} {human_pos} of {human_len} events, {per_sec}, {eta} to go";
    let bar = progress::bar(settings.events, style, arguments.json);
    let finished = bar.clone();
    let observer = Observer {
        occurred: Box::new(move |number| requests.occurred(number, Timestamp::now())),
        finished: Box::new(move || finished.inc(1)),
        ids: ids_file(&arguments)?,
        stop,
    };
    let summary = simulator::run(settings, arguments.secret_file, observer).await;
    bar.finish_and_clear();
    match (summary, &arguments.ids_file) {
        (Err(error @ simulator::SimulatorError::Ids(_)), Some(path)) => {
            Err(error).context(path.display().to_string())
        }
        (summary, _) => Ok(summary?),
    }
}

fn settings(arguments: &Arguments) -> Settings {
    let first_url = arguments.url.first().map(Target::url).unwrap_or_default();
    let signed_url = arguments.signed_url.as_deref().unwrap_or(first_url);
    let defaults = Settings::new(arguments.url.clone(), signed_url);
    Settings {
        ping: arguments.ping,
        events: arguments.events.unwrap_or(if arguments.ping { 0 } else { defaults.events }),
        requests: arguments.requests,
        rate: arguments.rate,
        connections: arguments.connections,
        redeliver_percent: arguments.redeliver,
        retries_on_failure: arguments.retries_on_failure,
        seed: arguments.seed.unwrap_or(defaults.seed),
        ..defaults
    }
}

/// What most likely went wrong, for who sees nothing but a status.
fn hint(summary: &Summary, signed_url: &str) -> Option<String> {
    let not_authenticated = Outcome::Answered(StatusCode::UNAUTHORIZED.as_u16());
    if summary.ping == Some(not_authenticated) || summary.answers.contains_key(&not_authenticated) {
        return Some(format!(
            "401: signed was {signed_url}; is that the relay's public_url (else: --signed-url), and the secret the same?"
        ));
    }
    let is_failed = summary.ping.is_some_and(|ping| !ping.is_accepted());
    (is_failed && summary.events > 0)
        .then(|| "no event was sent, for the ping was not answered 200".to_owned())
}

fn exit_code(summary: &Summary) -> ExitCode {
    if summary.is_all_accepted() {
        ExitCode::SUCCESS
    } else if summary.is_out_of_reach() {
        ExitCode::from(exit::OUT_OF_REACH)
    } else {
        ExitCode::from(exit::FAILED)
    }
}

/// Read while the command line is: a file that has no secret is a wrong command line.
fn read_secret(path: &str) -> Result<Secret, String> {
    let wanted = format!("wanted a file with a signing secret of at least {MIN_SECRET_BYTES} bytes");
    let content = std::fs::read(path).map_err(|error| format!("{error}, {wanted}"))?;
    Secret::from_file_content(content).map_err(|error| error.to_string())
}

fn ids_file(arguments: &Arguments) -> anyhow::Result<Option<Box<dyn Write + Send>>> {
    let Some(path) = &arguments.ids_file else { return Ok(None) };
    let file = File::create(path)
        .with_context(|| format!("{} cannot be written, see --ids-file", path.display()))?;
    Ok(Some(Box::new(file)))
}

/// Cancelled by the first SIGINT or SIGTERM: answers that are due are waited for, and what was done is told.
pub(super) fn stop_on_signal() -> anyhow::Result<CancellationToken> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = CancellationToken::new();
    let stopped = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        stopped.cancel();
    });
    Ok(stop)
}
