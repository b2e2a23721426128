//! Sources share a relay and nothing else: paths, secrets, topics, event ids.

use clearfeed_relay::domain::signature::Secret;
use clearfeed_relay::simulator::{Delivery, Target, unix_seconds};

use crate::support::deployment::PUBLIC_URL;
use crate::support::{Deployment, Kafka, SOON, Sender};

const OTHER_URL: &str = "https://hooks.example.com/clearfeed/other-events?workspace=other";
const OTHER_SECRET: &str = "the-secret-of-another-workspace";

#[test]
fn one_source_opens_nothing_of_another() {
    let kafka = Kafka::shared();
    let deployment = Deployment::new("sources", &kafka);
    let secret_file = deployment.secret_file().with_file_name("other-secret");
    std::fs::write(&secret_file, OTHER_SECRET).unwrap();
    let relay = deployment
        .relay()
        .set("sources.other.public_url", &format!("{OTHER_URL:?}"))
        .set("sources.other.signing_secret_files", &format!("[{secret_file:?}]"))
        .set("sources.other.topic", &format!("{:?}", deployment.topic("other.{type}")))
        .set("sources.other.routes", &format!("{{ \"request.updated\" = {:?} }}", deployment.topic("routed")))
        .up();
    let other_target =
        Target::parse(&format!("http://{}/clearfeed/other-events?workspace=other", relay.intake())).unwrap();
    let (mut main, mut other) = (Sender::new(vec![relay.target()]), Sender::new(vec![other_target]));
    let event = r#"{"id":"same","type":"request","sub_type":"created","request":{"id":1}}"#;
    let signed = |body: &str| {
        let secret = Secret::new(OTHER_SECRET.as_bytes()).unwrap();
        Delivery::signed(&secret, OTHER_URL, body.to_owned(), unix_seconds())
    };
    assert_eq!((main.send(&deployment.delivery(event)), other.send(&signed(event))), (200, 200));
    let updated = event.replace("created", "updated").replace("same", "updated");
    assert_eq!((main.send(&deployment.delivery(updated.clone())), other.send(&signed(&updated))), (200, 200));
    // Right for one of them, at the path of the other.
    assert_eq!((other.send(&deployment.delivery(event)), main.send(&signed(event))), (401, 401));
    // Signed with the right secret over the URL of the other.
    let crossed =
        Delivery::signed(&Secret::new(OTHER_SECRET.as_bytes()).unwrap(), PUBLIC_URL, event, unix_seconds());
    assert_eq!((other.send(&crossed), main.send(&crossed)), (401, 401));

    deployment.wait_until_forwarded(SOON);
    for (topic, source, ids) in [
        (deployment.events(), "main", &["same", "updated"][..]),
        (deployment.topic("other.request"), "other", &["same"]),
        (deployment.topic("routed"), "other", &["updated"]),
    ] {
        let records = deployment.reader().all(&topic);
        let found: Vec<_> =
            records.iter().map(|record| (record.header("ce_id"), record.header("ce_source"))).collect();
        let source = format!("/clearfeed/{source}");
        let wanted: Vec<_> = ids.iter().map(|id| (*id, &*source)).collect();
        assert_eq!(found, wanted, "{topic}");
    }
    for (source, refused) in [("main", 2.0), ("other", 2.0)] {
        let series = format!(r#"auth_failures_total{{reason="mismatch",source="{source}"}}"#);
        assert_eq!(relay.metric(&series).to_string(), refused.to_string(), "{source}");
    }
}
