//! What runs the relay learns how it is: containers by `health` (0 yes, 1 no, 69 nobody answers), systemd by its
//! notifications. Kafka being away is no reason to start the relay again.

use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};

use crate::support::relay::{Relay, command, run_to_end};
use crate::support::{Deployment, Kafka, SOON, wait_for};

/// Nobody listens there.
const NOWHERE: &str = "127.0.0.1:9";

/// Asks the relay under the address that it took: its own configuration says port 0.
fn health(deployment: &Deployment, relay: &Relay, further: &[&str]) -> (Option<i32>, String) {
    let asked = deployment.replica("asked").set("admin.listen", &format!("{:?}", relay.admin().to_string()));
    let config = asked.write();
    let arguments = [&["health", "--config", config.to_str().unwrap()], further].concat();
    let (code, stdout, stderr) = run_to_end(&arguments);
    assert_eq!(stderr, "");
    (code, stdout)
}

#[test]
fn health_asks_the_relay_on_this_machine() {
    let deployment = Deployment::new("health", &Kafka::shared());
    let relay = deployment.relay().up();
    assert_eq!(health(&deployment, &relay, &[]), (Some(0), "{\"status\":\"ready\"}\n".to_owned()));
}

#[test]
fn where_nobody_answers_it_is_69() {
    let deployment = Deployment::at("nobody", NOWHERE);
    let config = deployment.relay().set("admin.listen", &format!("{NOWHERE:?}")).write();
    let (code, stdout, _) = run_to_end(&["health", "--config", config.to_str().unwrap()]);
    assert_eq!(code, Some(69), "{stdout}");
    assert!(stdout.contains("nobody answers"), "{stdout}");
}

#[test]
fn without_kafka_it_is_alive_and_not_ready() {
    let deployment = Deployment::at("unhealthy", NOWHERE);
    let relay = deployment.relay().start();
    let (code, stdout) = health(&deployment, &relay, &[]);
    assert_eq!(code, Some(1), "{stdout}");
    assert!(stdout.contains("not ready"), "{stdout}");
    assert_eq!(health(&deployment, &relay, &["--live"]), (Some(0), "{\"status\":\"alive\"}\n".to_owned()));
}

/// Killed when it is dropped.
struct Guard(Child);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn systemd_is_told_of_start_life_and_end() {
    let deployment = Deployment::at("systemd", NOWHERE);
    let config = deployment.relay().write();
    let path = config.with_extension("socket");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(SOON)).unwrap();
    // Until this line comes, whatever comes before it.
    let expect = |wanted: &str| {
        let mut buffer = [0; 4096];
        loop {
            let length = socket.recv(&mut buffer).unwrap_or_else(|error| panic!("no {wanted}: {error}"));
            let message = std::str::from_utf8(&buffer[..length]).unwrap();
            if message.lines().any(|line| line.starts_with(wanted)) {
                return;
            }
        }
    };
    let mut relay = Guard(
        command()
            .args(["serve", "--config", config.to_str().unwrap()])
            .env("NOTIFY_SOCKET", &path)
            .env("WATCHDOG_USEC", "200000")
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    expect("READY=1");
    expect("STATUS=not ready: ");
    expect("WATCHDOG=1");
    expect("WATCHDOG=1");
    Command::new("kill").arg(relay.0.id().to_string()).status().unwrap();
    expect("STOPPING=1");
    let status = wait_for("the relay ends", SOON, || relay.0.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
}
