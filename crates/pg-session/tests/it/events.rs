//! The stream of events: what happens on this node, what ends anywhere, and a reader that is too slow.

use std::time::Duration;

use pg_session::testing::Point;
use pg_session::{Cause, Event, Events, GroupId, Session, SessionManager, UserId};

use crate::fixtures::{all, in_time};
use crate::support::World;

async fn nodes(world: &World) -> [SessionManager; 2] {
    let mut config = world.roomy();
    config.trust_window = Duration::from_secs(600);
    [world.node_with(config.clone()).await, world.node_with(config).await]
}

/// The next event of a session. The first report of trust may come after the call of `events`.
async fn next(events: &mut Events) -> Event {
    loop {
        match any(events).await {
            Event::Trusted | Event::Untrusted => {}
            event => return event,
        }
    }
}

async fn any(events: &mut Events) -> Event {
    in_time("an event", events.next()).await.expect("the node lives")
}

#[tokio::test]
async fn ends_are_reported_on_every_node_with_their_cause() {
    let world = World::new();
    let [a, b] = nodes(&world).await;
    let red = GroupId::named("red");
    let sessions = all((0..3).map(async |n| a.create(n).group(red).await.unwrap())).await;
    let mut readers = [a.events(), b.events()];
    a.delete(sessions[0].id()).cause(Cause::Backchannel).await.unwrap();
    b.user(1).delete().await.unwrap();
    a.group(red).delete().await.unwrap();
    b.delete_all_sessions().cause(Cause::Credential).await.unwrap();
    let session = sessions[0].id().handle();
    for (events, knows) in readers.iter_mut().zip([true, false]) {
        let user = knows.then(|| UserId::from(0));
        assert_eq!(next(events).await, Event::Ended { session, user, cause: Cause::Backchannel });
        assert_eq!(next(events).await, Event::UserEnded { user: UserId::from(1), cause: Cause::Everywhere });
        assert_eq!(next(events).await, Event::GroupEnded { group: red, cause: Cause::Admin });
        assert_eq!(next(events).await, Event::AllEnded { cause: Cause::Credential });
    }
}

#[tokio::test]
async fn a_node_reports_what_it_creates_and_rotates() {
    let world = World::new();
    let [a, _] = nodes(&world).await;
    let mut events = a.events();
    let mut session = a.create_anonymous().await.unwrap();
    let from = session.id().handle();
    assert_eq!(next(&mut events).await, Event::Created { session: from, user: None });
    a.rotate(&mut session).user(7).await.unwrap();
    let (to, user) = (session.id().handle(), Some(UserId::from(7)));
    assert_eq!(next(&mut events).await, Event::Rotated { from, to, user });
}

/// In memory, pinned, or ended by a login of the same user.
#[tokio::test]
async fn an_end_names_the_user_if_the_node_knows_the_session() {
    let world = World::new();
    let mut config = world.config();
    (config.sessions_per_user_max, config.trust_window) = (1, Duration::from_secs(600));
    let [a, b] = [world.node_with(config.clone()).await, world.node_with(config).await];
    let sessions = all((0..3).map(|n| a.create(n))).await.into_iter().map(Result::unwrap);
    let sessions: Vec<_> = sessions.collect();
    let anonymous = a.create_anonymous().await.unwrap();
    b.get(sessions[0].id()).await.unwrap();
    let pin = b.pin(&sessions[1]).await.unwrap();
    b.get(anonymous.id()).await.unwrap();
    let mut readers = [a.events(), b.events()];
    for session in [&sessions[0], &sessions[1], &anonymous] {
        a.delete(session.id()).await.unwrap();
    }
    let created = a.create(2).await.unwrap();
    let ended = |session: &Session, user: Option<i64>, cause| Event::Ended {
        session: session.id().handle(),
        user: user.map(UserId::from),
        cause,
    };
    for (events, is_own) in readers.iter_mut().zip([true, false]) {
        assert_eq!(next(events).await, ended(&sessions[0], Some(0), Cause::Logout));
        assert_eq!(next(events).await, ended(&sessions[1], Some(1), Cause::Logout));
        assert_eq!(next(events).await, ended(&anonymous, None, Cause::Logout));
        if is_own {
            let of_login = [next(events).await, next(events).await];
            let session = created.id().handle();
            assert!(of_login.contains(&Event::Created { session, user: Some(UserId::from(2)) }));
            assert!(of_login.contains(&ended(&sessions[2], Some(2), Cause::Cap)), "{of_login:?}");
        } else {
            assert_eq!(next(events).await, ended(&sessions[2], None, Cause::Cap), "it never had it");
        }
    }
    drop(pin);
}

/// The notification of an end may come before or after the node has dropped the session from memory.
#[tokio::test]
async fn delete_many_names_the_users_of_its_sessions() {
    let world = World::new();
    let [a, _] = nodes(&world).await;
    let sessions: Vec<_> = all((0..100).map(|n| a.create(n))).await.into_iter().map(Result::unwrap).collect();
    let mut events = a.events();
    for session in &sessions {
        assert_eq!(a.delete_many([session.id()]).await.unwrap(), 1);
        let ended =
            Event::Ended { session: session.id().handle(), user: session.user_id(), cause: Cause::Logout };
        assert_eq!(next(&mut events).await, ended);
    }
}

/// The notification is handled while the login removes the ended session from memory.
#[tokio::test]
async fn an_end_by_a_login_names_the_user_in_every_order() {
    let world = World::new();
    let mut config = world.config();
    (config.sessions_per_user_max, config.trust_window) = (1, Duration::from_secs(600));
    let node = world.node_with(config).await;
    let first = node.create(2).await.unwrap();
    let mut events = node.events();
    let (created, ending) = (node.probes().close(Point::Created), node.probes().close(Point::Ending));
    let login = tokio::spawn({
        let node = node.clone();
        async move { node.create(2).await.unwrap() }
    });
    in_time("the commit and its notification", async { tokio::join!(created.arrived(1), ending.arrived(1)) })
        .await;
    created.open();
    let second = in_time("the login", login).await.unwrap();
    ending.open();
    let user = Some(UserId::from(2));
    assert_eq!(next(&mut events).await, Event::Created { session: second.id().handle(), user });
    assert_eq!(
        next(&mut events).await,
        Event::Ended { session: first.id().handle(), user, cause: Cause::Cap }
    );
}

#[tokio::test]
async fn a_slow_reader_gets_the_number_of_missed_events() {
    let world = World::new();
    let [a, b] = nodes(&world).await;
    let mut slow = a.events();
    a.create(0).await.unwrap();
    assert!(matches!(next(&mut slow).await, Event::Created { .. }));
    let sessions = all((0..1_500).map(|n| a.create(n))).await;
    assert!(sessions.iter().all(Result::is_ok), "no caller waits for the reader");
    b.user(1).delete().await.unwrap();
    a.catch_up().await.unwrap();
    // 1 500 were created and one was ended.
    assert_eq!(next(&mut slow).await, Event::Lagged(1_501 - 1_024));
    for _ in 0..1_023 {
        assert!(matches!(next(&mut slow).await, Event::Created { .. }));
    }
    assert_eq!(next(&mut slow).await, Event::UserEnded { user: UserId::from(1), cause: Cause::Everywhere });
}

#[tokio::test]
async fn loss_and_return_of_trust_are_reported() {
    let world = World::new();
    let wire = world.proxy().await;
    let a = world.node_listening_through(&wire, world.roomy()).await;
    let mut events = a.events();
    wire.refuse();
    wire.cut();
    while any(&mut events).await != Event::Untrusted {}
    wire.accept();
    wire.heal();
    assert_eq!(any(&mut events).await, Event::Trusted);
    assert!(a.shutdown(Duration::from_secs(30)).await.is_complete());
}

/// A clone of the manager lives on.
#[tokio::test]
async fn events_end_when_the_node_is_shut_down() {
    let world = World::new();
    let [a, _] = nodes(&world).await;
    let mut events = a.events();
    a.create(0).await.unwrap();
    assert!(a.shutdown(Duration::from_secs(30)).await.is_complete());
    let mut seen = Vec::new();
    while let Some(event) = in_time("an event or the end", events.next()).await {
        seen.push(event);
    }
    assert!(seen.iter().any(|event| matches!(event, Event::Created { .. })), "what came before: {seen:?}");
    let mut late = a.events();
    assert_eq!(in_time("the end", late.next()).await, None);
}
