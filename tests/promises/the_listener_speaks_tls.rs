//! The listener's own TLS, tried by clients that everybody has: its versions, its one protocol, and a certificate that is
//! replaced while deliveries come, of which none fails.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::deployment::{PATH, PUBLIC_URL};
use crate::support::relay::{Plan, command};
use crate::support::{Deployment, Kafka, LOOK_EVERY, Relay, SOON, http, pause, wait_for};

/// A certificate authority, and what it issued last.
struct Authority {
    folder: TempDir,
}

impl Authority {
    fn new() -> Self {
        let authority = Self { folder: TempDir::new().unwrap() };
        authority.openssl("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=authority -keyout ca.key -out ca.crt");
        authority
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    /// Issues `NAME.crt` with its key `NAME.key`, for localhost.
    fn issue(&self, name: &str) {
        std::fs::write(self.path("names"), "subjectAltName=DNS:localhost,IP:127.0.0.1").unwrap();
        self.openssl(&format!("req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr"));
        self.openssl(&format!("x509 -req -in {name}.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 1 -extfile names -out {name}.crt"));
    }

    /// Puts a file where the relay reads it, as one that is replaced whole.
    fn install(&self, file: &str, place: &str) {
        std::fs::copy(self.path(file), self.path("next")).unwrap();
        std::fs::rename(self.path("next"), self.path(place)).unwrap();
    }

    fn openssl(&self, arguments: &str) {
        let output =
            Command::new("openssl").args(arguments.split(' ')).current_dir(self.folder.path()).output();
        let output = output.unwrap();
        assert!(output.status.success(), "{arguments}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

fn up(plan: Plan, authority: &Authority) -> Relay {
    authority.issue("first");
    authority.install("first.crt", "tls.crt");
    authority.install("first.key", "tls.key");
    plan.set("intake.tls.certificate_file", &format!("{:?}", authority.path("tls.crt")))
        .set("intake.tls.key_file", &format!("{:?}", authority.path("tls.key")))
        .up()
}

/// What `openssl s_client` says of a connection that it closes after the handshake.
fn s_client(address: SocketAddr, ca: &Path, options: &str) -> Output {
    let mut command = Command::new("openssl");
    command.args([
        "s_client",
        "-verify_return_error",
        "-servername",
        "localhost",
        "-verify_hostname",
        "localhost",
    ]);
    command.arg("-CAfile").arg(ca).args(["-connect", &address.to_string()]);
    command.args(options.split_whitespace()).stdin(Stdio::null()).output().unwrap()
}

/// What a GET is answered on a connection of its own.
fn curl(address: SocketAddr, ca: &Path) -> String {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "30", "--cacert"]).arg(ca);
    let output = command.arg(format!("https://{address}{PATH}")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn it_speaks_tls_12_and_13_and_http_11_alone() {
    let kafka = Kafka::shared();
    let (deployment, authority) = (Deployment::new("tls", &kafka), Authority::new());
    let relay = up(deployment.relay(), &authority);
    let (address, ca) = (relay.intake(), authority.path("ca.crt"));
    for (options, is_served, wanted) in [
        ("-tls1_3 -alpn http/1.1", true, "ALPN protocol: http/1.1"),
        ("-tls1_2 -alpn h2,http/1.1", true, "ALPN protocol: http/1.1"),
        ("-tls1_3", true, "No ALPN negotiated"),
        // The relay's own words, in the client's mouth.
        ("-alpn h2", false, "alert no application protocol"),
        ("-tls1_1 -cipher ALL@SECLEVEL=0", false, "SSL alert number 40"),
    ] {
        let output = s_client(address, &ca, options);
        let told =
            [output.stdout, output.stderr].map(|told| String::from_utf8_lossy(&told).into_owned()).concat();
        assert_eq!(output.status.success(), is_served, "{options}: {told}");
        assert!(told.contains(wanted), "{options}: {told}");
    }
    assert_eq!(curl(address, &ca), r#"{"status":"pong"}"#);
    assert_eq!(
        http::request(address, "GET", PATH, &[], b"").ok().map(|answer| answer.status),
        None,
        "plain HTTP"
    );
    let expires = relay.metric("tls_certificate_not_after_timestamp_seconds");
    let now = clearfeed_relay::simulator::unix_seconds() as f64;
    assert!((now..now + 86_400.0 + 60.0).contains(&expires), "{expires} is a day from {now}");
}

#[test]
fn a_handshake_has_a_time_limit() {
    let kafka = Kafka::shared();
    let (deployment, authority) = (Deployment::new("tls-slow", &kafka), Authority::new());
    let relay = up(deployment.relay().set("intake.header_timeout", r#""1s""#), &authority);
    let mut silent = http::begin(relay.intake(), b"\x16\x03\x01").unwrap();
    silent.set_read_timeout(Some(SOON)).unwrap();
    assert!(http::is_closed(&mut silent), "closed without an answer");
}

/// The old pair goes on serving while only one file of the new one is there, and while the new one is no certificate.
#[test]
fn a_certificate_is_replaced_under_load_and_nothing_fails() {
    let kafka = Kafka::shared();
    let (deployment, authority) = (Deployment::new("tls-swap", &kafka), Authority::new());
    let relay = up(deployment.relay(), &authority);
    let (address, ca) = (relay.intake(), authority.path("ca.crt"));
    let served = |name: &str| {
        let output = s_client(address, &ca, "");
        String::from_utf8_lossy(&output.stdout).contains(&format!("CN = {name}\n"))
    };
    assert!(served("first"));
    let url = format!("https://{address}{PATH}");
    let load = command()
        .args([
            "simulate",
            "--url",
            &url,
            "--signed-url",
            PUBLIC_URL,
            "--events",
            "750",
            "--rate",
            "50",
            // As many handshakes come at once, and each has five seconds, also where others have the processors.
            "--connections",
            "8",
            "--json",
        ])
        .arg("--secret-file")
        .arg(deployment.secret_file())
        .env("SSL_CERT_FILE", &ca)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // Kept connections do not shake hands again: these do.
        scope.spawn(|| {
            while !is_over.load(Ordering::SeqCst) {
                curl(address, &ca);
                pause(LOOK_EVERY);
            }
        });
        let finished =
            std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| swap(&relay, &authority, &served)));
        is_over.store(true, Ordering::SeqCst);
        finished.unwrap();
    });
    let output = load.wait_with_output().unwrap();
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["answers"], serde_json::json!({"200": 750}), "{summary}");
}

fn swap(relay: &Relay, authority: &Authority, served: &dyn Fn(&str) -> bool) {
    authority.issue("second");
    authority.install("second.crt", "tls.crt");
    let problem =
        || relay.status().is_some_and(|status| status["reload"]["problems"] != serde_json::json!([]));
    relay.signal("HUP");
    wait_for("half a pair is told", SOON, || problem().then_some(()));
    assert!(served("first"));
    authority.install("second.key", "tls.key");
    relay.signal("HUP");
    wait_for("the whole pair is served", SOON, || served("second").then_some(()));
    assert!(!problem());

    std::fs::write(authority.path("tls.crt"), "no certificate").unwrap();
    relay.signal("HUP");
    wait_for("a bad pair is told", SOON, || problem().then_some(()));
    assert_eq!(relay.metric("config_last_reload_successful"), 0.0);
    assert!(served("second"));
}

/// The listener stands for ClearFeed's API: that it has no page there is told only to who trusts its certificate.
#[test]
fn the_token_goes_to_who_is_trusted_alone() {
    let kafka = Kafka::shared();
    let (deployment, authority) = (Deployment::new("tls-api", &kafka), Authority::new());
    let relay = up(deployment.relay(), &authority);
    let token = deployment.secret_file().with_file_name("token");
    std::fs::write(&token, "a-token-of-the-tests").unwrap();
    let config = deployment
        .replica("asks")
        .set("sources.main.api.base_url", &format!("\"https://localhost:{}\"", relay.intake().port()))
        .set("sources.main.api.token_file", &format!("{:?}", token.display().to_string()))
        .write();
    let backfill = |roots: &Path| {
        let arguments = ["backfill", "--dry-run", "--since", "2026-01-01T00:00:00Z", "--config"];
        let output = command().args(arguments).arg(&config).env("SSL_CERT_FILE", roots).output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, told) = backfill(&authority.path("ca.crt"));
    assert!(code == Some(1) && told.contains("found status 404"), "{told}");
    let (code, told) = backfill(&Authority::new().path("ca.crt"));
    assert!(code == Some(69) && told.contains("no TLS: invalid peer certificate"), "{told}");
}
