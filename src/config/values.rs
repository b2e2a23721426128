//! The kinds of values: how each is read, and what is wanted in words.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bytesize::ByteSize;
use ipnet::IpNet;
use tracing_subscriber::EnvFilter;

use super::{ApiUrl, LogFormat, Role, StartAt};
use crate::domain::route::{Template, TopicName};
use crate::domain::signature::SignedUrl;

/// How a text becomes a `T`.
pub(super) struct Kind<T> {
    /// For people, after the word "wanted".
    pub(super) wanted: &'static str,
    parser: Parser<T>,
}

enum Parser<T> {
    /// Where it fails, the kind's `wanted` says all.
    Simple(fn(&str) -> Option<T>),
    /// Where it fails, the error says more exactly what is wanted.
    Exact(fn(&str) -> Result<T, &'static str>),
}

impl<T> Kind<T> {
    const fn simple(wanted: &'static str, parser: fn(&str) -> Option<T>) -> Self {
        Self { wanted, parser: Parser::Simple(parser) }
    }

    const fn exact(wanted: &'static str, parser: fn(&str) -> Result<T, &'static str>) -> Self {
        Self { wanted, parser: Parser::Exact(parser) }
    }

    /// Reads a text. The error says what is wanted.
    pub(super) fn parse(&self, text: &str) -> Result<T, &'static str> {
        match self.parser {
            Parser::Simple(parser) => parser(text).ok_or(self.wanted),
            Parser::Exact(parser) => parser(text),
        }
    }
}

/// `{hostname}` in a transactional id.
pub(super) const HOSTNAME_PLACEHOLDER: &str = "{hostname}";

const WANTED_START: &str = "beginning, end or a time such as 2026-01-31T12:00:00Z";
const HOUR: Duration = Duration::from_secs(3600);
/// Longer than anything in Kafka is kept, and short enough that sums of durations never overflow.
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);

pub(super) const ROLE: Kind<Role> = Kind::simple("all, intake or forward", |text| {
    [Role::All, Role::Intake, Role::Forward].into_iter().find(|role| role.as_str() == text)
});
pub(super) const ADDRESS: Kind<SocketAddr> =
    Kind::simple("an IP address and a port, such as 0.0.0.0:8080 or [::]:8080", from_str);
pub(super) const NETWORK: Kind<IpNet> = Kind::simple("a network such as 10.0.0.0/8 or fd00::/8", from_str);
// The least leaves room for any ping. The most: with its headers a body is one Kafka record, and brokers are
// made for records of about 1 MiB; each one of 16 MiB already costs them and every consumer many times that
// in buffers.
pub(super) const BODY_SIZE: Kind<usize> =
    Kind::simple("a size such as 64KiB or 1MiB, from 1KiB to 16MiB", |text| size(text, 1 << 10..=16 << 20));
pub(super) const BUFFER_SIZE: Kind<usize> =
    Kind::simple("a size such as 64MiB, from 1KiB to 64GiB", |text| size(text, 1 << 10..=64 << 30));
// More than one process has file descriptors for.
pub(super) const COUNT: Kind<usize> =
    Kind::simple("a whole number from 1 to 1000000", |text| number(text, 1..=1_000_000));
pub(super) const DURATION: Kind<Duration> =
    Kind::simple("a duration such as 5m or 1h30m, from 1ms to 365d", |text| {
        duration(text, Duration::from_millis(1)..=YEAR)
    });
pub(super) const DURATION_OR_ZERO: Kind<Duration> =
    Kind::simple("a duration such as 0s, 5m or 1h30m, at most 365d", |text| {
        duration(text, Duration::ZERO..=YEAR)
    });
// More often than every second nobody needs, and ClearFeed's limits are not known.
pub(super) const DURATION_OR_NEVER: Kind<Option<Duration>> =
    Kind::exact("a duration such as 5m, from 1s to 365d", |text| match text {
        "" => Ok(None),
        text => duration(text, Duration::from_secs(1)..=YEAR)
            .map(Some)
            .ok_or("a duration such as 5m, from 1s to 365d"),
    });
// Kafka deletes by segment, and a restart of the forward half alone may take minutes: below an hour records
// would go unread without any fault.
pub(super) const RETENTION: Kind<Duration> =
    Kind::simple("a duration such as 72h, from 1h to 365d", |text| duration(text, HOUR..=YEAR));
pub(super) const URL: Kind<SignedUrl> =
    Kind::exact("an https URL with a path, without user and fragment", SignedUrl::parse);
pub(super) const API_URL: Kind<ApiUrl> =
    Kind::exact("an https URL without user, query and fragment; http to this machine alone", ApiUrl::parse);
pub(super) const FLAG: Kind<bool> = Kind::simple("true or false", from_str);
pub(super) const FILE: Kind<PathBuf> = Kind::simple("a file's path", |text| {
    let one_line = !text.is_empty() && !text.contains(char::is_control);
    one_line.then(|| PathBuf::from(text))
});
pub(super) const FILE_OR_NONE: Kind<Option<PathBuf>> =
    Kind::exact(FILE.wanted, |text| if text.is_empty() { Ok(None) } else { FILE.parse(text).map(Some) });
pub(super) const DIRECTORY_OR_NONE: Kind<Option<PathBuf>> = Kind::exact("a directory's path", |text| {
    if text.is_empty() { Ok(None) } else { FILE.parse(text).map(Some).map_err(|_| "a directory's path") }
});
// The least holds a few bodies of any legal size.
pub(super) const SPOOL_SIZE: Kind<u64> = Kind::simple("a size such as 1GiB, from 64MiB to 1TiB", |text| {
    size(text, 64 << 20..=1 << 40).map(|size| size as u64)
});
pub(super) const TEMPLATE: Kind<Template> =
    Kind::exact("a topic name in which {type} may stand once, after a prefix", Template::parse);
pub(super) const TOPIC: Kind<TopicName> = Kind::simple(TopicName::WANTED, TopicName::new);
pub(super) const SERVERS: Kind<String> = Kind::simple("host:port, several with commas between them", servers);
// Kafka's own advice ends at some thousands a broker; a slip of the finger should not ask for a million.
pub(super) const PARTITIONS: Kind<i32> =
    Kind::simple("a whole number from 1 to 10000", |text| number(text, 1..=10_000));
// The protocol carries it in 16 bits.
pub(super) const REPLICAS: Kind<i32> =
    Kind::simple("-1 (the broker's default) or a whole number from 1 to 32767", |text| {
        number(text, -1..=32_767).filter(|replicas| *replicas != 0)
    });
pub(super) const PROPERTY: Kind<String> = Kind::simple("a value", |text| Some(text.to_owned()));
pub(super) const GROUP: Kind<String> = Kind::simple("1 to 200 visible ASCII characters", visible);
pub(super) const TRANSACTIONAL_ID: Kind<String> =
    Kind::simple("1 to 200 visible ASCII characters, {hostname} being the only placeholder", |text| {
        let braces = text.replace(HOSTNAME_PLACEHOLDER, "").contains(['{', '}']);
        visible(text).filter(|_| !braces)
    });
// Empty is the default: partitions stay held, nothing is skipped or repeated without being asked for.
pub(super) const START_AT: Kind<Option<StartAt>> =
    Kind::exact(WANTED_START, |text| if text.is_empty() { Ok(None) } else { start_at(text).map(Some) });
// The window's table addresses ids with 32 bits; at about 50 bytes an id this is more than a replica's
// memory.
pub(super) const IDS: Kind<usize> =
    Kind::simple("a whole number from 1 to 1000000000", |text| number(text, 1..=1_000_000_000));
pub(super) const LOG_FILTER: Kind<String> =
    Kind::simple("a tracing filter such as info or warn,clearfeed_relay=debug", |text| {
        let legal = !text.is_empty() && EnvFilter::builder().parse(text).is_ok();
        legal.then(|| text.to_owned())
    });
pub(super) const LOG_FORMAT: Kind<LogFormat> = Kind::simple("auto, text or json", |text| match text {
    "auto" => Some(LogFormat::Auto),
    "text" => Some(LogFormat::Text),
    "json" => Some(LogFormat::Json),
    _ => None,
});

fn from_str<T: FromStr>(text: &str) -> Option<T> {
    text.parse().ok()
}

fn number<N: FromStr + PartialOrd>(text: &str, range: RangeInclusive<N>) -> Option<N> {
    from_str(text).filter(|number| range.contains(number))
}

fn size(text: &str, range: RangeInclusive<u64>) -> Option<usize> {
    let size = from_str::<ByteSize>(text)?.as_u64();
    usize::try_from(size).ok().filter(|_| range.contains(&size))
}

fn duration(text: &str, range: RangeInclusive<Duration>) -> Option<Duration> {
    humantime::parse_duration(text).ok().filter(|duration| range.contains(duration))
}

fn visible(text: &str) -> Option<String> {
    let legal = (1..=200).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_graphic());
    legal.then(|| text.to_owned())
}

fn servers(text: &str) -> Option<String> {
    let is_server = |server: &str| {
        let (host, port) = server.trim().rsplit_once(':')?;
        (!host.is_empty() && host.bytes().all(|b| b.is_ascii_graphic()) && port.parse::<u16>().is_ok())
            .then_some(())
    };
    text.split(',').all(|server| is_server(server).is_some()).then(|| text.to_owned())
}

fn start_at(text: &str) -> Result<StartAt, &'static str> {
    match text {
        "beginning" => Ok(StartAt::Beginning),
        "end" => Ok(StartAt::End),
        _ => from_str(text).map(StartAt::Time).ok_or(WANTED_START),
    }
}
