//! ClearFeed's REST API, as the relay asks it: the token from a file, one request on its way at a time, a page after the
//! other, and patience with what passes by itself.
//!
//! Shapes are taken tolerantly, and each request's JSON is kept byte for byte: see [`crate::domain::snapshot`].

mod client;
mod connection;
mod page;
mod patience;
mod query;
#[cfg(test)]
mod tests;
mod token;

pub use client::{ApiError, Client};
pub use page::Page;
pub use query::{FilterBy, MAX_LIMIT, Query};
pub use token::{Token, TokenError};
