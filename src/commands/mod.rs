//! The commands, one file each, and what they share.

mod certificate;
pub(crate) mod check;
mod configuration;
pub(crate) mod demo;
mod descriptors;
pub(crate) mod exit;
mod relay;
mod reload;
mod secrets;
pub(crate) mod serve;
pub(crate) mod simulate;
pub(crate) mod verify;
