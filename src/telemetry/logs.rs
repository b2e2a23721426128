//! Logs: to stderr, for results go to stdout; as text for people and as JSON for machines.

use std::io::{self, IsTerminal};

use tracing::Subscriber;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use super::recent::Recent;
use crate::config::{LogFormat, Telemetry};

/// Why there are no logs.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// `telemetry.log` is no filter.
    #[error(
        "telemetry.log: found {found:?}, wanted a filter such as \"info\" or \"info,clearfeed_relay=debug\": {source}"
    )]
    Filter {
        /// As configured.
        found: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// Logs were set up before.
    #[error("logs are set up already: {0}")]
    Twice(#[from] TryInitError),
}

/// Sets the process's logs up, librdkafka's among them; gives what keeps the last warnings and errors. To be called once,
/// by the program.
pub fn init(settings: &Telemetry) -> Result<Recent, LogError> {
    let recent = Recent::default();
    subscriber(settings, io::stderr().is_terminal(), io::stderr, recent.clone())?.try_init()?;
    Ok(recent)
}

fn subscriber<W>(
    settings: &Telemetry,
    is_terminal: bool,
    writer: W,
    recent: Recent,
) -> Result<Box<dyn Subscriber + Send + Sync>, LogError>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let filter = EnvFilter::try_new(&settings.log)
        .map_err(|source| LogError::Filter { found: settings.log.clone(), source })?;
    let is_json = match settings.log_format {
        LogFormat::Auto => !is_terminal,
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let logs = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer);
    Ok(if is_json {
        // Fields stand beside `message`, where log stores look for them, and not one level below.
        let logs = logs.json().flatten_event(true).with_current_span(false).with_span_list(false);
        Box::new(logs.finish().with(recent))
    } else {
        Box::new(logs.with_ansi(is_terminal).finish().with(recent))
    })
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::config::LogFormat::{Auto, Json, Text};

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(log_format: LogFormat, is_terminal: bool) -> String {
        let (lines, recent) = (Lines::default(), Recent::default());
        let writer = lines.clone();
        let settings = Telemetry { log: "info".into(), log_format };
        let subscriber = subscriber(&settings, is_terminal, move || writer.clone(), recent.clone()).unwrap();
        tracing::subscriber::with_default(subscriber, || {
            tracing::debug!("below the filter");
            tracing::info!(admin = "127.0.0.1:9090", "listening");
        });
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn text_on_a_terminal_else_json() {
        for (format, is_terminal, is_json) in
            [(Auto, true, false), (Auto, false, true), (Text, false, false), (Json, true, true)]
        {
            let line = logged(format, is_terminal);
            assert_eq!(line.lines().count(), 1, "{line}");
            assert!(line.contains("listening"));
            assert_eq!(line.starts_with('{'), is_json, "{format:?} {is_terminal}: {line}");
        }
    }

    #[test]
    fn json_fields_stand_beside_the_message() {
        let line: serde_json::Value = serde_json::from_str(&logged(Json, false)).unwrap();
        assert_eq!(line["message"], "listening");
        assert_eq!(line["admin"], "127.0.0.1:9090");
        assert_eq!(line["level"], "INFO");
    }

    #[test]
    fn a_bad_filter_is_an_error_that_says_what_was_found() {
        let settings = Telemetry { log: "info,,=nonsense=".into(), log_format: Auto };
        let error = subscriber(&settings, false, io::sink, Recent::default()).err().unwrap();
        assert!(error.to_string().contains("\"info,,=nonsense=\""), "{error}");
    }
}
