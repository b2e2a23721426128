//! Secrets are rotated without a restart, and nothing is refused meanwhile that was signed with one of them.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use clearfeed_relay::domain::signature::Secret;
use clearfeed_relay::simulator::{Delivery, unix_seconds};
use serde_json::Value;
use tempfile::TempDir;

use crate::support::deployment::{PUBLIC_URL, SECRET};
use crate::support::simulator::{Settings, load, rate};
use crate::support::{Deployment, Kafka, Relay, SOON, Sender, Simulation, wait_for};

const NEW: &str = "the-new-signing-secret-of-the-tests";
const EVENT: &str = r#"{"id":"a","type":"request","request":{"id":1}}"#;

/// Secrets as Kubernetes mounts them: links into a folder that is replaced whole.
struct Mount {
    folder: TempDir,
    versions: u32,
}

impl Mount {
    fn new(current: &str, previous: &str) -> Self {
        let mut mount = Self { folder: TempDir::new().unwrap(), versions: 0 };
        for file in ["current", "previous"] {
            symlink(Path::new("..data").join(file), mount.path(file)).unwrap();
        }
        mount.swap(current, previous);
        mount
    }

    fn path(&self, file: &str) -> PathBuf {
        self.folder.path().join(file)
    }

    fn swap(&mut self, current: &str, previous: &str) {
        self.versions += 1;
        let version = format!("..version-{}", self.versions);
        std::fs::create_dir(self.path(&version)).unwrap();
        for (file, content) in [("current", current), ("previous", previous)] {
            std::fs::write(self.path(&version).join(file), content).unwrap();
        }
        symlink(&version, self.path("..data-next")).unwrap();
        std::fs::rename(self.path("..data-next"), self.path("..data")).unwrap();
    }
}

fn relay(deployment: &Deployment, mount: &Mount) -> Relay {
    let files = [mount.path("current"), mount.path("previous")];
    deployment.relay().set("sources.main.signing_secret_files", &format!("{files:?}")).up()
}

/// Row 58 of the list of hostile inputs at its end: a secret whose file is retired opens nothing any more.
#[test]
fn a_rotation_under_load_refuses_nothing() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("rotation", &kafka);
    let mut mount = Mount::new(SECRET, "");
    let relay = relay(&deployment, &mount);
    let begin = |secret: &str, seed| {
        let settings = Settings { rate: rate(100), seed, ..load(vec![relay.target()], 1_000_000, 50) };
        Simulation::start_signed(settings, Secret::new(secret.as_bytes()).unwrap())
    };
    let signed_old = begin(SECRET, 1);
    wait_for("deliveries are signed with the old secret", SOON, || {
        (signed_old.finished() > 50).then_some(())
    });

    mount.swap(&format!("{NEW}\n"), SECRET);
    let told = |what: &'static str| {
        let is_told = |line: &Value| line["message"] == what;
        wait_for(what, SOON, || relay.log().iter().any(is_told).then_some(()));
    };
    told("signing secret read again");
    let signed_new = begin(NEW, 2);
    let with_both = signed_old.finished() + 100;
    wait_for("both secrets are in use", SOON, || {
        (signed_old.finished() > with_both && signed_new.finished() > 100).then_some(())
    });
    let signed_old = signed_old.stop();
    assert!(used(&relay, 1) > 0.0 && used(&relay, 0) > 0.0, "the slots are counted");

    mount.swap(NEW, "");
    told("signing secret retired");
    let last_with_old = used(&relay, 1);
    let late = Delivery::signed(&crate::support::deployment::secret(), PUBLIC_URL, EVENT, unix_seconds());
    assert_eq!(Sender::new(vec![relay.target()]).send(&late), 401, "58: its file was removed");
    let signed_new = signed_new.stop();
    for simulated in [&signed_old, &signed_new] {
        let summary = &simulated.summary;
        let answers: Vec<_> = summary.answers.keys().map(ToString::to_string).collect();
        assert_eq!(answers, ["200"], "nothing was refused: {summary}");
    }
    assert_eq!(used(&relay, 1).to_string(), last_with_old.to_string());
    assert_eq!(relay.metric("config_last_reload_successful"), 1.0);
}

fn used(relay: &Relay, slot: usize) -> f64 {
    relay.metric(&format!(r#"auth_key_used_total{{slot="{slot}",source="main"}}"#))
}

#[test]
fn a_file_that_is_no_secret_any_more_leaves_the_last_one_in_force() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("bad-secret", &kafka);
    let mount = Mount::new(SECRET, NEW);
    let relay = relay(&deployment, &mount);
    let mut sender = Sender::new(vec![relay.target()]);
    let new = Delivery::signed(&Secret::new(NEW.as_bytes()).unwrap(), PUBLIC_URL, EVENT, unix_seconds());
    let current = mount.path("..data/current");
    for (content, found) in [
        (Some(""), "0 bytes, wanted at least 16"),
        (Some("too short"), "white space inside, wanted one secret without any"),
        (Some("one-secret-and\nanother-secret"), "white space inside, wanted one secret without any"),
        (None, "no secret, for the file cannot be read: No such file or directory (os error 2)"),
    ] {
        match content {
            Some(content) => std::fs::write(&current, content).unwrap(),
            None => std::fs::remove_file(&current).unwrap(),
        }
        relay.signal("HUP");
        wait_for("the problem is told", SOON, || {
            let problems = relay.status()?["reload"]["problems"].clone();
            (problems == serde_json::json!([format!("{}: {found}", mount.path("current").display())]))
                .then_some(())
        });
        assert_eq!(relay.metric("config_last_reload_successful"), 0.0);
        assert_eq!(sender.send(&deployment.delivery(EVENT)), 200, "{found}");
    }
    std::fs::write(&current, NEW).unwrap();
    relay.signal("HUP");
    wait_for("the problem is over", SOON, || {
        (relay.metric("config_last_reload_successful") == 1.0).then_some(())
    });
    assert_eq!((sender.send(&deployment.delivery(EVENT)), sender.send(&new)), (401, 200));
    let log = relay.log();
    assert!(log.iter().any(|line| line["message"] == "SIGHUP: reading files again"));
    assert!(!log.iter().any(|line| line.to_string().contains(SECRET) || line.to_string().contains(NEW)));
}
