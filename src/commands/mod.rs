//! The commands, one file each, and what they share.

mod certificate;
pub(crate) mod demo;
pub(crate) mod exit;
mod relay;
mod descriptors;
mod reload;
mod secrets;
pub(crate) mod serve;
pub(crate) mod simulate;
