//! One axum application end to end, with the sessions of six kinds: each in a process of its own, this process sends the
//! requests. Nineteen of twenty read the user and an attribute; the twentieth adds one to a counter in the session.
//!
//! At the limit, each connection sends the next request when it has the answer. At the same load for all, each
//! connection sends by a timetable; a request that had to wait for its turn is measured from its time in the table.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use hdrhistogram::Histogram;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

use super::lineup::parts;
use crate::book::{Book, Figures, Metric};
use crate::contest::{Bench, Contest};
use crate::drive::new_histogram;
use crate::http::{Connection, Jar};
use crate::names::axum::{JWT, LIMIT, LOAD, MOKA, NAME, NONE, OURS, READS, REDIS, REDIS_FSYNC, SQLX};
use crate::plan::Plan;
use crate::servers::Servers;

/// The program beside this one.
const PROGRAM: &str = "pg-session-bench-web";
const CONNECTIONS: usize = 128;
/// Sessions of each connection; no two connections use one session.
const SESSIONS_EACH: usize = 8;
/// One request in so many changes the session.
const WRITE_EVERY: u64 = 20;
/// Of the limit of the slowest contender.
const LOAD_SHARE: f64 = 0.5;

pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let (plan, servers, book) = parts(bench);
    let apps = start(plan, servers).await?;
    compete(plan, book, &apps, READS, Pace { writes: false, per_second: None }).await?;
    compete(plan, book, &apps, LIMIT, Pace { writes: true, per_second: None }).await?;
    if apps.iter().any(|(name, _)| plan.wants(NAME, LOAD, name)) {
        let limits = apps.iter().filter_map(|(name, _)| book.find(NAME, LIMIT, name, Metric::PerSecond));
        let slowest = limits.map(|series| series.spread.median).fold(f64::INFINITY, f64::min);
        ensure!(slowest.is_finite(), "no contender has a limit");
        let pace = Pace { writes: true, per_second: Some(slowest * LOAD_SHARE) };
        compete(plan, book, &apps, LOAD, pace).await?;
    }
    for (name, app) in &apps {
        app.verify().await.with_context(|| format!("{NAME}: {name}"))?;
    }
    Ok(())
}

async fn start(plan: &Plan, servers: &Servers) -> anyhow::Result<Vec<(&'static str, Arc<App>)>> {
    let mut apps = Vec::new();
    let programs = [
        (OURS, "ours"),
        (SQLX, "sqlx"),
        (MOKA, "moka"),
        (REDIS, "redis"),
        (REDIS_FSYNC, "redis"),
        (JWT, "jwt"),
        (NONE, "none"),
    ];
    for (name, program) in programs {
        if !plan.wants_contender(NAME, name) {
            continue;
        }
        let url = match program {
            "ours" | "sqlx" | "moka" => servers.database().await?.url,
            "redis" => match &servers.redis {
                Some(redis) if name == REDIS_FSYNC => redis.durable.url()?,
                Some(redis) => redis.volatile.url()?,
                None => continue,
            },
            _ => String::new(),
        };
        let counts = program != "none";
        apps.push((name, Arc::new(App::start(program, &url, counts).await.context(name)?)));
    }
    Ok(apps)
}

async fn compete(
    plan: &Plan,
    book: &mut Book,
    apps: &[(&'static str, Arc<App>)],
    case: &'static str,
    pace: Pace,
) -> anyhow::Result<()> {
    let mut contest = Contest::new(NAME, case);
    for (name, app) in apps {
        contest.enter(plan, name, move |span| Arc::clone(app).drive(span, pace));
    }
    contest.run(plan, book).await
}

/// What the clients do.
#[derive(Clone, Copy)]
struct Pace {
    /// Whether one request in twenty writes. Otherwise all only read.
    writes: bool,
    /// Requests of all clients a second. `None`: as many as the application answers.
    per_second: Option<f64>,
}

/// A running application with its clients.
struct App {
    process: Child,
    clients: Vec<Arc<Mutex<Client>>>,
    /// Whether its sessions keep the counter.
    counts: bool,
}

/// One connection with its sessions.
struct Client {
    connection: Connection,
    /// The cookie and the writes that were acknowledged.
    sessions: Vec<(Jar, u64)>,
    random: fastrand::Rng,
}

impl App {
    async fn start(app: &str, url: &str, counts: bool) -> anyhow::Result<Self> {
        let program = std::env::current_exe()?.with_file_name(PROGRAM);
        let mut process = Command::new(&program)
            .args([app, url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("could not start {}", program.display()))?;
        let output = process.stdout.take().context("no output")?;
        let mut address = String::new();
        BufReader::new(output).read_line(&mut address)?;
        let mut started = Self { process, clients: Vec::new(), counts };
        ensure!(!address.trim().is_empty(), "the application ended at its start");
        for client in 0..CONNECTIONS {
            let mut connection = Connection::open(address.trim()).await?;
            let mut sessions = Vec::new();
            for session in 0..SESSIONS_EACH {
                let (user, mut jar) = (client * SESSIONS_EACH + session + 1, Jar::default());
                connection.send("POST", &format!("/login/{user}"), &mut jar).await?;
                let page = connection.send("GET", "/", &mut jar).await?;
                ensure!(!counts || page == format!("user {user}, theme dark"), "the page is {page:?}");
                sessions.push((jar, 0));
            }
            let random = fastrand::Rng::with_seed(client as u64);
            started.clients.push(Arc::new(Mutex::new(Client { connection, sessions, random })));
        }
        Ok(started)
    }

    /// One turn of all clients.
    async fn drive(self: Arc<Self>, span: Duration, pace: Pace) -> anyhow::Result<Figures> {
        #[allow(clippy::cast_precision_loss, reason = "a few connections")]
        let every = pace.per_second.map(|all| Duration::from_secs_f64(self.clients.len() as f64 / all));
        let (begun, used) = (Instant::now(), self.processor_time()?);
        let mut tasks = JoinSet::new();
        for (number, client) in self.clients.iter().enumerate() {
            let client = Arc::clone(client);
            let count = u32::try_from(self.clients.len())?;
            // Connections do not send at the same moment.
            let first = every.map(|every| begun + every * u32::try_from(number).unwrap_or(0) / count);
            let times = first.zip(every);
            tasks.spawn(async move { client.lock().await.work(begun + span, times, pace.writes).await });
        }
        let mut all = new_histogram()?;
        while let Some(joined) = tasks.join_next().await {
            all.add(joined.context("a task panicked")??).context("histograms differ")?;
        }
        let (elapsed, used) = (begun.elapsed().as_secs_f64(), self.processor_time()? - used);
        #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
        let figures = vec![
            (Metric::PerSecond, all.len() as f64 / elapsed),
            (Metric::P50Micros, all.value_at_quantile(0.50) as f64 / 1e3),
            (Metric::P99Micros, all.value_at_quantile(0.99) as f64 / 1e3),
            (Metric::P999Micros, all.value_at_quantile(0.999) as f64 / 1e3),
            (Metric::ProcessorMicrosEach, used * 1e6 / all.len() as f64),
        ];
        Ok(figures)
    }

    /// Seconds that the application's process has computed.
    fn processor_time(&self) -> anyhow::Result<f64> {
        /// Of `/proc`, on every Linux that Rust supports.
        const TICKS_PER_SECOND: f64 = 100.0;
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.process.id()))?;
        // The name of the program, in parentheses, may contain spaces.
        let fields = stat.rsplit(')').next().context("no fields in stat")?;
        let ticks = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
        Ok(ticks.sum::<Result<f64, _>>()? / TICKS_PER_SECOND)
    }

    /// Every acknowledged write is in its session, and no other.
    async fn verify(&self) -> anyhow::Result<()> {
        if !self.counts {
            return Ok(());
        }
        let mut written = 0;
        for client in &self.clients {
            let Client { connection, sessions, .. } = &mut *client.lock().await;
            for (jar, count) in sessions {
                let stored: u64 = connection.send("GET", "/count", jar).await?.parse()?;
                ensure!(stored == *count, "{count} writes were acknowledged, and the session holds {stored}");
                written += stored;
            }
        }
        ensure!(written > 0, "no session was written");
        Ok(())
    }
}

impl Drop for App {
    fn drop(&mut self) {
        drop(self.process.stdin.take());
        if let Err(error) = self.process.wait() {
            eprintln!("bench: an application may be left: {error}");
        }
    }
}

impl Client {
    /// Requests until the end, by a timetable if there is one: its first time, and the time between two.
    async fn work(
        &mut self,
        end: Instant,
        mut times: Option<(Instant, Duration)>,
        writes: bool,
    ) -> anyhow::Result<Histogram<u64>> {
        let mut latencies = new_histogram()?;
        let mut begun = Instant::now();
        while begun < end {
            if let Some((next, every)) = &mut times {
                let planned = *next;
                *next += *every;
                // The timer wakes up to a millisecond late. Only waiting for an earlier answer counts.
                begun = if begun < planned {
                    tokio::time::sleep_until(planned.into()).await;
                    Instant::now()
                } else {
                    planned
                };
            }
            let session = self.random.usize(0..self.sessions.len());
            let (jar, count) = &mut self.sessions[session];
            if writes && self.random.u64(0..WRITE_EVERY) == 0 {
                self.connection.send("POST", "/count", jar).await?;
                *count += 1;
            } else {
                self.connection.send("GET", "/", jar).await?;
            }
            let now = Instant::now();
            latencies.saturating_record(u64::try_from((now - begun).as_nanos()).unwrap_or(u64::MAX));
            begun = now;
        }
        Ok(latencies)
    }
}
