//! What was measured: rounds of each figure, a table of them, and JSON.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::Serialize;

use crate::origin::Origin;

/// Rows in the order in which they were first met.
#[derive(Default)]
pub struct Figures(Vec<Row>);

#[derive(Default, Serialize)]
struct Row {
    broker: String,
    load: String,
    server: String,
    /// By name, with the unit in it; a value for each round.
    figures: BTreeMap<&'static str, Vec<f64>>,
    /// Percentiles of all rounds together.
    pooled: BTreeMap<&'static str, f64>,
    /// In ascending order, by the first name of their percentiles.
    #[serde(skip)]
    latencies: BTreeMap<&'static str, Vec<Duration>>,
}

/// Broker, load and server.
pub type Name<'a> = (&'a str, &'a str, &'a str);

/// Names of figures, and what so many of a thousand latencies do not exceed.
pub type Percentiles = [(&'static str, usize); 3];

/// Until a delivery is answered.
pub const ANSWER: Percentiles = [("p50_ms", 500), ("p99_ms", 990), ("p999_ms", 999)];
/// Until its event is read.
pub const END_TO_END: Percentiles = [("end_p50_ms", 500), ("end_p99_ms", 990), ("end_p999_ms", 999)];

/// With fewer latencies the slowest of a thousand are less than ten, and say nothing.
const ENOUGH_FOR_P999: usize = 10_000;

/// What one round found.
#[derive(Default)]
pub struct Round {
    pub figures: Vec<(&'static str, f64)>,
    pub latencies: Vec<(Percentiles, Vec<Duration>)>,
}

/// Of the rounds of one row, or of the ratios of two rows round by round.
#[derive(Clone, Copy)]
pub struct Summary {
    pub found: f64,
    /// How that was estimated.
    pub estimator: &'static str,
    pub least: f64,
    pub greatest: f64,
    /// The least; of two rows, the ratio of the least of each.
    pub of_least: f64,
}

const COLUMNS: [&str; 9] = [
    "cpu_us",
    "broker_cpu_us",
    "events_s",
    "p50_ms",
    "p99_ms",
    "p999_ms",
    "core_percent",
    "rss_mib",
    "peak_mib",
];

impl Figures {
    pub fn add(&mut self, row: Name<'_>, figures: &[(&'static str, f64)]) {
        let row = self.row(row);
        for (name, value) in figures {
            row.figures.entry(name).or_default().push(*value);
        }
    }

    /// Latencies give a figure of this round, and go to those of the others.
    pub fn add_round(&mut self, name: Name<'_>, round: Round) {
        self.add(name, &round.figures);
        for (percentiles, mut latencies) in round.latencies {
            latencies.sort_unstable();
            self.add(name, &percentiles.map(|(figure, of)| (figure, percentile_ms(&latencies, of))));
            let row = self.row(name);
            let all = row.latencies.entry(percentiles[0].0).or_default();
            all.extend(latencies);
            all.sort(); // merges what is sorted
            for (figure, of) in percentiles {
                if of < 999 || all.len() >= ENOUGH_FOR_P999 {
                    row.pooled.insert(figure, percentile_ms(all, of));
                }
            }
        }
    }

    fn row(&mut self, row: Name<'_>) -> &mut Row {
        let index = self.0.iter().position(|found| found.is(row)).unwrap_or_else(|| {
            let (broker, load, server) = (row.0.to_owned(), row.1.to_owned(), row.2.to_owned());
            self.0.push(Row { broker, load, server, ..Row::default() });
            self.0.len() - 1
        });
        &mut self.0[index]
    }

    pub fn summary(&self, row: Name<'_>, figure: &str) -> Option<Summary> {
        self.0.iter().find(|found| found.is(row))?.summary(figure)
    }

    /// Of two rows, round by round, for what disturbs a round disturbs both.
    pub fn ratio(&self, row: Name<'_>, floor: Name<'_>, figure: &str) -> Option<Summary> {
        let find = |row| self.0.iter().find(|found| found.is(row));
        let (own, floor) = (find(row)?, find(floor)?);
        let rounds = own.figures.get(figure)?.iter().zip(floor.figures.get(figure)?);
        let ratios = summary(&rounds.map(|(own, floor)| own / floor).collect::<Vec<_>>())?;
        let (found, estimator) = match (own.pooled.get(figure), floor.pooled.get(figure)) {
            (Some(own), Some(floor)) => (own / floor, "ratio of all rounds' latencies"),
            _ => (ratios.found, "median of the rounds' ratios"),
        };
        let of_least = own.summary(figure)?.least / floor.summary(figure)?.least;
        Some(Summary { found, estimator, of_least, ..ratios })
    }

    /// Two lines a row: what was found, and below it the least of the rounds.
    pub fn print(&self) {
        println!(
            "\nMedians of the rounds; percentiles of the latencies of all rounds together. Below: the least round."
        );
        print!("{:<7}{:<22}{:<9}", "broker", "load", "server");
        COLUMNS.iter().for_each(|name| print!("{name:>14}"));
        println!();
        for row in &self.0 {
            let (known, others): (Vec<_>, Vec<_>) =
                row.figures.keys().partition(|name| COLUMNS.contains(name));
            if !known.is_empty() {
                print!("{:<7}{:<22}{:<9}", row.broker, row.load, row.server);
                row.print_columns(|summary| summary.found);
                print!("{:<38}", "");
                row.print_columns(|summary| summary.least);
            }
            for name in others {
                let Some(Summary { found, least, .. }) = row.summary(name) else { continue };
                let (found, least) = (rounded(found), rounded(least));
                println!("{:<7}{:<22}{:<9}{name} {found} (least {least})", row.broker, row.load, row.server);
            }
        }
    }

    /// A row a line, so that two runs can be compared.
    pub fn write(&self, file: &Path) {
        let rows: Vec<String> = self.0.iter().map(|row| serde_json::to_string(row).unwrap()).collect();
        let origin = serde_json::to_string(&Origin::of_this_run()).unwrap();
        let text = format!("{{\"origin\": {origin},\n\"rows\": [\n{}\n]}}\n", rows.join(",\n"));
        std::fs::write(file, text).unwrap();
    }
}

impl Row {
    fn is(&self, (broker, load, server): Name<'_>) -> bool {
        (&*self.broker, &*self.load, &*self.server) == (broker, load, server)
    }

    /// None where there are too few latencies for it.
    fn summary(&self, figure: &str) -> Option<Summary> {
        let rounds = summary(self.figures.get(figure)?)?;
        if [ANSWER, END_TO_END].as_flattened().iter().any(|(name, _)| *name == figure) {
            let found = *self.pooled.get(figure)?;
            return Some(Summary { found, estimator: "all rounds' latencies", ..rounds });
        }
        Some(rounds)
    }

    fn print_columns(&self, of: fn(Summary) -> f64) {
        for column in COLUMNS {
            let value = self.summary(column).map(of).map(rounded);
            print!("{:>14}", value.unwrap_or_else(|| "–".to_owned()));
        }
        println!();
    }
}

fn summary(rounds: &[f64]) -> Option<Summary> {
    let mut sorted = rounds.to_vec();
    sorted.sort_by(f64::total_cmp);
    let (least, greatest) = (*sorted.first()?, *sorted.last()?);
    let (found, estimator) = (sorted[sorted.len() / 2], "median of the rounds");
    Some(Summary { found, estimator, least, greatest, of_least: least })
}

/// What so many of a thousand do not exceed, in ms; of latencies in ascending order.
fn percentile_ms(sorted: &[Duration], per_mille: usize) -> f64 {
    sorted[(sorted.len() * per_mille).div_ceil(1000).max(1) - 1].as_secs_f64() * 1e3
}

/// Three digits that count.
fn rounded(value: f64) -> String {
    match value.abs() {
        0.0..1.0 => format!("{value:.3}"),
        1.0..10.0 => format!("{value:.2}"),
        10.0..100.0 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}
