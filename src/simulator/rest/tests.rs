//! Pages hold each request once, in order, in both directions.

use std::collections::BTreeSet;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::query::Query;
use super::*;

fn at(second: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_second(1_793_901_532 + second).unwrap()
}

/// Seven requests, one a second; the second and the fifth of them were changed later.
fn requests() -> Requests {
    let requests = Requests::new(7, 7.try_into().unwrap());
    (0..7).for_each(|number| requests.occurred(number, at(number.cast_signed())));
    requests.occurred(8, at(20));
    requests.occurred(11, at(10));
    requests
}

/// The `created_at` of each page's requests, in seconds.
fn pages(requests: &Requests, query: &str) -> Vec<Vec<i64>> {
    let (mut pages, mut query) = (Vec::new(), Query::parse(query).unwrap());
    loop {
        let page = requests.page(&query);
        let created = page.requests.iter().map(|json| {
            let request: Value = serde_json::from_str(json).unwrap();
            let created: jiff::Timestamp = request["created_at"].as_str().unwrap().parse().unwrap();
            created.as_second() - at(0).as_second()
        });
        pages.push(created.collect());
        match page.next {
            Some(next) => query.cursor = Some(next),
            None => return pages,
        }
    }
}

#[test]
fn pages_hold_each_request_once() {
    let requests = requests();
    assert_eq!(pages(&requests, "limit=3&sort_order=asc"), [vec![0, 1, 2], vec![3, 4, 5], vec![6]]);
    assert_eq!(pages(&requests, "limit=4"), [vec![6, 5, 4, 3], vec![2, 1, 0]]);
    assert_eq!(
        pages(&requests, "limit=7&sort_order=asc"),
        [vec![0, 1, 2, 3, 4, 5, 6]],
        "no empty page at the end"
    );
    assert_eq!(pages(&requests, "filter_by=updated_at&sort_order=asc"), [vec![0, 2, 3, 5, 6, 4, 1]]);
    let span = |name, second: i64| format!("&{name}={}", at(second));
    let query = format!("sort_order=asc{}{}", span("after", 2), span("before", 4));
    assert_eq!(pages(&requests, &query), [vec![2, 3, 4]]);
    let query = format!("filter_by=updated_at{}", span("after", 7));
    assert_eq!(pages(&requests, &query), [vec![1, 4]]);
}

#[test]
fn a_request_is_that_of_its_events() {
    let requests = requests();
    let events = crate::simulator::Events::new(7, 7.try_into().unwrap());
    let ids: BTreeSet<_> = (0..7).map(|number| events.event(number).request).collect();
    let told = requests.page(&Query::parse("").unwrap()).requests;
    let told: BTreeSet<_> = told
        .iter()
        .map(|json| serde_json::from_str::<Value>(json).unwrap()["id"].as_u64().unwrap())
        .collect();
    assert_eq!(told, ids);
    let event: Value = serde_json::from_slice(&events.event(3).body).unwrap();
    let request: Value = serde_json::from_str(&requests.json(events.event(3).request).unwrap()).unwrap();
    assert_eq!(request["request_thread"]["thread_ts"], event["request"]["request_thread"]["thread_ts"]);
    assert_eq!(request["collection"]["id"], event["request"]["collection_id"]);
    assert_eq!(requests.json(1), None);
}

#[tokio::test]
async fn faults_take_turns_and_who_comes_too_early_is_told_when_to_come_again() {
    let health = Health { rate: 1.try_into().ok(), fault_percent: 75 };
    let (address, nobody) = (([127, 0, 0, 1], 0).into(), Box::new(|| None));
    let began = std::time::Instant::now();
    let rest = Rest::listen(address, Arc::new(requests()), nobody, health).await.unwrap();
    let mut answers = Vec::new();
    for _ in 0..6 {
        let mut stream = TcpStream::connect(rest.address).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nconnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        let status = answer.split(' ').nth(1).map(str::to_owned);
        answers.push((status, answer.contains("\r\nretry-after: 1\r\n")));
    }
    let wanted = [("401", false), ("500", false), ("503", true), ("", false), ("429", true), ("500", false)];
    let wanted = wanted.map(|(status, waits)| (Some(status.to_owned()).filter(|it| !it.is_empty()), waits));
    if began.elapsed().as_secs() == 0 {
        assert_eq!(answers, wanted); // later the rate allows one more
    }
}
