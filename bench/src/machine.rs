//! What the figures were measured on: processor, memory, kernel and versions, and nothing that names the machine.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use anyhow::Context;
use serde::{Deserialize, Serialize};

use crate::book::Spread;
use crate::servers::Servers;

/// The machine and the software, for the report.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// The commit that was measured, with `+` if files were changed since.
    pub(crate) commit: String,
    pub(crate) processor: String,
    pub(crate) cores: usize,
    pub(crate) memory_gib: u64,
    pub(crate) kernel: String,
    /// Microseconds that a flush of 8 kB to the servers' disk takes, the median.
    pub(crate) flush_micros: f64,
    pub(crate) versions: BTreeMap<String, String>,
    /// What the servers said about themselves.
    pub(crate) postgres: BTreeMap<String, String>,
    pub(crate) redis: BTreeMap<String, BTreeMap<String, String>>,
}

/// Versions of the peers' crates, as the lock file has them.
const LOCK: &str = include_str!("../Cargo.lock");
const CRATES: [&str; 7] = [
    "pg-session",
    "quick_cache",
    "redis",
    "sqlx",
    "tokio-postgres",
    "tower-sessions-moka-store",
    "tower-sessions-sqlx-store",
];

pub(crate) fn describe(servers: &Servers) -> anyhow::Result<Machine> {
    let mut versions: BTreeMap<String, String> = CRATES
        .iter()
        .filter_map(|name| Some(((*name).to_owned(), locked_version(name)?.to_owned())))
        .collect();
    versions.extend(servers.settings.get("server_version").map(|v| ("PostgreSQL".to_owned(), v.clone())));
    let mut redis = BTreeMap::new();
    if let Some(redises) = &servers.redis {
        versions.insert("Redis".to_owned(), redises.volatile.version.clone());
        for (name, server) in [("redis", &redises.volatile), ("redis fsync", &redises.durable)] {
            redis.insert(name.to_owned(), server.settings.iter().cloned().collect());
        }
    }
    Ok(Machine {
        commit: commit(),
        processor: line_after("/proc/cpuinfo", "model name")
            .unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
        cores: std::thread::available_parallelism().map_or(0, usize::from),
        memory_gib: memory_gib(),
        kernel: read("/proc/sys/kernel/osrelease").unwrap_or_else(|| std::env::consts::OS.to_owned()),
        flush_micros: flush_micros(&servers.directory)?,
        versions,
        postgres: servers.settings.clone(),
        redis,
    })
}

fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").arg("-C").arg(env!("CARGO_MANIFEST_DIR")).args(arguments).output();
        output.ok().filter(|output| output.status.success()).map(|output| output.stdout)
    };
    let Some(commit) = git(&["rev-parse", "--short", "HEAD"]) else { return "unknown".to_owned() };
    let changed =
        git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|files| !files.is_empty());
    let commit = String::from_utf8_lossy(&commit);
    format!("{}{}", commit.trim(), if changed { "+" } else { "" })
}

/// What a commit waits for, on the disk that both servers write to.
fn flush_micros(directory: &Path) -> anyhow::Result<f64> {
    const FLUSHES: usize = 200;
    let path = directory.join(format!("pg-session-bench-flush-{}", std::process::id()));
    let mut file =
        fs::File::create_new(&path).with_context(|| format!("could not make {}", path.display()))?;
    // Away at once: the open file is all that is needed.
    fs::remove_file(&path)?;
    let mut took = Vec::with_capacity(FLUSHES);
    for _ in 0..FLUSHES {
        let begun = Instant::now();
        file.write_all(&[1; 8_192])?;
        file.sync_data()?;
        took.push(begun.elapsed().as_secs_f64() * 1e6);
    }
    Ok(Spread::of(&took).median)
}

fn locked_version(name: &str) -> Option<&'static str> {
    let (_, rest) = LOCK.split_once(&format!("name = \"{name}\"\nversion = \""))?;
    rest.split('"').next()
}

fn memory_gib() -> u64 {
    let kilobytes =
        line_after("/proc/meminfo", "MemTotal").and_then(|line| line.split(' ').next()?.parse().ok());
    kilobytes.map_or(0, |kilobytes: u64| kilobytes.div_ceil(1 << 20))
}

fn line_after(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn read(path: &str) -> Option<String> {
    Some(fs::read_to_string(path).ok()?.trim().to_owned())
}
