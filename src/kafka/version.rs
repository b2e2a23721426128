//! Whether a broker's version can break the promise.
//!
//! No request that librdkafka offers tells a broker's version. But a broker that is asked for its settings lists every name
//! that its software knows, also of settings that nobody has set, and whatever `metadata.version` says. So a name that came
//! with a version shows that version, or a later one. Releases of one minor version cannot be told apart.

use std::collections::BTreeMap;

use futures_util::future::join_all;
use rdkafka::error::KafkaError;

use super::topics::Topics;

/// Versions that leave out the marker of a transaction where a partition has no leader (KAFKA-20734). They are all that there
/// are from 4.3 on. The first release with the mend will be found faulty here, unless a name tells it apart.
pub const FAULTY: &str = "4.3.0, 4.3.1 and 4.4.0";

/// Names of settings, and the version that they came with; the newest first. Features brought them: names that belong to a
/// mend come to older versions, too, as `max.decompressed.message.bytes` did to 4.2.2, which 4.3.1 does not know.
const CAME_WITH: [(&str, &str); 2] = [
    ("group.streams.assignors", "4.4"), // KIP-1271
    ("cordoned.log.dirs", "4.3"),       // KIP-1066
];

/// A setting of every Apache Kafka: what does not know it is another software, of which its names say nothing.
const APACHE: &str = "log.cleaner.dedupe.buffer.size";

/// What the brokers' versions mean for the promise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Every broker is older than [`FAULTY`].
    Sound(String),
    /// At least one is not; the text says which, and what to do.
    Faulty(String),
    /// At least one does not say, and none is faulty; the text says why.
    Unknown(String),
}

/// Asks each broker that the cluster has now. Wants `DescribeConfigs` on the cluster.
pub async fn look(topics: &Topics) -> Result<Verdict, KafkaError> {
    let brokers = topics.brokers()?;
    let answers = join_all(brokers.iter().map(|broker| topics.settings_of_broker(*broker))).await;
    let answers = answers.into_iter().map(|answer| answer.map_err(|error| error.to_string()));
    Ok(judge(&brokers.into_iter().zip(answers).collect()))
}

/// By broker: the names that it lists, or why it lists none.
fn judge(brokers: &BTreeMap<i32, Result<Vec<String>, String>>) -> Verdict {
    let (mut faulty, mut unknown) = (Vec::new(), Vec::new());
    for (broker, answer) in brokers {
        let knows = |name: &str| answer.iter().flatten().any(|known| known == name);
        match (answer, CAME_WITH.iter().find(|(name, _)| knows(name))) {
            (Err(reason), _) => unknown.push(format!("broker {broker}: {reason}")),
            (Ok(names), _) if names.is_empty() => unknown.push(format!(
                "broker {broker}: no answer without the right to DescribeConfigs on the cluster"
            )),
            (Ok(_), _) if !knows(APACHE) => unknown.push(format!("broker {broker}: not Apache Kafka")),
            (Ok(_), Some((_, version))) => faulty.push(format!("broker {broker} is {version} or later")),
            (Ok(_), None) => {}
        }
    }
    if !faulty.is_empty() {
        return Verdict::Faulty(format!(
            "{}; Kafka {FAULTY} leave out the marker of a transaction where a partition has no leader \
             (KAFKA-20734), and events can be lost or stand twice; use Kafka 4.2",
            faulty.join(", ")
        ));
    }
    if !unknown.is_empty() {
        return Verdict::Unknown(unknown.join("; "));
    }
    Verdict::Sound("each broker is older than 4.3".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judged(brokers: &[Result<&[&str], &str>]) -> Verdict {
        let owned = |names: &&[&str]| names.iter().map(|&name| name.to_owned()).collect();
        let answer = |answer: &Result<&[&str], &str>| {
            answer.as_ref().map(owned).map_err(|reason| (*reason).to_owned())
        };
        judge(&(1..).zip(brokers.iter().map(answer)).collect())
    }

    const OLD: Result<&[&str], &str> = Ok(&[APACHE, "log.dirs", "max.decompressed.message.bytes"]);
    const OF_4_3: Result<&[&str], &str> = Ok(&[APACHE, "cordoned.log.dirs"]);
    const OF_4_4: Result<&[&str], &str> = Ok(&[APACHE, "cordoned.log.dirs", "group.streams.assignors"]);
    const REFUSED: Result<&[&str], &str> = Ok(&[]);
    const AWAY: Result<&[&str], &str> = Err("timed out");
    const OTHER: Result<&[&str], &str> = Ok(&["log.dirs", "cordoned.log.dirs"]);

    #[test]
    fn one_faulty_broker_is_enough() {
        for brokers in [&[OLD, OF_4_3, OF_4_4][..], &[AWAY, OF_4_3, OF_4_4], &[REFUSED, OF_4_3, OF_4_4]] {
            let Verdict::Faulty(text) = judged(brokers) else { panic!("{brokers:?}") };
            let is_told = text.starts_with("broker 2 is 4.3 or later, broker 3 is 4.4 or later; Kafka ");
            assert!(is_told && text.contains(FAULTY), "{text}");
        }
    }

    #[test]
    fn a_broker_that_does_not_say_is_not_called_sound() {
        assert!(matches!(judged(&[OLD, OLD]), Verdict::Sound(_)));
        for (silent, why) in [
            (REFUSED, "broker 2: no answer without the right to DescribeConfigs on the cluster"),
            (AWAY, "broker 2: timed out"),
            (OTHER, "broker 2: not Apache Kafka"),
        ] {
            assert_eq!(judged(&[OLD, silent]), Verdict::Unknown(why.to_owned()));
        }
    }
}
