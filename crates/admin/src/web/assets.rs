//! The style sheet, the script and the icon: our own, and all that a page loads.

use axum::extract::Path;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::IntoResponse;

use crate::app::{Answered, Fault};

const FILES: [(&str, &str, &str); 3] = [
    ("style.css", "text/css; charset=utf-8", include_str!("../../assets/style.css")),
    ("script.js", "text/javascript; charset=utf-8", include_str!("../../assets/script.js")),
    ("icon.svg", "image/svg+xml", include_str!("../../assets/icon.svg")),
];

pub(super) async fn serve(Path(file): Path<String>, headers: HeaderMap) -> Answered {
    let (_, kind, text) = FILES.into_iter().find(|(name, ..)| *name == file).ok_or(Fault::NOT_FOUND)?;
    let etag = format!("\"{}\"", &crate::gate::digest(text)[..16]);
    let known = headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == etag.as_bytes());
    let tag = HeaderValue::from_str(&etag).unwrap_or(HeaderValue::from_static("\"\""));
    // Asked for again at each page, and as a rule answered with "not modified": a new version is never met by an old script.
    let fields = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
        (header::ETAG, tag),
    ];
    if known {
        return Ok((StatusCode::NOT_MODIFIED, fields).into_response());
    }
    Ok((fields, text).into_response())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    const STYLE: &str = include_str!("../../assets/style.css");

    /// Relative luminance (WCAG 2.2) of `#rgb` or `#rrggbb`.
    fn luminance(colour: &str) -> f64 {
        let digits: Vec<u32> = colour.trim_start_matches('#').chars().filter_map(|c| c.to_digit(16)).collect();
        let channels: Vec<u32> = if digits.len() == 3 {
            digits.iter().map(|digit| digit * 17).collect()
        } else {
            digits.chunks(2).map(|pair| pair[0] * 16 + pair[1]).collect()
        };
        let linear = |channel: u32| {
            let c = f64::from(channel) / 255.0;
            if c <= 0.04045 { c / 12.92 } else { ((c + 0.055) / 1.055).powf(2.4) }
        };
        0.2126 * linear(channels[0]) + 0.7152 * linear(channels[1]) + 0.0722 * linear(channels[2])
    }

    fn contrast(a: &str, b: &str) -> f64 {
        let (a, b) = (luminance(a), luminance(b));
        (a.max(b) + 0.05) / (a.min(b) + 0.05)
    }

    #[test]
    fn every_pair_of_colours_can_be_read_in_light_and_dark() {
        let colours: HashMap<&str, Vec<&str>> = STYLE
            .split("--")
            .filter_map(|part| part.split_once(":light-dark("))
            .map(|(name, rest)| (name, rest.split(')').next().unwrap_or("").split(',').collect()))
            .collect();
        assert!(colours.len() > 20, "{colours:?}");
        let text = [
            ("text", "surface"),
            ("text", "bg"),
            ("text", "inset"),
            ("muted", "surface"),
            ("muted", "bg"),
            ("muted", "inset"),
        ];
        let text = text.into_iter().chain([
            ("accent", "surface"),
            ("accent", "bg"),
            ("accent", "inset"),
            ("on-accent", "accent"),
            ("text", "info-bg"),
        ]);
        let states = ["ok", "warn", "bad", "info", "off"];
        let own: Vec<String> = states.iter().map(|state| format!("{state}-bg")).collect();
        let text = text.chain(states.iter().zip(&own).map(|(state, own)| (*state, own.as_str())));
        let text = text.chain(states.iter().map(|state| (*state, "surface")));
        let edges = [
            ("edge", "surface"),
            ("edge", "inset"),
            ("chart-1", "surface"),
            ("chart-2", "surface"),
            ("chart-3", "surface"),
        ];
        for (least, a, b) in text.map(|(a, b)| (4.5, a, b)).chain(edges.into_iter().map(|(a, b)| (3.0, a, b))) {
            for theme in [0, 1] {
                let ratio = contrast(colours[a][theme], colours[b][theme]);
                assert!(ratio >= least, "{a} on {b}: {ratio:.1}, theme {theme}");
            }
        }
    }

    #[test]
    fn the_page_is_light_and_loads_nothing_from_elsewhere() {
        assert!(STYLE.len() < 20_000, "{} octets", STYLE.len());
        assert!(super::FILES.iter().all(|(name, _, text)| *name == "icon.svg" || !text.contains("://")));
    }
}
