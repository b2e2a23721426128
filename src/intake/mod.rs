//! The intake half: proves that a delivery is ClearFeed's, appends it to the inbox, and answers 200 when Kafka has it.
//!
//! It keeps no memory of what it saw: a delivery that comes twice is two records of the inbox and nothing else.

pub mod answer;
mod append;
mod body;
mod budget;
mod chains;
mod connections;
mod drain;
mod endpoint;
mod guard;
pub mod head;
mod keeper;
mod listener;
mod peer;
mod tls;

pub use append::{Inbox, InboxError};
pub use chains::{Appended, append_in_order};
pub use endpoint::{Endpoints, SharedKeyring};
pub use keeper::Keeper;
pub use listener::{Listener, ListenerLimits};
pub use tls::{Certificate, Pair, PairError};
