//! A small writer of charts: both axes logarithmic, readable in light and in dark, with a title and a description.

use std::fmt::Write;

pub(crate) struct Chart {
    pub(crate) title: String,
    /// What the horizontal axis counts.
    pub(crate) across: String,
    /// What the vertical axis counts.
    pub(crate) up: String,
    pub(crate) series: Vec<Series>,
}

pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) dashed: bool,
    /// Both positive.
    pub(crate) points: Vec<(f64, f64)>,
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 230.0;
const TOP: f64 = 50.0;
const BOTTOM: f64 = 60.0;

impl Chart {
    pub(crate) fn svg(&self) -> String {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let (left, right) = decades(points().map(|(x, _)| *x));
        let (low, high) = decades(points().map(|(_, y)| *y));
        let x = |value: f64| LEFT + (value.log10() - left) / (right - left) * (WIDTH - LEFT - RIGHT);
        let y = |value: f64| HEIGHT - BOTTOM - (value.log10() - low) / (high - low) * (HEIGHT - TOP - BOTTOM);
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" \
             aria-labelledby=\"title desc\" font-family=\"sans-serif\" font-size=\"13\">\n\
             <title id=\"title\">{}: {} by {}</title>\n<desc id=\"desc\">{}</desc>\n\
             <style>\n.ground {{ fill: #ffffff }} text {{ fill: #1b1b1b }} .grid {{ stroke: #d5d5d5 }}\n\
             .s0 {{ stroke: #0b57a4; fill: #0b57a4 }} .s1 {{ stroke: #a34a00; fill: #a34a00 }}\n\
             .s2 {{ stroke: #3d6b1f; fill: #3d6b1f }} .s3 {{ stroke: #6f2da8; fill: #6f2da8 }}\n\
             .s4 {{ stroke: #8a1538; fill: #8a1538 }} .s5 {{ stroke: #4a4a4a; fill: #4a4a4a }}\n\
             @media (prefers-color-scheme: dark) {{\n\
             .ground {{ fill: #16181c }} text {{ fill: #e8e8e8 }} .grid {{ stroke: #3a3d42 }}\n\
             .s0 {{ stroke: #7db8f7; fill: #7db8f7 }} .s1 {{ stroke: #f5a55c; fill: #f5a55c }}\n\
             .s2 {{ stroke: #9fd37a; fill: #9fd37a }} .s3 {{ stroke: #c9a3ee; fill: #c9a3ee }}\n\
             .s4 {{ stroke: #f28aa6; fill: #f28aa6 }} .s5 {{ stroke: #b8b8b8; fill: #b8b8b8 }}\n}}\n\
             polyline {{ fill: none !important; stroke-width: 2 }}\n</style>\n\
             <rect class=\"ground\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/>\n\
             <text x=\"{LEFT}\" y=\"26\" font-size=\"16\">{}</text>\n",
            escape(&self.title),
            escape(&self.up),
            escape(&self.across),
            escape(&self.description()),
            escape(&self.title),
        );
        for decade in left as i32..=right as i32 {
            let at = x(10_f64.powi(decade));
            let _ = writeln!(
                out,
                "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{TOP}\" y2=\"{}\"/>\
                 <text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                HEIGHT - BOTTOM,
                HEIGHT - BOTTOM + 20.0,
                number(10_f64.powi(decade))
            );
        }
        for decade in low as i32..=high as i32 {
            let at = y(10_f64.powi(decade));
            let _ = writeln!(
                out,
                "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
                 <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                WIDTH - RIGHT,
                LEFT - 8.0,
                at + 4.0,
                number(10_f64.powi(decade))
            );
        }
        let _ = writeln!(
            out,
            "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text><text x=\"{LEFT}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            f64::midpoint(LEFT, WIDTH - RIGHT),
            HEIGHT - 16.0,
            escape(&self.across),
            TOP - 8.0,
            escape(&self.up)
        );
        for (n, series) in self.series.iter().enumerate() {
            let class = format!("s{}", n % 6);
            let dash = if series.dashed { " stroke-dasharray=\"6 4\"" } else { "" };
            let line: Vec<String> = series.points.iter().map(|(a, b)| format!("{:.1},{:.1}", x(*a), y(*b))).collect();
            let _ = writeln!(out, "<polyline class=\"{class}\"{dash} points=\"{}\"/>", line.join(" "));
            for (a, b) in &series.points {
                let (a, b) = (x(*a), y(*b));
                let _ = writeln!(out, "<circle class=\"{class}\" cx=\"{a:.1}\" cy=\"{b:.1}\" r=\"3\"/>");
            }
            let at = TOP + 10.0 + 22.0 * n as f64;
            let from = WIDTH - RIGHT + 14.0;
            let _ = writeln!(
                out,
                "<polyline class=\"{class}\"{dash} points=\"{from},{at} {},{at}\"/><text x=\"{}\" y=\"{}\">{}</text>",
                from + 26.0,
                from + 32.0,
                at + 4.0,
                escape(&series.name)
            );
        }
        out + "</svg>\n"
    }

    /// All points in words.
    fn description(&self) -> String {
        let series = self.series.iter().map(|series| {
            let points = series.points.iter().map(|(x, y)| format!("{} at {}", round(*y), number(*x)));
            format!("{}: {}", series.name, points.collect::<Vec<_>>().join(", "))
        });
        format!("Both axes are logarithmic. {}.", series.collect::<Vec<_>>().join("; "))
    }
}

/// The powers of ten around these values.
fn decades(values: impl Iterator<Item = f64>) -> (f64, f64) {
    let (least, most) =
        values.fold((f64::INFINITY, 0.0_f64), |(least, most), value| (least.min(value), most.max(value)));
    if most <= 0.0 {
        return (0.0, 1.0);
    }
    let (low, high) = (least.max(1e-6).log10().floor(), most.log10().ceil());
    (low, high.max(low + 1.0))
}

fn number(value: f64) -> String {
    if value >= 1.0 { format!("{value:.0}") } else { round(value) }
}

fn round(value: f64) -> String {
    let text = format!("{value:.4}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
