//! What the promises are tested with: brokers whose ports nobody gets while they are dead, in whatever checkout, and which
//! hold nothing of whoever started them.

use std::path::Path;
use std::process::Command;

use crate::support::{Kafka, ports, unique};

#[test]
fn the_port_of_a_dead_broker_is_its_own_until_its_cluster_ends() {
    let kafka = Kafka::own(1);
    let port = kafka.servers().rsplit_once(':').unwrap().1.parse().unwrap();
    kafka.kill(None);
    let lessee = ports::lessee(port).unwrap();
    assert!(lessee.is_dir() && lessee.ends_with(kafka.name()), "{}", lessee.display());
    drop(kafka);
    assert_ne!(ports::lessee(port), Some(lessee));
}

/// A lock, say: it would be held for the broker's life.
#[test]
fn what_its_starter_has_open_a_broker_has_not() {
    let held = tempfile::NamedTempFile::new().unwrap();
    let name = unique("own");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("script/kafka");
    let started = Command::new("bash")
        .args(["-c", r#"exec 9<"$1" && "$2" start 1 --name "$3""#, "bash"])
        .args([held.path(), &script, Path::new(&name)])
        .status();
    let kafka = Kafka::of_name(&name);
    assert!(started.unwrap().success());
    let open = std::fs::read_dir(format!("/proc/{}/fd", kafka.process())).unwrap();
    let open: Vec<_> = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok()).collect();
    kafka.kill(None); // else the script, which wants the lock, would wait for the broker at the end of a failed test
    assert!(open.len() > 3 && !open.iter().any(|file| file == held.path()), "{open:?}");
}
