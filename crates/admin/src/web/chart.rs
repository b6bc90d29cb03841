//! Bars as SVG, drawn at the server: no script, no style attribute, a table beside it.

use super::Frame;
use crate::backend::Hour;
use crate::cause::Value;
use crate::escape::{Markup, html, trusted};

const WIDTH: u64 = 720;
const HEIGHT: u64 = 132;

/// Messages over time.
pub(super) struct Chart {
    /// What it shows, as a sentence.
    pub(super) finding: String,
    pub(super) svg: Markup,
    /// Heights of the grid lines, as texts, from the top.
    pub(super) scale: Vec<String>,
    pub(super) labels: Vec<String>,
    pub(super) rows: Vec<(String, Hour)>,
}

impl Chart {
    pub(super) fn of(f: &Frame, hours: &[Hour], days: bool) -> Self {
        let total = |hour: &Hour| hour.delivered + hour.spam + hour.quarantined;
        let most = hours.iter().map(total).max().unwrap_or(0);
        let top = round_up(most.max(4));
        let label = |hour: &Hour| if days { f.w.day(&hour.at) } else { f.w.clock(&hour.at) };
        let sum = hours.iter().map(total).sum();
        let peak = hours.iter().max_by_key(|hour| total(hour)).map(label).unwrap_or_default();
        let key = if sum == 0 { "chart.nothing" } else { "chart.finding" };
        let finding = f.w.plain(key, &[("n", Value::Count(sum)), ("peak", Value::Text(peak))]);
        let count = hours.len().max(1) as u64;
        let step = WIDTH / count;
        let mut svg = String::new();
        for line in 0..=2 {
            let y = line * HEIGHT / 2;
            svg.push_str(&format!("<path class=\"grid\" d=\"M0 {y}.5H{WIDTH}\"/>"));
        }
        for (i, hour) in hours.iter().enumerate() {
            let x = i as u64 * step + 1;
            let width = step.saturating_sub(3).max(2);
            if hour.down {
                svg.push_str(&format!(
                    "<rect class=\"down\" x=\"{x}\" y=\"0\" width=\"{width}\" height=\"{HEIGHT}\"/>"
                ));
                continue;
            }
            let last = if i + 1 == hours.len() { " last" } else { "" };
            let mut bottom = HEIGHT;
            for (class, value) in [("c1", hour.delivered), ("c2", hour.spam), ("c3", hour.quarantined)] {
                let height = if value == 0 { 0 } else { (value * HEIGHT / top).max(2) };
                bottom = bottom.saturating_sub(height);
                if height > 0 {
                    let shown = height.saturating_sub(u64::from(class != "c1")).max(1);
                    svg.push_str(&format!(
                        "<rect class=\"{class}{last}\" x=\"{x}\" y=\"{bottom}\" width=\"{width}\" height=\"{shown}\" rx=\"1\"/>"
                    ));
                }
            }
        }
        let title = html(&finding);
        let svg = format!(
            "<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {}\" role=\"img\" preserveAspectRatio=\"none\"><title>{title}</title>{HATCHES}{svg}</svg>",
            HEIGHT + 1
        );
        let every = hours.len().div_ceil(6).max(1);
        let labels = hours
            .iter()
            .step_by(every)
            .map(|hour| if days { f.w.day(&hour.at)[5..].to_owned() } else { f.w.clock(&hour.at) });
        let labels = labels.map(|label| label.rsplit(' ').next().unwrap_or("").to_owned()).collect();
        Self {
            finding,
            svg: trusted(svg),
            scale: [top, top / 2, 0].iter().map(|n| f.w.number(n)).collect(),
            labels,
            rows: hours.iter().map(|hour| (label(hour), hour.clone())).collect(),
        }
    }
}

const HATCHES: &str = "<defs><pattern id=\"h2\" width=\"5\" height=\"5\" patternUnits=\"userSpaceOnUse\"><rect class=\"f2\" width=\"5\" \
    height=\"5\"/><path class=\"hatch\" d=\"M-1 6 6-1M-1 1 1-1M4 6 6 4\"/></pattern><pattern id=\"h3\" width=\"5\" height=\"5\" \
    patternUnits=\"userSpaceOnUse\"><rect class=\"f3\" width=\"5\" height=\"5\"/><path class=\"hatch\" d=\"M0 0 5 5M5 0 0 5\"/></pattern></defs>";

/// The next of 1, 2, 4, 5, 10, … times a power of ten.
fn round_up(n: u64) -> u64 {
    let mut power = 1;
    loop {
        for step in [1, 2, 4, 5] {
            if step * power >= n && (step * power) % 2 == 0 {
                return step * power;
            }
        }
        power *= 10;
    }
}

/// The last checks as a strip of three heights.
pub(super) fn strip(checks: &[u8], title: &str) -> Markup {
    let mut svg = String::new();
    for (i, check) in checks.iter().take(48).enumerate() {
        let height = [5, 12, 22][usize::from(*check).min(2)];
        let class = ["s0", "s1", "s2"][usize::from(*check).min(2)];
        svg.push_str(&format!(
            "<rect class=\"{class}\" x=\"{}\" y=\"{}\" width=\"6\" height=\"{height}\" rx=\"1\"/>",
            i * 8,
            24 - height
        ));
    }
    trusted(format!(
        "<svg class=\"strip\" viewBox=\"0 0 384 24\" role=\"img\"><title>{}</title>{svg}</svg>",
        html(title)
    ))
}

/// The last days as bars.
pub(super) fn days(days: &[u64], title: &str) -> Markup {
    let top = days.iter().copied().max().unwrap_or(0).max(1);
    let mut svg = String::new();
    for (i, n) in days.iter().take(14).enumerate() {
        let height = if *n == 0 { 1 } else { (n * 40 / top).max(3) };
        svg.push_str(&format!(
            "<rect class=\"c1\" x=\"{}\" y=\"{}\" width=\"20\" height=\"{height}\" rx=\"1\"/>",
            i * 26,
            40 - height
        ));
    }
    trusted(format!(
        "<svg class=\"days\" viewBox=\"0 0 360 40\" role=\"img\"><title>{}</title>{svg}</svg>",
        html(title)
    ))
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_scale_ends_at_a_round_even_number() {
        for (n, top) in [(4, 4), (5, 10), (11, 20), (21, 40), (41, 50), (999, 1000), (1001, 2000)] {
            assert_eq!(super::round_up(n), top, "{n}");
        }
    }
}
