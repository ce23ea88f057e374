//! Memory that a cached session takes beyond the text of its attributes: a hundred thousand of them in a process of its
//! own, whose allocator counts.

use std::process::Command;

use anyhow::{Context, ensure};
use serde::Deserialize;

use super::lineup::parts;
use crate::book::Metric;
use crate::contest::Bench;
use crate::names::memory::{FIVE, HELD, NAME, ONE};
use crate::payload::Payload;
use crate::peers::ours::Tables;

/// As the kernel counts it.
const RESIDENT: &str = "ours, resident beyond text";
const SESSIONS: usize = 100_000;
/// The program beside this one.
const PROGRAM: &str = "pg-session-bench-memory";

#[derive(Deserialize)]
struct Answer {
    sessions: usize,
    text: f64,
    held: f64,
    resident: f64,
}

pub(crate) async fn run(bench: &mut Bench) -> anyhow::Result<()> {
    let (plan, servers, book) = parts(bench);
    for (case, payload) in [(ONE, Payload::Slim), (FIVE, Payload::Small)] {
        if !plan.wants(NAME, case, HELD) {
            continue;
        }
        let tables = Tables::fill(servers, payload, SESSIONS).await?;
        let answer = ask(&tables.database.url)?;
        ensure!(answer.sessions == SESSIONS, "{} sessions are in memory", answer.sessions);
        #[allow(clippy::cast_precision_loss, reason = "a hundred thousand")]
        let sessions = SESSIONS as f64;
        // Nothing here depends on time: once is enough.
        for (contender, bytes) in [(HELD, answer.held), (RESIDENT, answer.resident)] {
            let each = (bytes - answer.text) / sessions;
            eprintln!("  {NAME}, {case}: {contender} {each:.0} bytes each");
            book.add(NAME, case, contender, vec![(Metric::Bytes, each)]);
        }
    }
    Ok(())
}

fn ask(url: &str) -> anyhow::Result<Answer> {
    let program = std::env::current_exe()?.with_file_name(PROGRAM);
    let output = Command::new(&program)
        .arg(url)
        .output()
        .with_context(|| format!("could not run {PROGRAM}; build it with `cargo build --bins`"))?;
    ensure!(output.status.success(), "{PROGRAM}: {}", String::from_utf8_lossy(&output.stderr).trim());
    serde_json::from_slice(&output.stdout).context("the answer is no JSON")
}
