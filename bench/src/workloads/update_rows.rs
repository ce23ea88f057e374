//! Updates in a table of ten thousand sessions beside a table of a million: what a change costs as the table grows.

use std::sync::Arc;

use super::in_flight;
use super::lineup::parts;
use super::million::Million;
use crate::contest::{Bench, Contest};
use crate::drive::{Crew, Op};
use crate::payload::Payload;
use crate::peers::ours::Tables;

pub(crate) const NAME: &str = "update_rows";
pub(crate) const SMALL: &str = "10 000 rows";
pub(crate) const LARGE: &str = "1 000 000 rows";
const SESSIONS: usize = 10_000;
const IN_FLIGHT: usize = 64;

pub(crate) async fn run(bench: &mut Bench, million: &mut Million) -> anyhow::Result<()> {
    let (plan, servers, book) = parts(bench);
    let (_, large) = million.get(servers).await?;
    let tables = Tables::fill(servers, Payload::Slim, SESSIONS).await?;
    let small = Crew::of(tables.node(tables.config()).await?, SESSIONS).await?;
    small.warm().await?;
    let mut contest = Contest::new(NAME, in_flight(IN_FLIGHT));
    for (name, crew) in [(SMALL, &small), (LARGE, &large)] {
        contest.enter(plan, name, move |span| Arc::clone(crew).drive(Op::Update, IN_FLIGHT, span));
    }
    contest.run(plan, book).await?;
    small.verify().await?;
    large.verify().await
}
