//! What the promises are tested with: a broker that was killed can come back to its port, for nobody gets it meanwhile, in
//! whatever checkout.

use crate::support::{Kafka, ports};

#[test]
fn the_port_of_a_dead_broker_is_its_own_until_its_cluster_ends() {
    let kafka = Kafka::own(1);
    let port = kafka.servers().rsplit_once(':').unwrap().1.parse().unwrap();
    kafka.kill(None);
    let lessee = ports::lessee(port).unwrap();
    assert!(lessee.is_dir() && lessee.ends_with(kafka.name()), "{}", lessee.display());
    drop(kafka);
    assert_ne!(ports::lessee(port), Some(lessee));
}
