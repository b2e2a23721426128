//! The commands, one file each, and what they share.

pub(crate) mod backfill;
mod certificate;
pub(crate) mod check;
mod clients;
mod configuration;
pub(crate) mod demo;
mod descriptors;
pub(crate) mod exit;
pub(crate) mod health;
mod progress;
pub(crate) mod redrive;
mod relay;
mod reload;
mod secrets;
pub(crate) mod serve;
pub(crate) mod simulate;
pub(crate) mod spool;
mod supervisor;
pub(crate) mod verify;
