//! Events shaped like the two that ClearFeed documents, drawn from a seed.
//!
//! An event is a function of the seed, the number of requests and its own number: nothing is remembered
//! between two.

use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroU64;

use bytes::Bytes;

/// Events without end; the first of each request is `created`, the later ones `updated`.
#[derive(Debug, Clone, Copy)]
pub struct Events {
    seed: u64,
    requests: NonZeroU64,
}

/// One event and what its records are told by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShapedEvent {
    /// 32 hex digits; no two of one seed are equal.
    pub id: String,
    /// The request's id.
    pub request: u64,
    /// Compact JSON of 1.0 to 1.5 KB.
    pub body: Bytes,
}

/// Request ids stay in the integers that every reader of JSON gets right: below 2^53.
const REQUEST_ID_BITS: u32 = 52;

impl Events {
    /// Takes the seed and the number of requests that the events are spread over.
    pub fn new(seed: u64, requests: NonZeroU64) -> Self {
        Self { seed, requests }
    }

    /// The event of this number, from 0; it belongs to request `number % requests`.
    pub fn event(&self, number: u64) -> ShapedEvent {
        let (round, nth_request) = (number / self.requests, self.nth_request(number));
        let id = self.event_id(number);
        let request = self.request_id(nth_request);
        let thread = self.thread(nth_request);
        let body = body(&id, request, round, &thread, &mut Random::new(!self.seed, number));
        ShapedEvent { id, request, body: body.into() }
    }

    /// The first half differs for every number of a seed, the second half for every seed.
    fn event_id(&self, number: u64) -> String {
        let first = mixed(mixed(self.seed).wrapping_add(number));
        let second = mixed(first ^ mixed(!self.seed));
        format!("{first:016x}{second:016x}")
    }

    /// The request that the event of this number belongs to, by its place among the requests.
    pub(super) fn nth_request(&self, number: u64) -> u64 {
        number % self.requests
    }

    /// What the events of a request have in common.
    pub(super) fn thread(&self, nth_request: u64) -> Thread {
        Thread::draw(&mut Random::new(self.seed, nth_request))
    }

    /// Far apart for two seeds, so that two simulators do not write each other's requests.
    pub(super) fn request_id(&self, nth: u64) -> u64 {
        (mixed(self.seed) >> (u64::BITS - REQUEST_ID_BITS)).wrapping_add(nth)
    }
}

/// What all events of a request have in common.
pub(super) struct Thread {
    pub(super) channel: String,
    pub(super) team: String,
    pub(super) collection: u64,
    pub(super) priority: &'static str,
    /// When it began, in seconds since 1970.
    began: u64,
    /// The microseconds of its messages in the two channels: Slack tells messages by their times.
    micros: (u64, u64),
}

impl Thread {
    fn draw(random: &mut Random) -> Self {
        Self {
            channel: random.slack_id('C'),
            team: random.slack_id('T'),
            collection: random.below(100),
            priority: random.pick(&["urgent", "high", "medium", "low"]),
            began: DOCUMENTED_TIME + random.below(1_000_000),
            micros: (random.below(1_000_000), random.below(1_000_000)),
        }
    }

    /// Slack's time of the message in the requester's channel, so many seconds into the thread.
    pub(super) fn in_request_channel(&self, seconds: u64) -> String {
        format!("{}.{:06}", self.began + seconds, self.micros.0)
    }

    /// The copy in the triage channel follows some seconds later.
    pub(super) fn in_triage_channel(&self, seconds: u64) -> String {
        format!("{}.{:06}", self.began + seconds + 8, self.micros.1)
    }
}

/// The time in ClearFeed's example: bodies do not depend on the clock.
const DOCUMENTED_TIME: u64 = 1_793_901_532;

fn body(id: &str, request: u64, round: u64, thread: &Thread, random: &mut Random) -> String {
    let is_first = round == 0;
    let sub_type = if is_first { "created" } else { "updated" };
    let state = if is_first { "Pending" } else { random.pick(&["In Review", "On Hold", "Solved"]) };
    let visibility = if is_first { "public" } else { random.pick(&["public", "private"]) };
    let (title, text, user) = (random.pick(&SENTENCES), random.text(), random.slack_id('U'));
    let Thread { channel, team, collection, priority, .. } = thread;
    let (request_began, triage_began) = (thread.in_request_channel(0), thread.in_triage_channel(0));
    let seconds_in = round.saturating_mul(135);

    let place = format!(r#""channel_id":"{channel}","team_id":"{team}""#);
    let post = |began: &str, ts: &str| {
        let thread_ts = if is_first { String::new() } else { format!(r#""thread_ts":"{began}","#) };
        format!(r#"{{{place},"text":"{text}",{thread_ts}"ts":"{ts}","user_id":"{user}"}}"#)
    };
    let request_post = post(&request_began, &thread.in_request_channel(seconds_in));
    let triage_post = post(&triage_began, &thread.in_triage_channel(seconds_in));
    [
        format!(r#"{{"id":"{id}","type":"request","sub_type":"{sub_type}","source":"slack_event","#),
        format!(r#""request":{{"id":{request},"state":"{state}","title":"{title}","#),
        format!(r#""channel_id":"{channel}","collection_id":{collection},"priority":"{priority}","#),
        format!(r#""request_thread":{{{place},"thread_ts":"{request_began}"}},"#),
        format!(r#""triage_thread":{{{place},"thread_ts":"{triage_began}"}}}},"#),
        format!(r#""event":{{"type":"message","visibility":"{visibility}","source":"support_channel","#),
        format!(r#""request_channel":{request_post},"triage_channel":{triage_post}}}}}"#),
    ]
    .concat()
}

/// Already escaped for JSON. Some have escapes and letters beyond ASCII, for what re-encodes a body breaks
/// its hash.
pub(super) const SENTENCES: [&str; 10] = [
    "Hey team, we have an urgent issue. Can someone assist?",
    "The payment page answers \\\"502 Bad Gateway\\\" since this morning.",
    "Our finance people in Zürich cannot close the month, it is blocking them.",
    "Understood, I'll take care of it and write here as soon as I know more.",
    "Could you send the order number and a screenshot?\\nThat would help us a lot.",
    "It happens only with cards from Japan (日本), all others go through as usual.",
    "We rolled the last deployment back; please try again and tell us how it goes.",
    "Works now \\ud83c\\udf89 \\u2014 thank you very much for the quick help, everybody!",
    "The log has 'connection reset by peer' about forty times a minute.",
    "Moving this over to the platform crew, they own the gateway and its limits.",
];

/// `SplitMix64`, whose steps are a bijection: enough for texts, and the same on every machine and in every
/// version.
struct Random(u64);

impl Random {
    fn new(seed: u64, stream: u64) -> Self {
        Self(mixed(mixed(seed) ^ stream))
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN_GAMMA);
        mixed(self.0)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn pick(&mut self, choices: &[&'static str]) -> &'static str {
        let index = usize::try_from(self.below(choices.len() as u64)).unwrap_or_default();
        choices[index]
    }

    /// Two or three sentences: what brings a body to between 1.0 and 1.5 KB.
    fn text(&mut self) -> String {
        let sentences: Vec<_> = (0..2 + self.below(2)).map(|_| self.pick(&SENTENCES)).collect();
        sentences.join(" ")
    }

    /// A letter for the kind and ten of `A-Z0-9`, as in the examples.
    fn slack_id(&mut self, kind: char) -> String {
        let mut rest = self.next();
        let mut id = String::from(kind);
        for _ in 0..10 {
            id.extend(
                char::from_digit(u32::try_from(rest % 36).unwrap_or_default(), 36)
                    .map(|c| c.to_ascii_uppercase()),
            );
            rest /= 36;
        }
        id
    }
}

const GOLDEN_GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

/// The finaliser of `SplitMix64` (Steele, Lea and Flood 2014): a bijection that spreads every bit.
fn mixed(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ (value >> 31)
}

/// A seed that no other simulator is likely to have; below 2^53, so that the summary's readers get it right.
pub fn random_seed() -> u64 {
    // The standard library's hash tables are keyed from the system's random source.
    RandomState::new().hash_one(std::process::id()) >> (u64::BITS - 53)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeSet, HashMap, HashSet};

    use serde_json::Value;

    use super::*;
    use crate::domain::event::{Reading, read};

    fn events(seed: u64, requests: u64) -> Events {
        Events::new(seed, NonZeroU64::new(requests).unwrap())
    }

    /// `clearfeed/events/request_created.json`: its members, as paths.
    const CREATED: &str = "id type sub_type source request.id request.state request.title request.channel_id \
        request.collection_id request.priority request.request_thread.channel_id request.request_thread.team_id \
        request.request_thread.thread_ts request.triage_thread.channel_id request.triage_thread.team_id \
        request.triage_thread.thread_ts event.type event.visibility event.source event.request_channel.channel_id \
        event.request_channel.team_id event.request_channel.text event.request_channel.ts \
        event.request_channel.user_id event.triage_channel.channel_id event.triage_channel.team_id \
        event.triage_channel.text event.triage_channel.ts event.triage_channel.user_id";
    /// What `request_updated.json` has beside them.
    const UPDATED: &str = "event.request_channel.thread_ts event.triage_channel.thread_ts";

    fn paths(value: &Value, prefix: &str, into: &mut BTreeSet<String>) {
        match value {
            Value::Object(members) => {
                for (name, member) in members {
                    let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
                    paths(member, &path, into);
                }
            }
            _ => assert!(into.insert(prefix.to_owned())),
        }
    }

    #[test]
    fn bodies_have_the_members_that_clearfeed_documents() {
        let documented = |rest: &str| {
            CREATED.split_whitespace().chain(rest.split_whitespace()).map(str::to_owned).collect()
        };
        for (number, wanted) in [(0, documented("")), (1, documented(UPDATED))] {
            let mut found = BTreeSet::new();
            paths(&serde_json::from_slice(&events(1, 1).event(number).body).unwrap(), "", &mut found);
            assert_eq!(found, wanted);
        }
    }

    #[test]
    fn a_body_is_read_as_the_event() {
        let events = events(7, 10);
        for number in 0..5000 {
            let event = events.event(number);
            assert!((1000..=1500).contains(&event.body.len()), "{} bytes", event.body.len());
            let Reading::Event(read) = read(&event.body) else { panic!("{:?}", event.body) };
            assert_eq!((read.id.as_ref(), read.request), (event.id.as_str(), Some(event.request)));
            let sub_type = if number < 10 { "created" } else { "updated" };
            assert_eq!((read.kind.as_ref(), read.sub_type.as_deref()), ("request", Some(sub_type)));
        }
    }

    #[test]
    fn the_seed_alone_decides() {
        let bodies = |seed| (0..200).map(|number| events(seed, 10).event(number)).collect::<Vec<_>>();
        assert_eq!(bodies(1), bodies(1));
        let (one, other) = (bodies(1), bodies(2));
        assert!(one.iter().all(|event| other.iter().all(|o| o.id != event.id && o.request != event.request)));
    }

    #[test]
    fn ids_are_unique_and_requests_share_the_events_evenly() {
        let events = events(random_seed(), 100);
        let mut ids = HashSet::new();
        let mut of_request: HashMap<u64, u32> = HashMap::new();
        for number in 0..10_000 {
            let event = events.event(number);
            assert!(event.id.len() == 32 && event.id.bytes().all(|b| b.is_ascii_hexdigit()));
            assert!(ids.insert(event.id));
            *of_request.entry(event.request).or_default() += 1;
        }
        assert_eq!(of_request.len(), 100);
        assert!(of_request.values().all(|&events| events == 100));
    }
}
