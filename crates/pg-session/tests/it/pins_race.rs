//! Revocations that race with a pin, its lookup, or the loss of the connection.

use std::time::Duration;

use pg_session::testing::{Guard, Point};
use pg_session::{Cause, Closed, Config, GroupId, SessionManager};
use uuid::Uuid;

use crate::fixtures::{hit, in_time, make, read};
use crate::support::{World, eventually};
use crate::tables::Holder;

fn config(world: &World, trust_window: Duration) -> Config {
    let mut config = world.roomy();
    config.trust_window = trust_window;
    config
}

async fn node(world: &World, trust_window: Duration) -> SessionManager {
    world.node_with(config(world, trust_window)).await
}

const LONG: Duration = Duration::from_secs(600);

/// B: deletes ┊ A: has not received it, pins from memory ┊ A: receives it.
#[tokio::test]
async fn pin_taken_while_the_revocation_is_queued_ends() {
    let world = World::new();
    let wire = world.proxy().await;
    let b = node(&world, LONG).await;
    let a = world.node_listening_through(&wire, config(&world, LONG)).await;
    let session = make(&a, 1).await.remove(0);
    wire.stall();
    assert!(b.delete(session.id()).await.unwrap());
    let on_a = hit(&a, session.id()).expect("A has not received it");
    let pin = a.pin(&on_a).await.unwrap();
    assert_eq!(pin.check(), Ok(()), "as a read of A");
    wire.heal();
    in_time("the pin ends", pin.ended()).await;
}

/// A: its lookup finds the session alive ┊ B: deletes, A receives it ┊ A: the answer arrives.
#[tokio::test]
async fn lookup_that_a_revocation_overtook_proves_nothing() {
    let world = World::new();
    let (a, b) = (node(&world, LONG).await, node(&world, LONG).await);
    let session = make(&b, 1).await.remove(0);
    let lookup = a.probes().close(Point::LookedUp);
    let pinning = tokio::spawn({
        let (a, session) = (a.clone(), session.clone());
        async move { a.pin(&session).await.unwrap() }
    });
    in_time("the lookup is answered", lookup.arrived(1)).await;
    assert!(b.delete(session.id()).await.unwrap());
    a.catch_up().await.unwrap();
    // A second lookup, which waits, too.
    in_time("the revocation is looked up", lookup.arrived(2)).await;
    lookup.open();
    let pin = in_time("the session is pinned", pinning).await.unwrap();
    in_time("the pin ends", pin.ended()).await;
}

/// A: a doubt's lookup finds the session alive ┊ B: deletes ┊ A: the answer arrives, and leaves the second doubt.
#[tokio::test]
async fn answer_leaves_a_doubt_that_came_after_its_question() {
    let world = World::new();
    let (a, b) = (node(&world, LONG).await, node(&world, LONG).await);
    let mut session = make(&b, 1).await.remove(0);
    let pin = a.pin(&session).await.unwrap();
    let lookup = a.probes().close(Point::LookedUp);
    session.set("n", &2).unwrap();
    b.save(&mut session).await.unwrap();
    in_time("the update is looked up", lookup.arrived(1)).await;
    assert!(b.delete(session.id()).await.unwrap());
    a.catch_up().await.unwrap();
    assert_eq!((pin.check(), a.doubted_pins()), (Ok(()), 1), "the last proof holds");
    lookup.open();
    in_time("the pin ends", pin.ended()).await;
}

/// A: listener cut ┊ B: deletes one of two ┊ A: unproved within the trust window ┊ A: connected again.
#[tokio::test]
async fn pins_are_unproved_while_cut_off_then_end_or_recover() {
    let world = World::new();
    let wire = world.proxy().await;
    let b = world.node().await;
    let a = world.node_listening_through(&wire, config(&world, Duration::from_millis(900))).await;
    let sessions = make(&b, 2).await;
    let mut pins = Vec::new();
    for session in &sessions {
        pins.push(a.pin(session).await.unwrap());
    }
    wire.refuse();
    wire.cut();
    assert!(b.delete(sessions[0].id()).await.unwrap());
    for pin in &pins {
        in_time("no proof comes", pin.unproved()).await;
        assert_eq!(pin.check(), Err(Closed::Unproved));
    }
    wire.accept();
    wire.heal();
    in_time("the missed revocation is found", pins[0].ended()).await;
    eventually("the other is proved again", async || pins[1].check() == Ok(())).await;
}

/// A: pinned, the connection is lost ┊ B: deletes ┊ A: LISTEN, proof ┊ A: the pin is looked up before the proof counts.
#[tokio::test]
async fn revocation_missed_in_a_gap_is_found_after_reconnect() {
    let world = World::new();
    let wire = world.proxy().await;
    let b = node(&world, LONG).await;
    let a = world.node_listening_through(&wire, config(&world, LONG)).await;
    let session = make(&b, 1).await.remove(0);
    let pin = a.pin(&session).await.unwrap();
    wire.refuse();
    wire.cut();
    eventually("A has lost its listener", async || a.status().trusted_for.is_none()).await;
    assert_eq!(pin.check(), Ok(()), "the last proof holds");
    assert!(b.delete(session.id()).await.unwrap());
    wire.accept();
    wire.heal();
    in_time("the missed revocation is found", pin.ended()).await;
    assert!(b.get(session.id()).await.unwrap().is_none());
}

/// A: an update is received, its lookup hangs ┊ the proof before it ends ┊ the lookup is answered.
#[tokio::test]
async fn doubted_pin_is_unproved_when_no_lookup_answers() {
    let world = World::new();
    let a = node(&world, Duration::from_millis(900)).await;
    let b = world.node().await;
    let mut session = make(&b, 1).await.remove(0);
    let pin = a.pin(&session).await.unwrap();
    let lookup = a.probes().close(Point::LookedUp);
    session.set("n", &2).unwrap();
    b.save(&mut session).await.unwrap();
    in_time("the update is looked up", lookup.arrived(1)).await;
    in_time("the doubt's deadline passes", pin.unproved()).await;
    lookup.open();
    eventually("the answer settles the doubt", async || pin.check() == Ok(())).await;
    assert_eq!(read(&a, session.id()).await.version(), session.version());
}

/// B: a login gives the session a new id, which A has not received ┊ A: rotates that id ┊ A: a holder of the first one.
#[tokio::test]
async fn holder_of_an_id_from_before_a_login_learns_no_new_one() {
    let world = World::new();
    let wire = world.proxy().await;
    let b = node(&world, LONG).await;
    let a = world.node_listening_through(&wire, config(&world, LONG)).await;
    let mut session = b.create_anonymous().await.unwrap();
    let pin = a.pin(&session).await.unwrap();
    wire.stall();
    b.rotate(&mut session).user(7).await.unwrap();
    let mut on_a = read(&a, session.id()).await;
    assert_eq!(pin.check(), Ok(()), "A has not received the login");
    a.rotate(&mut on_a).await.unwrap();
    assert_eq!(pin.check(), Err(Closed::Ended(Cause::Rotated)));
    assert_eq!(pin.successor(), None, "another user is signed in there");
    wire.heal();
}

/// B: rotates, which A has not received ┊ A: deletes the new id ┊ A: a holder of the old one.
#[tokio::test]
async fn delete_ends_pins_of_ids_from_before_a_rotation() {
    let world = World::new();
    let wire = world.proxy().await;
    let b = node(&world, LONG).await;
    let a = world.node_listening_through(&wire, config(&world, LONG)).await;
    let mut session = make(&b, 1).await.remove(0);
    let pin = a.pin(&session).await.unwrap();
    wire.stall();
    b.rotate(&mut session).await.unwrap();
    assert_eq!(pin.check(), Ok(()), "A has not received the rotation");
    assert!(a.delete(session.id()).await.unwrap());
    assert_eq!(pin.check(), Err(Closed::Ended(Cause::Logout)), "before the answer");
    wire.heal();
}

/// A: its listener receives nothing ┊ A: shortens the session.
#[tokio::test]
async fn shorter_limit_holds_for_pins_of_its_own_node() {
    let world = World::new();
    let wire = world.proxy().await;
    let a = world.node_listening_through(&wire, config(&world, LONG)).await;
    let mut session = make(&a, 1).await.remove(0);
    let pin = a.pin(&session).await.unwrap();
    wire.stall();
    a.save(&mut session).expires_in(Duration::from_millis(500)).await.unwrap();
    assert_eq!(in_time("the pin ends", pin.ended()).await, Cause::Expired);
    wire.heal();
}

/// A: a lookup has read the session, and its answer is slow ┊ B: shortens the session ┊ A: looks it up ┊ the slow answer.
#[tokio::test]
async fn slow_answer_does_not_lengthen_a_shortened_session() {
    let world = World::new();
    let (a, b) = (node(&world, LONG).await, node(&world, LONG).await);
    let mut session = make(&b, 1).await.remove(0);
    let slow = a.probes().close(Point::LookedUp);
    let pinning = tokio::spawn({
        let (a, session) = (a.clone(), session.clone());
        async move { a.pin(&session).await.unwrap() }
    });
    in_time("the session is read", slow.arrived(1)).await;
    // Later lookups pass.
    let next = a.probes().close(Point::LookedUp);
    next.open();
    b.save(&mut session).expires_in(Duration::from_secs(2)).await.unwrap();
    in_time("the update is looked up", next.arrived(1)).await;
    eventually("its answer is handled", async || a.doubted_pins() == 0).await;
    slow.open();
    let pin = in_time("the session is pinned", pinning).await.unwrap();
    assert_eq!(in_time("the pin ends", pin.ended()).await, Cause::Expired);
}

/// A: a lookup finds the session in its new group ┊ B: ends that group, and A receives it ┊ A: the answer arrives.
#[tokio::test]
async fn end_of_a_group_ends_the_pin_of_a_session_that_joins_it() {
    let world = World::new();
    let (a, b) = (node(&world, LONG).await, node(&world, LONG).await);
    let mut session = make(&b, 1).await.remove(0);
    let pin = a.pin(&session).await.unwrap();
    let lookup = a.probes().close(Point::LookedUp);
    let blue = GroupId::named("blue");
    b.save(&mut session).group(Some(blue)).await.unwrap();
    in_time("the update is looked up", lookup.arrived(1)).await;
    assert_eq!(b.group(blue).delete().await.unwrap(), 1);
    a.catch_up().await.unwrap();
    assert_eq!(pin.check(), Ok(()), "the last proof holds");
    lookup.open();
    in_time("the pin ends", pin.ended()).await;
}

/// ```text
/// A        deletes the user's sessions ── COMMIT ── fails to look the pins up ── answers
/// client          waits for the table ──────── locks it ───────────────────────────────── COMMIT
/// ```
///
/// A trigger keeps the deletion waiting until the client waits behind it.
#[tokio::test]
async fn pins_are_unproved_if_their_end_cannot_be_looked_up() {
    let world = World::new();
    let a = world.node_with(config(&world, LONG).with(|it| it.query_timeout = Duration::from_secs(2))).await;
    let session = a.create(1).await.unwrap();
    let pin = a.pin(&session).await.unwrap();
    let (operator, schema) = (world.operator().await, &world.schema);
    let script = format!(
        "CREATE FUNCTION {schema}.waits() RETURNS trigger LANGUAGE plpgsql AS
             $$ BEGIN PERFORM pg_advisory_xact_lock(hashtext(TG_TABLE_SCHEMA::text)); RETURN NULL; END $$;
         CREATE TRIGGER waits BEFORE DELETE ON {schema}.sessions
             FOR EACH STATEMENT EXECUTE FUNCTION {schema}.waits()"
    );
    operator.batch_execute(&script).await.unwrap();
    let holder = Holder::begin(&world, &format!("SELECT pg_advisory_xact_lock(hashtext('{schema}'))")).await;
    let deleting = tokio::spawn({
        let a = a.clone();
        async move { a.user(1).delete().await }
    });
    holder.blocks(&operator).await;
    let locker = world.client().await;
    let locking = tokio::spawn(async move {
        locker.batch_execute("BEGIN; LOCK TABLE sessions IN ACCESS EXCLUSIVE MODE").await.unwrap();
        locker
    });
    let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND relation = 'sessions'::regclass";
    eventually("the client waits for the table", async || {
        operator.query_one(waits, &[]).await.unwrap().get::<_, i64>(0) == 1
    })
    .await;
    holder.commit().await;
    assert_eq!(in_time("it is answered", deleting).await.unwrap().unwrap(), 1);
    assert_eq!(pin.check(), Err(Closed::Unproved), "it is acknowledged, and no lookup was answered");
    let locker = in_time("the table is locked", locking).await.unwrap();
    locker.batch_execute("COMMIT").await.unwrap();
    assert_eq!(in_time("the pin ends", pin.ended()).await, Cause::Everywhere);
}

/// Deleted sessions that a sweep names; see `postgres/sweep.rs`.
const NAMED_MAX: i64 = 16_384;
const GROUP: Uuid = Uuid::from_u128(20);

/// A ends a group with so many `others`. Returns whether A serves the session that has just joined it, and what its pin says.
///
/// ```text
/// B   moves X to the group ── COMMIT, NOTIFY ····················· A receives it later
/// A   has X in memory and pinned, without a group ── ends the group, with X ── answers
/// ```
async fn end_of_a_group_that_a_session_joins(others: i64, is_named: bool) -> (bool, Result<(), Closed>) {
    let world = World::new();
    let wire = world.proxy().await;
    let b = node(&world, LONG).await;
    let a = world.node_listening_through(&wire, config(&world, LONG)).await;
    if !is_named {
        a.probes().remove(Guard::NamedForgets);
    }
    let client = world.client().await;
    let text = "INSERT INTO sessions (id, user_id, group_id, version, idle_limited, created_at, updated_at,
                                      last_accessed_at, expires_at)
        SELECT gen_random_uuid(), gen_random_uuid(), $1, 1, true, now(), now(), now(), now() + interval '1 hour'
        FROM generate_series(1, $2::bigint)";
    client.execute(text, &[&GROUP, &others]).await.unwrap();
    let session = make(&a, 1).await.remove(0);
    let pin = in_time("it is pinned", a.pin(&session)).await.unwrap();
    wire.stall();
    let mut on_b = read(&b, session.id()).await;
    b.save(&mut on_b).group(Some(GROUP.into())).await.unwrap();
    assert!(hit(&a, session.id()).is_some(), "A has not received the move");
    let deleted = in_time("the group ends", a.group(GROUP).delete()).await.unwrap();
    assert_eq!(i64::try_from(deleted).unwrap(), others + 1);
    (hit(&a, session.id()).is_some(), pin.check())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_group_ends_with_a_session_that_has_just_joined_it() {
    let (is_served, pin) = end_of_a_group_that_a_session_joins(3, true).await;
    assert!(!is_served, "its end was acknowledged");
    assert!(matches!(pin, Err(Closed::Ended(_))), "{pin:?}");
}

/// More than one statement names: A verifies what it has in memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_group_ends_with_a_session_that_joins_it() {
    let (is_served, pin) = end_of_a_group_that_a_session_joins(NAMED_MAX, true).await;
    assert!(!is_served, "its end was acknowledged");
    assert!(matches!(pin, Err(Closed::Ended(_))), "{pin:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn control_without_names_a_session_outlives_its_new_group() {
    let (is_served, pin) = end_of_a_group_that_a_session_joins(3, false).await;
    assert_eq!((is_served, pin), (true, Ok(())), "A knows it under no group");
}
