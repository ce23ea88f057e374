//! An update goes out by one of three statements: alone, with others that change nothing but small attributes either, or with
//! any others; and again, because it was overtaken. Whatever it asks for, all of them do the same.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use pg_session::{GroupId, IdleLimit, Save, Session, SessionManager};

use crate::fixtures::{all, hit, in_time, read};
use crate::support::World;

const HOUR: Duration = Duration::from_secs(3_600);

/// What an update may ask for: changes of attributes, and of the row.
type Change = (&'static str, fn(&mut Session), for<'a> fn(Save<'a>) -> Save<'a>);

const CHANGES: [Change; 10] = [
    ("set", |session| session.set("a", "new").unwrap(), |update| update),
    ("add", |session| session.set("new", "new").unwrap(), |update| update),
    ("remove", |session| session.remove("a"), |update| update),
    (
        "set and remove",
        |session| {
            session.set("a", "new").unwrap();
            session.remove("b");
            session.remove("absent");
        },
        |update| update,
    ),
    ("an attribute's end", |session| session.set_for("a", "new", HOUR).unwrap(), |update| update),
    ("later", |_| {}, |update| update.expires_in(HOUR * 24 * 300)),
    ("at", |_| {}, |update| update.expires_at(SystemTime::UNIX_EPOCH + HOUR * 24 * 365 * 150)),
    ("not idle", |session| session.set("a", "new").unwrap(), |update| update.idle_limit(IdleLimit::Exempt)),
    ("another group", |_| {}, |update| update.group(Some(GroupId::from(8)))),
    ("no group", |session| session.remove("b"), |update| update.group(None)),
];

/// One of each, all the same so far, and in the memory of both nodes.
async fn scene(writer: &SessionManager, listener: &SessionManager) -> Vec<Session> {
    let mut sessions = Vec::new();
    for _ in CHANGES {
        let create = writer.create(1).group(7).set("a", "old").set("b", "old");
        let session = create.await.unwrap();
        read(listener, session.id()).await;
        sessions.push(session);
    }
    sessions
}

fn update<'a>(
    writer: &'a SessionManager,
    session: &'a mut Session,
    (_, edit, ask): &Change,
    notify: bool,
) -> Save<'a> {
    edit(session);
    let update = ask(writer.save(session));
    if notify { update } else { update.no_notify() }
}

/// The first so many of them change nothing but small attributes that do not expire.
const PLAIN: usize = 4;

/// From this one on, they change a limit or the group, which is notified in any case.
const OF_ROW: usize = 5;

/// What can be compared between sessions: the days that are left, and whether this version wrote an attribute.
#[derive(PartialEq, Debug)]
struct Seen {
    attributes: BTreeMap<String, (Option<String>, bool, bool)>,
    group: Option<GroupId>,
    idle_limit: IdleLimit,
    days: u64,
}

fn seen(session: &Session) -> Seen {
    let left = session.expires_at().duration_since(session.updated_at()).unwrap();
    let attributes = session.keys().into_iter().map(|key| {
        let written = session.attribute_version(key) == Some(session.version());
        let value = (session.get(key).unwrap(), session.attribute_expires_at(key).is_some(), written);
        (key.to_owned(), value)
    });
    Seen {
        attributes: attributes.collect(),
        group: session.group_id(),
        idle_limit: session.idle_limit(),
        days: (left + HOUR).as_secs() / 86_400,
    }
}

/// Carries the changes out in each of the ways. Returns what the handles show afterwards, compared with the database,
/// the other node's memory and its notifications.
async fn each_way(notify: bool) -> [Vec<Seen>; 4] {
    let world = World::new();
    let [writer, listener] = world.nodes().await;

    let mut alone = scene(&writer, &listener).await;
    let before = writer.status().writes.update_statements;
    for (session, change) in alone.iter_mut().zip(&CHANGES) {
        in_time("it is updated", update(&writer, session, change, notify)).await.unwrap();
    }
    assert_eq!(writer.status().writes.update_statements - before, CHANGES.len() as u64);

    let mut together = scene(&writer, &listener).await;
    let before = writer.status().writes.update_statements;
    let updates =
        together.iter_mut().zip(&CHANGES).map(|(session, change)| update(&writer, session, change, notify));
    for outcome in all(updates).await {
        outcome.unwrap();
    }
    assert_eq!(writer.status().writes.update_statements - before, 1);

    let mut alike = scene(&writer, &listener).await;
    for range in [0..PLAIN, PLAIN..CHANGES.len()] {
        let before = writer.status().writes.update_statements;
        let pairs = alike[range.clone()].iter_mut().zip(&CHANGES[range]);
        for outcome in all(pairs.map(|(session, change)| update(&writer, session, change, notify))).await {
            outcome.unwrap();
        }
        assert_eq!(writer.status().writes.update_statements - before, 1);
    }

    // Another node moves each of them on, so each is found to be overtaken, and sent again.
    let mut overtaken = scene(&writer, &listener).await;
    for session in &overtaken {
        let mut theirs = read(&listener, session.id()).await;
        theirs.set("b", "old").unwrap();
        listener.save(&mut theirs).no_notify().await.unwrap();
    }
    let before = writer.status().writes.update_statements;
    for (session, change) in overtaken.iter_mut().zip(&CHANGES) {
        in_time("it is updated", update(&writer, session, change, notify)).await.unwrap();
    }
    assert_eq!(writer.status().writes.update_statements - before, 2 * CHANGES.len() as u64);

    listener.catch_up().await.unwrap();
    let mut ways = Vec::new();
    for (sessions, version) in [(alone, 2), (together, 2), (alike, 2), (overtaken, 3)] {
        let mut way = Vec::new();
        for (index, (session, (name, ..))) in sessions.iter().zip(&CHANGES).enumerate() {
            assert_eq!(session.version().get(), version, "{name}");
            let held = hit(&listener, session.id());
            let is_notified = notify || index >= OF_ROW;
            assert_eq!(held.is_none(), is_notified, "{name}: what the other node still has in memory");
            let stored = listener.get(session.id()).bypass_cache().await.unwrap().unwrap();
            assert_eq!((seen(&stored), stored.version()), (seen(session), session.version()), "{name}");
            way.push(seen(session));
        }
        ways.push(way);
    }
    ways.try_into().unwrap()
}

#[tokio::test]
async fn an_update_does_the_same_by_each_of_the_statements() {
    for notify in [true, false] {
        let [alone, together, alike, overtaken] = each_way(notify).await;
        for (index, (name, ..)) in CHANGES.iter().enumerate() {
            assert_eq!(alone[index], together[index], "{name}");
            assert_eq!(alone[index], alike[index], "{name}");
            assert_eq!(alone[index], overtaken[index], "{name}");
        }
    }
}
