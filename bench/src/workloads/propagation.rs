//! Propagation: how long after an update on one node another node shows it.
//!
//! The time counts from the acknowledgement, because earlier there is no promise. It is how long a user with an answer
//! may still see the old state on another node. It includes the other node's read of the new version from the database.
//! The floor is a bare NOTIFY, from its sending on one connection until another receives it; it changes no row, so it
//! waits for no disk. For other comparisons, both are also taken the other way round: ours from its sending, and a
//! durable single-row statement with a NOTIFY from its acknowledgement.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use pg_session::{SessionId, SessionManager, Version};
use tokio::sync::Mutex;
use tokio_postgres::{Client, Statement};

use super::lineup::parts;
use crate::book::{Figures, Metric};
use crate::contest::{Bench, Contest};
use crate::drive::{Crew, Op};
use crate::names::propagation::{IDLE, NAME, NOTIFY, OURS};
use crate::payload::{COUNTER, Payload};
use crate::peers::ours::{Node, Tables};
use crate::plan::Plan;
use crate::servers::{Arrivals, Servers};

const LOADED: &str = "beside 64 updates in flight";
const OURS_SENT: &str = "ours, sent to visible";
const STATEMENT: &str = "bare statement, acknowledged to received";

/// Sessions under load, and beyond them those that are watched.
const LOAD_SESSIONS: usize = 9_000;
const SESSIONS: usize = 10_000;
const LOAD_IN_FLIGHT: usize = 64;
/// Between two samples, so that one does not meet the other's traces.
const PAUSE: Duration = Duration::from_millis(2);

/// From when the time is counted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum From {
    Sent,
    Acknowledged,
}

pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let (plan, servers, book) = parts(bench);
    let tables = Tables::fill(servers, Payload::Small, SESSIONS).await?;
    let writer = tables.node(tables.config()).await?;
    let reader = tables.node(tables.config()).await?;
    let load = Crew::of(writer.clone(), LOAD_SESSIONS).await?;
    load.warm().await?;
    let bare = Arc::new(Mutex::new(Bare::connect(servers).await?));
    for case in [IDLE, LOADED] {
        let load = (case == LOADED).then_some(&load);
        let mut contest = Contest::new(NAME, case);
        for (name, from) in [(OURS, From::Acknowledged), (OURS_SENT, From::Sent)] {
            let (writer, reader) = (&writer, &reader);
            contest.enter(plan, name, move |span| under(load, span, watch(writer, reader, from, span)));
        }
        enter_bare(&mut contest, plan, &bare, load);
        contest.run(plan, book).await?;
    }
    load.verify().await
}

fn enter_bare<'a>(
    contest: &mut Contest<'a>,
    plan: &Plan,
    bare: &'a Arc<Mutex<Bare>>,
    load: Option<&'a Arc<Crew>>,
) {
    for (name, from) in [(NOTIFY, From::Sent), (STATEMENT, From::Acknowledged)] {
        contest.enter(plan, name, move |span| {
            under(load, span, async move { bare.lock().await.listen(from, span).await })
        });
    }
}

/// Measures beside the load, if there is any.
async fn under(
    load: Option<&Arc<Crew>>,
    span: Duration,
    measure: impl Future<Output = anyhow::Result<Figures>>,
) -> anyhow::Result<Figures> {
    let Some(load) = load else { return measure.await };
    let load = tokio::spawn(Arc::clone(load).drive(Op::Update, LOAD_IN_FLIGHT, span));
    let figures = measure.await?;
    load.await.context("the load panicked")??;
    Ok(figures)
}

/// Updates one session after the other on `writer` and watches each on `reader`.
async fn watch(writer: &Node, reader: &Node, from: From, span: Duration) -> anyhow::Result<Figures> {
    let (begun, mut took) = (Instant::now(), Vec::new());
    for &id in writer.tables.ids[LOAD_SESSIONS..].iter().cycle() {
        let mut session = writer.manager.get(id).await?.context("a session is gone")?;
        // In the reader's memory: without an entry, a notification changes nothing.
        reader.manager.get(id).await?.context("a session is gone")?;
        let old = session.version();
        session.set(COUNTER, &Payload::Small.counter(old.get().unsigned_abs()))?;
        let sent = Instant::now();
        writer.manager.save(&mut session).await?;
        let acknowledged = Instant::now();
        let seen = visible(&reader.manager, id, old).await?;
        took.push(micros(if from == From::Sent { sent } else { acknowledged }, seen));
        if begun.elapsed() >= span {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(percentiles(took))
}

/// When a node first shows a later version than `old`, asked again and again from now on. To begin earlier would take a
/// core from the server just when it commits.
async fn visible(manager: &SessionManager, id: SessionId, old: Version) -> anyhow::Result<Instant> {
    loop {
        if manager.get(id).no_touch().await?.context("a session is gone")?.version() > old {
            return Ok(Instant::now());
        }
        tokio::task::yield_now().await;
    }
}

/// Two connections to a database of their own.
struct Bare {
    sender: Client,
    notify: Statement,
    update: Statement,
    arrivals: Arrivals,
}

impl Bare {
    async fn connect(servers: &Servers) -> anyhow::Result<Self> {
        let database = servers.database().await?;
        let sender = database.client().await?;
        sender
            .batch_execute("CREATE TABLE bare (id int PRIMARY KEY, n int) WITH (fillfactor = 70); INSERT INTO bare VALUES (1, 0)")
            .await?;
        let notify = sender.prepare("SELECT pg_notify('bare', $1)").await?;
        let update = sender
            .prepare("WITH done AS (UPDATE bare SET n = n + 1 WHERE id = 1 RETURNING n) SELECT pg_notify('bare', $1) FROM done")
            .await?;
        let arrivals = Arrivals::listen(&database, "bare").await?;
        Ok(Self { sender, notify, update, arrivals })
    }

    async fn listen(&mut self, from: From, span: Duration) -> anyhow::Result<Figures> {
        let (begun, mut took) = (Instant::now(), Vec::new());
        let statement = if from == From::Sent { &self.notify } else { &self.update };
        // As long as what our nodes say of one session.
        let payload = "1s00000000000000000000000000000000.1";
        while begun.elapsed() < span {
            let sent = Instant::now();
            self.sender.query_one(statement, &[&payload]).await?;
            let acknowledged = Instant::now();
            let received = self.arrivals.next().await?;
            took.push(micros(if from == From::Sent { sent } else { acknowledged }, received));
            tokio::time::sleep(PAUSE).await;
        }
        Ok(percentiles(took))
    }
}

/// From one instant to another, which may be the earlier: a node may show an update before its author has the answer.
fn micros(from: Instant, to: Instant) -> f64 {
    let later = to.saturating_duration_since(from).as_secs_f64();
    let earlier = from.saturating_duration_since(to).as_secs_f64();
    (later - earlier) * 1e6
}

fn percentiles(mut took: Vec<f64>) -> Figures {
    took.sort_by(f64::total_cmp);
    let at = |percent: usize| took.get(took.len() * percent / 100).copied().unwrap_or_default();
    vec![(Metric::P50Micros, at(50)), (Metric::P99Micros, at(99))]
}
