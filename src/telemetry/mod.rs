//! What the relay says about itself: metrics, logs, and what `/livez`, `/readyz` and `/status` read.
//!
//! Nothing here is global: `serve` makes one [`metrics::Metrics`] and one [`health::Health`] and hands them down. Intake
//! and forward tell them what happened, in one call that counts and, where a person should know, logs; the admin
//! port reads them. Every method is cheap enough for the path of a delivery: an atomic, or a lock held for some
//! instructions.

mod family;
pub mod health;
pub mod history;
pub mod labels;
pub mod logs;
pub mod metrics;
pub mod recent;
pub mod refusals;
pub mod status;
