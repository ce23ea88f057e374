//! Compares some answers from memory with the database, afterwards and off the path of the requests.
//!
//! An answer may be older than the database: a session changes between the two. What counts as stale is what the promise
//! excludes (I3). A newer state that the database has shown at `a` was committed before `a`. So the memory must not serve the
//! older state at `a` plus the bound, or later:
//!
//! ```text
//! request      hit: version 1
//! observer        └─ asks ── a: the database has version 2 ── the bound passes ── is version 1 still served? ── stale
//! ```
//!
//! No clocks of two machines are compared, and no time of a row, which may be long before its commit.
//!
//! | the database shows | the bound |
//! |---|---|
//! | the session has ended, or goes on under another id | `trust_window`: it was notified with the commit |
//! | a newer version | [`newer_bound`]: an update may commit and be notified later, by another node if its own has ended |
//! | a session that lives, and was remembered as ended | `trust_window`; then the database is asked again, because an end is final |
//!
//! A lost connection or another server begins an epoch. It ends the comparisons of the epoch before.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tracing::{debug, error};

use crate::cache::Epoch;
use crate::clock::Tick;
use crate::config::Config;
use crate::core::{Core, Counters, Tasks};
use crate::failpoints::Guard;
use crate::hit::{hit, is_known_ended};
use crate::id::SessionId;
use crate::invalidation::trust::Trust;
use crate::postgres::standing::Standing;
use crate::version::Version;

/// Answers that one statement compares, and that wait for it. More are skipped.
const ANSWERS_MAX: usize = 256;
/// Sessions whose bound is waited for. More are skipped.
const SUSPECTS_MAX: usize = 1_024;
/// The pause between two statements.
const PAUSE: Duration = Duration::from_millis(100);

/// Takes the answers that are to be compared.
pub(crate) struct Observer {
    core: Arc<Core>,
    answers: mpsc::Sender<Answer>,
}

/// What a node has compared with the database since its start; see
/// [`Config::observed_hits_interval`](crate::Config::observed_hits_interval).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, serde::Serialize)]
#[non_exhaustive]
pub struct ObserverStats {
    /// Answers from memory that were compared.
    pub compared: u64,
    /// Answers that were older than the promise allows. **This must stay 0.**
    pub stale: u64,
    /// Answers that were not compared: too many waited, or the database did not answer.
    pub skipped: u64,
}

/// What the memory has answered.
#[derive(Clone, Copy, Debug)]
struct Answer {
    id: SessionId,
    shown: Shown,
    epoch: Epoch,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Shown {
    Served(Version),
    Ended,
    /// It was shown as ended a trust window after the database had shown that it lives.
    StillEnded,
}

/// A session of which the memory had another state than the database.
#[derive(Clone, Copy, Debug)]
struct Suspect {
    id: SessionId,
    error: Stale,
    epoch: Epoch,
    due: Tick,
}

/// What the memory must not answer any more when the bound has passed.
#[derive(Clone, Copy, Debug)]
enum Stale {
    /// A version below this one.
    Below(Version),
    /// That the session has ended.
    Ended,
}

/// How long an update may be unknown to a node that is trusted. The node that has sent it notifies again until that succeeds.
/// If it has ended, another node notices within two trust windows and a statement. The promise has a third window.
pub(crate) fn newer_bound(config: &Config) -> Duration {
    3 * config.trust_window + 2 * config.query_timeout
}

impl Observer {
    /// Starts the task.
    pub(crate) fn spawn(core: &Arc<Core>, tasks: &Tasks, trust: &Arc<Trust>) -> Self {
        let (sender, answers) = mpsc::channel(ANSWERS_MAX);
        let task = Task { core: Arc::clone(core), trust: Arc::clone(trust), suspects: Vec::new() };
        tasks.serving.spawn(|stop| task.run(answers, stop));
        Self { core: Arc::clone(core), answers: sender }
    }

    /// Has an answer compared, or skips it.
    #[cold]
    pub(crate) fn observe(&self, id: SessionId, shown: Shown) {
        let answer = Answer { id, shown, epoch: self.core.cache.epoch() };
        if self.answers.try_send(answer).is_err() {
            self.core.counters.observer_skipped.add(1);
        }
    }
}

impl ObserverStats {
    pub(crate) fn of(counters: &Counters) -> Self {
        Self {
            compared: counters.observer_compared.get(),
            stale: counters.observer_stale.get(),
            skipped: counters.observer_skipped.get(),
        }
    }
}

struct Task {
    core: Arc<Core>,
    trust: Arc<Trust>,
    suspects: Vec<Suspect>,
}

impl Task {
    async fn run(mut self, mut answers: mpsc::Receiver<Answer>, stop: CancellationToken) {
        loop {
            let mut some = Vec::new();
            let due = self.suspects.iter().map(|suspect| suspect.due).min();
            let wait = due.map(|due| due.since(self.core.policy.clock.now()));
            tokio::select! {
                count = answers.recv_many(&mut some, ANSWERS_MAX) => {
                    if count == 0 {
                        return;
                    }
                }
                () = tokio::time::sleep(wait.unwrap_or_default()), if wait.is_some() => {}
                () = stop.cancelled() => return,
            }
            some.extend(self.judge_due());
            tokio::select! {
                () = self.compare_and_pause(&some) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    async fn compare_and_pause(&mut self, answers: &[Answer]) {
        if answers.is_empty() {
            return;
        }
        self.compare(answers).await;
        tokio::time::sleep(PAUSE).await;
    }

    async fn compare(&mut self, answers: &[Answer]) {
        let mut ids: Vec<SessionId> = answers.iter().map(|answer| answer.id).collect();
        ids.sort_unstable();
        ids.dedup();
        let epoch = self.core.cache.epoch();
        let found = self.core.database.standings(&ids).await;
        let counters = &self.core.counters;
        let mut found = match found {
            Ok((found, server)) if self.core.is_proved(server) && self.core.cache.epoch() == epoch => found,
            Ok(_) => {
                counters.observer_skipped.add(answers.len());
                return;
            }
            Err(failure) => {
                counters.observer_skipped.add(answers.len());
                return debug!(error = %failure.error, "answers from memory could not be compared with the database");
            }
        };
        counters.observer_compared.add(answers.len());
        found.sort_unstable_by_key(|standing| standing.id);
        for answer in answers {
            let at = found.binary_search_by_key(&answer.id, |standing| standing.id);
            self.compare_one(*answer, at.ok().map(|at| &found[at]), epoch);
        }
    }

    fn compare_one(&mut self, answer: Answer, standing: Option<&Standing>, epoch: Epoch) {
        let Config { trust_window, notify_updates, .. } = self.core.config;
        let lives = standing.is_some_and(|standing| standing.live);
        let (error, bound) = match (answer.shown, standing) {
            (Shown::StillEnded, _) if lives && answer.epoch == epoch => {
                self.core.cache.forget_end(answer.id);
                return self.report(answer.id, "the memory took a session that lives for ended");
            }
            (Shown::Ended, _) if lives => (Stale::Ended, trust_window),
            (Shown::Ended | Shown::StillEnded, _) => return,
            (Shown::Served(_), None) => (Stale::Below(Version::DELETED), trust_window),
            // Not a session that is idle: an access that is not written yet may prolong it.
            (Shown::Served(_), Some(row)) if row.expired => {
                (Stale::Below(row.revision.version.next()), trust_window)
            }
            (Shown::Served(served), Some(row)) if served >= row.revision.version => return,
            (Shown::Served(_), Some(row)) if row.successor.is_some() => {
                (Stale::Below(row.revision.version), trust_window)
            }
            (Shown::Served(_), Some(row)) if notify_updates => {
                (Stale::Below(row.revision.version), newer_bound(&self.core.config))
            }
            (Shown::Served(_), Some(_)) => return,
        };
        if self.suspects.iter().any(|suspect| suspect.id == answer.id) {
            return;
        }
        if self.suspects.len() == SUSPECTS_MAX {
            self.core.counters.observer_skipped.add(1);
            return;
        }
        let bound = if self.core.failpoints.holds(Guard::ObserverBound) { bound } else { Duration::ZERO };
        let due = self.core.policy.clock.now().plus(bound);
        self.suspects.push(Suspect { id: answer.id, error, epoch, due });
    }

    /// Looks whether the memory still answers as it did. Returns what the database is to be asked again.
    fn judge_due(&mut self) -> Vec<Answer> {
        let now = self.core.policy.clock.now();
        let (due, later): (Vec<_>, Vec<_>) = self.suspects.drain(..).partition(|suspect| suspect.due <= now);
        self.suspects = later;
        let mut again = Vec::new();
        for Suspect { id, error, epoch, .. } in due {
            match error {
                Stale::Below(version) => {
                    let served = hit(&self.core, &self.trust, id);
                    let is_stale = served.is_some_and(|(record, _)| record.row.version < version);
                    // After the look into the memory: what was served belongs to this epoch or to an earlier one.
                    if is_stale && self.core.cache.epoch() == epoch {
                        self.report(id, "the memory served a session that had changed or ended long before");
                        // The next read loads it.
                        self.core.cache.invalidate(id, version);
                    }
                }
                Stale::Ended if is_known_ended(&self.core, &self.trust, id) => {
                    again.push(Answer { id, shown: Shown::StillEnded, epoch });
                }
                Stale::Ended => {}
            }
        }
        again
    }

    fn report(&self, id: SessionId, what: &'static str) {
        self.core.counters.observer_stale.add(1);
        error!(session = %id.handle(), "{what}; restart the node, and report this as an error of pg-session");
    }
}
