//! The first reading: a file as written, flattened to its leaves.
//!
//! The `config` crate parses TOML and YAML into one kind of tree. Only its parsers are used, not its path
//! expressions: those split a key such as `"security.protocol"` at the dot.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use ::config::{FileFormat, Format, Value, ValueKind};

use super::problem::Problem;

/// One step from a table or list to what it holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Step {
    /// A key of a table, exactly as written.
    Name(String),
    /// A place in a list, from 0.
    Index(usize),
}

/// The way from the root to a value.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct KeyPath(pub(super) Vec<Step>);

/// What stands at the ends of all paths; nothing for `null`, an empty table and an empty list.
pub(super) type Leaves = BTreeMap<KeyPath, Option<String>>;

impl KeyPath {
    /// The path of a key in the table, its `*` being this source.
    pub(super) fn of(pattern: &str, source: &str) -> Self {
        let name = |step| if step == "*" { source } else { step };
        Self(pattern.split('.').map(|step| Step::Name(name(step).to_owned())).collect())
    }

    /// The path of something inside.
    pub(super) fn child(&self, step: Step) -> Self {
        Self(self.0.iter().cloned().chain([step]).collect())
    }

    /// The name that the path ends with, unless it ends in a list.
    pub(super) fn last_name(&self) -> Option<&str> {
        match self.0.last() {
            Some(Step::Name(name)) => Some(name),
            _ => None,
        }
    }

    /// The name of the source that the path leads into.
    pub(super) fn source(&self) -> Option<&str> {
        match self.0.as_slice() {
            [Step::Name(section), Step::Name(name), ..] if section == "sources" => Some(name),
            _ => None,
        }
    }
}

/// As one would write it in TOML: names with unusual characters stand in quotes.
impl fmt::Display for KeyPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (position, step) in self.0.iter().enumerate() {
            let dot = if position == 0 { "" } else { "." };
            match step {
                Step::Index(index) => write!(f, "[{index}]")?,
                Step::Name(name) if is_bare(name) => write!(f, "{dot}{name}")?,
                Step::Name(name) => write!(f, "{dot}{name:?}")?,
            }
        }
        Ok(())
    }
}

fn is_bare(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
}

/// The format that a file's name asks for.
pub(super) fn format_of(path: &Path) -> Option<FileFormat> {
    match path.extension()?.to_str()? {
        "toml" => Some(FileFormat::Toml),
        "yaml" | "yml" => Some(FileFormat::Yaml),
        _ => None,
    }
}

/// Parses the text of the file called `name`.
pub(super) fn parse(text: &str, format: FileFormat, name: &str) -> Result<Leaves, Problem> {
    let tree = Format::parse(&format, None, text).map_err(|error| Problem {
        key: name.to_owned(),
        found: without_excerpt(&error.to_string()),
        wanted: format!("valid {}", if format == FileFormat::Toml { "TOML" } else { "YAML" }),
        whence: name.to_owned(),
    })?;
    let mut leaves = Leaves::new();
    flatten(Value::from(tree), KeyPath(Vec::new()), &mut leaves);
    Ok(leaves)
}

/// The parser's message on one line and without the lines of the file that TOML's parser shows (`3 | password
/// = …`): the faulty line may hold a secret.
fn without_excerpt(message: &str) -> String {
    let is_excerpt =
        |line: &&str| line.trim_start_matches(|c: char| c == ' ' || c.is_ascii_digit()).starts_with('|');
    let lines: Vec<&str> = message.lines().filter(|line| !is_excerpt(line)).map(str::trim).collect();
    lines.join(": ")
}

fn flatten(value: Value, path: KeyPath, leaves: &mut Leaves) {
    let text = match value.kind {
        ValueKind::Table(table) if !table.is_empty() => {
            for (name, value) in table {
                flatten(value, path.child(Step::Name(name)), leaves);
            }
            return;
        }
        ValueKind::Array(list) if !list.is_empty() => {
            for (index, value) in list.into_iter().enumerate() {
                flatten(value, path.child(Step::Index(index)), leaves);
            }
            return;
        }
        ValueKind::Nil | ValueKind::Table(_) | ValueKind::Array(_) => None,
        ValueKind::Boolean(value) => Some(value.to_string()),
        ValueKind::I64(value) => Some(value.to_string()),
        ValueKind::I128(value) => Some(value.to_string()),
        ValueKind::U64(value) => Some(value.to_string()),
        ValueKind::U128(value) => Some(value.to_string()),
        ValueKind::Float(value) => Some(value.to_string()),
        ValueKind::String(text) => Some(text),
    };
    leaves.insert(path, text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_with_dots_and_capitals_stay_as_written_in_both_formats() {
        let toml =
            "[kafka.properties]\n\"Security.protocol\" = \"SSL\"\n\"a.b\" = 1\n[list]\nof = [\"x\", \"y\"]\n";
        let yaml = "kafka:\n  properties:\n    Security.protocol: SSL\n    a.b: 1\nlist:\n  of: [x, y]\n";
        let toml = parse(toml, FileFormat::Toml, "t.toml").unwrap();
        assert_eq!(toml, parse(yaml, FileFormat::Yaml, "t.yaml").unwrap());
        let shown: Vec<String> = toml.keys().map(ToString::to_string).collect();
        assert_eq!(
            shown,
            [
                "kafka.properties.\"Security.protocol\"",
                "kafka.properties.\"a.b\"",
                "list.of[0]",
                "list.of[1]"
            ]
        );
    }

    #[test]
    fn syntax_errors_name_the_line_and_show_nothing_of_it() {
        let broken = "role = \"all\"\n[kafka.properties]\n\"sasl.password\" = \"hunter2\n";
        let problem = parse(broken, FileFormat::Toml, "relay.toml").unwrap_err().to_string();
        assert!(
            problem.contains("line 3") && !problem.contains("hunter2") && !problem.contains('\n'),
            "{problem}"
        );
        let unquoted = parse("password = hunter2\n", FileFormat::Toml, "relay.toml").unwrap_err().to_string();
        assert!(unquoted.contains("line 1") && !unquoted.contains("hunter2"), "{unquoted}");
        let broken = "role: all\nkafka:\n  properties:\n    sasl.password: \"hunter2\n";
        let problem = parse(broken, FileFormat::Yaml, "relay.yaml").unwrap_err().to_string();
        assert!(problem.contains("line") && !problem.contains("hunter2"), "{problem}");
    }
}
