//! What was measured: rounds of each figure, a table of them, and JSON.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Serialize;

/// Rows in the order in which they were first met.
#[derive(Default)]
pub struct Figures(Vec<Row>);

#[derive(Serialize)]
struct Row {
    broker: String,
    load: String,
    server: String,
    /// By name, with the unit in it; a value for each round.
    figures: BTreeMap<&'static str, Vec<f64>>,
}

/// Broker, load and server.
pub type Name<'a> = (&'a str, &'a str, &'a str);

/// Of the rounds.
#[derive(Clone, Copy)]
pub struct Summary {
    pub min: f64,
    pub median: f64,
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
        let (broker, load, server) = row;
        let found =
            self.0.iter().position(|row| (&*row.broker, &*row.load, &*row.server) == (broker, load, server));
        let index = found.unwrap_or_else(|| {
            let (broker, load, server) = (broker.to_owned(), load.to_owned(), server.to_owned());
            self.0.push(Row { broker, load, server, figures: BTreeMap::new() });
            self.0.len() - 1
        });
        for (name, value) in figures {
            self.0[index].figures.entry(name).or_default().push(*value);
        }
    }

    pub fn summary(&self, row: Name<'_>, figure: &str) -> Option<Summary> {
        let found = self.0.iter().find(|found| (&*found.broker, &*found.load, &*found.server) == row)?;
        summary(found.figures.get(figure)?)
    }

    /// Of two rows: the median of the ratio round by round, for what disturbs a round disturbs both; and the ratio of
    /// their minima.
    pub fn ratio(&self, row: Name<'_>, floor: Name<'_>, figure: &str) -> Option<Summary> {
        let values = |row| {
            let found = self.0.iter().find(|found| (&*found.broker, &*found.load, &*found.server) == row)?;
            found.figures.get(figure)
        };
        let (own, least) = (values(row)?, values(floor)?);
        let ratios: Vec<f64> = own.iter().zip(least).map(|(own, least)| own / least).collect();
        Some(Summary { median: summary(&ratios)?.median, min: summary(own)?.min / summary(least)?.min })
    }

    /// Two lines a row: the median, and below it the minimum.
    pub fn print(&self) {
        print!("\n{:<7}{:<22}{:<17}{:<7}", "broker", "load", "server", "");
        COLUMNS.iter().for_each(|name| print!("{name:>14}"));
        println!();
        for row in &self.0 {
            let (known, others): (Vec<_>, Vec<_>) =
                row.figures.iter().partition(|(name, _)| COLUMNS.contains(name));
            for (which, of) in
                [("median", (|s: Summary| s.median) as fn(_) -> _), ("min", |s: Summary| s.min)]
            {
                if known.is_empty() {
                    break;
                }
                let name = [&*row.broker, &*row.load, &*row.server]
                    .map(|name| if which == "min" { "" } else { name });
                print!("{:<7}{:<22}{:<17}{which:<7}", name[0], name[1], name[2]);
                for column in COLUMNS {
                    let value = row.figures.get(column).and_then(|rounds| summary(rounds)).map(of);
                    print!("{:>14}", value.map(rounded).unwrap_or_default());
                }
                println!();
            }
            for (name, rounds) in others {
                let Some(Summary { min, median }) = summary(rounds) else { continue };
                let (median, min) = (rounded(median), rounded(min));
                println!("{:<7}{:<22}{:<17}{name} {median} (min {min})", row.broker, row.load, row.server);
            }
        }
    }

    /// A row a line, so that two runs can be compared.
    pub fn write(&self, file: &Path) {
        let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap();
        let model = cpu.lines().find_map(|line| line.strip_prefix("model name\t: ")).unwrap_or_default();
        let cores = cpu.lines().filter(|line| line.starts_with("processor")).count();
        let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
        let machine = serde_json::json!({ "cpu": model, "cores": cores, "kernel": kernel.trim() });
        let rows: Vec<String> = self.0.iter().map(|row| serde_json::to_string(row).unwrap()).collect();
        let text = format!("{{\"machine\": {machine},\n\"rows\": [\n{}\n]}}\n", rows.join(",\n"));
        std::fs::write(file, text).unwrap();
    }
}

fn summary(rounds: &[f64]) -> Option<Summary> {
    let mut sorted = rounds.to_vec();
    sorted.sort_by(f64::total_cmp);
    Some(Summary { min: *sorted.first()?, median: sorted[sorted.len() / 2] })
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
