//! How a metric of the catalogue becomes series in the registry: each label value is there at 0 from the start, and is found
//! again by an index instead of a look-up by text.

use std::collections::BTreeSet;
use std::marker::PhantomData;
use std::sync::{Mutex, PoisonError};

use prometheus::{
    Gauge, GaugeVec, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, Opts, Registry,
};

use super::labels::Label;

/// Stands before every name of ours.
pub const PREFIX: &str = "clearfeed_relay_";

/// What Prometheus calls the type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts observations by size.
    Histogram,
}

impl Kind {
    /// Prometheus's word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

/// A row of the catalogue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// With the prefix.
    pub name: String,
    /// Its type.
    pub kind: Kind,
    /// The labels' names.
    pub labels: Vec<&'static str>,
    /// Meaning and unit.
    pub help: &'static str,
}

impl Entry {
    pub(super) fn of<F: Family>(
        name: &str,
        help: &'static str,
        outer: &[&'static str],
        shape: F::Shape,
    ) -> Self {
        let labels = [outer, &F::labels(shape)].concat();
        Self { name: format!("{PREFIX}{name}"), kind: F::KIND, labels, help }
    }
}

/// Anything that can be a field of the catalogue.
pub(super) trait Family: Sized {
    /// What its making needs to know: a histogram its buckets, an open set of series its label.
    type Shape: Copy;
    const KIND: Kind;
    /// The names of its own labels.
    fn labels(shape: Self::Shape) -> Vec<&'static str>;
    /// Makes and registers its series.
    fn register(registry: &Registry, opts: Opts, shape: Self::Shape) -> Result<Self, prometheus::Error>;
}

/// Name, help and the labels that all metrics of a group have.
pub(super) fn opts(name: &str, help: &str, outer: &[(&str, &str)]) -> Opts {
    let opts = Opts::new(format!("{PREFIX}{name}"), help);
    outer.iter().fold(opts, |opts, (label, value)| opts.const_label(*label, *value))
}

/// The metrics that are one series each differ only in their type and shape.
macro_rules! single {
    ($($metric:ty, $kind:ident, $shape:ty, |$opts:ident, $given:ident| $new:expr;)+) => {$(
        impl Family for $metric {
            type Shape = $shape;
            const KIND: Kind = Kind::$kind;

            fn labels(_: $shape) -> Vec<&'static str> {
                Vec::new()
            }

            fn register(registry: &Registry, $opts: Opts, $given: $shape) -> Result<Self, prometheus::Error> {
                let metric = $new?;
                registry.register(Box::new(metric.clone()))?;
                Ok(metric)
            }
        }
    )+};
}

single! {
    IntCounter, Counter, (), |opts, _shape| IntCounter::with_opts(opts);
    IntGauge, Gauge, (), |opts, _shape| IntGauge::with_opts(opts);
    Gauge, Gauge, (), |opts, _shape| Gauge::with_opts(opts);
    Histogram, Histogram, &'static [f64], |opts, buckets| Histogram::with_opts(HistogramOpts::from(opts).buckets(buckets.to_vec()));
}

/// One metric for each value of a closed label; may be nested for two labels.
#[derive(Debug)]
pub struct Labelled<L, M> {
    /// In the order of `L::ALL`.
    metrics: Vec<M>,
    label: PhantomData<L>,
}

impl<L: Label, M> Labelled<L, M> {
    /// The metric of this value.
    pub fn of(&self, value: L) -> &M {
        &self.metrics[value.index()]
    }
}

impl<L: Label, F: Family> Family for Labelled<L, F> {
    type Shape = F::Shape;
    const KIND: Kind = F::KIND;

    fn labels(shape: F::Shape) -> Vec<&'static str> {
        [vec![L::NAME], F::labels(shape)].concat()
    }

    fn register(registry: &Registry, opts: Opts, shape: F::Shape) -> Result<Self, prometheus::Error> {
        let one = |value: &L| F::register(registry, opts.clone().const_label(L::NAME, value.as_str()), shape);
        Ok(Self { metrics: L::ALL.iter().map(one).collect::<Result<_, _>>()?, label: PhantomData })
    }
}

/// Gauges under numbers that only Kafka knows (partitions, brokers): the one kind of series that comes and goes.
#[derive(Debug)]
pub struct Numbered {
    gauges: GaugeVec,
    present: Mutex<BTreeSet<i32>>,
}

impl Numbered {
    /// Sets these and removes all others, so that a partition or broker that left does not go on showing its last value.
    pub fn replace(&self, values: impl IntoIterator<Item = (i32, f64)>) {
        let mut present = self.present.lock().unwrap_or_else(PoisonError::into_inner);
        let mut now = BTreeSet::new();
        for (number, value) in values {
            self.gauges.with_label_values(&[&number.to_string()]).set(value);
            now.insert(number);
        }
        for gone in present.difference(&now) {
            // It can only fail where there is no such series, which is what is wanted.
            let _ = self.gauges.remove_label_values(&[&gone.to_string()]);
        }
        *present = now;
    }
}

impl Family for Numbered {
    type Shape = &'static str;
    const KIND: Kind = Kind::Gauge;

    fn labels(label: &'static str) -> Vec<&'static str> {
        vec![label]
    }

    fn register(registry: &Registry, opts: Opts, label: &'static str) -> Result<Self, prometheus::Error> {
        let gauges = GaugeVec::new(opts, &[label])?;
        registry.register(Box::new(gauges.clone()))?;
        Ok(Self { gauges, present: Mutex::default() })
    }
}

/// Counters under slots, of which each source has as many as it has secret files.
#[derive(Debug)]
pub(super) struct Slots(IntCounterVec);

impl Slots {
    pub(super) fn of(&self, slot: usize) -> IntCounter {
        self.0.with_label_values(&[&slot.to_string()])
    }
}

impl Family for Slots {
    type Shape = ();
    const KIND: Kind = Kind::Counter;

    fn labels((): ()) -> Vec<&'static str> {
        vec!["slot"]
    }

    fn register(registry: &Registry, opts: Opts, (): ()) -> Result<Self, prometheus::Error> {
        let counters = IntCounterVec::new(opts, &Self::labels(()))?;
        registry.register(Box::new(counters.clone()))?;
        Ok(Self(counters))
    }
}

/// A group of the catalogue: each line is a field, its documentation, its series and its row in the table at once, so that
/// none of the four can be forgotten or say something else. `labelled` names the labels that the whole group has.
macro_rules! families {
    ($(#[$doc:meta])* $vis:vis struct $group:ident labelled [$($outer:literal),*] {
        $($field_vis:vis $field:ident: $family:ty [$($shape:expr)?] = $name:literal, $help:literal;)+
    }) => {
        $(#[$doc])*
        #[derive(Debug)]
        #[allow(clippy::doc_markdown)] // a help text is read in Grafana, where backticks are noise
        $vis struct $group { $(#[doc = $help] $field_vis $field: $family,)+ }

        impl $group {
            const LABELS: &'static [&'static str] = &[$($outer),*];

            fn register(registry: &Registry, values: &[&str]) -> Result<Self, prometheus::Error> {
                let outer: Vec<_> = Self::LABELS.iter().copied().zip(values.iter().copied()).collect();
                Ok(Self { $($field: Family::register(registry, opts($name, $help, &outer), ($($shape)?))?,)+ })
            }

            fn catalogue() -> Vec<Entry> {
                vec![$(Entry::of::<$family>($name, $help, Self::LABELS, ($($shape)?)),)+]
            }
        }
    };
}
pub(super) use families;
