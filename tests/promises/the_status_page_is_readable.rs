//! The status page says what a person has to know, in a real browser: healthy, with Kafka away, and with a wrong secret. Its
//! own policy lets its style in and nothing else.
//!
//! What it says is read over HTTP; a browser looks at it where there is a Chromium, which `script/setup` installs on Debian.
//! `RENEW=1 cargo test --test promises status_page` takes the pictures of docs/ anew.

#![allow(clippy::disallowed_methods, reason = "RENEW is the test's, not the relay's")]

use std::path::Path;
use std::process::Command;

use clearfeed_relay::domain::signature::Secret;
use clearfeed_relay::simulator::{Delivery, unix_seconds};

use crate::support::deployment::PUBLIC_URL;
use crate::support::proxy::{Proxy, Trouble};
use crate::support::relay::Relay;
use crate::support::simulator::load;
use crate::support::{Deployment, Kafka, SOON, Sender, Simulation, http, left_out, wait_for};

/// Without these it talks to the world; as root it has no sandbox.
const QUIET: [&str; 9] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
];
/// Of `timeout`, where the program is not there.
const NO_SUCH_PROGRAM: Option<i32> = Some(127);

/// Opens the page in a browser, which finds nothing wrong with it: what then stands on it. `None` where there is no browser.
fn open(relay: &Relay, arguments: &[&str]) -> Option<String> {
    let profile = tempfile::tempdir().unwrap();
    let browser = Command::new("timeout")
        .args(["60", "chromium", "--enable-logging=stderr"])
        .arg(format!("--user-data-dir={}", profile.path().display()))
        .args(QUIET)
        .args(arguments)
        .arg(format!("http://{}/", relay.admin()))
        .output()
        .unwrap();
    if browser.status.code() == NO_SUCH_PROGRAM {
        left_out("the status page in a browser", "there is no Chromium");
        return None;
    }
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (page, log) = (text(&browser.stdout), text(&browser.stderr));
    assert!(browser.status.success(), "{}: {log}", browser.status);
    // Where the policy kept something out, or the page is not what a browser takes for one.
    assert!(!log.contains("CONSOLE"), "{log}");
    Some(page)
}

/// The page has all of this; with RENEW its picture is taken, too.
fn shows(relay: &Relay, wanted: &[&str], picture: &str, how: &[&str]) {
    let served = http::get(relay.admin(), "/").unwrap().body;
    let opened = open(relay, &["--dump-dom"]);
    for page in opened.iter().chain([&served]) {
        for text in wanted {
            assert!(page.contains(text), "{text} in\n{page}");
        }
    }
    if std::env::var_os("RENEW").is_some() {
        let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs").join(picture);
        open(relay, &[how, &[&format!("--screenshot={}", file.display())]].concat());
    }
}

#[test]
fn healthy_with_a_wrong_secret_and_with_kafka_away() {
    let proxies: Vec<_> = (0..3).map(|_| Proxy::listen()).collect();
    let kafka = Kafka::behind(3, &proxies, &[]);
    let deployment = Deployment::new("page", &kafka);
    let relay = deployment.relay().behind(&proxies).up();
    Simulation::run(load(vec![relay.target()], 300, 20));
    let healthy = [
        "<strong>Healthy</strong>",
        "300 accepted",
        "Nothing was refused since the start.",
        "sources.main.public_url",
    ];
    shows(&relay, &healthy, "status-healthy.png", &["--window-size=900,1000"]);

    // Another replica, which has accepted nothing yet: most likely it is our secret that is wrong.
    let new = deployment.replica("new").set("role", r#""intake""#).behind(&proxies).start();
    new.wait_ready();
    let stranger = Secret::new(b"the-secret-of-another-workspace").unwrap();
    let mut sender = Sender::new(vec![new.target()]);
    for number in 0..40 {
        let body = format!("{{\"id\":\"{number}\"}}");
        sender.send(&Delivery::signed(&stranger, PUBLIC_URL, body, unix_seconds()));
    }
    let refused = [
        "<strong>Ready, with trouble</strong>",
        "40 deliveries of the last hour had a wrong signature or time, and 0 were accepted",
        "clearfeed-relay verify finds out which",
    ];
    shows(&new, &refused, "status-wrong-secret.png", &["--window-size=900,700"]);

    for proxy in &proxies {
        proxy.begin(Trouble::Cut);
    }
    wait_for("it is not ready", SOON, || (!relay.is_ready()).then_some(()));
    let away = ["<strong>Not ready</strong>", "kafka_unreachable", "300 accepted", "all_brokers_down"];
    let phone = ["--window-size=500,1100", "--blink-settings=preferredColorScheme=0"];
    shows(&relay, &away, "status-kafka-away.png", &phone);
}
