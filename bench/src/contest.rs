//! A contest: the contenders of one case, taking turns in interleaved rounds.
//!
//! Each has one turn in each round, forth and then back (A B C, C B A, …). So a slow phase meets all alike, and
//! ratios are between turns close in time.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use anyhow::Context;

use crate::book::{Book, Figures};
use crate::plan::Plan;
use crate::servers::Servers;

/// What a run has: what to measure, where, and what came of it.
#[derive(Debug)]
pub(crate) struct Bench {
    pub(crate) plan: Plan,
    pub(crate) servers: Servers,
    pub(crate) book: Book,
}

/// One turn of this length.
type Turn<'a> = Box<dyn Fn(Duration) -> Pin<Box<dyn Future<Output = anyhow::Result<Figures>> + 'a>> + 'a>;

/// The contenders of one case of a workload.
pub(crate) struct Contest<'a> {
    workload: &'static str,
    case: String,
    contenders: Vec<(String, Turn<'a>)>,
}

impl<'a> Contest<'a> {
    pub(crate) fn new(workload: &'static str, case: impl Into<String>) -> Self {
        Self { workload, case: case.into(), contenders: Vec::new() }
    }

    /// Adds a contender, if the plan wants it.
    pub(crate) fn enter<F>(&mut self, plan: &Plan, name: &str, turn: impl Fn(Duration) -> F + 'a)
    where
        F: Future<Output = anyhow::Result<Figures>> + 'a,
    {
        if plan.wants(self.workload, &self.case, name) {
            self.contenders.push((name.to_owned(), Box::new(move |span| Box::pin(turn(span)))));
        }
    }

    /// Lets all have their turns.
    ///
    /// # Errors
    /// If a contender fails: a figure that leaves failures out would mean nothing.
    pub(crate) async fn run(self, plan: &Plan, book: &mut Book) -> anyhow::Result<()> {
        let Self { workload, case, contenders } = self;
        if contenders.is_empty() {
            return Ok(());
        }
        eprintln!("  {workload}, {case}: {} contenders, {} rounds", contenders.len(), plan.rounds);
        for round in 0..=plan.rounds {
            for at in 0..contenders.len() {
                let forth = round % 2 == 1;
                let (name, turn) = &contenders[if forth { at } else { contenders.len() - 1 - at }];
                let span = if round == 0 { plan.warm_up } else { plan.turn };
                let figures = turn(span).await.with_context(|| format!("{workload}, {case}: {name}"))?;
                if round > 0 {
                    book.add(workload, &case, name, figures);
                }
            }
        }
        for (name, _) in &contenders {
            let mine = book.series().iter().filter(|series| {
                series.workload == workload && series.case == case && series.contender == *name
            });
            let said: Vec<String> = mine
                .map(|series| {
                    format!("{} {}", crate::report::human(series.spread.median), series.metric.unit())
                })
                .collect();
            eprintln!("    {name:<34} {}", said.join("   "));
        }
        Ok(())
    }
}
