//! `redrive`: dead letters, listed, shown, or put back into the inbox.
//!
//! ```text
//! dead letters ─▶ letter (who is it?) ─▶ ledger (what became of it?) ─▶ left, or put back: inbox
//! ```
//!
//! A copy names the inbox offset of the dead letter that it is made of, and the forward half takes it for new only where its
//! window of ids says that this is what became of the id (docs/exactly-once.md). So nothing here has to be certain: what the
//! ledger says spares the inbox copies that would be dropped, and lets people see what is done.

mod inbox;
mod letter;
mod reading;
mod report;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use clearfeed_relay::config::Config;
use clearfeed_relay::domain::event_record::DeadLetterReason;
use clearfeed_relay::domain::inbox_record::{Position, header};
use clearfeed_relay::domain::ledger_entry::LedgerEntry;
use clearfeed_relay::domain::window::Fate;
use clearfeed_relay::kafka::properties;
use indicatif::ProgressBar;
use jiff::Timestamp;
use rdkafka::Message;
use rdkafka::message::{BorrowedMessage, Headers};

use super::{configuration, progress};
use inbox::{Copy, Inbox};
use letter::{Found, Left, Letter, Terms};
use reading::{Reader, Span};
use report::Summary;

/// What to put back.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The configuration that the relay runs with, TOML or YAML
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Only dead letters with this reason, such as `no_topic`
    #[arg(long, value_name = "R", value_parser = parse_reason)]
    reason: Option<String>,
    /// Only what became a dead letter at this time or later, such as 2026-11-25T08:00:00Z
    #[arg(long, value_name = "INSTANT")]
    since: Option<Timestamp>,
    /// List them, count them by reason, say what would become of each, and change nothing
    #[arg(long)]
    dry_run: bool,
    /// Show one whole, with its headers, and change nothing: the one of this place in the inbox, or the
    /// newest
    #[arg(long, value_name = "PARTITION:OFFSET", num_args = 0..=1, conflicts_with = "dry_run")]
    #[expect(clippy::option_option, reason = "clap's way to say: an option whose value may be left out")]
    show: Option<Option<Position>>,
    /// Put back as well what the relay may have forgotten: dead letters older than `dedup.window`, and
    /// `spooled_too_long`. This may repeat an event: one that was put back and published so long ago, or
    /// whose redelivery was
    #[arg(long)]
    forgotten: bool,
    /// Print the result as one JSON object
    #[arg(long)]
    json: bool,
}

fn parse_reason(text: &str) -> Result<String, String> {
    let words = DeadLetterReason::ALL.map(DeadLetterReason::as_str);
    words
        .contains(&text)
        .then(|| text.to_owned())
        .ok_or_else(|| format!("wanted one of {}", words.join(", ")))
}

/// Lists, shows, or puts back; prints what came of it.
pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = configuration::load(&arguments.config, None, properties::check)?;
    let redrive = Redrive { reader: Reader::new(&config)?, config, arguments };
    let letters = redrive.find()?;
    if let Some(wanted) = arguments.show {
        return redrive.show(&letters, wanted);
    }
    let known = redrive.look_up(&letters)?;
    let terms = redrive.terms();
    let decided = letters.into_iter().map(|letter| {
        let left = letter.left(known.of(&letter), terms);
        (letter, left)
    });
    let decided: Vec<_> = decided.collect();
    if arguments.dry_run {
        report::list(&decided, arguments.json)?;
        return Ok(ExitCode::SUCCESS);
    }
    redrive.put_back(decided)
}

struct Redrive<'a> {
    config: Config,
    reader: Reader,
    arguments: &'a Arguments,
}

/// What the ledger says last of each id: at which offset it was new, and what became of it.
struct Known(BTreeMap<(i32, u128), Option<(i64, Fate)>>);

impl Known {
    fn of(&self, letter: &Letter) -> Option<(i64, Fate)> {
        *self.0.get(&(letter.inbox.partition, letter.print.0))?
    }
}

impl Redrive<'_> {
    fn topic(&self) -> &str {
        self.config.forward.dead_letter_topic.as_str()
    }

    fn terms(&self) -> Terms {
        let Arguments { forgotten, .. } = *self.arguments;
        Terms { now: Timestamp::now(), window: self.config.dedup.window, forgotten }
    }

    /// All dead letters that are asked for.
    fn find(&self) -> anyhow::Result<Vec<Letter>> {
        let span = self.reader.span(self.topic(), self.arguments.since)?;
        let bar = self.progress(reading::length(&span), "of the dead letters read");
        let mut letters = Vec::new();
        self.reader.read(self.topic(), &span, |record| {
            bar.inc(1);
            let letter = Letter::read(&found(record), self.config.inbox.partitions);
            let is_wanted = |letter: &Letter| {
                let Arguments { reason, since, .. } = self.arguments;
                reason.as_ref().is_none_or(|reason| *reason == letter.reason)
                    && since.is_none_or(|since| since <= letter.became)
            };
            letters.extend(letter.filter(is_wanted));
            Ok(())
        })?;
        bar.finish_and_clear();
        letters.sort_by_key(|letter| (letter.became, letter.inbox));
        Ok(letters)
    }

    /// Reads the ledger for these. It is read after the dead letters, so that it has whatever became of them.
    fn look_up(&self, letters: &[Letter]) -> anyhow::Result<Known> {
        let mut known: BTreeMap<_, _> =
            letters.iter().map(|letter| ((letter.inbox.partition, letter.print.0), None)).collect();
        let topic = self.config.ledger.topic.as_str();
        let mut span = if known.is_empty() { Span::new() } else { self.reader.span(topic, None)? };
        span.retain(|partition, _| known.keys().any(|(wanted, _)| wanted == partition));
        let bar = self.progress(reading::length(&span), "of the ledger read");
        self.reader.read(topic, &span, |record| {
            bar.inc(1);
            let format =
                record.headers().and_then(|all| all.iter().find(|found| found.key == header::FORMAT));
            let value = record.payload().unwrap_or_default();
            let entry = LedgerEntry::decode(format.and_then(|found| found.value), value)
                .with_context(|| format!("offset {} of {topic}-{}", record.offset(), record.partition()))?;
            for decided in entry.ids {
                if let Some(last) = known.get_mut(&(record.partition(), decided.sighting.fingerprint.0)) {
                    *last = Some((decided.sighting.offset, decided.fate));
                }
            }
            Ok(())
        })?;
        bar.finish_and_clear();
        Ok(Known(known))
    }

    fn show(&self, letters: &[Letter], wanted: Option<Position>) -> anyhow::Result<ExitCode> {
        let is_it = |letter: &&Letter| wanted.is_none_or(|wanted| wanted == letter.inbox);
        let Some(letter) = letters.iter().rev().find(is_it) else {
            let place = wanted.map(|place| format!(" at {place} of the inbox")).unwrap_or_default();
            anyhow::bail!("no dead letter{place} in {} that is asked for; --dry-run lists all", self.topic());
        };
        let left = letter.left(self.look_up(std::slice::from_ref(letter))?.of(letter), self.terms());
        let place = letter.place;
        let span = Span::from([(place.partition, place.offset..place.offset + 1)]);
        let mut shown = None;
        self.reader.read(self.topic(), &span, |record| {
            shown = Some(report::show(letter, left, &found(record), self.arguments.json));
            Ok(())
        })?;
        shown.context("it is not in the dead-letter topic any more")??;
        Ok(ExitCode::SUCCESS)
    }

    fn put_back(&self, decided: Vec<(Letter, Option<Left>)>) -> anyhow::Result<ExitCode> {
        let started = std::time::Instant::now();
        let mut summary = Summary::new(&decided);
        let mut letters: Vec<_> =
            decided.into_iter().filter(|(_, left)| left.is_none()).map(|(letter, _)| letter).collect();
        letter::sort(&mut letters);
        let inbox = Inbox::new(&self.config)?;
        let bar = self.progress(letters.len() as u64, "dead letters put back");
        let mut rest = letters.as_slice();
        let mut result = Ok(());
        while !rest.is_empty() && result.is_ok() {
            let (chunk, behind) = rest.split_at(letter::chunk(rest));
            rest = behind;
            result = self.copies(chunk).and_then(|copies| {
                inbox.append(&copies, || {
                    bar.inc(1);
                    summary.put_back += 1;
                })
            });
        }
        bar.finish_and_clear();
        summary.failed = letters.len() as u64 - summary.put_back;
        summary.elapsed_s = started.elapsed().as_secs_f64();
        summary.print(self.arguments.json)?;
        result.map(|()| ExitCode::SUCCESS)
    }

    /// The letters' copies, in the same order.
    fn copies(&self, letters: &[Letter]) -> anyhow::Result<Vec<Copy>> {
        let mut span = Span::new();
        for Letter { place, .. } in letters {
            let range = span.entry(place.partition).or_insert(place.offset..place.offset + 1);
            *range = range.start.min(place.offset)..range.end.max(place.offset + 1);
        }
        let mut copies: BTreeMap<Position, Option<Copy>> =
            letters.iter().map(|letter| (letter.place, None)).collect();
        self.reader.read(self.topic(), &span, |record| {
            let found = found(record);
            if let Some(copy) = copies.get_mut(&found.place) {
                *copy = Copy::new(&found);
            }
            Ok(())
        })?;
        let in_order: Vec<_> = letters.iter().filter_map(|letter| copies.remove(&letter.place)?).collect();
        ensure!(in_order.len() == letters.len(), "dead letters are gone since they were listed: try again");
        Ok(in_order)
    }

    fn progress(&self, length: u64, what: &str) -> ProgressBar {
        let style = format!("{{wide_bar}} {{human_pos}} of {{human_len}} {what}, {{per_sec}}, {{eta}} to go");
        progress::bar(length, &style, self.arguments.json)
    }
}

fn found<'a>(record: &'a BorrowedMessage<'_>) -> Found<'a> {
    let headers = record.headers().map(|headers| headers.iter().map(|header| (header.key, header.value)));
    Found {
        place: Position { partition: record.partition(), offset: record.offset() },
        became_ms: record.timestamp().to_millis().unwrap_or(0),
        key: record.key().unwrap_or_default(),
        headers: headers.into_iter().flatten().collect(),
        body: record.payload().unwrap_or_default(),
    }
}
