//! A pin ends with its session, on every node, with the cause, and not without it.

use std::time::Duration;

use pg_session::testing::Guard;
use pg_session::{Cause, Closed, GroupId, Pin, Session, SessionManager};

use crate::clocks::Clocks;
use crate::fixtures::{all, in_time, make, read};
use crate::support::{World, eventually};

const ALIVE: Result<(), Closed> = Ok(());

/// Two nodes whose trust does not end while a test waits.
async fn nodes(world: &World) -> [SessionManager; 2] {
    let mut config = world.roomy();
    config.trust_window = Duration::from_secs(600);
    [world.node_with(config.clone()).await, world.node_with(config).await]
}

async fn pinned(node: &SessionManager, session: &Session) -> Pin {
    let pin = in_time("the session is pinned", node.pin(session)).await.expect("the database answers");
    assert_eq!(pin.check(), ALIVE);
    pin
}

async fn ended(pin: &Pin) -> Cause {
    let cause = in_time("the pin ends", pin.ended()).await;
    assert_eq!(pin.check(), Err(Closed::Ended(cause)), "for good");
    cause
}

/// The node has handled what others have committed, and the lookups that followed have been answered.
async fn settled(node: &SessionManager, pin: &Pin) -> Result<(), Closed> {
    node.catch_up().await.unwrap();
    // A pin is proved again when no lookup of it is left.
    eventually("nothing is doubted", async || node.doubted_pins() == 0).await;
    pin.check()
}

#[tokio::test]
async fn logout_ends_pins_of_the_session_on_every_node() {
    let world = World::new();
    let [a, b] = nodes(&world).await;
    let sessions = make(&a, 2).await;
    let here = pinned(&a, &sessions[0]).await;
    let there = pinned(&b, &read(&b, sessions[0].id()).await).await;
    let other = pinned(&b, &read(&b, sessions[1].id()).await).await;
    assert!(a.delete(sessions[0].id()).await.unwrap());
    assert_eq!(here.check(), Err(Closed::Ended(Cause::Logout)), "at once on the node that deleted it");
    assert_eq!(ended(&there).await, Cause::Logout);
    assert_eq!(settled(&b, &other).await, ALIVE);
    // A handle from before: the pin says that the session has ended.
    let late = b.pin(&sessions[0]).await.unwrap();
    assert!(matches!(late.check(), Err(Closed::Ended(_))), "{late:?}");
}

#[tokio::test]
async fn updates_and_evictions_end_no_pin() {
    let world = World::new();
    let [a, b] = nodes(&world).await;
    let mut session = make(&a, 1).await.remove(0);
    let user = session.user_id().unwrap();
    let here = pinned(&a, &session).await;
    let there = pinned(&b, &read(&b, session.id()).await).await;
    session.set("n", &2).unwrap();
    a.save(&mut session).await.unwrap();
    for (node, pin) in [(&a, &here), (&b, &there)] {
        assert_eq!(settled(node, pin).await, ALIVE, "after an update");
    }
    a.user(user).remove_attribute("n").await.unwrap();
    a.user(user).evict().await.unwrap();
    a.evict_all().await.unwrap();
    for (node, pin) in [(&a, &here), (&b, &there)] {
        assert_eq!(settled(node, pin).await, ALIVE, "after evictions");
    }
    assert!(a.delete(session.id()).await.unwrap());
    ended(&there).await;
}

#[tokio::test]
async fn eviction_by_capacity_ends_no_pin_and_hides_no_end() {
    let world = World::new();
    let mut config = world.roomy();
    config.trust_window = Duration::from_secs(600);
    config.cache_sessions_max = 1;
    let (a, b) = (world.node_with(config).await, world.node().await);
    let sessions = make(&a, 20).await;
    let pins = all(sessions.iter().map(async |session| pinned(&a, session).await)).await;
    assert_eq!(a.status().pins, 20);
    assert!(b.delete(sessions[3].id()).await.unwrap());
    ended(&pins[3]).await;
    for (n, pin) in pins.iter().enumerate().filter(|(n, _)| *n != 3) {
        assert_eq!(settled(&a, pin).await, ALIVE, "{n}");
    }
    drop(pins);
    assert_eq!(a.status().pins, 0, "nothing is left behind");
}

#[tokio::test]
async fn ends_of_users_groups_and_all_end_pins_of_theirs_only() {
    let world = World::new();
    let [a, b] = nodes(&world).await;
    let red = GroupId::named("red");
    let kept = a.create(1).await.unwrap();
    let of_user = a.create(1).await.unwrap();
    let of_group = a.create(2).group(red).await.unwrap();
    let other = a.create(3).await.unwrap();
    let sessions = [&kept, &of_user, &of_group, &other];
    let here = all(sessions.into_iter().map(async |session| pinned(&a, session).await)).await;
    let there = all(sessions.into_iter().map(async |session| pinned(&b, session).await)).await;
    assert_eq!(a.user(1).delete_except(kept.id()).await.unwrap(), 1);
    assert_eq!(here[1].check(), Err(Closed::Ended(Cause::Everywhere)), "at once on this node");
    assert_eq!(ended(&there[1]).await, Cause::Everywhere);
    assert_eq!((settled(&a, &here[0]).await, settled(&b, &there[0]).await), (ALIVE, ALIVE), "the kept one");
    assert_eq!(b.group(red).delete().await.unwrap(), 1);
    assert_eq!(there[2].check(), Err(Closed::Ended(Cause::Admin)));
    assert_eq!(ended(&here[2]).await, Cause::Admin);
    assert_eq!(settled(&a, &here[3]).await, ALIVE, "another user");
    assert_eq!(a.delete_all_sessions().await.unwrap(), 2);
    for n in [0, 3] {
        assert_eq!(here[n].check(), Err(Closed::Ended(Cause::Admin)));
        assert_eq!(ended(&there[n]).await, Cause::Admin);
    }
}

#[tokio::test]
async fn rotation_ends_a_pin_and_leads_only_the_same_user_on() {
    let world = World::new();
    let [a, b] = nodes(&world).await;
    let mut session = a.create_anonymous().await.unwrap();
    let (here, there) = (pinned(&a, &session).await, pinned(&b, &session).await);
    a.rotate(&mut session).user(7).await.unwrap();
    for pin in [&here, &there] {
        assert_eq!((ended(pin).await, pin.successor()), (Cause::Rotated, None), "a login leads no holder on");
    }
    let (here, there) = (pinned(&a, &session).await, pinned(&b, &session).await);
    let old = session.id();
    a.rotate(&mut session).await.unwrap();
    for pin in [&here, &there] {
        assert_eq!((ended(pin).await, pin.successor()), (Cause::Rotated, Some(session.id())));
    }
    let retired = read(&b, old).await;
    assert!(retired.is_retired());
    assert_eq!(b.pin(&retired).await.unwrap().check(), Err(Closed::Ended(Cause::Rotated)));
    let follower = pinned(&b, &read(&b, there.successor().unwrap()).await).await;
    a.delete(session.id()).await.unwrap();
    ended(&follower).await;
}

#[tokio::test]
async fn a_login_over_the_limit_ends_the_oldest_pin() {
    let world = World::new();
    let mut config = world.config();
    (config.sessions_per_user_max, config.trust_window) = (1, Duration::from_secs(600));
    let (a, b) = (world.node_with(config.clone()).await, world.node_with(config).await);
    let oldest = a.create(1).await.unwrap();
    let (here, there) = (pinned(&a, &oldest).await, pinned(&b, &oldest).await);
    a.create(1).await.unwrap();
    assert_eq!(here.check(), Err(Closed::Ended(Cause::Cap)));
    assert_eq!(ended(&there).await, Cause::Cap);
}

#[tokio::test]
async fn a_pin_ends_when_its_session_expires() {
    let world = World::new();
    let [a, b] = nodes(&world).await;
    let mut session = a.create(1).expires_in(Duration::from_millis(300)).await.unwrap();
    let there = b.pin(&session).await.unwrap();
    let mut prolonged = a.create(2).expires_in(Duration::from_millis(300)).await.unwrap();
    a.save(&mut prolonged).expires_in(Duration::from_secs(600)).await.unwrap();
    let kept = pinned(&b, &prolonged).await;
    assert_eq!(ended(&there).await, Cause::Expired);
    assert_eq!(settled(&b, &kept).await, ALIVE);
    // Shortened while it is pinned.
    session = a.create(3).await.unwrap();
    let (here, there) = (pinned(&a, &session).await, pinned(&b, &session).await);
    a.save(&mut session).expires_in(Duration::from_millis(100)).await.unwrap();
    assert_eq!((ended(&here).await, ended(&there).await), (Cause::Expired, Cause::Expired));
}

#[tokio::test]
async fn a_pin_ends_at_the_idle_limit_unless_another_node_is_used() {
    let world = World::new();
    let clocks = Clocks::new(&world).await;
    let mut config = world.config();
    config.trust_window = Duration::from_secs(600);
    config.idle_timeout = Duration::from_secs(40);
    config.last_access_flush_interval = Duration::from_secs(10);
    let (a, b) = (clocks.node(&world, config.clone()).await, clocks.node(&world, config).await);
    let [idle, used] = [a.create(1).await.unwrap(), a.create(2).await.unwrap()];
    let (idle_pin, used_pin) = (pinned(&b, &idle).await, pinned(&b, &used).await);
    clocks.set(Duration::from_secs(30)).await;
    read(&a, used.id()).await;
    a.flush_accesses().await.unwrap();
    clocks.set(Duration::from_secs(45)).await;
    // The clock of the test has jumped, which no timer notices.
    b.evict_all().await.unwrap();
    assert_eq!(ended(&idle_pin).await, Cause::Idle);
    assert_eq!(settled(&b, &used_pin).await, ALIVE);
}

/// An administrator corrects the database's clock. Nothing else happens on the node.
#[tokio::test]
async fn a_pin_ends_when_the_clock_of_the_database_is_set_forward() {
    let world = World::new();
    let clocks = Clocks::new(&world).await;
    let mut config = world.config();
    config.trust_window = Duration::from_secs(2);
    let node = clocks.node(&world, config).await;
    let session = node.create(1).expires_in(Duration::from_secs(3_600)).await.unwrap();
    let pin = pinned(&node, &session).await;
    clocks.step_database(Duration::from_secs(7_200)).await;
    assert_eq!(ended(&pin).await, Cause::Expired);
}

#[tokio::test]
async fn control_without_doubts_a_pin_outlives_its_session() {
    let world = World::new();
    let [a, b] = nodes(&world).await;
    b.probes().remove(Guard::PinDoubt);
    let session = make(&a, 1).await.remove(0);
    let pin = pinned(&b, &session).await;
    assert!(a.delete(session.id()).await.unwrap());
    assert_eq!(settled(&b, &pin).await, ALIVE);
}

#[tokio::test]
async fn control_without_lookups_an_eviction_ends_a_pin() {
    let world = World::new();
    let [a, b] = nodes(&world).await;
    b.probes().remove(Guard::PinLookup);
    let session = make(&a, 1).await.remove(0);
    let pin = pinned(&b, &session).await;
    a.user(session.user_id().unwrap()).evict().await.unwrap();
    assert_eq!(ended(&pin).await, Cause::Unknown);
}

#[tokio::test]
async fn delete_in_psql_ends_pins_and_a_forged_notification_none() {
    let world = World::new();
    let [a, b] = nodes(&world).await;
    let sessions = make(&a, 2).await;
    let pins = all(sessions.iter().map(async |session| pinned(&b, session).await)).await;
    let operator = world.operator().await;
    let channel: String = operator
        .query_one("SELECT substring(prosrc FROM 'pg_notify\\(''([^'']+)''') FROM pg_proc WHERE proname = 'sessions_follow' AND pronamespace = current_schema()::regnamespace", &[])
        .await
        .unwrap()
        .get(0);
    let id = sessions[0].id().expose().simple();
    for payload in [format!("1d{id}"), "1a".to_owned(), format!("1s{id}.999")] {
        operator.execute("SELECT pg_notify($1, $2)", &[&channel, &payload]).await.unwrap();
        assert_eq!(settled(&b, &pins[0]).await, ALIVE, "{payload}");
    }
    operator.execute("DELETE FROM sessions WHERE id = $1", &[&sessions[1].id().expose()]).await.unwrap();
    assert_eq!(ended(&pins[1]).await, Cause::Sql);
    assert_eq!(settled(&b, &pins[0]).await, ALIVE);
}

#[tokio::test]
async fn clones_share_an_end_and_waiting_is_cancel_safe() {
    let world = World::new();
    let [a, _] = nodes(&world).await;
    let session = make(&a, 1).await.remove(0);
    let pin = pinned(&a, &session).await;
    let (clone, second) = (pin.clone(), pinned(&a, &session).await);
    assert_eq!(a.status().pins, 1, "one entry for all pins of a session");
    // Polled once, then dropped.
    assert!(futures_now(pin.ended()).is_none() && futures_now(pin.unproved()).is_none());
    a.delete(session.id()).await.unwrap();
    for pin in [&pin, &clone, &second] {
        assert_eq!(in_time("it is closed", pin.closed()).await, Closed::Ended(Cause::Logout));
    }
    assert!(futures_now(pin.unproved()).is_none(), "it has ended, and is not unproved");
    drop((pin, clone, second));
    assert_eq!(a.status().pins, 0);
}

#[tokio::test]
async fn shutdown_leaves_pins_unproved() {
    let world = World::new();
    let [a, _] = nodes(&world).await;
    let pin = pinned(&a, &make(&a, 1).await.remove(0)).await;
    assert!(a.shutdown(Duration::from_secs(30)).await.is_complete());
    assert_eq!(in_time("it is closed", pin.closed()).await, Closed::Unproved);
}

/// The cause that the caller names reaches the holders on every node.
#[tokio::test]
async fn the_named_cause_reaches_every_node() {
    let world = World::new();
    let [a, b] = nodes(&world).await;
    let operator = world.operator().await;
    let red = GroupId::named("red");
    for way in 0..7 {
        let mut session = a.create(1).group(red).await.unwrap();
        let old = session.id();
        let (here, there) = (pinned(&a, &session).await, pinned(&b, &session).await);
        let uuid = session.id().expose();
        let cause = match way {
            0 => a.delete(session.id()).cause(Cause::Backchannel).await.map(|_| Cause::Backchannel),
            1 => a.delete_many([session.id()]).cause(Cause::Credential).await.map(|_| Cause::Credential),
            2 => a.user(1).delete().cause(Cause::Credential).await.map(|_| Cause::Credential),
            3 => a.group(red).delete().cause(Cause::Backchannel).await.map(|_| Cause::Backchannel),
            4 => a.delete_all_sessions().cause(Cause::Unknown).await.map(|_| Cause::Unknown),
            5 => {
                let text = "SELECT session_end($1, 'credential')";
                operator.execute(text, &[&uuid]).await.unwrap();
                Ok(Cause::Credential)
            }
            _ => {
                a.rotate(&mut session).grace(Duration::ZERO).await.unwrap();
                assert!(a.get(old).await.unwrap().is_none());
                Ok(Cause::Rotated)
            }
        };
        let cause = cause.unwrap();
        assert_eq!((ended(&here).await, ended(&there).await), (cause, cause), "way {way}");
    }
}

/// The output of a future that is ready at its first poll.
fn futures_now<F: Future>(future: F) -> Option<F::Output> {
    match std::pin::pin!(future).poll(&mut std::task::Context::from_waker(std::task::Waker::noop())) {
        std::task::Poll::Ready(output) => Some(output),
        std::task::Poll::Pending => None,
    }
}
