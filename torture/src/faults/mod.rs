//! The faults, by name. Each begins, lasts, and has ended when its function returns; the nodes may then still recover.

mod access;
mod disk;
mod elsewhere;
mod failover;
mod node;
mod pooler;
mod rewind;
mod server;
mod sql;
mod unnotified;
mod wire;

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};

use crate::cluster::Cluster;
use crate::plan::QUEUE_FULL;
use crate::rng::Rng;

/// How often a fault of the server comes with one of a wire, in percent.
const ACCOMPANIED: u64 = 30;

/// A fault by its name.
struct Kind {
    name: &'static str,
    about: &'static str,
    mixing: Mixing,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mixing {
    /// One of the mixture, at times together with a fault of a wire.
    Accompanied,
    /// One of the mixture, always alone.
    Alone,
    /// Only if it is asked for.
    Never,
}

const KINDS: &[Kind] = &[
    kind("listener-terminated", "a node's listening connection is ended by the server", Mixing::Accompanied),
    kind("all-terminated", "every connection is ended by the server", Mixing::Accompanied),
    kind("postgres-restart", "PostgreSQL is shut down and started", Mixing::Accompanied),
    kind("postgres-kill9", "PostgreSQL is killed, and recovers", Mixing::Accompanied),
    kind("postgres-stop", "PostgreSQL is stopped for longer than the trust window", Mixing::Accompanied),
    kind("node-stop-2x", "a node is stopped for twice the trust window", Mixing::Accompanied),
    kind("node-stop-10x", "a node is stopped for ten times the trust window", Mixing::Alone),
    kind("node-shutdown", "a node is ended in order in the middle of its work, and started", Mixing::Alone),
    kind("node-kill9", "a node is killed in the middle of its work, and started", Mixing::Accompanied),
    kind("clock-skew", "a node's wall clock is an hour off", Mixing::Alone),
    kind("cut", "a node's connections are cut on the wire", Mixing::Alone),
    kind("listener-silent", "a listener's wire passes nothing, the pool's does", Mixing::Alone),
    kind("slow-pool", "the wire of a node's pool is slower than its listener's", Mixing::Alone),
    kind("delay-1s", "a wire takes a second each way", Mixing::Alone),
    kind("throttle", "a wire passes 24 kB a second", Mixing::Alone),
    kind("half-open-to-node", "nothing arrives from the server, without a word", Mixing::Alone),
    kind("half-open-to-server", "nothing arrives at the server, without a word", Mixing::Alone),
    kind("cut-after-bytes", "each connection is cut after some bytes of an answer", Mixing::Alone),
    kind("max-connections", "all of the server's connections are taken", Mixing::Alone),
    kind("deadlock", "another client locks sessions in the opposite order", Mixing::Accompanied),
    kind(
        "rows-locked",
        "another client locks sessions for longer than a statement may take",
        Mixing::Accompanied,
    ),
    kind(
        "lock-rows-locked",
        "another client locks rows of session locks for longer than a statement may take",
        Mixing::Accompanied,
    ),
    kind("update-unnotified", "updates end between their commit and their notification", Mixing::Alone),
    kind("pool-on-standby", "a node's pool reaches a standby that lags", Mixing::Alone),
    kind("standby-promoted", "the primary ends, its lagging standby is promoted; and back", Mixing::Alone),
    kind("commits-lost", "a standby that missed commits is promoted", Mixing::Alone),
    kind("copy-restored", "the server's files are replaced by an older copy", Mixing::Alone),
    kind("pool-redirected", "a node's pool reaches another server that accepts writes", Mixing::Alone),
    kind("listener-redirected", "a node's listener reaches another server", Mixing::Alone),
    kind("password-changed", "the nodes' password is changed, and restored later", Mixing::Accompanied),
    kind("host-unresponsive", "the server's host accepts connections and never answers", Mixing::Alone),
    kind("vacuum-full", "the tables are rewritten", Mixing::Accompanied),
    kind("alter-table", "the tables are altered", Mixing::Accompanied),
    kind("hostile-notify", "another role floods the nodes' channel", Mixing::Accompanied),
    kind("disk-full", "PostgreSQL's disk is full", Mixing::Alone),
    kind("pgbouncer-transaction", "a node's pool is behind pgbouncer in transaction mode", Mixing::Alone),
    kind("pgbouncer-listener", "a node's listener is behind pgbouncer: it has to be refused", Mixing::Alone),
    // 8 GB, and the better part of a minute before the nodes start.
    kind(QUEUE_FULL, "the queue of notifications is full, really: 8 GB", Mixing::Never),
    kind("none", "nothing, for as long", Mixing::Never),
];

const fn kind(name: &'static str, about: &'static str, mixing: Mixing) -> Kind {
    Kind { name, about, mixing }
}

/// One line for each.
pub fn list() -> String {
    KINDS.iter().map(|kind| format!("  {:<22} {}\n", kind.name, kind.about)).collect()
}

/// The names that are meant: those asked for, or all that are mixed and can be made here.
pub fn chosen(asked_for: &[String], cluster: &Cluster) -> Result<Vec<&'static str>> {
    for name in asked_for {
        ensure!(
            KINDS.iter().any(|kind| kind.name == *name),
            "there is no fault {name}; there are\n{}",
            list()
        );
        if let Some(why) = impossible(name, cluster) {
            anyhow::bail!("the fault {name} cannot be made here: {why}");
        }
    }
    if !asked_for.is_empty() {
        return Ok(KINDS
            .iter()
            .map(|kind| kind.name)
            .filter(|name| asked_for.iter().any(|asked| asked == name))
            .collect());
    }
    let mut names = Vec::new();
    for kind in KINDS.iter().filter(|kind| kind.mixing != Mixing::Never) {
        match impossible(kind.name, cluster) {
            Some(why) => println!("torture: {} is LEFT OUT: {why}", kind.name),
            None => names.push(kind.name),
        }
    }
    Ok(names)
}

fn impossible(name: &str, cluster: &Cluster) -> Option<String> {
    match name {
        "disk-full" => disk::cannot_fill(cluster),
        "clock-skew" => node::cannot_skew(),
        "pgbouncer-transaction" | "pgbouncer-listener" => pooler::is_missing(),
        _ => None,
    }
}

/// Makes one, perhaps with another, and ends it. Says what was made.
pub async fn make(name: &str, is_mixed: bool, cluster: &mut Cluster, rng: &mut Rng) -> Result<String> {
    let may_be_accompanied = KINDS.iter().any(|kind| kind.name == name && kind.mixing == Mixing::Accompanied);
    if !(is_mixed && may_be_accompanied && rng.chance(ACCOMPANIED)) {
        make_alone(name, cluster, rng).await?;
        return Ok(name.to_owned());
    }
    let companion = wire::COMPANIONS[rng.index(wire::COMPANIONS.len())];
    wire::begin(companion, cluster, rng)?;
    let made = make_alone(name, cluster, rng).await;
    wire::end(cluster);
    made.with_context(|| format!("beside {companion}"))?;
    Ok(format!("{name} + {companion}"))
}

async fn make_alone(name: &str, cluster: &mut Cluster, rng: &mut Rng) -> Result<()> {
    match name {
        "listener-terminated" => server::terminate(cluster, "application_name = 'pg-listen'", 1).await,
        "all-terminated" => {
            server::terminate(cluster, "application_name IN ('pg-listen', 'pg-session')", 1_000).await
        }
        "postgres-restart" => server::restart(cluster).await,
        "postgres-kill9" => server::kill(cluster).await,
        "postgres-stop" => server::stop(cluster, rng).await,
        "node-stop-2x" => node::stop(cluster, rng, 2).await,
        "node-stop-10x" => node::stop(cluster, rng, 10).await,
        "node-shutdown" => node::shut_down(cluster, rng).await,
        "node-kill9" => node::kill(cluster, rng).await,
        "clock-skew" => node::skew(cluster, rng).await,
        "max-connections" => sql::use_up_connections(cluster, rng).await,
        "deadlock" => sql::deadlock(cluster, rng).await,
        "rows-locked" => sql::lock_sessions(cluster, rng).await,
        "lock-rows-locked" => sql::lock_locks(cluster, rng).await,
        "update-unnotified" => unnotified::end_updates(cluster, rng).await,
        "pool-on-standby" => failover::pool_on_standby(cluster, rng).await,
        "standby-promoted" => failover::fail_over(cluster, rng).await,
        "commits-lost" => rewind::promote_late(cluster, rng).await,
        "copy-restored" => rewind::restore_copy(cluster, rng).await,
        "pool-redirected" => elsewhere::redirect_pool(cluster, rng).await,
        "listener-redirected" => elsewhere::redirect_listener(cluster, rng).await,
        "password-changed" => access::change_password(cluster, rng).await,
        "host-unresponsive" => access::stop_answering(cluster, rng).await,
        "vacuum-full" => sql::vacuum_full(cluster).await,
        "alter-table" => sql::alter_tables(cluster).await,
        "hostile-notify" => sql::hostile_notifications(cluster, rng).await,
        QUEUE_FULL => {
            let url = cluster.sandbox.url();
            let queue = cluster.queue.as_mut().context("the queue was not prepared")?;
            queue.overflow(&url, rng).await
        }
        "disk-full" => disk::fill(cluster, rng).await,
        "pgbouncer-transaction" => pooler::before_the_pool(cluster, rng).await,
        "pgbouncer-listener" => pooler::before_the_listener(cluster, rng).await,
        "none" => {
            tokio::time::sleep(Duration::from_secs(3)).await;
            Ok(())
        }
        wire => wire::make(wire, cluster, rng).await,
    }
}
