//! A delivery that was answered 200 is on the disk, not on its way there: whenever the power goes, the spool has it.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use clearfeed_relay::config::{self, Role};
use clearfeed_relay::spool::{self, Limits, Spool};
use clearfeed_relay::telemetry::metrics::{Metrics, ProcessLabels};
use tempfile::TempDir;

use crate::support::disk::{Operation, What};
use crate::support::{Deployment, Disk, Power, Sender, block_on};

const FILE: &str = "spool.sqlite";

/// Of a part of a page of the spool's file, of a page, and of several.
fn body(number: usize) -> String {
    let filling = "x".repeat([100, 3000, 20_000][number % 3]);
    format!(r#"{{"id":"{number}","type":"request","request":{{"id":1}},"filling":"{filling}"}}"#)
}

fn text(spooled: &spool::Spooled) -> String {
    String::from_utf8(spooled.record.body.to_vec()).unwrap()
}

/// What the next relay finds in a directory and, where there is something to read already, `spool recover` before it.
fn read(directory: &Path, metrics: &Arc<Metrics>, case: &str) -> (Vec<String>, Option<Vec<String>>) {
    let readable = spool::readable(&directory.join(FILE)).ok();
    let recovered = readable.map(|readable| readable.map(|spooled| text(&spooled)).collect());
    let settings = config::Spool { directory: directory.to_owned(), max_size_bytes: 64 << 20 };
    let spool = Spool::open(&settings, Arc::clone(metrics)).unwrap();
    let all = Limits { records: usize::MAX, bytes: usize::MAX };
    let found = block_on(spool.read(0, all)).unwrap().iter().map(text).collect();
    assert!(spool::set_aside(directory).is_empty(), "the file was broken; {case}");
    (found, recovered)
}

#[test]
fn whenever_the_power_goes_each_answered_delivery_is_there_once_in_its_order() {
    assert_outlives(12, |_, _| ());
}

/// By systemd, or by a relay that was killed at once: the name is not on the disk only because it can be seen.
#[test]
fn so_it_is_in_a_directory_that_was_made_just_before() {
    assert_outlives(2, |directory, power| {
        fs::create_dir(directory).unwrap();
        power.apply(Operation { path: directory.to_owned(), what: What::Create });
    });
}

/// A disk loses what was not synced, or some of it: after each thing that a relay did with its spool's files the power goes,
/// and what may be left of them is read.
fn assert_outlives(deliveries: usize, prepare: impl FnOnce(&Path, &mut Power)) {
    let disk = Disk::new();
    let deployment = Deployment::at("power", "127.0.0.1:1");
    // As the log has it: without links.
    let directory = deployment.secret_file().canonicalize().unwrap().with_file_name("spool");
    let mut power = Power::new(&directory);
    prepare(&directory, &mut power);
    let plan = deployment.relay().set("spool.directory", &format!("{directory:?}"));
    let mut relay = plan.on(&disk).start();
    let bodies: Vec<_> = (0..deliveries).map(body).collect();
    // How much had been done when each was answered.
    let mut answers = Vec::new();
    for (number, body) in bodies.iter().enumerate() {
        // What a relay did not sync the next one may take for synced.
        if number == deliveries / 2 {
            relay.kill9();
            relay.restart();
        }
        let answer = Sender::new(vec![relay.target()]).ask(&deployment.delivery(body.clone()));
        assert_eq!(answer, (200, r#"{"status":"spooled"}"#.to_owned()));
        answers.push(disk.operations().len());
    }
    relay.kill9();

    let metrics = Arc::new(Metrics::new([], &ProcessLabels::of_role(Role::All)).unwrap());
    // In memory: a disk would sync for seconds what is read once.
    let folder = TempDir::new_in("/dev/shm").unwrap();
    let (mut known, mut last) = (HashSet::new(), "nothing".to_owned());
    for (done, next) in disk.operations().into_iter().map(Some).chain([None]).enumerate() {
        let answered = answers.iter().filter(|before| **before <= done).count();
        for (kept, image) in power.images() {
            if !known.insert((answered, image.clone())) {
                continue;
            }
            let left = folder.path().join(known.len().to_string());
            if let Some(files) = &image {
                fs::create_dir(&left).unwrap();
                files.iter().for_each(|(name, content)| fs::write(left.join(name), content).unwrap());
            }
            let case =
                format!("{answered} were answered; {done} things done, the last: {last}; left: {kept}");
            let (found, recovered) = read(&left, &metrics, &case);
            // One more was on its way, and may be there or not.
            let is_right = |found: &[String]| {
                (answered..=answered + 1).contains(&found.len()) && bodies.starts_with(found)
            };
            assert!(is_right(&found), "{} found; {case}", found.len());
            let is_recovered = recovered.as_ref().map_or(answered == 0, |recovered| is_right(recovered));
            assert!(is_recovered, "{:?} recovered; {case}", recovered.map(|recovered| recovered.len()));
            fs::remove_dir_all(&left).unwrap();
        }
        let Some(operation) = next else { break };
        last = operation.to_string();
        power.apply(operation);
    }
    let files = fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap());
    let files =
        files.map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()));
    assert!(power.seen() == Some(files.collect()), "something was done that the log does not tell");
    assert!(known.len() > 20 * deliveries, "only {} images: the disk was hardly used", known.len());
}
