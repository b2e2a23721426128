//! The laws of the house, read from the sources: imports point down only, the domain knows neither clock nor world,
//! every file says what it is, and a long one why it is one; what is logged stands in docs/logs.md.
//!
//! It is one file, and a long one, because the laws share one way of reading the sources.

#![allow(clippy::unwrap_used, reason = "what tests are for")]

use std::fmt;
use std::path::Path;

/// Each module of the crate's root, and what it may know beside itself. Within the ground there is an order as well;
/// neighbours and halves do not know each other.
const FLOORS: [(&str, &[&str]); 11] = [
    // ground
    ("domain", &[]),
    ("config", &["domain"]),
    ("telemetry", &["domain", "config"]),
    // neighbours
    ("kafka", &["domain", "config", "telemetry"]),
    ("spool", &["domain", "config", "telemetry"]),
    ("clearfeed", &["domain", "config", "telemetry"]),
    // halves
    ("intake", &["domain", "config", "telemetry", "kafka", "spool"]),
    ("forward", &["domain", "config", "telemetry", "kafka", "clearfeed"]),
    ("admin", &["domain", "config", "telemetry", "kafka"]),
    // programs
    ("simulator", &["domain"]),
    (
        "commands",
        &[
            "domain",
            "config",
            "telemetry",
            "kafka",
            "spool",
            "clearfeed",
            "intake",
            "forward",
            "admin",
            "simulator",
        ],
    ),
];

/// What only does something, or only changes, outside of the values that the domain is given.
const NOT_FOR_THE_DOMAIN: [&str; 10] = [
    "SystemTime",
    "Instant",
    "async",
    "await",
    "tokio",
    "hyper",
    "rdkafka",
    "tracing",
    "prometheus",
    "thread_local",
];
/// The same among the modules of `std`.
const NOT_FOR_THE_DOMAIN_OF_STD: [&str; 6] = ["env", "fs", "io", "net", "process", "thread"];

/// Lines of code from which on a file's head has to say why it is one.
const LONG_FILE_LINES: usize = 300;

/// A file of `src`.
struct Source {
    /// From the repository's root, with `/`.
    path: String,
    text: String,
}

/// A law that is broken somewhere.
#[derive(Debug, PartialEq, Eq)]
struct Breach {
    path: String,
    /// From 1.
    line: usize,
    law: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.law)
    }
}

#[test]
fn imports_point_down_only() {
    all_keep(upward_imports);
}

#[test]
fn the_domain_has_no_clock_no_io_and_no_async() {
    all_keep(worldly_domain);
}

#[test]
fn every_file_says_what_it_is() {
    all_keep(headless);
}

#[test]
fn a_long_file_says_why_it_is_one() {
    all_keep(long_without_reason);
}

#[test]
fn unsafe_code_stands_where_it_is_known() {
    let permits = |source: &Source| {
        source.text.contains("allow(unsafe_code") || source.text.contains("expect(unsafe_code")
    };
    let files: Vec<_> = sources().into_iter().filter(permits).map(|source| source.path).collect();
    assert_eq!(files, ["src/kafka/bootstrap.rs", "src/kafka/permissions.rs"]);
}

#[test]
fn every_line_of_the_log_is_documented() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/logs.md")).unwrap();
    all_keep(|source| unknown_to(&page, source));
    let lines: usize = sources().iter().map(|source| logged(source).count()).sum();
    assert!(lines > 30, "only {lines} lines found: are they written in another way now?");
    let source = Source {
        path: "src/forward/run.rs".to_owned(),
        text: "fn f() {\n    tracing::warn!(%error, colour = \"red\", \"never heard of\");\n}\n".to_owned(),
    };
    let told = "src/forward/run.rs:2: not in docs/logs.md: `colour`, warn `never heard of`";
    assert_eq!(unknown_to(&page, &source).iter().map(ToString::to_string).collect::<Vec<_>>(), [told]);
}

/// Every file of `src` is held against the law; all breaches are shown together.
fn all_keep(law: impl Fn(&Source) -> Vec<Breach>) {
    let sources = sources();
    assert!(sources.len() > 50, "only {} files found: is this the root of the repository?", sources.len());
    let breaches: Vec<String> = sources.iter().flat_map(&law).map(|breach| breach.to_string()).collect();
    assert!(breaches.is_empty(), "\n{}\n", breaches.join("\n"));
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut sources, mut folders) = (Vec::new(), vec![root.join("src")]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let path = path.strip_prefix(root).unwrap().to_str().unwrap().to_owned();
                sources.push(Source { path, text });
            }
        }
    }
    sources.sort_by(|a, b| a.path.cmp(&b.path));
    sources
}

// ---- The laws ------------------------------------------------------------------------------------------------------

fn upward_imports(source: &Source) -> Vec<Breach> {
    let module = source.module();
    // The two roots name all modules, and that is their task.
    let Some(own) = module.first().filter(|_| source.path != "src/main.rs") else { return Vec::new() };
    let Some((_, below)) = FLOORS.iter().find(|(name, _)| name == own) else {
        return vec![source.breach(1, format!("`{own}` has no floor: give it one in tests/floors.rs"))];
    };
    let names_of_root = references(source).into_iter().filter_map(|reference| {
        let Reference { root, name, line } = reference;
        let names_module = FLOORS.iter().any(|(module, _)| *module == name);
        (root == Root::Crate && names_module).then_some((line, name))
    });
    names_of_root
        .filter(|(_, name)| name != own && !below.contains(&name.as_str()))
        .map(|(line, name)| {
            source.breach(line, format!("`{own}` must not know `{name}`, only {below:?} and itself"))
        })
        .collect()
}

fn worldly_domain(source: &Source) -> Vec<Breach> {
    if !source.path.starts_with("src/domain/") {
        return Vec::new();
    }
    let tokens = tokens(&source.text[..source.code_end()]);
    let word = |(index, token): (usize, &Token)| {
        let is_now = token.text == "now" && index > 0 && tokens[index - 1].text == "::";
        let is_named = NOT_FOR_THE_DOMAIN.contains(&token.text.as_str());
        (is_now || is_named).then(|| (token.line, token.text.clone()))
    };
    let of_std = references_in(&tokens, &[]).into_iter().filter_map(|reference| {
        let is_named = NOT_FOR_THE_DOMAIN_OF_STD.contains(&reference.name.as_str());
        (reference.root == Root::Std && is_named)
            .then(|| (reference.line, format!("std::{}", reference.name)))
    });
    let words = tokens.iter().enumerate().filter_map(word).chain(of_std);
    words
        .map(|(line, what)| {
            source.breach(line, format!("the domain takes values, and does not know `{what}`"))
        })
        .collect()
}

fn headless(source: &Source) -> Vec<Breach> {
    if source.text.starts_with("//! ") {
        return Vec::new();
    }
    vec![source.breach(1, "the first line is not a `//!` that says what the file is".to_owned())]
}

fn long_without_reason(source: &Source) -> Vec<Breach> {
    let is_code = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with("//");
    let lines = source.text[..source.code_end()].lines().filter(is_code).count();
    if source.is_tests() || lines <= LONG_FILE_LINES {
        return Vec::new();
    }
    let head = source.text.lines().take_while(|line| line.starts_with("//!"));
    let head = head.map(|line| line.trim_start_matches("//!")).collect::<String>();
    let is_argued = head.split_once(" one ").is_some_and(|(_, after)| after.contains("because"));
    if is_argued {
        return Vec::new();
    }
    let law = format!("{lines} lines of code, and its head has no \"… is one … because …\" (or split it)");
    vec![source.breach(1, law)]
}

/// Messages and fields that the page does not have.
fn unknown_to(page: &str, source: &Source) -> Vec<Breach> {
    let missing = |Logged { level, line, arguments }: Logged| {
        let message = arguments.rsplit('"').nth(1)?;
        // What is filled in stands as `…` on the page.
        let shown = message.split_once('{').map_or(message.to_owned(), |(fixed, _)| format!("{fixed}…"));
        let has_row = page
            .lines()
            .any(|row| row.starts_with(&format!("| {level} |")) && row.contains(&format!("`{shown}`")));
        let fields = arguments[..arguments.rfind(message)?].split(',').filter_map(|field| {
            let name = field.split('=').next()?.trim().trim_start_matches(['%', '?']);
            let name = name.rsplit('.').next()?;
            let is_name = !name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            is_name.then(|| format!("`{name}`"))
        });
        let mut unknown: Vec<_> = fields.filter(|name| !page.contains(&**name)).collect();
        if !has_row {
            unknown.push(format!("{level} `{shown}`"));
        }
        let law = format!("not in docs/logs.md: {}", unknown.join(", "));
        (!unknown.is_empty()).then(|| source.breach(line, law))
    };
    logged(source).filter_map(missing).collect()
}

/// A line that may be logged.
struct Logged<'s> {
    level: &'static str,
    line: usize,
    /// Of the macro.
    arguments: &'s str,
}

fn logged(source: &Source) -> impl Iterator<Item = Logged<'_>> {
    let code = &source.text[..source.code_end()];
    let calls = [("info", "tracing::info!("), ("warn", "tracing::warn!("), ("error", "tracing::error!(")];
    let found = calls.into_iter().flat_map(move |(level, call)| {
        code.match_indices(call).map(move |(start, call)| (level, start, call))
    });
    found.map(move |(level, start, call)| {
        let rest = &code[start + call.len()..];
        let mut open = 1;
        let end = rest.find(|c| {
            open += i32::from(c == '(') - i32::from(c == ')');
            open == 0
        });
        let line = code[..start].matches('\n').count() + 1;
        Logged { level, line, arguments: &rest[..end.unwrap_or(rest.len())] }
    })
}

// ---- Reading sources -----------------------------------------------------------------------------------------------

impl Source {
    fn breach(&self, line: usize, law: String) -> Breach {
        Breach { path: self.path.clone(), line, law }
    }

    /// The modules from the root to this file: `forward`, `run` for src/forward/run.rs.
    fn module(&self) -> Vec<&str> {
        let inside = self.path.trim_start_matches("src/").trim_end_matches(".rs");
        let mut module: Vec<&str> = inside.split('/').collect();
        if matches!(module.last(), Some(&("mod" | "lib" | "main"))) {
            module.pop();
        }
        module
    }

    /// Whether all of it is compiled for tests only.
    fn is_tests(&self) -> bool {
        self.module().contains(&"tests")
    }

    /// Where the tests at the file's end begin, or else its end.
    fn code_end(&self) -> usize {
        self.text.find("\n#[cfg(test)]\nmod tests {").unwrap_or(self.text.len())
    }
}

/// A word or a sign of the code; comments are none.
#[derive(Debug)]
struct Token {
    text: String,
    line: usize,
    /// Inside a `mod name { … }` of the file.
    is_inline: bool,
}

/// Knows as much of Rust as the laws need: words, `::`, and single signs. Texts are read as if they were code, and what
/// stands behind `//` in one is overlooked.
fn tokens(text: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut is_inline = false;
    for (index, line) in text.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        // rustfmt keeps a module's own braces in the first column.
        let opens = code.trim_start_matches("pub ").starts_with("mod ") && code.trim_end().ends_with('{');
        is_inline = (is_inline || opens) && !code.starts_with('}');
        let mut rest = code.trim_start();
        while let Some(first) = rest.chars().next() {
            let is_word = |c: char| c.is_alphanumeric() || c == '_';
            let length = match first {
                _ if is_word(first) => rest.find(|c| !is_word(c)).unwrap_or(rest.len()),
                ':' if rest.starts_with("::") => 2,
                _ => first.len_utf8(),
            };
            tokens.push(Token { text: rest[..length].to_owned(), line: index + 1, is_inline });
            rest = rest[length..].trim_start();
        }
    }
    tokens
}

/// Where a path begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Root {
    /// `crate::`, `clearfeed_relay::`, or so many `super::` that the root is reached.
    Crate,
    /// `std::`
    Std,
    /// Somewhere in the file's own module.
    Within,
}

/// The first name behind a root.
#[derive(Debug)]
struct Reference {
    root: Root,
    name: String,
    line: usize,
}

fn references(source: &Source) -> Vec<Reference> {
    references_in(&tokens(&source.text), &source.module())
}

fn references_in(tokens: &[Token], module: &[&str]) -> Vec<Reference> {
    let mut found = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        let begins = index == 0 || tokens[index - 1].text != "::";
        let leads = tokens.get(index + 1).is_some_and(|next| next.text == "::");
        if !begins || !leads {
            continue;
        }
        // How far the path's beginning is below the root.
        let depth = match token.text.as_str() {
            "crate" | "clearfeed_relay" => Some(0),
            "super" => Some((module.len() + usize::from(token.is_inline)).saturating_sub(1)),
            "std" => None,
            _ => continue,
        };
        follow(&tokens[index + 2..], depth, &mut found);
    }
    found
}

/// Notes the names that a path leads to: `a` of `a::b`, `a` and `c` of `{a::b, c}`. Without a depth it is std's.
fn follow(tokens: &[Token], depth: Option<usize>, found: &mut Vec<Reference>) {
    let Some(first) = tokens.first() else { return };
    match first.text.as_str() {
        "{" => {
            let mut open = 0_usize;
            for (index, token) in tokens.iter().enumerate() {
                if (token.text == "{" || token.text == ",") && open == usize::from(token.text == ",") {
                    follow(&tokens[index + 1..], depth, found);
                }
                match token.text.as_str() {
                    "{" => open += 1,
                    "}" if open == 1 => return,
                    "}" => open -= 1,
                    _ => {}
                }
            }
        }
        "super" => follow(tokens.get(2..).unwrap_or_default(), depth.map(|d| d.saturating_sub(1)), found),
        "}" | "self" => {}
        name => {
            let root = match depth {
                None => Root::Std,
                Some(0) => Root::Crate,
                Some(_) => Root::Within,
            };
            found.push(Reference { root, name: name.to_owned(), line: first.line });
        }
    }
}

// ---- The test of the test ------------------------------------------------------------------------------------------

fn planted(path: &str, text: &str) -> Source {
    Source { path: path.to_owned(), text: text.to_owned() }
}

/// The lines that a law objects to.
fn lines(law: fn(&Source) -> Vec<Breach>, path: &str, text: &str) -> Vec<usize> {
    law(&planted(path, text)).into_iter().map(|breach| breach.line).collect()
}

#[test]
fn a_planted_upward_import_is_found_however_it_is_written() {
    for (path, text) in [
        ("src/domain/window.rs", "use crate::kafka::topics::Topics;"),
        ("src/domain/window.rs", "use crate::{\n    telemetry::metrics::Metrics,\n};"),
        ("src/domain/window.rs", "use crate::domain::{route::{Template}, event};\nuse super::super::config;"),
        ("src/config/mod.rs", "fn f() -> super::telemetry::Metrics {}"),
        ("src/config/keys.rs", "mod tests {\n    use super::super::super::{intake, Role};\n}"),
        ("src/telemetry/logs.rs", "use crate::{config::{self, Role}, domain::route, kafka};"),
        ("src/kafka/topics.rs", "let x = clearfeed_relay::forward::start();"),
        ("src/clearfeed/client.rs", "use crate::kafka::topics::Topics;"),
        ("src/intake/mod.rs", "pub use crate::forward::start;"),
        ("src/admin/paths.rs", "use crate::{domain, intake};"),
        ("src/simulator/plan.rs", "use crate::config::Config;"),
        ("src/forward/run.rs", "use crate::simulator;"),
    ] {
        let found = upward_imports(&planted(path, text));
        assert_eq!(found.len(), 1, "{path}\n{text}\n{found:?}");
    }
    assert_eq!(lines(upward_imports, "src/attic/mod.rs", "//! New."), [1], "a module without a floor");
}

#[test]
fn what_is_allowed_is_not_objected_to() {
    for (path, text) in [
        (
            "src/forward/run.rs",
            "use crate::kafka::{monitor::Monitor, topics};\nuse super::admission::forward;",
        ),
        ("src/domain/event.rs", "// unlike crate::kafka::topics\n//! [`crate::forward`]\nuse super::window;"),
        ("src/config/keys.rs", "mod tests {\n    use super::super::admin;\n}"),
        ("src/commands/serve.rs", "use clearfeed_relay::{admin, forward, intake};\nuse super::relay;"),
        ("src/lib.rs", "pub mod admin;\npub use crate::forward::start;"),
        ("src/main.rs", "use clearfeed_relay::intake;"),
        ("src/kafka/mod.rs", "pub(crate) fn forward() {}"),
    ] {
        assert_eq!(upward_imports(&planted(path, text)), [], "{path}\n{text}");
    }
}

#[test]
fn a_planted_clock_in_the_domain_is_found() {
    let text = "//! No tokio here.\nuse std::{collections::BTreeMap, fs};\nlet now = Timestamp::now();\n\
                use std::time::{Duration, SystemTime};\nasync fn f() {}\nstd::net::lookup();\nlet now = now + 1;\n\
                #[cfg(test)]\nmod tests {\n    use std::fs;\n}\n";
    let mut found = lines(worldly_domain, "src/domain/x.rs", text);
    found.sort_unstable();
    assert_eq!(found, [2, 3, 4, 5, 6]);
    assert_eq!(lines(worldly_domain, "src/intake/x.rs", text), [0; 0]);
}

#[test]
fn a_planted_long_file_is_found_and_its_reason_heard() {
    let code = |head: &str, lines: usize| format!("{head}\n\n// no code\n{}", "let x = 1;\n".repeat(lines));
    let law = |text: String| lines(long_without_reason, "src/kafka/x.rs", &text);
    assert_eq!(law(code("//! A file.", LONG_FILE_LINES)), [0; 0]);
    assert_eq!(law(code("//! A file.", LONG_FILE_LINES + 1)), [1]);
    assert_eq!(law(code("//! It is one file, because\n//! it is one table.", LONG_FILE_LINES + 1)), [0; 0]);
    let tests = format!("\n#[cfg(test)]\nmod tests {{\n{}}}\n", "    let x = 1;\n".repeat(400));
    assert_eq!(law(format!("//! A file.\n{tests}")), [0; 0]);
    assert_eq!(lines(headless, "src/kafka/x.rs", "use std::fmt;\n//! Late."), [1]);
}
