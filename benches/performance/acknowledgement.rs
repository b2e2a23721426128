//! How long the broker itself takes to acknowledge a record: the floor's producer, and nothing before it.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rdkafka::ClientContext;
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};

use crate::figures::{ANSWER, Round};
use crate::load::intended;
use crate::server::Cores;
use crate::support::pause;
use crate::{floor, this_program};

const LONGEST: Duration = Duration::from_secs(30);

/// Notes when each record was acknowledged, by its number.
#[derive(Clone)]
struct Noted(Arc<Mutex<Vec<Option<Instant>>>>);

impl ClientContext for Noted {}

impl ProducerContext for Noted {
    type DeliveryOpaque = Box<usize>;

    fn delivery(&self, result: &DeliveryResult<'_>, number: Box<usize>) {
        assert!(result.is_ok(), "{result:?}");
        self.0.lock().unwrap()[*number] = Some(Instant::now());
    }
}

/// Sends so many records at that rate; prints what each took, in ns.
pub fn run(servers: &str, topic: &str, per_second: u32, events: usize) {
    let noted = Noted(Arc::new(Mutex::new(vec![None; events])));
    let producer: ThreadedProducer<Noted> =
        floor::client(servers).create_with_context(noted.clone()).unwrap();
    producer.client().fetch_metadata(Some(topic), LONGEST).unwrap();
    pause(Duration::from_millis(600)); // it takes its producer id, and connects
    let (began, body) = (Instant::now(), vec![b'x'; 1500]);
    for number in 0..events {
        pause((began + intended(number, per_second)).saturating_duration_since(Instant::now()));
        let key = (number % 1000).to_string();
        let record = BaseRecord::with_opaque_to(topic, Box::new(number)).key(&key).payload(&body);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    producer.flush(LONGEST).unwrap();
    let at = noted.0.lock().unwrap();
    let latency =
        |(number, at): (usize, &Option<Instant>)| (at.unwrap() - began) - intended(number, per_second);
    let latencies: Vec<String> =
        at.iter().enumerate().map(latency).map(|latency| latency.as_nanos().to_string()).collect();
    println!("{}", latencies.join(" "));
}

/// Measures it in a process of its own, where the server would be.
pub fn measure(cores: Cores, (servers, topic): (&str, &str), per_second: u32, events: usize) -> Round {
    let output = cores
        .command(&this_program())
        .args(["acknowledge", servers, topic, &per_second.to_string(), &events.to_string()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told = String::from_utf8(output.stdout).unwrap();
    let latencies =
        told.split_whitespace().map(|value| Duration::from_nanos(value.parse().unwrap())).collect();
    Round { figures: Vec::new(), latencies: vec![(ANSWER, latencies)] }
}
