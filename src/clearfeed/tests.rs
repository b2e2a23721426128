//! The client against servers that answer anything.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::{self, timeout};

use super::*;
use crate::config::ApiUrl;
use crate::telemetry::labels::ApiOutcome;

const TOKEN: &str = "hunter2-token";

/// Behind an answer: here the connection breaks.
const CUT: &[u8] = b"CUT";
/// Behind an answer: here nothing comes any more, and from then on time passes by itself.
const SILENCE: &[u8] = b"SILENCE";

/// Answers each request with the next of these, and keeps the heads that it got. Instead of none it closes the connection.
struct Server {
    url: ApiUrl,
    heads: Arc<Mutex<Vec<String>>>,
    connections: Arc<AtomicUsize>,
}

impl Server {
    async fn answering(answers: Vec<Vec<u8>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = ApiUrl::parse(&format!("http://{}/base", listener.local_addr().unwrap())).unwrap();
        let server = Self { url, heads: Arc::default(), connections: Arc::default() };
        let (heads, connections) = (Arc::clone(&server.heads), Arc::clone(&server.connections));
        tokio::spawn(async move {
            let mut answers = answers.into_iter();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                connections.fetch_add(1, Ordering::SeqCst);
                while let Some(head) = head(&mut stream).await {
                    heads.lock().unwrap().push(head);
                    let answer = answers.next().unwrap_or_default();
                    if let Some(begun) = answer.strip_suffix(SILENCE) {
                        stream.write_all(begun).await.unwrap();
                        time::pause();
                        // Until the client hangs up.
                        continue;
                    }
                    // What is no whole answer is its connection's end.
                    let is_whole = !answer.is_empty() && !answer.ends_with(CUT);
                    if stream.write_all(answer.strip_suffix(CUT).unwrap_or(&answer)).await.is_err()
                        || !is_whole
                    {
                        break;
                    }
                }
            }
        });
        server
    }

    fn client(&self) -> Client {
        Client::with_token(self.url.clone(), || Token::new(TOKEN.as_bytes()))
    }

    fn asked(&self) -> usize {
        self.heads.lock().unwrap().len()
    }
}

async fn head(stream: &mut tokio::net::TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    String::from_utf8(head).ok()
}

fn answer(status: u16, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!("HTTP/1.1 {status} x\r\ncontent-length: {length}\r\n{headers}\r\n{body}").into_bytes()
}

fn query(cursor: Option<&str>) -> Query {
    Query {
        filter_by: FilterBy::CreatedAt,
        after: "2026-11-05T00:00:00Z".parse().unwrap(),
        before: "2026-11-06T00:00:00Z".parse().unwrap(),
        limit: 2,
        cursor: cursor.map(str::to_owned),
    }
}

const EMPTY: &str = r#"{"requests":[]}"#;

#[tokio::test]
async fn a_request_says_who_asks_and_the_connection_is_kept() {
    let server = Server::answering(vec![answer(200, "", EMPTY), answer(200, "", EMPTY)]).await;
    let mut client = server.client();
    for _ in 0..2 {
        assert!(client.ask(&query(None)).await.unwrap().requests.is_empty());
    }
    let head = server.heads.lock().unwrap()[0].to_lowercase();
    assert!(head.starts_with("get /base/v1/rest/requests?filter_by=created_at&"), "{head}");
    assert!(head.contains(&format!("\r\nauthorization: bearer {TOKEN}\r\n")), "{head}");
    assert!(head.contains(&format!("\r\nhost: {}\r\n", server.url.authority())), "{head}");
    assert_eq!(server.connections.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn what_is_no_page_is_told_without_a_word_of_the_answer() {
    let echo = format!("token {TOKEN}");
    let endless = format!(r#"{{"requests":[{}]}}"#, " ".repeat(33 << 20));
    for (bytes, told) in [
        (answer(302, "location: http://127.0.0.1:1/\r\n", &echo), "found status 302"),
        (answer(400, "", &echo), "found status 400"),
        (answer(200, "", &echo), "found an answer that is no page"),
        (answer(200, "", &endless), "found an answer of more than 32 MiB"),
        (answer(500, "", &echo), "status 500"),
        (answer(401, "", &echo), "refused (401)"),
        (b"HTTP/1.1 200 x\r\ncontent-length: 100\r\n\r\n{\"requests\":CUT".to_vec(), "broke off"),
        (b"hunter2\r\n\r\n".to_vec(), "the connection failed"),
    ] {
        let server = Server::answering(vec![bytes]).await;
        let error = server.client().ask(&query(None)).await.unwrap_err().to_string();
        assert!(error.contains(told) && !error.contains("hunter2"), "{error}");
        assert_eq!(server.asked(), 1, "{told}: nobody is followed");
    }
}

#[tokio::test]
async fn a_cursor_that_leads_to_itself_is_not_followed() {
    let page = r#"{"requests":[],"response_metadata":{"next_cursor":"here"}}"#;
    let server = Server::answering(vec![answer(200, "", page), answer(200, "", page)]).await;
    let mut client = server.client();
    assert_eq!(client.ask(&query(None)).await.unwrap().next_cursor.as_deref(), Some("here"));
    assert!(matches!(client.ask(&query(Some("here"))).await, Err(ApiError::Unexpected(_))));
}

#[tokio::test]
async fn a_token_that_changed_meanwhile_is_tried_at_once_and_the_same_one_never_again() {
    let server =
        Server::answering(vec![answer(401, "", ""), answer(200, "", EMPTY), answer(401, "", "")]).await;
    let reads = AtomicUsize::new(0);
    let mut client = Client::with_token(server.url.clone(), move || {
        Token::new(if reads.fetch_add(1, Ordering::SeqCst) == 0 { b"old" } else { b"new" })
    });
    assert!(client.ask(&query(None)).await.is_ok());
    assert!(matches!(client.page(&query(None), Duration::from_secs(60)).await, Err(ApiError::TokenRefused)));
    assert_eq!(server.asked(), 3);
}

#[tokio::test]
async fn an_answer_that_does_not_come_or_not_whole_is_waited_for_half_a_minute_and_asked_for_again() {
    let half = [b"HTTP/1.1 200 x\r\ncontent-length: 100\r\n\r\n{", SILENCE].concat();
    let server = Server::answering(vec![SILENCE.to_vec(), half, answer(200, "", EMPTY)]).await;
    let mut client = server.client().counted(|outcome| {
        if outcome == ApiOutcome::Unavailable {
            time::resume();
        }
    });
    let started = time::Instant::now();
    let query = query(None);
    let page = client.page(&query, Duration::from_secs(60));
    assert!(timeout(Duration::from_secs(600), page).await.unwrap().is_ok());
    assert!((60..70).contains(&started.elapsed().as_secs()), "{:?}", started.elapsed());
    assert_eq!(server.asked(), 3);
}

#[tokio::test]
async fn what_passes_is_waited_for_and_an_answer_to_wait_is_kept_to() {
    let later = answer(429, "retry-after: 1\r\n", "");
    let server =
        Server::answering(vec![answer(503, "", ""), later, Vec::new(), answer(200, "", EMPTY)]).await;
    let started = std::time::Instant::now();
    assert!(server.client().page(&query(None), Duration::from_secs(60)).await.is_ok());
    assert!(started.elapsed() >= Duration::from_secs(1), "{:?}", started.elapsed());
    assert_eq!(server.asked(), 4);
    let server = Server::answering(vec![answer(503, "", "")]).await;
    assert!(matches!(
        server.client().page(&query(None), Duration::ZERO).await,
        Err(ApiError::Unavailable { .. })
    ));
}
