//! Who has the README and a captured request finds out with `verify` why it is refused: each likely mistake is found by
//! trying, and told with the setting to change.

use std::path::PathBuf;

use clearfeed_relay::domain::signature::Secret;
use clearfeed_relay::simulator::{Delivery, unix_seconds};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::deployment::{PUBLIC_URL, SECRET, secret};
use crate::support::relay::run_to_end;

const BODY: &str = r#"{"id":"e-1","type":"request","title":"Grüße / hello","request":{"id":7}}"#;
const OTHER_SECRET: &str = "the-secret-of-another-workspace";

/// A relay's files and a captured request.
struct Case {
    folder: TempDir,
    public_url: String,
    secret_file: String,
    timestamp_header: Option<String>,
    body: Vec<u8>,
    delivery: Delivery,
    request_line: &'static str,
    more_headers: &'static str,
    arguments: Vec<String>,
}

impl Case {
    /// All is well: what is delivered is what was signed.
    fn new(body: &str) -> Self {
        let delivery = Delivery::signed(&secret(), PUBLIC_URL, body.to_owned(), unix_seconds());
        Self {
            folder: TempDir::new().unwrap(),
            public_url: PUBLIC_URL.to_owned(),
            secret_file: SECRET.to_owned(),
            timestamp_header: None,
            body: body.as_bytes().to_vec(),
            delivery,
            request_line: "POST /clearfeed/events HTTP/1.1",
            more_headers: "",
            arguments: Vec::new(),
        }
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path
    }

    /// Exit code, and the verdict as JSON; the table says the same.
    fn verdict(&self) -> (i32, Value) {
        let secret = self.file("secret", &self.secret_file);
        let other = self.file("other-secret", OTHER_SECRET);
        let config = self.file(
            "relay.toml",
            format!(
                "[sources.main]\npublic_url = {:?}\nsigning_secret_files = [{secret:?}]\n[sources.emea]\n\
                 public_url = \"https://hooks.example.com/other\"\nsigning_secret_files = [{other:?}]\n",
                self.public_url
            ),
        );
        let Delivery { signature, timestamp, retry_count, .. } = &self.delivery;
        let signature = signature.as_ref().map_or(String::new(), |hex| format!("X-CF-Signature: {hex}\r\n"));
        let timestamp = self.timestamp_header.as_ref().unwrap_or(timestamp);
        let headers = format!(
            "{}\r\nHost: hooks.example.com\r\n{signature}X-CF-Timestamp: {timestamp}\r\n\
             X-CF-Retry-Count: {retry_count}\r\n{}",
            self.request_line, self.more_headers
        );
        let (headers, body) = (self.file("headers", headers), self.file("body", &self.body));
        let mut arguments = vec!["verify", "--config", config.to_str().unwrap(), "--headers"];
        arguments.extend([headers.to_str().unwrap(), "--body", body.to_str().unwrap()]);
        arguments.extend(self.arguments.iter().map(String::as_str));
        let (code, table, stderr) = run_to_end(&arguments);
        assert_eq!(stderr, "");
        let (same_code, verdict, _) = run_to_end(&[&arguments[..], &["--json"]].concat());
        assert_eq!(code, same_code);
        let verdict: Value = serde_json::from_str(&verdict).unwrap();
        for cause in verdict["causes"].as_array().unwrap() {
            let (found, change) = (cause["found"].as_str().unwrap(), cause["change"].as_str().unwrap());
            assert!(table.contains(&format!("cause     {found}\nchange    {change}\n")), "{table}");
        }
        (code.unwrap(), verdict)
    }

    /// It is refused for this one reason, and told so.
    #[track_caller]
    fn assert_explained(&self, reason: &str, found: &str, change: &str) {
        let (code, verdict) = self.verdict();
        assert_eq!((code, &verdict["reason"]), (1, &json!(reason)), "{verdict:#}");
        let causes = verdict["causes"].as_array().unwrap();
        let [cause] = &causes[..] else { panic!("{verdict:#}") };
        assert!(cause["found"].as_str().unwrap().contains(found), "{found}: {verdict:#}");
        assert!(cause["change"].as_str().unwrap().contains(change), "{change}: {verdict:#}");
    }
}

#[test]
fn what_is_right_is_accepted_and_says_how() {
    let case = Case::new(BODY);
    let (code, verdict) = case.verdict();
    assert_eq!(
        (code, &verdict["accepted"], &verdict["source"]),
        (0, &json!(true), &json!("main")),
        "{verdict:#}"
    );
    let found = verdict["found"].as_str().unwrap();
    assert!(found.starts_with("signed with the secret in slot 0 over the url, "), "{found}");
    let path = Delivery::signed(&secret(), "/clearfeed/events", BODY, unix_seconds());
    let (code, verdict) = Case { delivery: path, ..Case::new(BODY) }.verdict();
    assert_eq!(code, 0);
    assert!(verdict["found"].as_str().unwrap().contains("over the path"), "{verdict:#}");
}

#[test]
fn mistakes_with_the_secret_are_found() {
    for (content, found) in [
        (format!("\"{SECRET}\"\n"), "without its quotes"),
        (format!("{SECRET}\n\n"), "signed with the secret in"),
        (format!("CLEARFEED_SECRET={SECRET}\n"), "what stands behind its ="),
        ("YS1zaWduaW5nLXNlY3JldC1vZi10aGUtdGVzdHM=".to_owned(), "decoded from base64"),
    ] {
        let case = Case { secret_file: content, ..Case::new(BODY) };
        case.assert_explained("mismatch", found, "write the secret alone into");
    }
    let stranger = Secret::new(OTHER_SECRET.as_bytes()).unwrap();
    let delivery = Delivery::signed(&stranger, PUBLIC_URL, BODY, unix_seconds());
    let case = Case { delivery, ..Case::new(BODY) };
    case.assert_explained("mismatch", "other-secret", "comes from the workspace whose secret is in");
}

#[test]
fn mistakes_with_the_url_are_found() {
    for configured in [
        format!("{PUBLIC_URL}/"),
        PUBLIC_URL.replace(".com/", ".com:443/"),
        format!("{PUBLIC_URL}?source=clearfeed"),
        PUBLIC_URL.replace("hooks.example", "Hooks.Example"),
    ] {
        let case = Case { public_url: configured.clone(), ..Case::new(BODY) };
        let change = format!("set sources.main.public_url = \"{PUBLIC_URL}\"");
        case.assert_explained("mismatch", &format!("signed over the URL {PUBLIC_URL}"), &change);
    }
    // What came by the path that is served cannot be served under another one.
    let delivery = Delivery::signed(&secret(), &format!("{PUBLIC_URL}/"), BODY, unix_seconds());
    let case = Case { delivery, ..Case::new(BODY) };
    case.assert_explained("mismatch", "/clearfeed/events/", &format!("differ: save {PUBLIC_URL} there"));
    assert!(!case.verdict().1["causes"].to_string().contains("or set sources"));
    // Another URL than the configured one, tried before it is changed.
    let elsewhere = "https://elsewhere.example.com/hook";
    let delivery = Delivery::signed(&secret(), elsewhere, BODY, unix_seconds());
    let arguments = vec!["--url".into(), elsewhere.into()];
    let case = Case { delivery, arguments, request_line: "POST /hook HTTP/1.1", ..Case::new(BODY) };
    assert_eq!(case.verdict().0, 0);
}

#[test]
fn mistakes_with_the_body_are_found() {
    let pretty = BODY.replace("\":", "\": ").replace("{\"id\":", "{ \"id\":");
    for (received, found) in [
        (BODY.replace("\":", "\": ").replace(",\"", ", \""), "as JSON without white space"),
        (BODY.replace("ü", "\\u00fc").replace("ß", "\\u00df"), "as JSON without white space"),
        (pretty, "as JSON without white space"),
        (format!("{BODY}\r\n"), "without the line end after it"),
    ] {
        let case = Case { body: received.into_bytes(), ..Case::new(BODY) };
        case.assert_explained("mismatch", found, "pass the body on byte for byte");
    }
    let lines = "{\"id\":\"e-1\",\r\n\"type\":\"request\"}";
    let case = Case { body: lines.replace("\r\n", "\n").into_bytes(), ..Case::new(lines) };
    case.assert_explained("mismatch", "with CRLF line ends", "pass the body on byte for byte");
    let sorted = r#"{"id":"e-1","type":"request"}"#;
    let case = Case { body: br#"{"type":"request","id":"e-1"}"#.to_vec(), ..Case::new(sorted) };
    case.assert_explained("mismatch", "its keys in alphabetical order", "pass the body on byte for byte");
}

/// The signature is right, and the relay would not even look at it.
#[test]
fn what_is_no_mistake_of_signing_is_found() {
    let encoded = Case { more_headers: "Content-Encoding: gzip\r\n", ..Case::new(BODY) };
    let elsewhere = Case { request_line: "POST /events HTTP/1.1", ..Case::new(BODY) };
    let put = Case { request_line: "PUT /clearfeed/events HTTP/1.1", ..Case::new(BODY) };
    let large = Case::new(&"x".repeat((1 << 20) + 1));
    for (case, wanted) in [(encoded, "415"), (elsewhere, "404"), (put, "405"), (large, "413")] {
        let (code, verdict) = case.verdict();
        let found = verdict["causes"][0]["found"].as_str().unwrap_or_default();
        assert!(code == 1 && found.ends_with(&format!("answered {wanted}")), "{wanted}: {verdict:#}");
        assert_eq!((&verdict["accepted"], &verdict["reason"]), (&json!(false), &Value::Null));
    }
}

#[test]
fn mistakes_with_the_time_and_the_headers_are_found() {
    let now = unix_seconds();
    let at = |timestamp: u64| Case {
        delivery: Delivery::signed(&secret(), PUBLIC_URL, BODY, timestamp),
        arguments: vec!["--at".into(), now.to_string()],
        ..Case::new(BODY)
    };
    at(now - 720).assert_explained("too_old", "12m old", "raise sources.main.max_age");
    at(now + 900).assert_explained("too_new", "15m ahead", "set the clock");
    let mut redelivered = at(now - 100_000);
    redelivered.delivery.retry_count = 2;
    redelivered.assert_explained("too_old", "redeliveries", "raise sources.main.max_redelivery_age");

    let mut case = Case::new(BODY);
    case.timestamp_header = Some(format!("{}000", case.delivery.timestamp));
    case.assert_explained("malformed_timestamp", "the header has milliseconds", "X-CF-Timestamp");
    let milliseconds = 1000 * unix_seconds();
    let delivery = Delivery::signed(&secret(), PUBLIC_URL, BODY, milliseconds);
    let case = Case { delivery, ..Case::new(BODY) };
    let told = format!("is \"{milliseconds}\", wanted ten digits");
    case.assert_explained("malformed_timestamp", &told, "it was signed like this");
    let unsigned = Case { delivery: Case::new(BODY).delivery.unsigned(), ..Case::new(BODY) };
    unsigned.assert_explained("no_signature", "no X-CF-Signature header", "headers pass through it");
}

#[test]
fn two_mistakes_at_once_are_both_told_and_what_is_not_explained_says_so() {
    let case =
        Case { secret_file: format!("'{SECRET}'"), public_url: format!("{PUBLIC_URL}/"), ..Case::new(BODY) };
    let (code, verdict) = case.verdict();
    assert_eq!((code, verdict["causes"].as_array().unwrap().len()), (1, 2), "{verdict:#}");
    let stranger = Secret::new(b"nobody knows this secret").unwrap();
    let delivery = Delivery::signed(&stranger, PUBLIC_URL, BODY, unix_seconds());
    let case = Case { delivery, ..Case::new(BODY) };
    case.assert_explained(
        "mismatch",
        "none of the configured secrets",
        "copy the signing secret from Developer Settings",
    );
    let (_, verdict) = Case { secret_file: "short".into(), ..case }.verdict();
    let first = verdict["causes"][0]["found"].as_str().unwrap();
    assert!(first.starts_with("nothing could be tried with ") && first.contains("5 bytes"), "{verdict:#}");
}
