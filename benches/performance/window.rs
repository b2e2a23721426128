//! What an id costs in a window of so many: whether the cost of an event stays the same while the window fills.

use std::time::{Duration, Instant};

use clearfeed_relay::domain::fingerprint::{BodyHash, Fingerprint, body_digest};
use clearfeed_relay::domain::window::{Decided, Fate, Sighting, Window};

use crate::figures::Figures;

const SIZES: [(&str, u64); 3] =
    [("window of 10^3 ids", 1000), ("window of 10^5 ids", 100_000), ("window of 10^7 ids", 10_000_000)];
/// New ids of a round.
const NEW: u64 = 10_000;

/// Asks for new ids, and lets as many old ones go. Also the longest that one id waited while the window filled: then its
/// table grew.
pub fn measure(figures: &mut Figures, rounds: usize) {
    for (name, ids) in SIZES {
        let mut window = Window::new(Duration::from_secs(86_400));
        let mut longest = Duration::ZERO;
        for number in 0..ids {
            let (decided, began) = (decided(number), Instant::now());
            window.restore(decided);
            longest = longest.max(began.elapsed());
        }
        let row = ("", name, "window");
        figures.add(row, &[("longest_ms", longest.as_secs_f64() * 1e3)]);
        figures.add(row, &[("bytes_an_id", window.bytes() as f64 / ids as f64)]);
        for round in 0..=rounds as u64 {
            let first = ids + round * NEW;
            let new: Vec<Decided> = (first..first + NEW).map(decided).collect();
            let began = Instant::now();
            for decided in new {
                window.observe(decided, None);
                window.evict_oldest();
            }
            if round > 0 {
                figures.add(row, &[("ns_an_id", began.elapsed().as_secs_f64() * 1e9 / NEW as f64)]);
            }
        }
    }
}

fn decided(number: u64) -> Decided {
    let fingerprint = Fingerprint::body("bench", &body_digest(&number.to_le_bytes()));
    let sighting =
        Sighting { fingerprint, body: BodyHash(number), offset: number as i64, appended_ms: number as i64 };
    Decided { sighting, fate: Fate::Published }
}
