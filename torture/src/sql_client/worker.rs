//! A worker: picks a session, changes or ends it in SQL, says what came of it, pauses, again. It works on the sessions
//! that the nodes' clients work on.

use std::sync::Arc;

use tokio::sync::watch;
use tokio_postgres::SimpleQueryRow;
use uuid::Uuid;

use super::SqlClient;
use super::connection::{Connection, Failure};
use super::listener::channel;
use crate::clock::now;
use crate::history::{Answer, Change, Elevates, Entry, Found, Intent, Op, Outcome, Read};
use crate::node::focus;
use crate::plan::{CLIENT_PLACES, Removed, SCHEMA, USERS, user_of};
use crate::rng::Rng;

const PAUSE_MS: (u64, u64) = (30, 90);
/// Of no other session: its limit never ends the unchanged session.
const UNCHANGED_USER: usize = 1_000_000;

struct Worker {
    client: Arc<SqlClient>,
    rng: Rng,
    connection: Connection,
}

pub(super) async fn run(client: Arc<SqlClient>, number: u64, mut stopped: watch::Receiver<bool>) {
    let connection = Connection::new(client.plan.pool_url.clone());
    let mut worker = Worker { rng: client.rng.fork(number + 1), connection, client };
    loop {
        worker.step().await;
        let pause = worker.rng.millis(PAUSE_MS.0, PAUSE_MS.1);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            _ = stopped.wait_for(|stopped| *stopped) => return,
        }
    }
}

impl Worker {
    async fn step(&mut self) {
        let what = self.rng.below(100);
        if what < 8 {
            return self.roll_back_all().await;
        }
        let slot = match self.rng.below(100) {
            0..75 => focus(&self.client.plan, 0, &mut self.rng),
            75..85 => focus(&self.client.plan, 1, &mut self.rng),
            _ => self.rng.index(CLIENT_PLACES),
        };
        let Ok(entry) = self.client.slots.read(slot) else { return };
        let session = entry.now;
        if session.is_nil() {
            return self.begin(slot, session).await;
        }
        let is_there = match what {
            ..50 => self.update(session).await,
            50..65 => self.modify(session).await,
            65..73 => self.update_by_hand(session).await,
            73..90 => self.roll_back(session).await,
            90..94 => self.end(session).await,
            94 => self.end_user(slot).await,
            _ => true,
        };
        if !is_there || what >= 95 {
            let is_gone = self.read(session).await == Some(false);
            if is_gone {
                self.begin(slot, session).await;
            }
        }
    }

    // --- committed -----------------------------------------------------------------------------------------------

    /// `a` last: its version is that of the session. At times with a part that is rolled back.
    async fn update(&mut self, session: Uuid) -> bool {
        let op = self.intend(Change::Update { session, elevates: Elevates::AsBefore });
        let mut script = format!("BEGIN; {};", self.set(session, "b", op));
        let undone = self.rng.chance(20).then(|| {
            let undone = self.intend(Change::Update { session, elevates: Elevates::AsBefore });
            let (set, id) = (self.set(session, "a", undone), session);
            script += &format!("SAVEPOINT s; {set}; SELECT {SCHEMA}.session_end('{id}'); ROLLBACK TO s;");
            undone
        });
        script += &format!("{}; COMMIT", self.set(session, "a", op));
        let answer = self.connection.send(&script).await;
        if let Some(undone) = undone {
            self.answer(undone, Outcome::RolledBack);
        }
        self.wrote(op, session, answer)
    }

    /// The first statement locks the session, so no other transaction counts meanwhile.
    async fn modify(&mut self, session: Uuid) -> bool {
        let op = self.intend(Change::Modify { session });
        let padding = self.padding();
        let script = format!(
            "BEGIN; {};
             SELECT {SCHEMA}.session_set(s.id, 'n', jsonb_build_array(
                 COALESCE((s.attributes -> 'n' ->> 0)::bigint, 0) + 1, repeat('x', {padding})))
             FROM {SCHEMA}.session_get('{session}') s;
             {}; COMMIT",
            self.set(session, "b", op),
            self.set(session, "a", op)
        );
        let answer = self.connection.send(&script).await;
        self.wrote(op, session, answer)
    }

    async fn update_by_hand(&mut self, session: Uuid) -> bool {
        let op = self.intend(Change::ByHand { session });
        // As the library's own updates look, which notify by themselves.
        let claim = if self.is_planted(Removed::SqlNotice) { ", flip = NOT flip" } else { "" };
        let script = format!(
            "UPDATE {SCHEMA}.sessions SET group_id = gen_random_uuid(), version = version + 1{claim}
             WHERE id = '{session}' AND rotated_to IS NULL RETURNING version"
        );
        let answer = self.connection.send(&script).await;
        self.wrote(op, session, answer)
    }

    /// By any of its ids, or its row alone.
    async fn end(&mut self, session: Uuid) -> bool {
        let op = self.intend(Change::Delete { session });
        let by_hand = self.rng.chance(50);
        let script = if by_hand {
            format!(
                "DELETE FROM {SCHEMA}.sessions WHERE id = '{session}' AND rotated_to IS NULL RETURNING id"
            )
        } else {
            format!("SELECT {SCHEMA}.session_end('{session}', 'logout')")
        };
        let outcome = match self.connection.send(&script).await {
            Ok(rows) if rows.is_empty() => Outcome::Refused("not there".to_owned()),
            Ok(_) => Outcome::Gone,
            Err(failure) => of(failure),
        };
        self.answer(op, outcome);
        false
    }

    async fn end_user(&mut self, slot: usize) -> bool {
        let Some(user) = user_of(slot) else { return true };
        let op = self.intend(Change::DeleteUser { user });
        let id = format!("{SCHEMA}.session_user_of({user}::bigint)");
        let script = if self.rng.chance(50) {
            format!("DELETE FROM {SCHEMA}.sessions WHERE user_id = {id}")
        } else {
            format!("SELECT {SCHEMA}.session_end_user({id}, cause => 'credential')")
        };
        let outcome = self.connection.send(&script).await.map_or_else(of, |_| Outcome::Gone);
        self.answer(op, outcome);
        false
    }

    /// A new session for the slot, in the place of `old`.
    async fn begin(&mut self, slot: usize, old: Uuid) {
        let user = user_of(slot);
        let op = self.intend(Change::Create { user });
        let Some(session) = self.create(op, user).await else { return };
        if let Err(error) = self.client.slots.replace(slot, old, session) {
            eprintln!("torture: a slot cannot be written: {error}");
        }
    }

    async fn create(&mut self, op: Op, user: Option<usize>) -> Option<Uuid> {
        let user = user.map_or("NULL".to_owned(), |user| format!("{SCHEMA}.session_user_of({user}::bigint)"));
        let (a, b) = (self.value(op), self.value(op));
        let script =
            format!("SELECT {SCHEMA}.session_create({user}, jsonb_build_object('a', {a}, 'b', {b}))");
        let answer = self.connection.send(&script).await;
        let session = answer.as_ref().ok().and_then(|rows| rows.first()?.get(0)?.parse().ok());
        let outcome = match (session, answer) {
            (Some(session), _) => Outcome::Wrote { session, version: 1 },
            (None, Ok(_)) => Outcome::Unknown,
            (None, Err(failure)) => of(failure),
        };
        self.answer(op, outcome);
        session
    }

    // --- rolled back ---------------------------------------------------------------------------------------------

    /// Its values must never be seen, and its end neither.
    async fn roll_back(&mut self, session: Uuid) -> bool {
        let op = self.intend(Change::Modify { session });
        let script = format!(
            "BEGIN; {}; {}; SELECT {SCHEMA}.session_end('{session}', 'admin'); ROLLBACK",
            self.set(session, "b", op),
            self.set(session, "a", op)
        );
        // After any failure, too: the script has no COMMIT.
        let answer = self.connection.send(&script).await;
        self.answer(op, Outcome::RolledBack);
        !matches!(answer, Err(Failure::NotThere))
    }

    /// All that can be notified of one session, and then a rollback.
    async fn roll_back_all(&mut self) {
        let Some(session) = self.client.unchanged() else {
            let op = self.intend(Change::Create { user: None });
            if let Some(session) = self.create(op, Some(UNCHANGED_USER)).await {
                self.client.set_unchanged(Some(session));
            }
            return;
        };
        let op = self.intend(Change::Modify { session });
        let script = format!(
            "BEGIN; SELECT {SCHEMA}.session_touch('{session}'); {}; {};
             SELECT {SCHEMA}.session_add_label('{session}', 'never');
             UPDATE {SCHEMA}.sessions SET group_id = id, version = version + 1 WHERE id = '{session}';
             SAVEPOINT s; SELECT {SCHEMA}.session_end('{session}'); ROLLBACK TO s;
             DELETE FROM {SCHEMA}.sessions WHERE id = '{session}'; ROLLBACK",
            self.set(session, "b", op),
            self.set(session, "a", op)
        );
        let answer = self.connection.send(&script).await;
        self.answer(op, Outcome::RolledBack);
        if self.is_planted(Removed::SqlRollback) {
            let payload = format!("1s{}.2", session.simple());
            let _ = self.connection.send(&format!("SELECT pg_notify({}, '{payload}')", channel())).await;
        }
        // The database has lost it.
        if matches!(answer, Err(Failure::NotThere)) {
            self.client.set_unchanged(None);
        }
    }

    // --- reads, and what came of it ------------------------------------------------------------------------------

    /// Whether it is there; `None` if that is not known.
    async fn read(&mut self, session: Uuid) -> Option<bool> {
        let from = now();
        let answer =
            self.connection.send(&format!("SELECT version FROM {SCHEMA}.session_get('{session}')")).await;
        let to = now();
        let found = match answer {
            Ok(rows) => match rows.first() {
                Some(row) => Found::Version(number(row)?),
                None => Found::Gone,
            },
            Err(_) => Found::Failed("SQL".to_owned()),
        };
        let is_there = match found {
            Found::Gone => Some(false),
            Found::Failed(_) => None,
            _ => Some(true),
        };
        self.client.journal.write(&Entry::Read(Read {
            session,
            from,
            to,
            at_least: 0,
            cached: false,
            found,
        }));
        is_there
    }

    fn intend(&self, change: Change) -> Op {
        let op = self.client.next_op();
        self.client.journal.write(&Entry::Intent(Intent { op, at: now(), change }));
        op
    }

    fn answer(&self, op: Op, outcome: Outcome) {
        self.client.journal.write(&Entry::Answer(Answer { op, at: now(), outcome }));
    }

    /// Of a script whose last row is the new version. Returns whether the session is there.
    fn wrote(&self, op: Op, session: Uuid, answer: Result<Vec<SimpleQueryRow>, Failure>) -> bool {
        let is_there = !matches!(answer, Err(Failure::NotThere));
        let outcome = match answer {
            Ok(rows) => match rows.last().and_then(number) {
                Some(version) => Outcome::Wrote { session, version },
                None => Outcome::Refused("not there".to_owned()),
            },
            Err(failure) => of(failure),
        };
        self.answer(op, outcome);
        is_there
    }

    // --- scripts -------------------------------------------------------------------------------------------------

    fn set(&mut self, session: Uuid, key: &str, op: Op) -> String {
        format!("SELECT {SCHEMA}.session_set('{session}', '{key}', {})", self.value(op))
    }

    /// As the nodes pad their values, so that they move between the places of the database.
    fn value(&mut self, op: Op) -> String {
        format!("jsonb_build_array({op}, repeat('x', {}))", self.padding())
    }

    fn padding(&mut self) -> usize {
        match self.rng.below(100) {
            0..50 => 0,
            50..80 => 440,
            80..97 => 700,
            _ => 5_000,
        }
    }

    fn is_planted(&self, fault: Removed) -> bool {
        self.client.plan.without == Some(fault)
    }
}

fn number(row: &SimpleQueryRow) -> Option<i64> {
    row.get(0)?.parse().ok()
}

fn of(failure: Failure) -> Outcome {
    match failure {
        Failure::NotThere => Outcome::Refused("ended, or rotated".to_owned()),
        Failure::Refused(why) => Outcome::Refused(why),
        Failure::Unknown => Outcome::Unknown,
    }
}

const _: () = assert!(USERS < UNCHANGED_USER);
