//! Asks for pages, one after the other: `&mut self` sees to it that one request is on its way at a time.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::header::{ACCEPT, AUTHORIZATION, HOST, RETRY_AFTER, USER_AGENT};
use hyper::{Request, Response, StatusCode, http};
use jiff::Timestamp;
use tokio::time::{sleep, timeout};

use super::connection::{self, Sender};
use super::page::Page;
use super::patience::{Patience, retry_after};
use super::query::Query;
use super::token::{Token, TokenError};
use crate::config::{Api, ApiUrl};
use crate::telemetry::labels::ApiOutcome;

/// How long an answer is waited for: a page of a hundred requests is much to gather.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);
/// Longest answer, in bytes: a hundred requests of 320 KiB each.
const MAX_ANSWER_BYTES: usize = 32 << 20;

/// Why there is no page. No text quotes an answer: a server may well repeat what it was sent.
#[derive(Debug, thiserror::Error)]
pub enum ApiError {
    /// There is no token to ask with.
    #[error("the token: {0}")]
    Token(#[from] TokenError),
    /// 401: ClearFeed does not know this token (any more).
    #[error("the token was refused (401): it was regenerated or deleted")]
    TokenRefused,
    /// 429: asked too often.
    #[error("asked too often (429)")]
    RateLimited {
        /// How long ClearFeed asks us to wait.
        retry_after: Option<Duration>,
    },
    /// No connection, no answer in time, or a 5xx: it passes by itself.
    #[error("{detail}")]
    Unavailable {
        /// What was found.
        detail: String,
        /// How long ClearFeed asks us to wait.
        retry_after: Option<Duration>,
    },
    /// Another status, or an answer that is no page.
    #[error("found {0}")]
    Unexpected(String),
}

impl ApiError {
    /// The metric's word for it.
    pub fn outcome(&self) -> ApiOutcome {
        match self {
            Self::Token(_) => ApiOutcome::NoToken,
            Self::TokenRefused => ApiOutcome::TokenRefused,
            Self::RateLimited { .. } => ApiOutcome::RateLimited,
            Self::Unavailable { .. } => ApiOutcome::Unavailable,
            Self::Unexpected(_) => ApiOutcome::Unexpected,
        }
    }

    fn passes_by_itself(&self) -> bool {
        matches!(self, Self::RateLimited { .. } | Self::Unavailable { .. })
    }

    /// How long ClearFeed asks us to wait.
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after } | Self::Unavailable { retry_after, .. } => *retry_after,
            Self::Token(_) | Self::TokenRefused | Self::Unexpected(_) => None,
        }
    }
}

/// Where the token comes from.
type TokenSource = Box<dyn Fn() -> Result<Token, TokenError> + Send + Sync>;

/// A client of one source's API.
pub struct Client {
    url: ApiUrl,
    token: TokenSource,
    /// Told how each request ended.
    count: Box<dyn Fn(ApiOutcome) + Send + Sync>,
    /// There only between requests: one that fails, or is given up, closes its connection by dropping it.
    connection: Option<Sender>,
}

impl Client {
    /// As configured: the token is read from its file for each request.
    pub fn new(api: &Api) -> Self {
        let file = api.token_file.clone();
        Self::with_token(api.base_url.clone(), move || Token::read(&file))
    }

    /// Asks `token` for each request.
    pub fn with_token(
        url: ApiUrl,
        token: impl Fn() -> Result<Token, TokenError> + Send + Sync + 'static,
    ) -> Self {
        Self { url, token: Box::new(token), count: Box::new(|_| ()), connection: None }
    }

    /// Tells `count` how each request ended.
    #[must_use]
    pub fn counted(self, count: impl Fn(ApiOutcome) + Send + Sync + 'static) -> Self {
        Self { count: Box::new(count), ..self }
    }

    /// A page. What passes by itself is waited for as long as `patience` lasts, and as long as ClearFeed asks for.
    pub async fn page(&mut self, query: &Query, patience: Duration) -> Result<Page, ApiError> {
        let mut patience = Patience::new(patience);
        loop {
            let error = match self.ask(query).await {
                Ok(page) => return Ok(page),
                Err(error) => error,
            };
            let pause = patience.pause(error.retry_after()).filter(|_| error.passes_by_itself());
            match pause {
                Some(pause) => sleep(pause).await,
                None => return Err(error),
            }
        }
    }

    /// A page, or why there is none, at once.
    pub async fn ask(&mut self, query: &Query) -> Result<Page, ApiError> {
        let asked = self.ask_twice(query).await;
        (self.count)(asked.as_ref().map_or_else(ApiError::outcome, |_| ApiOutcome::Ok));
        asked
    }

    async fn ask_twice(&mut self, query: &Query) -> Result<Page, ApiError> {
        let token = (self.token)()?;
        match self.ask_with(&token, query).await {
            // Regenerated while we asked.
            Err(ApiError::TokenRefused) => match (self.token)()? {
                newer if newer != token => self.ask_with(&newer, query).await,
                _ => Err(ApiError::TokenRefused),
            },
            asked => asked,
        }
    }

    async fn ask_with(&mut self, token: &Token, query: &Query) -> Result<Page, ApiError> {
        let answer = timeout(ANSWER_TIMEOUT, self.exchange(token, query)).await;
        let unavailable = |detail| ApiError::Unavailable { detail, retry_after: None };
        let (status, headers, body) = match answer {
            Ok(answer) => answer?,
            Err(_) => return Err(unavailable(format!("no answer within {} s", ANSWER_TIMEOUT.as_secs()))),
        };
        let retry_after =
            headers.get(RETRY_AFTER).and_then(|value| retry_after(value.to_str().ok()?, Timestamp::now()));
        match status {
            StatusCode::OK => {
                let page = Page::read(&body).map_err(ApiError::Unexpected)?;
                // It would be asked for again and again.
                if page.next_cursor.is_some() && page.next_cursor == query.cursor {
                    return Err(ApiError::Unexpected("a page whose cursor leads to itself".to_owned()));
                }
                Ok(page)
            }
            StatusCode::UNAUTHORIZED => Err(ApiError::TokenRefused),
            StatusCode::TOO_MANY_REQUESTS => Err(ApiError::RateLimited { retry_after }),
            status if status.is_server_error() => {
                Err(ApiError::Unavailable { detail: format!("status {}", status.as_u16()), retry_after })
            }
            status => Err(ApiError::Unexpected(format!("status {}", status.as_u16()))),
        }
    }

    /// Sends a request, over the connection of the one before where it is still open, and reads the whole answer.
    async fn exchange(
        &mut self,
        token: &Token,
        query: &Query,
    ) -> Result<(StatusCode, http::HeaderMap, Bytes), ApiError> {
        let unavailable = |detail: String| ApiError::Unavailable { detail, retry_after: None };
        let mut request = self.request(token, query)?;
        let (sender, response) = loop {
            let (mut sender, is_fresh) = match self.reusable().await {
                Some(sender) => (sender, false),
                None => (connection::open(&self.url).await.map_err(unavailable)?, true),
            };
            match sender.try_send_request(request).await {
                Ok(response) => break (sender, response),
                Err(mut failed) => match failed.take_message() {
                    // Not a byte of it was sent: the server closed an idle connection.
                    Some(unsent) if !is_fresh => request = unsent,
                    _ => return Err(unavailable(format!("the connection failed: {}", failed.error()))),
                },
            }
        };
        let (parts, body) = Response::into_parts(response);
        let body = match Limited::new(body, MAX_ANSWER_BYTES).collect().await {
            Ok(body) => body.to_bytes(),
            Err(error) if error.is::<http_body_util::LengthLimitError>() => {
                let most = MAX_ANSWER_BYTES >> 20;
                return Err(ApiError::Unexpected(format!("an answer of more than {most} MiB")));
            }
            Err(error) => return Err(unavailable(format!("the answer broke off: {error}"))),
        };
        self.connection = Some(sender);
        Ok((parts.status, parts.headers, body))
    }

    fn request(&self, token: &Token, query: &Query) -> Result<Request<Empty<Bytes>>, ApiError> {
        let unsendable =
            |error: http::Error| ApiError::Unexpected(format!("a request that HTTP cannot carry: {error}"));
        Request::get(format!("{}{}", self.url.path(), query.path_and_query()))
            .header(HOST, self.url.authority())
            .header(AUTHORIZATION, token.authorization().map_err(|error| unsendable(error.into()))?)
            .header(ACCEPT, "application/json")
            .header(USER_AGENT, concat!("clearfeed-relay/", env!("CARGO_PKG_VERSION")))
            .body(Empty::new())
            .map_err(unsendable)
    }

    /// The connection of the request before, unless the server closed it.
    async fn reusable(&mut self) -> Option<Sender> {
        let mut sender = self.connection.take()?;
        sender.ready().await.ok()?;
        Some(sender)
    }
}
