//! A holder of locks: takes one, works under it, asks its guard, and writes to a resource that knows only fences.
//!
//! It writes without asking its guard first: a holder that was stopped, and continues, must be kept out by its fence.

use std::sync::Arc;
use std::time::Duration;

use pg_session::Lease;
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_postgres::{Client, NoTls};

use super::Node;
use crate::clock::now;
use crate::history::{Entry, Op, Taken};
use crate::plan::LOCKS;
use crate::rng::Rng;

const LEASE: Duration = Duration::from_millis(1_500);
const WAIT_MS_MAX: u64 = 1_000;
const WORK_MS_MAX: u64 = 2_500;
const STEP_MS: (u64, u64) = (20, 120);
/// How long the resource may take.
const RESOURCE_MAX: Duration = Duration::from_secs(2);

struct Locker {
    node: Arc<Node>,
    rng: Rng,
    resource: Option<Client>,
}

pub(super) async fn run(node: Arc<Node>, number: usize, mut stopped: watch::Receiver<bool>) {
    let rng = node.rng.fork(number as u64 + 1_001);
    let mut locker = Locker { node, rng, resource: None };
    loop {
        let pause = locker.rng.millis(50, 400);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stopped.wait_for(|stopped| *stopped) => return,
        }
        locker.turn(&mut stopped).await;
    }
}

impl Locker {
    async fn turn(&mut self, stopped: &mut watch::Receiver<bool>) {
        let (name, op) = (self.rng.below(LOCKS), self.node.next_op());
        let wait = if self.rng.chance(30) { Duration::ZERO } else { self.rng.millis(1, WAIT_MS_MAX) };
        let from = now();
        let taken = self.node.manager.locks().lock(&format!("torture-{name}")).lease(LEASE).wait(wait).await;
        let to = now();
        // Held by another, or trouble: what was not taken promises nothing.
        let Ok(lease) = taken else { return };
        let fence = lease.fence().get();
        self.node.journal.write(&Entry::Taken(Taken { op, name, from, to, fence }));
        let end = now() + self.rng.below(WORK_MS_MAX) * 1_000_000;
        while now() < end && !*stopped.borrow() {
            self.ask(&lease, op);
            self.use_resource(name, fence, op).await;
            tokio::time::sleep(self.rng.millis(STEP_MS.0, STEP_MS.1)).await;
        }
        self.ask(&lease, op);
        if self.rng.chance(70) {
            // Whether it was held to the end or not is in the history already.
            let _ = lease.release().await;
        }
    }

    /// The clock first: held after `at` means held at `at`, because what is lost stays lost.
    fn ask(&self, lease: &Lease, op: Op) {
        let at = now();
        if lease.is_held() {
            self.node.journal.write(&Entry::Held { op, at });
        }
    }

    /// The resource itself records what it accepts. One that cannot be reached accepts nothing.
    async fn use_resource(&mut self, name: u64, fence: i64, op: Op) {
        if self.resource.as_ref().is_none_or(Client::is_closed) {
            let connecting = tokio_postgres::connect(&self.node.plan.resource_url, NoTls);
            let Ok(Ok((client, connection))) = timeout(RESOURCE_MAX, connecting).await else { return };
            // The next use of the client returns the same error.
            tokio::spawn(async move { drop(connection.await) });
            self.resource = Some(client);
        }
        let Some(resource) = &self.resource else { return };
        let (name, op) = (name.cast_signed(), op.cast_signed());
        let used = async {
            resource.execute("SELECT torture_resource.use_it($1, $2, $3)", &[&name, &fence, &op]).await
        };
        if !matches!(timeout(RESOURCE_MAX, used).await, Ok(Ok(_))) {
            self.resource = None;
        }
    }
}
