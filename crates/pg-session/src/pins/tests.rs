//! The states of pins, without a database: their clock is in the test's hand.

use std::sync::atomic::AtomicU64;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};

use super::*;
use crate::clock::Clock;
use crate::session::limits::Limits;

const SECOND: u64 = 1_000_000_000;

struct Scene {
    nanos: Arc<AtomicU64>,
    pins: Arc<Pins>,
    id: SessionId,
    pin: Pin,
}

impl Scene {
    /// One pin, alive, proved until second 10.
    fn new() -> Self {
        let nanos = Arc::new(AtomicU64::new(SECOND));
        let policy = Policy {
            clock: Clock::manual(Arc::clone(&nanos)),
            limits: Limits { key_bytes_max: 9, value_bytes_max: 9, attributes_max: 9, session_bytes_max: 99 },
            idle_timeout: Duration::from_secs(3_600),
            touch_resolution: Duration::from_secs(60),
        };
        let pins = Arc::new(Pins::new(Arc::new(policy)));
        let id = SessionId::random();
        let pin = pins.register(id, life());
        pins.prove(second(10));
        assert_eq!(pin.check(), Err(Closed::Unproved), "not known to live yet");
        pins.alive(id, pins.question(), life());
        assert_eq!(pin.check(), Ok(()));
        Self { nanos, pins, id, pin }
    }

    fn set(&self, seconds: u64) {
        self.nanos.store(seconds * SECOND, Ordering::SeqCst);
    }

    fn doubt(&self, cause: Option<Cause>) {
        self.pins.doubt(Named::Sessions(&[self.id]), cause);
    }
}

fn life() -> Life {
    Life {
        user_id: Some(UserId::from(7)),
        group_id: Some(GroupId::from(1)),
        expires_at: DbTime::NEVER,
        ends_at: DbTime::NEVER,
    }
}

fn second(seconds: u64) -> Tick {
    Tick::from_nanos(seconds * SECOND)
}

#[test]
fn a_proof_holds_until_its_window_ends() {
    let Scene { pins, pin, nanos, .. } = Scene::new();
    nanos.store(10 * SECOND - 1, Ordering::SeqCst);
    assert_eq!(pin.check(), Ok(()));
    nanos.store(10 * SECOND, Ordering::SeqCst);
    assert_eq!(pin.check(), Err(Closed::Unproved));
    pins.prove(second(20));
    assert_eq!(pin.check(), Ok(()));
    pins.close();
    pins.prove(second(30));
    assert_eq!(pin.check(), Err(Closed::Unproved), "a node that has ended proves nothing");
}

#[test]
fn later_proofs_do_not_count_for_a_doubted_session() {
    let scene = Scene::new();
    scene.doubt(None);
    scene.pins.prove(second(20));
    scene.set(10);
    assert_eq!(scene.pin.check(), Err(Closed::Unproved));
    scene.pins.alive(scene.id, scene.pins.question(), life());
    assert_eq!(scene.pin.check(), Ok(()));
}

/// doubt (proved until 10) ┊ question ┊ proof until 20, doubt ┊ answer ┊ proof until 30
#[test]
fn an_answer_settles_older_doubts_only() {
    let scene = Scene::new();
    scene.doubt(None);
    let question = scene.pins.question();
    scene.pins.prove(second(20));
    scene.doubt(None);
    scene.pins.alive(scene.id, question, life());
    scene.pins.prove(second(30));
    assert_eq!(scene.pins.some_doubted(None, 9), [scene.id], "to be looked up again");
    scene.set(19);
    assert_eq!(scene.pin.check(), Ok(()), "the second doubt came after a proof");
    scene.set(20);
    assert_eq!(scene.pin.check(), Err(Closed::Unproved));
    // Any number of doubts, each with a deadline of its own.
    for until in 31..60 {
        scene.pins.prove(second(until));
        scene.doubt(None);
    }
    scene.pins.alive(scene.id, scene.pins.question(), life());
    assert_eq!((scene.pin.check(), scene.pins.some_doubted(None, 9)), (Ok(()), vec![]));
}

/// question ┊ a later look finds that the session was shortened ┊ answer
#[test]
fn an_answer_that_was_overtaken_does_not_move_the_end() {
    for by_memory in [false, true] {
        let scene = Scene::new();
        let ends_at = scene.pins.policy.clock.database_now().plus(Duration::from_secs(5));
        let ending = Life { ends_at, expires_at: ends_at, ..life() };
        let (early, late) = (scene.pins.question(), scene.pins.question());
        if by_memory {
            assert!(scene.pins.lives_until(scene.id, late, ending));
        } else {
            scene.pins.alive(scene.id, late, ending);
        }
        scene.pins.alive(scene.id, early, life());
        assert_eq!(scene.pins.handle_due(), Some(second(6)), "{by_memory}");
    }
}

/// question ┊ the session joins group 2 ┊ group 2 ends, which this node takes for the end of others ┊ answer: in group 2
#[test]
fn an_answer_overtaken_by_the_end_of_a_group_settles_nothing() {
    let scene = Scene::new();
    scene.doubt(None);
    let question = scene.pins.question();
    let group = GroupId::from(2);
    scene.pins.doubt(Named::Scope(Scope::Group(group)), Some(Cause::Admin));
    assert!(
        scene.pins.last_doubt().is_some_and(|doubt| doubt > question),
        "a request waits for the next lookup"
    );
    scene.pins.prove(second(20));
    let moved = Life { group_id: Some(group), ..life() };
    scene.pins.alive(scene.id, question, moved);
    assert_eq!(scene.pins.some_doubted(None, 9), [scene.id], "to be looked up again");
    scene.set(10);
    assert_eq!(scene.pin.check(), Err(Closed::Unproved), "a later proof does not count");
    scene.pins.alive(scene.id, scene.pins.question(), moved);
    assert_eq!((scene.pin.check(), scene.pins.some_doubted(None, 9)), (Ok(()), vec![]));
}

#[test]
fn sessions_that_cannot_be_looked_up_are_unproved_at_once() {
    let scene = Scene::new();
    scene.doubt(None);
    let question = scene.pins.question();
    scene.pins.distrust(Scope::User(UserId::from(7)));
    assert_eq!(scene.pin.check(), Err(Closed::Unproved));
    scene.pins.alive(scene.id, question, life());
    assert_eq!(scene.pin.check(), Err(Closed::Unproved), "an earlier question");
    scene.pins.alive(scene.id, scene.pins.question(), life());
    assert_eq!(scene.pin.check(), Ok(()));
}

#[test]
fn a_holder_learns_the_successor_of_its_own_user_only() {
    for (user, learns) in [(Some(7_i64), true), (Some(8), false), (None, false)] {
        let scene = Scene::new();
        let successor = SessionId::random();
        scene.pins.end(scene.id, Some(Cause::Rotated), Some((successor, user.map(UserId::from))));
        assert_eq!(scene.pin.successor(), learns.then_some(successor), "{user:?}");
    }
}

#[test]
fn the_cause_of_an_end_is_the_best_that_is_known() {
    let cause = |known, doubted, life: Life| {
        let scene = Scene::new();
        scene.doubt(doubted);
        assert!(scene.pins.lives_until(scene.id, scene.pins.question(), life));
        scene.pins.end(scene.id, known, None);
        scene.pins.end(scene.id, Some(Cause::Sql), None);
        match scene.pin.check() {
            Err(Closed::Ended(cause)) => cause,
            other => panic!("it has ended: {other:?}"),
        }
    };
    let past = DbTime::EPOCH;
    let (idle, expired) =
        (Life { ends_at: past, ..life() }, Life { ends_at: past, expires_at: past, ..life() });
    assert_eq!(cause(Some(Cause::Cap), Some(Cause::Admin), idle), Cause::Cap);
    assert_eq!(cause(None, Some(Cause::Admin), idle), Cause::Admin);
    assert_eq!(cause(None, None, idle), Cause::Idle);
    assert_eq!(cause(None, None, expired), Cause::Expired);
    assert_eq!(cause(None, None, life()), Cause::Unknown);
}

#[test]
fn a_scope_of_any_size_is_doubted_and_nothing_else() {
    let Scene { pins, id, pin, .. } = Scene::new();
    let other =
        pins.register(SessionId::random(), Life { user_id: Some(UserId::from(8)), group_id: None, ..life() });
    pins.alive(
        other.id(),
        pins.question(),
        Life { user_id: Some(UserId::from(8)), group_id: None, ..life() },
    );
    let many: Vec<Pin> = (0..STEP_SESSIONS * 2).map(|_| pins.register(SessionId::random(), life())).collect();
    for scope in [Scope::User(UserId::from(7)), Scope::Group(GroupId::from(1))] {
        pins.doubt(Named::Scope(scope), None);
        let doubted = pins.some_doubted(None, usize::MAX);
        assert_eq!(doubted.len(), many.len() + 1);
        assert!(doubted.contains(&id) && !doubted.contains(&other.id()));
        let question = pins.question();
        doubted.iter().for_each(|&id| pins.alive(id, question, life()));
        assert!(pins.some_doubted(None, 1).is_empty());
    }
    pins.doubt_all();
    assert_eq!(pins.some_doubted(None, usize::MAX).len(), many.len() + 2);
    drop((many, pin));
    assert_eq!((pins.count(), pins.some_doubted(None, usize::MAX)), (1, vec![other.id()]));
    drop(other);
    let registry = pins.registry();
    assert!(registry.users.is_empty() && registry.groups.is_empty() && registry.ends.is_empty());
}

#[test]
fn an_end_that_is_due_is_doubted_at_its_time() {
    let scene = Scene::new();
    let now = scene.pins.policy.clock.database_now();
    let ends_at = now.plus(Duration::from_secs(5));
    let ending = Life { ends_at, expires_at: ends_at, ..life() };
    assert!(scene.pins.lives_until(scene.id, scene.pins.question(), ending));
    assert_eq!(scene.pins.handle_due(), Some(second(6)));
    assert!(scene.pins.some_doubted(None, 1).is_empty());
    scene.set(6);
    assert_eq!(scene.pins.handle_due(), Some(second(10)), "the deadline of the doubt");
    assert_eq!(scene.pins.some_doubted(None, 1), [scene.id]);
    scene.pins.end(scene.id, None, None);
    assert_eq!(scene.pin.check(), Err(Closed::Ended(Cause::Expired)));
}

/// A task that is starved wakes no holder when the window of the last proof ends.
#[test]
fn a_stream_delivers_nothing_behind_the_last_proof() {
    let scene = Scene::new();
    let mut news = scene.pin.clone().guard(stream::repeat("news"));
    let mut next = || news.poll_next_unpin(&mut Context::from_waker(Waker::noop()));
    assert_eq!(next(), Poll::Ready(Some(Ok("news"))));
    scene.set(10);
    assert_eq!(next(), Poll::Ready(Some(Err(Closed::Unproved))));
    assert_eq!(next(), Poll::Ready(None), "that was the last item");
}

/// stream: is asked for an item ┊ makes it until the window of the last proof has passed
#[test]
fn an_item_that_took_too_long_is_not_delivered() {
    let scene = Scene::new();
    let nanos = Arc::clone(&scene.nanos);
    let slow = stream::poll_fn(move |_| {
        nanos.store(10 * SECOND, Ordering::SeqCst);
        Poll::Ready(Some("news"))
    });
    let mut news = scene.pin.clone().guard(slow);
    let item = news.poll_next_unpin(&mut Context::from_waker(Waker::noop()));
    assert_eq!(item, Poll::Ready(Some(Err(Closed::Unproved))));
}

/// thread 1: drops the last pin ┊ thread 2: pins the session anew ┊ thread 1: removes the entry of its pin
#[test]
fn a_session_that_is_pinned_anew_keeps_its_entry() {
    let Scene { pins, id, pin, .. } = Scene::new();
    // As while the last pin is being dropped.
    pins.registry().slots.get_mut(&id).expect("it is pinned").held = Weak::new();
    let anew = pins.register(id, life());
    drop(pin);
    assert_eq!(pins.count(), 1);
    pins.end(id, Some(Cause::Logout), None);
    assert_eq!(anew.check(), Err(Closed::Ended(Cause::Logout)));
    drop(anew);
    assert_eq!(pins.count(), 0);
}

/// `cargo test -p pg-session --lib pins::tests::memory -- --ignored --nocapture`
#[test]
#[ignore = "measures the memory of the process"]
fn memory_of_a_pinned_session_is_below_600_bytes() {
    const SESSIONS: usize = 200_000;
    let Scene { pins, .. } = Scene::new();
    let before = resident_bytes();
    let register = |number: usize| {
        let user = UserId::from(i64::try_from(number).expect("few"));
        let ends_at = DbTime::from_nanos(i64::MAX - 1);
        let life = Life { user_id: Some(user), expires_at: ends_at, ends_at, ..life() };
        let id = SessionId::random();
        let pin = pins.register(id, life);
        pins.alive(id, pins.question(), life);
        pin
    };
    let held: Vec<Pin> = (0..SESSIONS).map(register).collect();
    let with_pins = resident_bytes();
    let clones = held.clone();
    let with_clones = resident_bytes();
    let each = |bytes: usize| bytes / SESSIONS;
    println!(
        "{} bytes for each pinned session with user, group and end; {} for each further pin",
        each(with_pins - before),
        each(with_clones - with_pins)
    );
    assert!(held.iter().all(|pin| pin.check().is_ok()));
    assert!(each(with_pins - before) < 600);
    drop((held, clones));
    assert_eq!(pins.count(), 0);
}

fn resident_bytes() -> usize {
    let pages = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: usize = pages.split(' ').nth(1).expect("a second field").parse().expect("a number");
    pages * 4_096
}
