//! Checks of a thousand to a million pins, beside reads of the same sessions and of the clock.
//!
//! The pins are drawn before, into a list that is walked in order: what a thread pays for is the check.

use std::hint::black_box;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::Context;
use pg_session::Pin;
use tokio::runtime::Handle;

use super::hit::filled;
use super::lineup::parts;
use super::million::Million;
use super::threads::{on_threads, walk, walk_async};
use crate::contest::{Bench, Contest};
use crate::names::pin::{CASE, CHECK, CLOCK, GET, LINE, NAME};
use crate::peers::ours::Node;

const SIZES: [usize; 3] = [1_000, 100_000, 1_000_000];
/// Checks in the list that is walked.
const DRAWS: usize = 1 << 19;

pub(crate) async fn run(bench: &mut Bench, million: &mut Million) -> anyhow::Result<()> {
    let (plan, servers, book) = parts(bench);
    let mut contest = Contest::new(NAME, CASE);
    // A pin of which no clone is left is gone.
    let mut held = Vec::new();
    for (at, sessions) in SIZES.into_iter().enumerate() {
        if ![CHECK[at], GET[at]].iter().any(|contender| plan.wants(NAME, CASE, contender)) {
            continue;
        }
        let node = match sessions {
            1_000_000 => million.get(servers).await?.0,
            _ => filled(servers, sessions).await?,
        };
        let pins = pin_all(&node).await?;
        let draws: Arc<[Pin]> = (0..DRAWS).map(|_| pins[fastrand::usize(..sessions)].clone()).collect();
        held.push(pins);
        let drawn = Arc::clone(&draws);
        contest.enter(plan, CHECK[at], move |span| {
            let drawn = Arc::clone(&drawn);
            async move { on_threads(1, |_| walk(&drawn, span, |pin| Ok(pin.check()?))) }
        });
        let manager = node.manager.clone();
        contest.enter(plan, GET[at], move |span| {
            let (manager, draws) = (manager.clone(), Arc::clone(&draws));
            async move {
                let handle = Handle::current();
                on_threads(1, |_| {
                    handle.block_on(walk_async(&draws, span, async |pin: &Pin| {
                        black_box(manager.get(pin.id()).no_touch().await?.context("a session is gone")?);
                        Ok(())
                    }))
                })
            }
        });
    }
    contest.enter(plan, CLOCK, |span| async move {
        on_threads(1, |_| {
            walk(&[(); DRAWS], span, |()| {
                black_box(Instant::now());
                Ok(())
            })
        })
    });
    for (at, sessions) in SIZES.into_iter().enumerate() {
        if !plan.wants(NAME, CASE, LINE[at]) {
            continue;
        }
        let lines = lines(sessions);
        contest.enter(plan, LINE[at], move |span| {
            let lines = Arc::clone(&lines);
            async move {
                on_threads(1, |_| {
                    walk(&lines, span, |line| {
                        // As a check: the clock is read last, so it waits for the line.
                        black_box(line.0.load(Ordering::Acquire));
                        black_box(Instant::now());
                        Ok(())
                    })
                })
            }
        });
    }
    contest.run(plan, book).await
}

/// As much memory as a processor fetches at once, and a pin needs at least.
#[repr(align(64))]
struct Line(AtomicU64);

/// One of so many lines for each check, in random order. Each is allocated by itself, as what a pin looks at is.
fn lines(count: usize) -> Arc<[Arc<Line>]> {
    let all: Vec<Arc<Line>> = (0..count).map(|_| Arc::new(Line(AtomicU64::new(0)))).collect();
    (0..DRAWS).map(|_| Arc::clone(&all[fastrand::usize(..count)])).collect()
}

async fn pin_all(node: &Node) -> anyhow::Result<Vec<Pin>> {
    let mut pins = Vec::with_capacity(node.tables.ids.len());
    for &id in &*node.tables.ids {
        let session = node.manager.get(id).no_touch().await?.context("a session is gone")?;
        pins.push(node.manager.pin(&session).await?);
    }
    Ok(pins)
}
