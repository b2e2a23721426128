//! The simulator against a small HTTP server on the loopback.

mod server;

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use hyper::StatusCode;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

use super::*;
use server::{Received, Server};

const SIGNED_URL: &str = "https://hooks.example.com/clearfeed/events";

fn secret() -> Secret {
    Secret::new(b"a secret of more than sixteen bytes").unwrap()
}

/// An address at which nobody listens.
async fn deaf() -> Target {
    let address = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    Target::parse(&format!("http://{address}/clearfeed/events")).unwrap()
}

fn settings(targets: Vec<Target>) -> Settings {
    let requests = NonZeroU64::new(20).unwrap();
    Settings { events: 200, requests, seed: 42, ..Settings::new(targets, SIGNED_URL) }
}

async fn run_it(settings: Settings) -> Summary {
    run(settings, secret(), Observer::default()).await.unwrap()
}

fn answers(answers: &[(u16, u64)]) -> BTreeMap<Outcome, u64> {
    answers.iter().map(|&(status, count)| (Outcome::Answered(status), count)).collect()
}

/// The ids' file in memory.
#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Lines {
    fn read(&self) -> Vec<Vec<String>> {
        let text = String::from_utf8(self.0.lock().unwrap().clone()).unwrap();
        text.lines().map(|line| line.split('\t').map(str::to_owned).collect()).collect()
    }
}

#[tokio::test]
async fn every_event_is_delivered_once_in_the_order_of_its_request() {
    let server = Server::answering(|_| (200, false)).await;
    let summary = run_it(settings(vec![server.target()])).await;
    assert_eq!((summary.sent, summary.accepted_events), (200, 200));
    assert_eq!(summary.answers, answers(&[(200, 200)]));
    assert!(summary.is_all_accepted() && summary.latency_ms.p50 <= summary.latency_ms.max);

    let shapes = Events::new(42, NonZeroU64::new(20).unwrap());
    let mut of_request: HashMap<_, Vec<_>> = HashMap::new();
    for delivery in server.received() {
        assert_eq!((delivery.retry_count, delivery.alongside), (0, 0));
        of_request.entry(delivery.request.unwrap()).or_default().push((delivery.event, delivery.sub_type));
    }
    for nth in 0..20 {
        let expected: Vec<_> = (0..10).map(|round| shapes.event(nth + 20 * round)).collect();
        let got = &of_request[&expected[0].request];
        assert!(got.iter().map(|(event, _)| event).eq(expected.iter().map(|event| &event.id)));
        assert!(got.iter().enumerate().all(|(round, (_, kind))| (round == 0) == (kind == "created")));
    }
}

#[tokio::test]
async fn twenty_percent_are_redelivered_after_their_200() {
    let server = Server::answering(|_| (200, false)).await;
    let summary = run_it(Settings { redeliver_percent: 20, ..settings(vec![server.target()]) }).await;
    assert_eq!((summary.sent, summary.redelivered, summary.accepted_events), (240, 40, 200));

    let mut first: HashMap<String, Received> = HashMap::new();
    let mut retry_counts = BTreeMap::new();
    for delivery in server.received() {
        assert_eq!(delivery.alongside, 0);
        match first.get(&delivery.event) {
            None => {
                assert_eq!(delivery.retry_count, 0);
                first.insert(delivery.event.clone(), delivery);
            }
            Some(before) => {
                assert_eq!((&before.body, &before.timestamp), (&delivery.body, &delivery.timestamp));
                *retry_counts.entry(delivery.retry_count).or_insert(0) += 1;
            }
        }
    }
    assert_eq!(retry_counts, BTreeMap::from([(1, 14), (2, 13), (3, 13)]));
}

#[tokio::test]
async fn a_failed_event_is_tried_again_and_holds_back_its_request() {
    let server =
        Server::answering(|delivery| (if delivery.retry_count == 0 { 503 } else { 200 }, false)).await;
    let wanted = Settings { events: 40, retries_on_failure: true, ..settings(vec![server.target()]) };
    let summary = run_it(wanted).await;
    assert_eq!((summary.retried, summary.accepted_events), (40, 40));
    assert_eq!(summary.answers, answers(&[(200, 40), (503, 40)]));

    let mut last: HashMap<Option<u64>, Received> = HashMap::new();
    for delivery in server.received() {
        if let Some(before) = last.insert(delivery.request, delivery.clone()) {
            let same = before.event == delivery.event;
            assert_eq!(same, before.status != 200, "the next event only after the 200 of the one before");
        }
    }
}

#[tokio::test]
async fn retries_end_with_the_third() {
    let server = Server::answering(|_| (503, false)).await;
    let wanted = Settings { events: 5, retries_on_failure: true, ..settings(vec![server.target()]) };
    let summary = run_it(wanted).await;
    assert_eq!(summary.answers, answers(&[(503, 20)]));
    assert_eq!((summary.accepted_events, summary.retried, summary.latency_ms.max), (0, 15, None));
    assert!(server.received().iter().map(|delivery| delivery.retry_count).max() == Some(3));
}

#[tokio::test]
async fn deliveries_take_turns_and_a_refused_connection_goes_to_the_next_url() {
    let servers = [Server::answering(|_| (200, false)).await, Server::answering(|_| (200, false)).await];
    let targets = vec![servers[0].target(), deaf().await, servers[1].target()];
    let summary = run_it(settings(targets)).await;
    assert_eq!(summary.answers, answers(&[(200, 200)]));
    let shares = servers.each_ref().map(|server| server.received().len());
    assert!(shares.iter().sum::<usize>() == 200 && shares.iter().all(|&share| share > 20), "{shares:?}");
}

#[tokio::test]
async fn nobody_there_is_told_from_a_failure() {
    let summary = run_it(Settings { events: 10, ping: false, ..settings(vec![deaf().await]) }).await;
    assert_eq!(summary.answers, BTreeMap::from([(Outcome::Refused, 10)]));
    assert!(summary.is_out_of_reach() && !summary.is_all_accepted());
}

#[tokio::test]
async fn a_connection_that_the_server_closes_is_made_again() {
    let server = Server::answering(|_| (200, true)).await;
    let summary = run_it(settings(vec![server.target()])).await;
    assert_eq!(summary.answers, answers(&[(200, 200)]), "and no delivery failed of it");
}

#[tokio::test]
async fn no_event_is_sent_after_a_failed_ping() {
    let server = Server::answering(|_| (204, false)).await;
    let summary = run_it(Settings { ping: true, ..settings(vec![server.target()]) }).await;
    assert_eq!((summary.ping, summary.sent), (Some(Outcome::Answered(204)), 0));
    assert!(!summary.is_all_accepted());
    assert!(server.received().iter().all(|delivery| delivery.request.is_none()));
}

#[tokio::test]
async fn accepted_events_are_written_down_once() {
    let server =
        Server::answering(|delivery| (if delivery.request.unwrap() % 2 == 0 { 200 } else { 500 }, false))
            .await;
    let lines = Lines::default();
    let observer = Observer { ids: Some(Box::new(lines.clone())), ..Observer::default() };
    let wanted = Settings { redeliver_percent: 100, ..settings(vec![server.target()]) };
    let summary = run(wanted, secret(), observer).await.unwrap();

    let received = server.received();
    let mut accepted: HashMap<_, _> =
        received.iter().filter(|delivery| delivery.status == 200).map(|d| (d.event.as_str(), d)).collect();
    let lines = lines.read();
    assert_eq!((summary.accepted_events, lines.len()), (100, 100));
    for line in &lines {
        let [event, request, digest, sent_at, answered_at] = line.as_slice() else { panic!("{line:?}") };
        let delivery = accepted.remove(event.as_str()).unwrap();
        assert_eq!(*request, delivery.request.unwrap().to_string());
        assert_eq!(*digest, hex::encode(Sha256::digest(&delivery.body)));
        assert!(sent_at.parse::<u128>().unwrap() < answered_at.parse().unwrap());
    }
}

#[tokio::test]
async fn a_stopped_run_tells_what_was_done() {
    let stop = CancellationToken::new();
    let stopping = stop.clone();
    let server = Server::answering(move |delivery| {
        if delivery.sub_type == "updated" {
            stopping.cancel();
        }
        (200, false)
    })
    .await;
    let lines = Lines::default();
    let observer = Observer { ids: Some(Box::new(lines.clone())), stop, ..Observer::default() };
    let summary = run(settings(vec![server.target()]), secret(), observer).await.unwrap();
    assert!(summary.accepted_events < 200 && !summary.is_all_accepted());
    assert_eq!(summary.accepted_events, lines.read().len() as u64);
    assert_eq!(summary.sent, server.received().len() as u64, "answers on their way were waited for");
}

#[tokio::test]
async fn events_are_sent_at_the_rate() {
    let server = Server::answering(|_| (200, false)).await;
    let wanted = Settings { events: 21, rate: NonZeroU32::new(100), ..settings(vec![server.target()]) };
    let summary = run_it(wanted).await;
    assert!(summary.elapsed_s >= 0.2, "the last of 21 events is due after 20 hundredths of a second");
    assert!(summary.behind_ms.is_some());
}

#[tokio::test]
async fn a_silent_server_and_a_hanging_up_one_are_told_apart() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = Target::parse(&format!("http://{}/", listener.local_addr().unwrap())).unwrap();
    let delivery = Delivery::ping(&secret(), SIGNED_URL, unix_seconds());
    let mut client = Client::new(vec![target]).answer_timeout(Duration::from_millis(50));
    // The kernel connects; nobody reads.
    assert!(matches!(client.send(&delivery).await, Err(Fault::TimedOut(_))));
    let hang_up = async {
        listener.accept().await.unwrap();
        listener.accept().await.unwrap();
    };
    let mut client = client.answer_timeout(Duration::from_secs(10));
    let (answer, ()) = tokio::join!(client.send(&delivery), hang_up);
    assert!(matches!(answer, Err(Fault::Broken(_))), "{answer:?}");
}

#[tokio::test]
async fn the_demo_can_send_a_single_crafted_delivery() {
    let server = Server::answering(|_| (200, false)).await;
    let event = Events::new(1, NonZeroU64::MIN).event(0);
    let delivery = Delivery::signed(&secret(), SIGNED_URL, event.body, unix_seconds());
    let mut client = Client::new(vec![server.target()]);
    for _ in 0..2 {
        let reply = client.send(&delivery).await.unwrap();
        assert_eq!((reply.status, reply.body.as_ref()), (StatusCode::OK, b"{}\n".as_ref()));
    }
    assert_eq!(server.received().len(), 2, "a replay is the same delivery sent twice");
    let unsendable = Delivery { timestamp: "1\r\n".to_owned(), ..delivery };
    assert!(matches!(client.send(&unsendable).await, Err(Fault::Unsendable(_))));
}
