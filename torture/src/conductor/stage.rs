//! The stage: the private server, the nodes, and the directory that holds what they write. All of it is gone afterwards,
//! but for the histories of a run that found something.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use pg_sandbox::{Proxy, Sandbox};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

use super::{Member, Order, Way, gather, sample, tables};
use crate::board::Board;
use crate::faults::{self, Disk, Queue};
use crate::history::{Entry, History, Journal};
use crate::plan::NodePlan;

/// Enough for the nodes and a few more: the fault that uses them up has not far to go.
const CONNECTIONS_MAX: &str = "60";

/// By which the connections of the nodes' pools are known; those of the listeners are known as `pg-listen`.
pub const POOL_NAME: &str = "?application_name=pg-session";

pub struct Stage {
    pub sandbox: Arc<Sandbox>,
    pub nodes: Vec<Member>,
    pub journal: Arc<Journal>,
    /// The file system that holds the server's data, if it has one of its own.
    pub disk: Option<Disk>,
    /// The server's queue of notifications, if it is to overflow.
    pub queue: Option<Queue>,
    pub keep: Keep,
    stop: watch::Sender<bool>,
    sampling: JoinHandle<()>,
    /// The nodes' processes, for the samples.
    pids: watch::Sender<Vec<Option<u32>>>,
}

impl Stage {
    pub async fn set(order: &Order) -> Result<Self> {
        let keep = Keep::make(order.keep.clone())?;
        let dir = keep.path().to_owned();
        Board::create(&dir).context("the board cannot be made")?;
        let journal = Arc::new(Journal::create(&dir, 0).context("the history cannot be made")?);
        let with_queue = order.faults.iter().any(|name| name == faults::QUEUE_FULL);
        let disk = Disk::mount(with_queue);
        let mut builder = Sandbox::builder()
            .setting("max_connections", CONNECTIONS_MAX)
            .setting("deadlock_timeout", "100ms")
            .setting("max_wal_size", "256MB");
        if let Some(disk) = &disk {
            builder = builder.within(disk.path());
        }
        let starting = tokio::task::spawn_blocking(|| builder.start());
        let sandbox = Arc::new(starting.await?.context("PostgreSQL does not start")?);
        tables::prepare(&sandbox.url()).await.context("the tables cannot be made")?;
        let queue = if with_queue { Some(Queue::fill(&sandbox.url()).await?) } else { None };
        let (stop, stopped) = watch::channel(false);
        let (pids, watched) = watch::channel(Vec::new());
        let sampling = tokio::spawn(sample::run(sandbox.url(), Arc::clone(&journal), watched, stopped));
        let mut stage = Self { sandbox, nodes: Vec::new(), journal, disk, queue, keep, stop, sampling, pids };
        for node in 0..order.nodes {
            let (pool, ear) = (stage.proxy().await?, stage.proxy().await?);
            let url = stage.sandbox.url();
            let plan = NodePlan {
                node,
                nodes: order.nodes,
                incarnation: 0,
                seed: order.seed,
                pool_url: pool.url_for(&url) + POOL_NAME,
                ear_url: ear.url_for(&url),
                resource_url: url,
                unnamed: false,
                dir: dir.clone(),
                without: order.without,
            };
            let mut member = Member::new(plan, pool, ear);
            member.start(&Way::default()).await?;
            stage.nodes.push(member);
        }
        stage.note_pids();
        Ok(stage)
    }

    /// The processes whose memory is sampled. Call it after processes started or ended.
    pub fn note_pids(&self) {
        self.pids.send_replace(self.nodes.iter().map(Member::pid).collect());
    }

    /// A connection to the server, past the proxies.
    pub async fn client(&self) -> Result<Client> {
        connect(&self.sandbox.url()).await
    }

    async fn proxy(&self) -> Result<Proxy> {
        Proxy::start(self.sandbox.addr()).await.context("a proxy cannot be started")
    }

    /// Ends everything in order, and returns what is known of the run.
    pub async fn strike(mut self) -> Result<(History, Keep)> {
        for node in &mut self.nodes {
            node.heal();
            node.stop().await?;
        }
        self.stop.send_replace(true);
        self.sampling.await?;
        let tables = tables::read(&self.sandbox.url()).await.context("the tables cannot be read")?;
        drop(self.nodes);
        let sandbox = self.sandbox;
        tokio::task::spawn_blocking(move || drop(sandbox)).await?;
        let history = gather(self.keep.path(), tables)?;
        Ok((history, self.keep))
    }

    /// Something went otherwise than it should: a finding, even if no invariant was broken.
    pub fn blame(&self, error: &anyhow::Error) {
        println!("torture: {error:?}");
        self.journal.write(&Entry::Reported { held: false, what: format!("{error:#}") });
    }

    /// Brings back whatever a fault that could not be ended has left.
    pub async fn mend(&mut self) -> Result<()> {
        let sandbox = Arc::clone(&self.sandbox);
        tokio::task::spawn_blocking(move || {
            if sandbox.is_running()? { sandbox.resume() } else { sandbox.start_again() }
        })
        .await??;
        for node in &mut self.nodes {
            node.heal();
            node.mend().await?;
        }
        self.note_pids();
        Ok(())
    }
}

pub async fn connect(url: &str) -> Result<Client> {
    let (client, connection) =
        tokio_postgres::connect(url, NoTls).await.context("PostgreSQL does not answer")?;
    // The next use of the client returns the same error.
    tokio::spawn(async move { drop(connection.await) });
    Ok(client)
}

/// The directory of the run's histories.
#[derive(Debug)]
pub struct Keep {
    path: PathBuf,
    asked_for: bool,
}

impl Keep {
    fn make(asked_for: Option<PathBuf>) -> Result<Self> {
        let keep = Self {
            asked_for: asked_for.is_some(),
            path: asked_for
                .unwrap_or_else(|| std::env::temp_dir().join(format!("torture-{}", Uuid::new_v4().simple()))),
        };
        fs::create_dir_all(&keep.path)
            .with_context(|| format!("the directory {} cannot be made", keep.path.display()))?;
        Ok(keep)
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Removes the directory, unless it was asked for or shows something.
    pub fn done(self, shows_something: bool) {
        if self.asked_for || shows_something {
            println!("torture: the histories are in {}", self.path.display());
        } else if let Err(error) = fs::remove_dir_all(&self.path) {
            eprintln!("torture: {} cannot be removed: {error}", self.path.display());
        }
    }
}
