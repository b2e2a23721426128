//! Puts a client that has lost all its brokers back on its bootstrap servers.
//!
//! While every broker is fenced (a single one that was frozen for longer than its session, or all of them behind a new
//! controller), Kafka's metadata name none. librdkafka then takes out all that it knows, bootstrap servers included, and asks
//! nobody any more, for good (since 2.10; confluentinc/librdkafka#5301). It does take new ones, and its Rust wrapper has no
//! call for that.

#![allow(unsafe_code, reason = "the wrapper has no call for it; see above")]

use std::ffi::CString;

use rdkafka::ClientContext;
use rdkafka::bindings as librdkafka;
use rdkafka::client::Client;

use super::monitor::Monitor;

/// To be called again and again for a client that lives long; `monitor` is the one of this client alone.
pub fn restore_if_lost<C: ClientContext>(client: &Client<C>, monitor: &Monitor, servers: &str) {
    if monitor.take_lost() {
        tracing::warn!("the client knows no broker any more: it is given the bootstrap servers again");
        restore(client, servers);
    }
}

fn restore<C: ClientContext>(client: &Client<C>, servers: &str) {
    // The client was made of the same text: there is no zero byte in it.
    let Ok(servers) = CString::new(servers) else { return };
    // SAFETY: the client is alive, and the text is copied.
    unsafe { librdkafka::rd_kafka_brokers_add(client.native_ptr(), servers.as_ptr()) };
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rdkafka::ClientConfig;
    use rdkafka::consumer::{BaseConsumer, Consumer};
    use rdkafka::mocking::MockCluster;

    use super::*;

    #[test]
    fn a_client_finds_the_servers_that_it_is_given() {
        let kafka = MockCluster::new(1).unwrap();
        // Nobody listens at port 9 (discard) of this machine.
        let nobody = ClientConfig::new().set("bootstrap.servers", "127.0.0.1:9").clone();
        let consumer: BaseConsumer = nobody.create().unwrap();
        assert!(consumer.fetch_metadata(None, Duration::from_millis(200)).is_err());
        restore(consumer.client(), &kafka.bootstrap_servers());
        let metadata = consumer.fetch_metadata(None, Duration::from_secs(30)).unwrap();
        assert_eq!(metadata.brokers().len(), 1);
    }
}
