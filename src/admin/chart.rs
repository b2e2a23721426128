//! The last hour as bars, drawn here: what draws in the browser would be a script.

use maud::{Markup, html};

use crate::telemetry::status::LastHour;

/// Of the drawing, in its own units; the page stretches it.
const HEIGHT: f64 = 100.0;
const BAR: f64 = 10.0;
const GAP: f64 = 1.5;

/// A bar a minute, with what was accepted at its foot.
pub(super) fn of(hour: &LastHour) -> Markup {
    let sums = [&hour.accepted, &hour.refused, &hour.failed].map(|minutes| minutes.iter().sum::<u64>());
    let highest = (0..hour.accepted.len()).map(|minute| of_minute(hour, minute).iter().sum()).max();
    let highest: u64 = highest.unwrap_or_default();
    let [accepted, refused, failed] = sums;
    html! {
        p.legend {
            span { i.key.accepted {} (accepted) " accepted" }
            span { i.key.refused {} (refused) " refused" }
            span { i.key.failed {} (failed) " not kept" }
            span.faint { "at most " (highest) " a minute" }
        }
        svg viewBox={ "0 0 " (width(hour)) " " (HEIGHT) } preserveAspectRatio="none" role="img"
            aria-label={ (accepted) " accepted, " (refused) " refused, " (failed) " not kept in the last hour" } {
            @for minute in 0..hour.accepted.len() { (bar(hour, minute, highest)) }
        }
        p.axis.faint { span { (hour.from.strftime("%H:%M")) " UTC" } span { "now" } }
    }
}

fn of_minute(hour: &LastHour, minute: usize) -> [u64; 3] {
    [hour.accepted[minute], hour.refused[minute], hour.failed[minute]]
}

#[allow(clippy::cast_precision_loss)] // for the eye
fn width(hour: &LastHour) -> f64 {
    hour.accepted.len() as f64 * BAR
}

#[allow(clippy::cast_precision_loss)] // for the eye
fn bar(hour: &LastHour, minute: usize, highest: u64) -> Markup {
    let left = minute as f64 * BAR;
    let mut top = HEIGHT;
    let parts = of_minute(hour, minute).map(|count| {
        let height = HEIGHT * count as f64 / highest.max(1) as f64;
        top -= height;
        (top, height)
    });
    html! {
        @for ((top, height), class) in parts.into_iter().zip(["accepted", "refused", "failed"]) {
            @if height > 0.0 {
                rect class=(class) x=(left) y={ (format!("{top:.2}")) } width=(BAR - GAP) height={ (format!("{height:.2}")) } {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_highest_minute_fills_the_height_and_parts_stand_on_each_other() {
        let hour = LastHour {
            accepted: vec![0, 6, 3],
            refused: vec![0, 2, 0],
            failed: vec![0, 0, 1],
            ..LastHour::default()
        };
        let drawn = of(&hour).into_string();
        assert_eq!(drawn.matches("<rect").count(), 4);
        for part in [
            r#"class="accepted" x="10" y="25.00" width="8.5" height="75.00""#,
            r#"class="refused" x="10" y="0.00" width="8.5" height="25.00""#,
            r#"class="failed" x="20" y="50.00" width="8.5" height="12.50""#,
            "9 accepted",
            "at most 8 a minute",
        ] {
            assert!(drawn.contains(part), "{part} in {drawn}");
        }
    }

    #[test]
    fn an_hour_without_deliveries_is_an_empty_chart() {
        let hour = LastHour {
            accepted: vec![0; 60],
            refused: vec![0; 60],
            failed: vec![0; 60],
            ..LastHour::default()
        };
        assert!(!of(&hour).into_string().contains("<rect"));
    }
}
