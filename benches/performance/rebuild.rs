//! How fast a window is rebuilt from its ledger: what `benches/takeover.rs` says of a million ids.

use std::path::PathBuf;

use crate::figures::Figures;
use crate::server::Cores;
use crate::support::Kafka;
use crate::this_program;

pub fn measure(figures: &mut Figures, kafka: &Kafka) {
    let output = Cores::Apart
        .command(&takeover_bench())
        .args(["1000000", "500"])
        .env("CLEARFEED_RELAY_TEST_KAFKA", kafka.servers())
        .output()
        .unwrap();
    let told = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{told}{}", String::from_utf8_lossy(&output.stderr));
    let columns: Vec<f64> =
        told.lines().last().unwrap().split_whitespace().map(|value| value.parse().unwrap()).collect();
    figures.add(("kafka", "rebuild", "forward"), &[("ids_s", columns[4]), ("bytes_an_id", columns[5])]);
}

/// Beside this program, where `script/bench` had it built. Not through cargo: within a `cargo bench` it builds all anew.
fn takeover_bench() -> PathBuf {
    let folder = this_program().parent().unwrap().to_owned();
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let built = files.filter(|file| {
        file.extension().is_none() && file.file_name().unwrap().to_string_lossy().starts_with("takeover-")
    });
    built
        .max_by_key(|file| file.metadata().unwrap().modified().unwrap())
        .expect("cargo bench --no-run --bench takeover")
}
