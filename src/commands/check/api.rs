//! ClearFeed's REST API: whether it answers, and takes the token.

use clearfeed_relay::clearfeed::{ApiError, Client, FilterBy, Query};
use clearfeed_relay::config::{Api, Config};
use jiff::Timestamp;

use super::Check;

/// Those whose API is not asked.
pub(super) fn skipped(config: &Config) -> Vec<Check> {
    apis(config).map(|(name, _)| Check::skipped(subject(name), "--offline")).collect()
}

/// Adds what was found; false where an API cannot be reached.
pub(super) async fn check(config: &Config, checks: &mut Vec<Check>) -> bool {
    let mut is_reached = true;
    for (name, api) in apis(config) {
        let now = Timestamp::now();
        // One request at most: what is asked for is whether there is an answer.
        let (filter_by, after, before) = (FilterBy::CreatedAt, Timestamp::UNIX_EPOCH, now);
        let query = Query { filter_by, after, before, limit: 1, cursor: None };
        let answered = Client::new(api).ask(&query).await;
        is_reached &= !matches!(answered, Err(ApiError::Unavailable { .. }));
        checks.push(match answered {
            Ok(_) => Check::ok(subject(name), format!("{} answers, and takes the token", api.base_url)),
            // The token's own line says so.
            Err(ApiError::Token(_)) => Check::skipped(subject(name), "there is no token to ask with"),
            Err(ApiError::TokenRefused) => Check::wrong(
                subject(name),
                format!(
                    "{}: {}; repair it with: the new one in {}",
                    api.base_url,
                    ApiError::TokenRefused,
                    api.token_file.display()
                ),
            ),
            Err(ApiError::RateLimited { .. }) => {
                Check::skipped(subject(name), "asked too often (429): try again")
            }
            Err(error @ ApiError::Unavailable { .. }) => Check::wrong(
                subject(name),
                format!("{}: {error}; wanted a sources.{name}.api.base_url that answers", api.base_url),
            ),
            Err(error @ ApiError::Unexpected(_)) => {
                Check::wrong(subject(name), format!("{}: {error}, wanted a page of requests", api.base_url))
            }
        });
    }
    is_reached
}

/// Who receives alone asks nobody.
fn apis(config: &Config) -> impl Iterator<Item = (&str, &Api)> {
    config.apis().filter(|_| config.role.has_forward())
}

fn subject(source: &str) -> String {
    format!("source {source}, API")
}
