//! The cluster: the private server, the nodes, and the directory that holds what they write. All of it is gone afterwards,
//! but for the histories of a run that found something.

mod client;
mod disk;
mod member;
mod queue;
mod sample;
pub mod tables;

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use pg_sandbox::{Proxy, Sandbox};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_postgres::Client;
use uuid::Uuid;

pub use self::client::connect;
pub use self::disk::Disk;
pub use self::member::{Member, Way};
pub use self::queue::Queue;
use crate::history::{self, Entry, History, Journal, SQL_CLIENT};
use crate::plan::{NodePlan, Order, POOL_NAME, QUEUE_FULL, Role, SQL_CLIENT_NAME};
use crate::slots::Slots;

/// Enough for the nodes and a few more: the fault that uses them up has not far to go.
const CONNECTIONS_MAX: &str = "60";

/// The role of the nodes, and its password.
pub const ROLE: &str = "app";
pub const PASSWORD: &str = "first";
/// The nodes' role needs its password, on the primary and on each standby; all others do not.
const HBA: &str = "local all all trust
host all app all scram-sha-256
host all all all trust
host replication all all trust
";

pub struct Cluster {
    pub sandbox: Arc<Sandbox>,
    pub nodes: Vec<Member>,
    /// The process that uses the SQL contract, behind wires of its own.
    pub sql_client: Member,
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

impl Cluster {
    pub async fn start(order: &Order) -> Result<Self> {
        let keep = Keep::make(order.keep.clone())?;
        let dir = keep.path().to_owned();
        Slots::create(&dir).context("the file of the slots cannot be created")?;
        let journal = Arc::new(Journal::create(&dir, 0).context("the history cannot be made")?);
        let with_queue = order.faults.iter().any(|name| name == QUEUE_FULL);
        let disk = Disk::mount(with_queue);
        let mut builder = Sandbox::builder()
            .file("pg_hba.conf", HBA)
            .setting("password_encryption", "scram-sha-256")
            .setting("max_connections", CONNECTIONS_MAX)
            .setting("deadlock_timeout", "100ms")
            .setting("max_wal_size", "256MB");
        if let Some(disk) = &disk {
            builder = builder.within(disk.path());
        }
        let starting = tokio::task::spawn_blocking(|| builder.start());
        let sandbox = Arc::new(starting.await?.context("PostgreSQL does not start")?);
        make_role(&sandbox.url()).await.context("the nodes' role cannot be made")?;
        tables::prepare(&sandbox.url()).await.context("the tables cannot be made")?;
        let queue = if with_queue { Some(Queue::fill(&sandbox.url()).await?) } else { None };
        let (stop, stopped) = watch::channel(false);
        let (pids, watched) = watch::channel(Vec::new());
        let sampling = tokio::spawn(sample::run(sandbox.url(), Arc::clone(&journal), watched, stopped));
        let mut nodes = Vec::new();
        for node in 0..order.nodes {
            let mut member = member(order, Role::Node, node, &sandbox, &dir).await?;
            member.start(&Way::default()).await?;
            nodes.push(member);
        }
        // Behind the nodes, which publish their settings for the functions.
        let mut sql_client = member(order, Role::SqlClient, SQL_CLIENT, &sandbox, &dir).await?;
        sql_client.start(&Way::default()).await?;
        let cluster = Self { sandbox, nodes, sql_client, journal, disk, queue, keep, stop, sampling, pids };
        cluster.note_pids();
        Ok(cluster)
    }

    /// The processes whose memory is sampled. Call it after processes started or ended.
    pub fn note_pids(&self) {
        self.pids.send_replace(self.nodes.iter().map(Member::pid).collect());
    }

    /// A connection to the server, past the proxies.
    pub async fn client(&self) -> Result<Client> {
        connect(&self.sandbox.url()).await
    }

    /// The nodes and the SQL client: all that reach the server through wires.
    pub fn members(&self) -> impl Iterator<Item = &Member> {
        self.nodes.iter().chain([&self.sql_client])
    }

    /// Ends everything in order, and returns what is known of the run.
    pub async fn stop(mut self) -> Result<(History, Keep)> {
        for member in self.nodes.iter_mut().chain([&mut self.sql_client]) {
            member.heal();
            member.stop().await?;
        }
        self.stop.send_replace(true);
        self.sampling.await?;
        let tables = tables::read(&self.sandbox.url()).await.context("the tables cannot be read")?;
        drop((self.nodes, self.sql_client));
        let sandbox = self.sandbox;
        tokio::task::spawn_blocking(move || drop(sandbox)).await?;
        let history = History { processes: history::load(self.keep.path())?, tables };
        Ok((history, self.keep))
    }

    /// Something went otherwise than it should: a finding, even if no invariant was broken.
    pub fn record_error(&self, error: &anyhow::Error) {
        println!("torture: {error:?}");
        self.journal.write(&Entry::Reported { held: false, what: format!("{error:#}") });
    }

    /// Notes what was expected of the nodes during a fault, and whether it came true.
    pub fn report(&self, held: bool, what: String) {
        self.journal.write(&Entry::Reported { held, what });
    }

    /// Brings back whatever a fault that could not be ended has left.
    pub async fn repair(&mut self) -> Result<()> {
        let sandbox = Arc::clone(&self.sandbox);
        tokio::task::spawn_blocking(move || {
            if sandbox.is_running()? { sandbox.resume() } else { sandbox.start_again() }
        })
        .await??;
        for member in self.nodes.iter_mut().chain([&mut self.sql_client]) {
            member.redirect(self.sandbox.addr());
            member.heal();
            member.repair().await?;
        }
        self.note_pids();
        Ok(())
    }
}

/// A process that is not started yet, and its wires.
async fn member(order: &Order, role: Role, node: usize, sandbox: &Sandbox, dir: &Path) -> Result<Member> {
    let proxy = async || Proxy::start(sandbox.addr()).await.context("a proxy cannot be started");
    let (pool, listener) = (proxy().await?, proxy().await?);
    let resource_url = sandbox.url();
    let url = resource_url.replace("postgres@", &format!("{ROLE}:{PASSWORD}@"));
    let plan = NodePlan {
        role,
        node,
        nodes: order.nodes,
        incarnation: 0,
        seed: order.seed,
        pool_url: pool.url_for(&url) + if role == Role::Node { POOL_NAME } else { SQL_CLIENT_NAME },
        listener_url: listener.url_for(&url) + if role == Role::Node { "" } else { SQL_CLIENT_NAME },
        resource_url,
        commits_first: node + 1 == order.nodes,
        unnamed: false,
        dir: dir.to_owned(),
        without: order.without,
    };
    Ok(Member::new(plan, pool, listener))
}

/// Makes the nodes' role.
pub async fn make_role(url: &str) -> Result<()> {
    let client = connect(url).await?;
    let make = format!("CREATE ROLE {ROLE} SUPERUSER LOGIN PASSWORD '{PASSWORD}'");
    Ok(client.batch_execute(&make).await?)
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
