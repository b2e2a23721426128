//! What was found and what was done, for people and for machines.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::io::{self, Write as _};

use anyhow::Context;
use base64ct::{Base64, Encoding};
use serde::Serialize;
use serde_json::json;

use super::letter::{Found, Left, Letter};

/// What a run came to.
#[derive(Debug, Default, Serialize)]
pub(super) struct Summary {
    /// Nothing was changed.
    dry_run: bool,
    /// Dead letters that were asked for.
    found: u64,
    /// Of these, in the inbox again; of a dry run: would be.
    pub(super) put_back: u64,
    /// Could not be put back: try again.
    pub(super) failed: u64,
    /// Not put back, by why.
    left: BTreeMap<Left, u64>,
    /// How many were found, by the reason for which they are dead letters.
    reasons: BTreeMap<String, u64>,
    pub(super) elapsed_s: f64,
}

/// A dead letter with what becomes of it: `put_back`, or why not.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(flatten)]
    letter: &'a Letter,
    redrive: &'static str,
}

impl<'a> Line<'a> {
    fn new(letter: &'a Letter, left: Option<Left>) -> Self {
        Self { letter, redrive: left.map_or("put_back", Left::as_str) }
    }
}

impl Summary {
    /// Before anything is put back.
    pub(super) fn new(decided: &[(Letter, Option<Left>)]) -> Self {
        let mut summary = Self { found: decided.len() as u64, ..Self::default() };
        for (letter, left) in decided {
            *summary.reasons.entry(letter.reason.clone()).or_default() += 1;
            if let Some(left) = left {
                *summary.left.entry(*left).or_default() += 1;
            }
        }
        summary
    }

    /// Prints it.
    pub(super) fn print(&self, as_json: bool) -> anyhow::Result<()> {
        print(&if as_json { serde_json::to_string(self)? + "\n" } else { self.to_string() })
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reasons: Vec<_> =
            self.reasons.iter().map(|(reason, count)| format!("{reason} {count}")).collect();
        let reasons = if reasons.is_empty() { String::new() } else { format!(" ({})", reasons.join(", ")) };
        writeln!(f, "found     {} dead letters{reasons}", self.found)?;
        let dry_run = if self.dry_run { " would be: this is a dry run" } else { "" };
        writeln!(f, "put back  {}{dry_run}", self.put_back)?;
        if self.failed > 0 {
            writeln!(f, "failed    {}", self.failed)?;
        }
        for (left, count) in &self.left {
            writeln!(f, "left      {count} {}: {}", left.as_str(), left.meaning())?;
        }
        Ok(())
    }
}

/// Prints every dead letter, and how many there are.
pub(super) fn list(decided: &[(Letter, Option<Left>)], as_json: bool) -> anyhow::Result<()> {
    let mut summary = Summary::new(decided);
    summary.dry_run = true;
    summary.put_back = decided.iter().filter(|(_, left)| left.is_none()).count() as u64;
    let lines = decided.iter().map(|(letter, left)| Line::new(letter, *left));
    if as_json {
        let mut object = serde_json::to_value(&summary)?;
        object["letters"] = serde_json::to_value(lines.collect::<Vec<_>>())?;
        return print(&format!("{object}\n"));
    }
    let mut text = String::new();
    if !decided.is_empty() {
        text += "       inbox  became                    reason            redrive     which\n";
    }
    for Line { letter: Letter { inbox, became, reason, source, request, id, .. }, redrive } in lines {
        let or_none = |text: Option<String>| text.map_or("-".to_owned(), |text| printable(&text));
        let place = inbox.to_string();
        // Writing to a String cannot fail.
        let _ = writeln!(
            text,
            "{place:>12}  {became:.3}  {reason:<16}  {redrive:<10}  source {}, request {}, id {}",
            or_none(source.clone()),
            or_none(request.map(|request| request.to_string())),
            or_none(id.clone()),
        );
    }
    print(&(text + &summary.to_string()))
}

/// Prints a dead letter whole.
pub(super) fn show(
    letter: &Letter,
    left: Option<Left>,
    found: &Found<'_>,
    as_json: bool,
) -> anyhow::Result<()> {
    let value = |value: Option<&[u8]>| String::from_utf8_lossy(value.unwrap_or_default()).into_owned();
    if as_json {
        let mut object = serde_json::to_value(Line::new(letter, left))?;
        let headers = found.headers.iter().map(|(name, bytes)| json!([name, value(*bytes)]));
        object["headers"] = headers.collect();
        match std::str::from_utf8(found.body) {
            Ok(text) => object["body"] = text.into(),
            Err(_) => object["body_base64"] = Base64::encode_string(found.body).into(),
        }
        return print(&format!("{object}\n"));
    }
    let redrive =
        left.map_or("would put it back".to_owned(), |left| format!("{}: {}", left.as_str(), left.meaning()));
    let mut text = format!(
        "inbox     {}\nbecame    {:.3}, now at {} of the dead-letter topic\nredrive   {redrive}\n\n",
        letter.inbox, letter.became, letter.place
    );
    for (name, bytes) in &found.headers {
        let _ = writeln!(text, "{}: {}", printable(name), printable(&value(*bytes)));
    }
    print(&format!("{text}\n{}\n", printable(&String::from_utf8_lossy(found.body))))
}

/// As a terminal may show it: people wrote what stands in there, and their control characters are not for ours.
fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        if character.is_control() && !matches!(character, '\n' | '\t') {
            shown.extend(character.escape_default());
        } else {
            shown.push(character);
        }
    }
    shown
}

fn print(text: &str) -> anyhow::Result<()> {
    io::stdout().write_all(text.as_bytes()).context("the result could not be printed")
}
