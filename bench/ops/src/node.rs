//! One build of the library: a node on a private, durable server, with sessions in memory. Each line of the input names an
//! operation; the answer is how many nanoseconds one took.

use std::hint::black_box;
use std::io::{BufRead, Write, stdin, stdout};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use pg_sandbox::Sandbox;
use pg_session::{Config, Migrations, SessionId, SessionManager, UserId};
use tokio::runtime::{Builder, Runtime};
use uuid::Uuid;

const SESSIONS: usize = 10_000;
/// Writes at the same time.
const IN_FLIGHT: usize = 64;
const TURN: Duration = Duration::from_millis(400);
/// Reads between two looks at the clock.
const STRIDE: usize = 1_024;
const COUNTER: &str = "counter";

pub(crate) fn run() -> anyhow::Result<()> {
    let server = Sandbox::builder().durable(true).start()?;
    let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let mut config = Config::default();
    config.migrations = Migrations::Apply;
    config.cache_sessions_max = 4 * SESSIONS;
    let manager = runtime.block_on(SessionManager::connect(&server.url(), config))?;
    let ids = runtime.block_on(create(&manager, SESSIONS))?;
    let node = Node { manager, ids, updates: 0 };
    node.serve(&runtime)?;
    server.close().context("the server could not be stopped")
}

struct Node {
    manager: SessionManager,
    ids: Vec<SessionId>,
    updates: u64,
}

impl Node {
    fn serve(mut self, runtime: &Runtime) -> anyhow::Result<()> {
        for line in stdin().lock().lines() {
            let (count, took) = match line?.as_str() {
                "hit" => runtime.block_on(self.hit())?,
                "update" => runtime.block_on(self.update())?,
                "create" => runtime.block_on(self.create())?,
                "delete" => runtime.block_on(self.delete())?,
                other => bail!("there is no operation {other}"),
            };
            #[allow(clippy::cast_precision_loss, reason = "far below 2^52")]
            let nanos = took.as_nanos() as f64 / count as f64;
            writeln!(stdout(), "{nanos}")?;
        }
        runtime.block_on(self.verify())
    }

    async fn hit(&self) -> anyhow::Result<(usize, Duration)> {
        let (begun, mut count) = (Instant::now(), 0);
        while begun.elapsed() < TURN {
            for step in 0..STRIDE {
                // A prime far from any power of two visits all sessions in scattered order.
                let id = self.ids[(count + step) * 7_919 % SESSIONS];
                black_box(self.manager.get(id).await?.context("a session is gone")?);
            }
            count += STRIDE;
        }
        Ok((count, begun.elapsed()))
    }

    /// Of one attribute. No two at the same time are of one session.
    async fn update(&mut self) -> anyhow::Result<(usize, Duration)> {
        let (begun, until) = (Instant::now(), Instant::now() + TURN);
        let ids: Arc<[SessionId]> = self.ids.as_slice().into();
        let tasks = (0..IN_FLIGHT).map(|task| {
            let (manager, ids) = (self.manager.clone(), Arc::clone(&ids));
            tokio::spawn(async move {
                let mut count = 0;
                while Instant::now() < until {
                    let id = ids[(count * IN_FLIGHT + task) % (SESSIONS / IN_FLIGHT * IN_FLIGHT)];
                    let mut session = manager.get(id).await?.context("a session is gone")?;
                    let updates: u64 = session.get(COUNTER)?.unwrap_or_default();
                    session.set(COUNTER, &(updates + 1))?;
                    manager.save(&mut session).await?;
                    count += 1;
                }
                anyhow::Ok(count)
            })
        });
        let mut all = 0;
        for task in tasks.collect::<Vec<_>>() {
            all += task.await??;
        }
        self.updates += u64::try_from(all)?;
        Ok((all, begun.elapsed()))
    }

    async fn create(&self) -> anyhow::Result<(usize, Duration)> {
        let begun = Instant::now();
        let mut created = Vec::new();
        while begun.elapsed() < TURN {
            created.extend(create(&self.manager, STRIDE).await?);
        }
        let took = begun.elapsed();
        // The table does not grow from round to round.
        delete(&self.manager, &created).await?;
        Ok((created.len(), took))
    }

    async fn delete(&self) -> anyhow::Result<(usize, Duration)> {
        let (mut took, mut count) = (Duration::ZERO, 0);
        while took < TURN {
            let created = create(&self.manager, STRIDE).await?;
            let begun = Instant::now();
            delete(&self.manager, &created).await?;
            took += begun.elapsed();
            count += created.len();
        }
        Ok((count, took))
    }

    /// Every acknowledged update is there: read without the memory, by another node.
    async fn verify(&self) -> anyhow::Result<()> {
        self.manager.evict_all().await?;
        let mut stored = 0;
        for &id in &self.ids {
            let session = self.manager.get(id).await?.context("a session is gone")?;
            stored += session.get::<u64>(COUNTER)?.unwrap_or_default();
        }
        ensure!(stored == self.updates, "{} updates were acknowledged, {stored} are stored", self.updates);
        Ok(())
    }
}

/// Of new users, with five attributes.
async fn create(manager: &SessionManager, sessions: usize) -> anyhow::Result<Vec<SessionId>> {
    let tasks = (0..IN_FLIGHT).map(|task| {
        let manager = manager.clone();
        tokio::spawn(async move {
            let mut ids = Vec::new();
            for _ in (task..sessions).step_by(IN_FLIGHT) {
                let create = manager
                    .create(UserId::from(Uuid::new_v4()))
                    .set("csrf", "0f8fad5bd9cb469fa16570867728950e")
                    .set("locale", "en")
                    .set("name", "Grace Hopper")
                    .set("theme", "dark")
                    .set(COUNTER, &0);
                ids.push(create.await?.id());
            }
            anyhow::Ok(ids)
        })
    });
    let mut ids = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        ids.extend(task.await??);
    }
    Ok(ids)
}

async fn delete(manager: &SessionManager, ids: &[SessionId]) -> anyhow::Result<()> {
    let ids: Arc<[SessionId]> = ids.into();
    let tasks = (0..IN_FLIGHT).map(|task| {
        let (manager, ids) = (manager.clone(), Arc::clone(&ids));
        tokio::spawn(async move {
            for &id in ids.iter().skip(task).step_by(IN_FLIGHT) {
                manager.delete(id).await?;
            }
            anyhow::Ok(())
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        task.await??;
    }
    Ok(())
}
