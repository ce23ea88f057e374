//! Metrics: the text of Prometheus, numbers that move, and the files that name metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use pg_session::{Metrics, UserId};

use crate::support::World;

/// The samples of the text, after a check of each line. As a scraper reads them.
fn samples(text: &str) -> BTreeMap<String, f64> {
    let mut lines = text.lines();
    let mut samples = BTreeMap::new();
    while let Some(help) = lines.next() {
        let (name, sentence) = help.strip_prefix("# HELP ").and_then(|rest| rest.split_once(' ')).unwrap();
        assert!(sentence.ends_with('.'), "{help}");
        let kind = lines.next().and_then(|line| line.strip_prefix("# TYPE ")).unwrap();
        let expected = if name.ends_with("_total") { "counter" } else { "gauge" };
        assert_eq!(kind, format!("{name} {expected}"));
        let (sample, value) = lines.next().and_then(|line| line.split_once(' ')).unwrap();
        // Without a label: the name is all there is before the value.
        assert_eq!(sample, name);
        assert_eq!(samples.insert(name.to_owned(), value.parse().unwrap()), None, "{name} twice");
    }
    samples
}

#[tokio::test]
async fn metrics_are_prometheus_text_and_counters_move() {
    let world = World::new();
    let node = world.node().await;
    let before = samples(&node.metrics().to_string());
    assert_eq!(before.len(), node.metrics().iter().count());
    assert_eq!((before["pg_session_trusted"], before["pg_session_cache_hits_total"]), (1.0, 0.0));
    let window = node.config().trust_window.as_secs_f64();
    assert_eq!(before["pg_session_trust_window_seconds"], window);
    assert!((0.0..=window).contains(&before["pg_session_trust_remaining_seconds"]));

    let id = node.create(UserId::from(1)).await.unwrap().id();
    for _ in 0..3 {
        assert!(node.get(id).await.unwrap().unwrap().is_from_cache());
    }
    let after = samples(&node.metrics().to_string());
    let grown = |name: &str| after[name] - before[name];
    assert_eq!(grown("pg_session_cache_hits_total"), 3.0);
    assert_eq!(grown("pg_session_creates_total"), 1.0);
    assert_eq!(grown("pg_session_create_statements_total"), 1.0);
    assert_eq!(grown("pg_session_cache_sessions"), 1.0);
    assert!(grown("pg_session_cache_bytes") > 0.0);
    assert!(after["pg_session_cache_limit_bytes"] >= after["pg_session_cache_bytes"]);
    assert!(Metrics::CONTENT_TYPE.starts_with("text/plain; version=0.0.4"));
}

/// All words of a text that look like the name of a metric.
fn metrics_in(text: &str) -> BTreeSet<&str> {
    let is_part = |char: char| char.is_ascii_alphanumeric() || char == '_';
    text.split(|char| !is_part(char)).filter(|word| word.starts_with("pg_session_")).collect()
}

fn document(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs").join(name);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[tokio::test]
async fn board_and_alerts_name_the_metrics_that_exist() {
    let node = World::new().node().await;
    let metrics = node.metrics();
    let known: BTreeSet<&str> = metrics.iter().map(|metric| metric.name).collect();
    let board = document("grafana.json");
    serde_json::from_str::<serde_json::Value>(&board).expect("the board is JSON");
    let alerts = document("alerts.yml");
    let runbooks = document("runbooks.md");
    for (name, text) in [("grafana.json", &board), ("alerts.yml", &alerts), ("runbooks.md", &runbooks)] {
        let unknown: Vec<_> = metrics_in(text).difference(&known).copied().collect();
        assert!(unknown.is_empty(), "{name} names metrics that do not exist: {unknown:?}");
    }
    let missing: Vec<_> = known.difference(&metrics_in(&board)).copied().collect();
    assert!(missing.is_empty(), "the board does not show {missing:?}");

    // Each alert leads to a page that names it.
    let names: Vec<&str> = alerts.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let pages: Vec<&str> = alerts
        .lines()
        .filter_map(|line| line.trim().strip_prefix("runbook_url: "))
        .filter_map(|url| url.split_once("/docs/runbooks.md#").map(|(_, anchor)| anchor))
        .collect();
    assert_eq!((names.len(), pages.len()), (6, 6), "{names:?} {pages:?}");
    let anchor = |heading: &str| heading.to_lowercase().replace(' ', "-");
    for (alert, page) in names.iter().zip(pages) {
        let text = runbooks
            .split("\n## ")
            .find(|text| anchor(text.lines().next().unwrap_or_default()) == page)
            .unwrap_or_else(|| panic!("no page {page}"));
        assert!(text.contains(alert), "the page {page} does not name {alert}");
    }
}
