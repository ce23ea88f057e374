//! The contenders of a workload that are stores under load: who they are, how they are called, and their contests.

use std::sync::Arc;

use crate::book::Book;
use crate::contest::{Bench, Contest};
use crate::drive::{Crew, Op};
pub(crate) use crate::names::contenders::{
    BARE_BATCHES, BARE_INSERTS, BARE_INSERTS_ONE_INDEX, BARE_ONE, BARE_POOL, INSIDE, ONE_INDEX, OURS, REDIS,
    REDIS_FSYNC, REDIS_FSYNC_POOL, REDIS_FSYNC_PUBLISH, REDIS_FSYNC_PUBLISH_POOL, REDIS_POOL, REDIS_PROMISES,
    REDIS_PROMISES_POOL, TOWER, TOWER_MOKA, UNCOMBINED, UNLIMITED,
};
use crate::payload::Payload;
use crate::peers::Peer;
use crate::peers::ours::Tables;
use crate::peers::redis::{Announce, RedisPeer, Way};
use crate::peers::tower_sessions::Table;
use crate::plan::Plan;
use crate::servers::{Redis, Servers};

/// Contenders with the same numbered sessions.
pub(crate) struct Lineup<'a> {
    workload: &'static str,
    plan: &'a Plan,
    pub(crate) payload: Payload,
    pub(crate) sessions: usize,
    crews: Vec<(&'static str, Arc<Crew>)>,
}

impl<'a> Lineup<'a> {
    pub(crate) fn new(workload: &'static str, plan: &'a Plan, payload: Payload, sessions: usize) -> Self {
        Self { workload, plan, payload, sessions, crews: Vec::new() }
    }

    /// Adds a contender, made only if the plan wants it in some case, with its memory filled.
    pub(crate) async fn enter<P: Peer>(
        &mut self,
        name: &'static str,
        make: impl AsyncFnOnce(Payload, usize) -> anyhow::Result<P>,
    ) -> anyhow::Result<()> {
        if self.plan.wants_contender(self.workload, name) {
            let node = make(self.payload, self.sessions).await?;
            node.warm().await?;
            self.crews.push((name, Crew::of(node, self.sessions).await?));
        }
        Ok(())
    }

    /// Adds ours, with all sessions in memory.
    pub(crate) async fn enter_ours(&mut self, servers: &Servers) -> anyhow::Result<()> {
        self.enter(OURS, async |payload, sessions| {
            let tables = Tables::fill(servers, payload, sessions).await?;
            tables.node(tables.config()).await
        })
        .await
    }

    /// Adds tower-sessions without a cache.
    pub(crate) async fn enter_tower(&mut self, servers: &Servers) -> anyhow::Result<()> {
        self.enter(TOWER, async |payload, sessions| {
            Ok(Table::fill(servers, payload, sessions).await?.plain())
        })
        .await
    }

    /// As [`enter`](Lineup::enter), for several nodes on one store.
    pub(crate) async fn enter_nodes(
        &mut self,
        name: &'static str,
        make: impl AsyncFnOnce(Payload, usize) -> anyhow::Result<Vec<Arc<dyn Peer>>>,
    ) -> anyhow::Result<()> {
        if self.plan.wants_contender(self.workload, name) {
            let nodes = make(self.payload, self.sessions).await?;
            for node in &nodes {
                node.warm().await?;
            }
            self.crews.push((name, Crew::new(nodes, self.sessions).await?));
        }
        Ok(())
    }

    /// Adds one Redis over one connection and over a pool.
    pub(crate) async fn enter_redis(
        &mut self,
        redis: &Redis,
        [multiplexed, pooled]: [&'static str; 2],
        announce: Announce,
    ) -> anyhow::Result<()> {
        for (name, way) in [(multiplexed, Way::Multiplexed), (pooled, Way::Pooled)] {
            self.enter(name, async |payload, sessions| {
                RedisPeer::fill(redis, way, payload, sessions, announce).await
            })
            .await?;
        }
        Ok(())
    }

    /// Lets all of them that the plan wants in this case compete.
    pub(crate) async fn compete(
        &self,
        book: &mut Book,
        case: &str,
        op: Op,
        in_flight: impl Fn(&str) -> usize,
    ) -> anyhow::Result<()> {
        self.contest(case, op, in_flight).run(self.plan, book).await
    }

    /// Their contest in this case, for others to enter.
    pub(crate) fn contest(&self, case: &str, op: Op, in_flight: impl Fn(&str) -> usize) -> Contest<'_> {
        let mut contest = Contest::new(self.workload, case);
        for (name, crew) in &self.crews {
            let in_flight = in_flight(name);
            contest.enter(self.plan, name, move |span| Arc::clone(crew).drive(op, in_flight, span));
        }
        contest
    }

    /// Looks whether everything that was acknowledged is there.
    pub(crate) async fn verify(&self) -> anyhow::Result<()> {
        for (name, crew) in &self.crews {
            crew.verify().await.map_err(|error| error.context(format!("{}: {name}", self.workload)))?;
        }
        Ok(())
    }
}

/// The parts of a run, apart, so that one can be borrowed while another is written to.
pub(crate) fn parts(bench: &mut Bench) -> (&Plan, &Servers, &mut Book) {
    let Bench { plan, servers, book } = bench;
    (plan, servers, book)
}
