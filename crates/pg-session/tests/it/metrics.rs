//! Metrics: the text of Prometheus, numbers that move, and the files that name metrics.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use pg_session::{Metrics, UserId};
use tokio::time::Instant;

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

/// What a recorder of the facade was given.
#[derive(Default)]
struct Recorded(Mutex<BTreeMap<String, (String, f64)>>);

struct Number<'a>(&'a Recorded, String, &'static str);

impl Recorder for &'static Recorded {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, help: SharedString) {
        assert!(unit.is_some() && help.ends_with('.'), "{name:?}");
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, help: SharedString) {
        self.describe_counter(name, unit, help);
    }

    fn describe_histogram(&self, name: KeyName, _: Option<Unit>, _: SharedString) {
        panic!("{name:?} is a histogram");
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        assert_eq!(key.labels().count(), 0, "no label has an id");
        Counter::from_arc(Arc::new(Number(self, key.name().to_owned(), "counter")))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        assert_eq!(key.labels().count(), 0, "no label has an id");
        Gauge::from_arc(Arc::new(Number(self, key.name().to_owned(), "gauge")))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        panic!("{key} is a histogram");
    }
}

impl Number<'_> {
    fn put(&self, value: f64) {
        self.0.0.lock().unwrap().insert(self.1.clone(), (self.2.to_owned(), value));
    }
}

impl CounterFn for Number<'_> {
    fn increment(&self, _: u64) {
        panic!("{} is absolute", self.1);
    }

    fn absolute(&self, value: u64) {
        self.put(value as f64);
    }
}

impl GaugeFn for Number<'_> {
    fn increment(&self, _: f64) {
        panic!("{} is set", self.1);
    }

    fn decrement(&self, _: f64) {
        panic!("{} is set", self.1);
    }

    fn set(&self, value: f64) {
        self.put(value);
    }
}

#[tokio::test]
async fn the_facade_is_given_the_numbers_of_the_text() {
    static RECORDED: LazyLock<Recorded> = LazyLock::new(Recorded::default);
    let node = World::new().node().await;
    node.create(UserId::from(1)).await.unwrap();
    let metrics = node.metrics();
    metrics::with_local_recorder(&&*RECORDED, || metrics.record());
    let recorded = RECORDED.0.lock().unwrap();
    let expected: BTreeMap<_, _> = metrics
        .iter()
        .map(|metric| (metric.name.to_owned(), (metric.kind.to_string(), metric.value)))
        .collect();
    assert_eq!(*recorded, expected);
    assert_eq!(recorded["pg_session_creates_total"], ("counter".to_owned(), 1.0));
}

/// Sessions that one scrape finds in memory.
const MANY: usize = 1_000_000;

/// `cargo test --release -p pg-session --all-features --test it metrics::scrape -- --ignored --nocapture`
#[tokio::test]
#[ignore = "takes a minute and 2 GB"]
async fn scrape_of_a_million_sessions_takes_under_5_ms() {
    let world = World::new();
    let mut config = world.config();
    config.cache_sessions_max = 2 * MANY;
    let node = world.node_with(config).await;
    let mut ids = Vec::with_capacity(MANY);
    for chunk in 0..MANY / 1_000 {
        let creates = (0..1_000_usize).map(|number| {
            node.create(UserId::from(i64::try_from(chunk * 1_000 + number).unwrap())).into_future()
        });
        for created in futures_util::future::join_all(creates).await {
            ids.push(created.unwrap().id());
        }
    }
    // What was created while the node was not trusted is not in memory.
    for &id in &ids {
        assert!(node.get(id).no_touch().await.unwrap().is_some());
    }
    assert_eq!(node.status().cache.sessions, MANY);
    let mut times: Vec<Duration> = (0..1_000)
        .map(|_| {
            let began = Instant::now();
            let text = node.metrics().to_string();
            assert!(text.contains("pg_session_cache_sessions 1000000\n"), "{text}");
            began.elapsed()
        })
        .collect();
    times.sort_unstable();
    println!("a scrape of {MANY} sessions: median {:?}, slowest of 1,000 {:?}", times[500], times[999]);
    assert!(times[990] < Duration::from_millis(5), "{:?}", times[990]);
}

/// Rounds with scrapes and spans, and rounds without, one after the other.
///
/// `cargo test --release -p pg-session --all-features --test it metrics::with_and_without -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a measurement"]
async fn with_and_without_scrapes_a_hit_and_an_update_cost_the_same() {
    const ROUNDS: usize = 20;
    let world = World::new();
    let node = world.node().await;
    let mut session = node.create(UserId::from(1)).await.unwrap();
    let id = session.id();
    let mut hits = [Vec::new(), Vec::new()];
    let mut updates = [Vec::new(), Vec::new()];
    for round in 0..2 * ROUNDS {
        let with = round % 2;
        let stop = tokio_util::sync::CancellationToken::new();
        let (scraper, ended) = (node.clone(), stop.clone());
        let scrapes = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_millis(100));
            while with == 1 && !ended.is_cancelled() {
                ticks.tick().await;
                assert!(scraper.metrics().to_string().len() > 1_000);
            }
        });
        let began = Instant::now();
        for _ in 0..200_000 {
            assert!(node.get(id).no_touch().await.unwrap().is_some());
        }
        hits[with].push(began.elapsed() / 200_000);
        let began = Instant::now();
        for number in 0..200 {
            session.set("number", &number).unwrap();
            node.save(&mut session).await.unwrap();
        }
        updates[with].push(began.elapsed() / 200);
        stop.cancel();
        scrapes.await.unwrap();
    }
    for (what, times) in [("hit", &mut hits), ("update", &mut updates)] {
        let [without, with] = times;
        without.sort_unstable();
        with.sort_unstable();
        let (without, with) = (without[ROUNDS / 2], with[ROUNDS / 2]);
        let ratio = with.as_secs_f64() / without.as_secs_f64();
        println!("{what}: {without:?} without scrapes, {with:?} with ten a second, ratio {ratio:.3}");
        assert!(ratio < 1.25, "{what} is slower: {ratio}");
    }
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
