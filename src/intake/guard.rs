//! What stands between a connection and hyper: lets through the requests whose heads [`head`] finds good, byte for byte, and
//! nothing after them that hyper could take for another one; and gives each head its time.
//!
//! hyper's own limit for heads also runs while a kept-alive connection waits for its next request. A load balancer
//! keeps connections for a minute; one closed under it after five seconds would cost deliveries.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep};

use super::answer::Answer;
use super::connections::Connection;
use super::head::{self, Framing, Head, HeadError};

/// A connection without a request for so long is closed. Load balancers close theirs sooner (nginx and AWS after 60 s, GCP after
/// 600 s, Envoy after an hour); were it us, a delivery on its way would be lost. Where room is needed, it is made before.
const KEEP_ALIVE: Duration = Duration::from_secs(2 * 3600);
/// How long a sender may go on sending what nobody reads before it is cut off: the answer has reached it by then.
const LINGER: Duration = Duration::from_secs(1);

/// How long a sender may take nothing of its answers: one is a packet long, so megabytes of them wait already.
const STALL: Duration = Duration::from_secs(2);
/// Bytes read at once while a head is waited for: a delivery as ClearFeed sends it, whole.
const READ_BYTES: usize = 4 * 1024;

/// What hyper reads in place of a head that is refused: a request that stands for the refusal, so that its answer takes its
/// turn behind those of the requests before it.
const REFUSED: &[u8] = b"GET / HTTP/1.1\r\nhost: refused\r\n\r\n";
const REFUSED_BYTES: usize = REFUSED.len();

/// What comes next from the sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Next {
    /// A request's head.
    Head,
    /// So many bytes of a request whose head is good; the head's own are counted in.
    Request(u64),
    /// A chunked body. Where it ends only hyper knows, so nothing else follows on this connection.
    Chunks,
    /// So many bytes of [`REFUSED`]; nothing of the sender's is read any more.
    Refused(usize),
}

/// What the connection is waiting for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    /// The rest of a head, or the first one.
    Head,
    /// The first byte of the next head.
    NextRequest,
    /// Nothing that this limit is about: a body has its own.
    Nothing,
    /// The end of what is still sent behind the last answer; nothing else is waited for after that.
    Lingering,
}

/// hyper's view of a connection.
pub(super) struct Guard<S> {
    stream: S,
    connection: Arc<Connection>,
    next: Next,
    /// Read and not let through yet.
    unread: BytesMut,
    header_timeout: Duration,
    waiting: Waiting,
    /// When the limit that runs now is over.
    deadline: Instant,
    /// Wakes the task then or earlier: moving it for each request costs more than looking again once in a while.
    timer: Pin<Box<Sleep>>,
    /// Runs while the sender takes nothing of an answer.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Guard<S> {
    pub(super) fn new(stream: S, connection: Arc<Connection>, header_timeout: Duration) -> Self {
        let deadline = Instant::now() + header_timeout;
        Self {
            stream,
            connection,
            next: Next::Head,
            unread: BytesMut::new(),
            header_timeout,
            waiting: Waiting::Head,
            deadline,
            timer: Box::pin(tokio::time::sleep_until(deadline)),
            stalled: None,
        }
    }

    /// Chooses the limit that runs now.
    fn keep_time(&mut self) {
        // Old clients end a body with an empty line too many (RFC 9112, 2.2): that begins nothing.
        while self.next == Next::Head && self.unread.starts_with(b"\r\n") {
            self.unread.advance(2);
        }
        let waiting = match self.next {
            _ if self.waiting == Waiting::Lingering => Waiting::Lingering,
            Next::Head if self.connection.is_busy() => Waiting::Nothing,
            Next::Head if self.unread.is_empty() && self.waiting != Waiting::Head => Waiting::NextRequest,
            Next::Head => Waiting::Head,
            Next::Request(_) | Next::Chunks | Next::Refused(_) => Waiting::Nothing,
        };
        if waiting != self.waiting {
            self.waiting = waiting;
            match waiting {
                Waiting::Head => self.deadline = Instant::now() + self.header_timeout,
                Waiting::NextRequest => self.deadline = Instant::now() + KEEP_ALIVE,
                Waiting::Nothing | Waiting::Lingering => {}
            }
        }
    }

    /// Ready where the limit that runs now is over.
    fn poll_deadline(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.waiting == Waiting::Nothing {
            return Poll::Pending;
        }
        if self.timer.deadline() > self.deadline {
            self.timer.as_mut().reset(self.deadline);
        }
        loop {
            ready!(self.timer.as_mut().poll(context));
            if self.timer.deadline() >= self.deadline {
                return Poll::Ready(());
            }
            self.timer.as_mut().reset(self.deadline);
        }
    }

    /// Reads of the next head what there is. False: the sender has nothing to say any more.
    fn poll_head(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        match head::read(&self.unread) {
            Ok(Some(Head { length, body: Framing::Length(body) })) => {
                self.next = Next::Request(body.saturating_add(length as u64));
            }
            Ok(Some(Head { body: Framing::Chunked, .. })) => self.next = Next::Chunks,
            Err(HeadError::Malformed(why)) => self.refuse(Answer::BadRequest(why)),
            Err(HeadError::TooLarge) => self.refuse(Answer::HeadTooLarge),
            Ok(None) => {
                let mut space = [MaybeUninit::uninit(); READ_BYTES];
                let mut read = ReadBuf::uninit(&mut space);
                let polled = Pin::new(&mut self.stream).poll_read(context, &mut read);
                let is_late = polled.is_pending() && self.poll_deadline(context).is_ready();
                match (is_late, self.unread.is_empty()) {
                    // Who begins nothing has done nothing wrong.
                    (true, true) => return Poll::Ready(Ok(false)),
                    (true, false) => self.refuse(Answer::TooSlow),
                    (false, is_empty) => {
                        ready!(polled)?;
                        self.unread.extend_from_slice(read.filled());
                        match (read.filled().is_empty(), is_empty) {
                            (true, true) => return Poll::Ready(Ok(false)),
                            (true, false) => self.refuse(Answer::BadRequest("the head ends early")),
                            (false, _) => {}
                        }
                    }
                }
            }
        }
        Poll::Ready(Ok(true))
    }

    /// A sender that takes nothing of its answers for so long is cut off: it would keep its place for good.
    fn limit_stall<T>(
        &mut self,
        context: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stalled = None;
            return polled;
        }
        let stalled = self.stalled.get_or_insert_with(|| Box::pin(tokio::time::sleep(STALL)));
        stalled.as_mut().poll(context).map(|()| Err(io::ErrorKind::TimedOut.into()))
    }

    fn refuse(&mut self, answer: Answer) {
        self.connection.refuse(answer);
        self.unread.clear();
        self.next = Next::Refused(0);
    }

    /// Lets at most so many bytes through, and says how many.
    fn poll_pass(
        &mut self,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
        most: u64,
    ) -> Poll<io::Result<u64>> {
        let most = usize::try_from(most).unwrap_or(usize::MAX).min(buffer.remaining());
        let passed = if self.unread.is_empty() {
            let mut part = ReadBuf::new(buffer.initialize_unfilled_to(most));
            ready!(Pin::new(&mut self.stream).poll_read(context, &mut part))?;
            let read = part.filled().len();
            buffer.advance(read);
            read
        } else {
            let passed = self.unread.split_to(most.min(self.unread.len()));
            buffer.put_slice(&passed);
            passed.len()
        };
        Poll::Ready(Ok(passed as u64))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Guard<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        loop {
            this.keep_time();
            match this.next {
                Next::Head => {
                    if !ready!(this.poll_head(context))? {
                        return Poll::Ready(Ok(()));
                    }
                }
                Next::Request(0) => this.next = Next::Head,
                Next::Request(left) => {
                    let passed = ready!(this.poll_pass(context, buffer, left))?;
                    this.next = Next::Request(left - passed);
                    return Poll::Ready(Ok(()));
                }
                Next::Chunks => return this.poll_pass(context, buffer, u64::MAX).map_ok(drop),
                // The answer to it closes the connection: nobody has to wake what waits here.
                Next::Refused(REFUSED_BYTES) => return Poll::Pending,
                Next::Refused(given) => {
                    let end = REFUSED.len().min(given + buffer.remaining());
                    buffer.put_slice(&REFUSED[given..end]);
                    this.next = Next::Refused(end);
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Guard<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.limit_stall(context, written)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let flushed = Pin::new(&mut this.stream).poll_flush(context);
        if flushed.is_ready() {
            // hyper does not read again before somebody wakes it: where an answer is out, that has to be this limit too.
            this.keep_time();
            let _ = this.poll_deadline(context);
        }
        this.limit_stall(context, flushed)
    }

    /// Closing while the sender sends would reset the connection, and the answer could be lost on its way (RFC 9112, 9.6):
    /// so what it still sends is read, for a while, and goes nowhere.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.waiting != Waiting::Lingering {
            let shut = Pin::new(&mut this.stream).poll_shutdown(context);
            ready!(this.limit_stall(context, shut))?;
            this.waiting = Waiting::Lingering;
            this.deadline = Instant::now() + LINGER;
        }
        let is_all_read = matches!(this.next, Next::Head | Next::Request(0)) && this.unread.is_empty();
        while !is_all_read && this.poll_deadline(context).is_pending() {
            let mut space = [MaybeUninit::uninit(); READ_BYTES];
            let mut read = ReadBuf::uninit(&mut space);
            let polled = Pin::new(&mut this.stream).poll_read(context, &mut read);
            if ready!(polled).is_err() || read.filled().is_empty() {
                break;
            }
        }
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http_body_util::Empty;
    use hyper::server::conn::http1;
    use hyper::service::service_fn;
    use hyper::{Request, Response};
    use hyper_util::rt::TokioIo;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
    use tokio::time::timeout;

    use super::*;

    const HEADER_TIMEOUT: Duration = Duration::from_secs(5);

    /// A connection whose requests are answered after so long; one for `/last` is the last.
    fn serve(answer_after: Duration) -> DuplexStream {
        let (client, server) = tokio::io::duplex(4096);
        let connection = Arc::new(Connection::new(Instant::now().into_std(), [127, 0, 0, 1].into()));
        let guard = Guard::new(server, Arc::clone(&connection), HEADER_TIMEOUT);
        let service = service_fn(move |request: Request<hyper::body::Incoming>| {
            let connection = Arc::clone(&connection);
            let is_refused = connection.refused().is_some();
            let answer_after = if is_refused { Duration::ZERO } else { answer_after };
            connection.begin_request();
            async move {
                tokio::time::sleep(answer_after).await;
                connection.end_request();
                let mut answer = Response::new(Empty::<bytes::Bytes>::new());
                if is_refused || request.uri().path() == "/last" {
                    answer.headers_mut().insert("connection", "close".parse().unwrap());
                }
                Ok::<_, Infallible>(answer)
            }
        });
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(guard), service));
        client
    }

    /// What comes until the other side closes, and how long that takes.
    async fn until_closed(client: &mut DuplexStream) -> (String, Duration) {
        let (began, mut all) = (Instant::now(), String::new());
        timeout(2 * KEEP_ALIVE, client.read_to_string(&mut all)).await.expect("never closed").unwrap();
        (all, began.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_without_a_request_is_kept_and_then_closed() {
        for answer_after in [Duration::ZERO, HEADER_TIMEOUT / 2, 2 * HEADER_TIMEOUT] {
            let mut client = serve(answer_after);
            client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
            let (all, took) = until_closed(&mut client).await;
            assert!(all.starts_with("HTTP/1.1 200"), "{all}");
            let wanted = answer_after + KEEP_ALIVE;
            assert!(took >= wanted && took < wanted + HEADER_TIMEOUT, "{took:?} after {answer_after:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_head_that_was_begun_during_a_request_has_its_time_from_the_answer_on() {
        let mut client = serve(3 * HEADER_TIMEOUT);
        client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\nGET / HT").await.unwrap();
        let (_, took) = until_closed(&mut client).await;
        let wanted = 4 * HEADER_TIMEOUT;
        assert!(took >= wanted && took < wanted + 2 * LINGER, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn each_head_has_its_own_time_however_long_the_connection_was_kept() {
        // After the last pause the timer stands before the head's deadline, or hours behind it.
        for last_pause in [Duration::ZERO, 2 * HEADER_TIMEOUT] {
            let mut client = serve(Duration::ZERO);
            for pause in
                [Duration::ZERO, HEADER_TIMEOUT / 2, 2 * HEADER_TIMEOUT, KEEP_ALIVE.saturating_sub(LINGER)]
            {
                tokio::time::sleep(pause).await;
                client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
                let mut answer = Vec::new();
                while !answer.ends_with(b"\r\n\r\n") {
                    answer.push(client.read_u8().await.unwrap());
                }
                assert!(answer.starts_with(b"HTTP/1.1 200"), "after {pause:?}");
            }
            tokio::time::sleep(last_pause).await;
            client.write_all(b"GET / HT").await.unwrap();
            let (_, took) = until_closed(&mut client).await;
            assert!(took >= HEADER_TIMEOUT && took < HEADER_TIMEOUT + 2 * LINGER, "{took:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_sent_behind_the_last_answer_is_read_for_a_while_only() {
        let mut client = serve(Duration::ZERO);
        client.write_all(b"GET /last HTTP/1.1\r\nhost: a\r\n\r\nGET / HT").await.unwrap();
        let (all, _) = until_closed(&mut client).await;
        assert!(all.starts_with("HTTP/1.1 200"), "{all}");
        let began = Instant::now();
        let sending = async {
            while client.write_all(b"x").await.is_ok() {
                tokio::time::sleep(LINGER / 10).await;
            }
        };
        timeout(KEEP_ALIVE, sending).await.expect("never cut off");
        let took = began.elapsed();
        assert!(took > LINGER / 2 && took < 2 * LINGER, "{took:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_no_answers_is_cut_off() {
        let mut client = serve(Duration::ZERO);
        let request = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
        let began = Instant::now();
        let sending = async { while client.write_all(request).await.is_ok() {} };
        timeout(KEEP_ALIVE, sending).await.expect("never cut off");
        assert!(began.elapsed() < 3 * STALL, "{:?}", began.elapsed());
    }
}
