//! The relay on the broker in memory, which has no topic settings: the same halves as in `serve`, below its start-up
//! checks, as `demo` has them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arc_swap::ArcSwap;
use clearfeed_relay::config;
use clearfeed_relay::domain::signature::{Keyring, Secret};
use clearfeed_relay::telemetry::logs;

use crate::relay::Relay;

/// Runs until it is killed.
pub fn run(config: &Path, secret: &[u8]) {
    let config = config::load(config, std::iter::empty(), None, |_, _| Vec::new()).unwrap();
    let recent = logs::init(&config.telemetry).unwrap();
    let keyring = Keyring::new(vec![Some(Secret::new(secret).unwrap())]);
    let keyrings = BTreeMap::from([("main".to_owned(), Arc::new(ArcSwap::from_pointee(keyring)))]);
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let mut relay = Relay::listen(config, keyrings, None, recent).await.unwrap();
        relay.open().await.unwrap();
        std::future::pending().await
    })
}
