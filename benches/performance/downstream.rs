//! A reader of the event topic, as a team downstream has one: when did it see which event?

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Headers;
use rdkafka::{Message, Offset, TopicPartitionList};

use crate::load::event_number;
use crate::stage::PARTITIONS;
use crate::support::{SOON, kafka, pause};

/// Reads from the topic's end on.
pub struct Downstream {
    is_over: Arc<AtomicBool>,
    thread: JoinHandle<Vec<(usize, Instant)>>,
}

impl Downstream {
    /// Begins to read; takes which run's events are awaited, and how many.
    pub fn start(servers: &str, topic: &str, run: u64, events: usize) -> Self {
        let consumer: BaseConsumer = kafka::client(servers)
            .set("group.id", "downstream")
            .set("isolation.level", "read_committed")
            .set("enable.auto.commit", "false")
            .create()
            .unwrap();
        let mut assignment = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            // Not `Offset::End`: that is where the topic ends when the reader gets there.
            let (_, end) = consumer.fetch_watermarks(topic, partition, SOON).unwrap();
            assignment.add_partition_offset(topic, partition, Offset::Offset(end)).unwrap();
        }
        consumer.assign(&assignment).unwrap();
        let is_over = Arc::new(AtomicBool::new(false));
        let thread = {
            let is_over = Arc::clone(&is_over);
            std::thread::spawn(move || read(&consumer, run, events, &is_over))
        };
        pause(Duration::from_secs(1)); // connections to the partitions' leader
        Self { is_over, thread }
    }

    /// When each event was seen, once all were.
    pub fn seen(self) -> Vec<(usize, Instant)> {
        let began = Instant::now();
        while !self.thread.is_finished() && began.elapsed() < SOON {
            pause(Duration::from_millis(10));
        }
        self.is_over.store(true, Ordering::Relaxed);
        self.thread.join().unwrap()
    }
}

fn read(consumer: &BaseConsumer, run: u64, events: usize, is_over: &AtomicBool) -> Vec<(usize, Instant)> {
    let mut seen = Vec::with_capacity(events);
    while seen.len() < events {
        assert!(!is_over.load(Ordering::Relaxed), "{} of {events} came out", seen.len());
        let Some(Ok(record)) = consumer.poll(Duration::from_millis(100)) else { continue };
        let at = Instant::now();
        let id = record.headers().and_then(|headers| headers.iter().find(|header| header.key == "ce_id"));
        let id = id.and_then(|header| std::str::from_utf8(header.value?).ok());
        seen.extend(id.and_then(|id| event_number(run, id)).map(|number| (number, at)));
    }
    seen
}
