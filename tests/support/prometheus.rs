//! A real Prometheus that scrapes relays every second, with the rules of the chart.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::dashboard::{RULES, path};
use super::{Relay, SOON, free_port, tools, wait_for};

/// Ends with its guard, and its data with it.
pub struct Prometheus {
    process: Child,
    address: SocketAddr,
    /// Held for its end: configuration, data and log.
    _folder: TempDir,
}

impl Prometheus {
    /// Scrapes each of these, under this name for its namespace; waits until it answers.
    pub fn watching<'r>(relays: impl IntoIterator<Item = (&'r str, &'r Relay)>) -> Self {
        let folder = TempDir::with_prefix("prometheus").unwrap();
        let targets: Vec<_> = relays
            .into_iter()
            .map(|(namespace, relay)| {
                json!({"targets": [relay.admin().to_string()], "labels": {"namespace": namespace}})
            })
            .collect();
        let configuration = json!({
            "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
            "rule_files": [path(RULES)],
            "scrape_configs": [{"job_name": "relay", "static_configs": targets}],
        });
        // JSON is YAML.
        std::fs::write(folder.path().join("prometheus.yml"), configuration.to_string()).unwrap();
        let program = program();
        let (mut process, mut address) = start(&program, folder.path());
        wait_for("Prometheus answers", SOON, || {
            if process.try_wait().unwrap().is_some() {
                // Somebody was faster to take the port.
                (process, address) = start(&program, folder.path());
            }
            get(address, "/-/ready").filter(|(status, _)| *status == 200)
        });
        Self { process, address, _folder: folder }
    }

    /// The values that an expression has now, those that are numbers.
    #[track_caller]
    pub fn now(&self, expression: &str) -> Vec<f64> {
        self.series("query", &[("query", expression)])
            .iter()
            .filter_map(|one| number(&one["value"]))
            .collect()
    }

    /// The newest values of its series in the last seconds, asked for as for a picture.
    #[track_caller]
    pub fn curve(&self, expression: &str, seconds: u64) -> Vec<f64> {
        let end = clearfeed_relay::simulator::unix_seconds();
        let (start, end) = ((end - seconds).to_string(), end.to_string());
        let range = [("query", expression), ("start", &start), ("end", &end), ("step", "1")];
        let newest = |one: &Value| one["values"].as_array()?.iter().filter_map(number).next_back();
        self.series("query_range", &range).iter().filter_map(newest).collect()
    }

    #[track_caller]
    fn series(&self, endpoint: &str, parameters: &[(&str, &str)]) -> Vec<Value> {
        self.ask(endpoint, parameters)["result"].as_array().expect("a vector or a matrix").clone()
    }

    /// Whether there is, or was, a series like this.
    #[track_caller]
    pub fn knows(&self, selector: &str) -> bool {
        self.ask("series", &[("match[]", selector)]).as_array().is_some_and(|found| !found.is_empty())
    }

    /// The values that a label has in these series.
    #[track_caller]
    pub fn label_values(&self, selector: &str, label: &str) -> Vec<Value> {
        self.ask(&format!("label/{label}/values"), &[("match[]", selector)]).as_array().unwrap().clone()
    }

    /// All rules, as `/api/v1/rules` tells of them: recording ones and alerts.
    #[track_caller]
    pub fn rules(&self) -> Vec<Value> {
        let groups = self.ask("rules", &[])["groups"].as_array().unwrap().clone();
        groups.iter().flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
    }

    /// Fails with Prometheus's own words where it does not take the question.
    #[track_caller]
    fn ask(&self, endpoint: &str, parameters: &[(&str, &str)]) -> Value {
        let parameters: Vec<_> =
            parameters.iter().map(|(key, value)| format!("{key}={}", encoded(value))).collect();
        let path = format!("/api/v1/{endpoint}?{}", parameters.join("&"));
        let (status, body) = get(self.address, &path).expect("Prometheus answers");
        let mut answer: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status, &answer["status"]), (200, &json!("success")), "{parameters:?}: {body}");
        answer["data"].take()
    }
}

/// `[time, "value"]`; none where it is no number, such as a quantile of nothing.
fn number(sample: &Value) -> Option<f64> {
    sample[1].as_str()?.parse().ok().filter(|value: &f64| value.is_finite())
}

/// Debian's binary, unpacked if need be.
fn program() -> std::path::PathBuf {
    tools(&["script/prometheus"]).join("prometheus")
}

fn start(program: &Path, folder: &Path) -> (Child, SocketAddr) {
    let free = SocketAddr::from((Ipv4Addr::LOCALHOST, free_port()));
    let process = Command::new(program)
        .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
        .arg(format!("--web.listen-address={free}"))
        .current_dir(folder)
        .stdin(Stdio::null())
        .stderr(File::create(folder.join("log")).unwrap())
        .spawn()
        .unwrap();
    (process, free)
}

/// Status and body. HTTP/1.0, so that the answer is not chunked.
fn get(address: SocketAddr, path: &str) -> Option<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&address, SOON).ok()?;
    stream.set_read_timeout(Some(SOON)).ok()?;
    write!(stream, "GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n").ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.get(9..12)?.parse().ok()?, body.to_owned()))
}

/// As a query's value in a URL.
fn encoded(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() {
            encoded.push(char::from(byte));
        } else {
            write!(encoded, "%{byte:02X}").unwrap();
        }
        encoded
    })
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
