//! What docs/monitoring names is what `/metrics` has.

use std::collections::{BTreeMap, BTreeSet};

use connectord_admin::{Code, Health};

use crate::support::{Sample, call, serve_sample};

fn docs(name: &str) -> String {
    let path = format!("{}/../../docs/{name}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Names of figures in a text, and the values of labels that stand behind each.
fn named(text: &str) -> BTreeMap<String, BTreeSet<(String, String)>> {
    let mut named: BTreeMap<String, BTreeSet<(String, String)>> = BTreeMap::new();
    for part in text.split("connectord_").skip(1) {
        let end = part.find(|c: char| !(c.is_ascii_lowercase() || c == '_')).unwrap_or(part.len());
        let labels = named.entry(part[..end].to_owned()).or_default();
        let Some(inside) = part[end..].strip_prefix('{').and_then(|rest| rest.split_once('}')) else { continue };
        for label in inside.0.split(',') {
            // What is said to be unequal or like is no value.
            let Some((name, value)) = label.trim().split_once('=').filter(|(name, _)| !name.ends_with('!')) else {
                continue;
            };
            labels.insert((name.to_owned(), value.trim_matches('"').to_owned()));
        }
    }
    named
}

/// Expressions of the rules or of the dashboard.
fn expressions() -> Vec<(String, String)> {
    let dashboard: serde_json::Value = serde_json::from_str(&docs("monitoring/dashboard.json")).expect("JSON");
    let mut expressions = Vec::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        for target in panel["targets"].as_array().expect("targets") {
            expressions
                .push((format!("panel {}", panel["title"]), target["expr"].as_str().expect("a text").to_owned()));
        }
    }
    assert!(expressions.len() >= 10, "the dashboard is empty");
    for rule in docs("monitoring/alerts.yml").split("- alert: ").skip(1) {
        let (name, rest) = rule.split_once('\n').expect("a name");
        let from = rest.find("expr:").expect("an expression") + 5;
        let to = rest.find("labels:").expect("labels");
        let expression = rest[from..to].split("for:").next().unwrap_or_default().trim_start_matches(" >-");
        expressions.push((format!("alert {name}"), expression.to_owned()));
    }
    expressions
}

#[tokio::test]
async fn every_figure_that_alerts_and_dashboard_name_is_there() {
    let served = serve_sample(Sample::new(300)).await;
    let token = served.token("read").await;
    let metrics = call(&served, &token, "get", "/metrics", None).await.text;
    let there = named(&metrics);
    let described = docs("monitoring.md");
    for name in there.keys() {
        assert!(described.contains(&format!("| `{name}` |")), "docs/monitoring.md does not describe {name}");
    }
    for (place, expression) in expressions() {
        let found = named(&expression);
        assert!(!found.is_empty() || expression.contains("up{job"), "{place} asks for nothing: {expression}");
        for (name, labels) in found {
            let known = there.get(&name).unwrap_or_else(|| panic!("{place} names {name}, which is not in /metrics"));
            for label in labels.into_iter().filter(|(name, _)| name != "job") {
                assert!(known.contains(&label), "{place} asks {name} for {label:?}, which it never has");
            }
        }
    }
    // A label's every value is there, also where it counts nothing: an alert on it works before its first case.
    let values = |name: &str| there[name].len();
    assert_eq!((values("cause_accounts"), values("accounts")), (Code::ALL.len(), Health::ALL.len()));
}

#[tokio::test]
async fn every_alert_is_described_and_every_described_alert_is_there() {
    let (rules, described) = (docs("monitoring/alerts.yml"), docs("monitoring.md"));
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let rows = described.lines().filter_map(|line| line.strip_prefix("| `Connectord")?.split('`').next());
    let rows: Vec<String> = rows.map(|name| format!("Connectord{name}")).collect();
    let (mut alerts, mut rows) = (alerts.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>(), rows);
    alerts.sort();
    rows.sort();
    assert_eq!(alerts, rows);
}

#[tokio::test]
async fn the_most_overdue_check_is_told() {
    let sample = Sample::new(30);
    sample.overdue("a8", 7200);
    let served = serve_sample(sample).await;
    let token = served.token("read").await;
    let metrics = call(&served, &token, "get", "/metrics", None).await.text;
    let line =
        metrics.lines().find_map(|line| line.strip_prefix("connectord_check_overdue_seconds ")).expect("a figure");
    let seconds: u64 = line.parse().expect("a number");
    assert!((7200..7800).contains(&seconds), "{seconds}");
}
