//! Labels: sessions of any users that are listed and ended together.

use std::time::Duration;

use pg_session::sql::{self, Cause};
use pg_session::{ErrorKind, Migrations, SessionId, SessionManager, UpdateError};
use tokio_postgres::Client;
use tokio_postgres::types::ToSql;

use crate::clocks::Clocks;
use crate::fixtures::{hit, ids, in_time, make, read, read_all};
use crate::observer::{Observer, rejection};
use crate::support::{World, eventually};
use crate::tables::Holder;

const SID: &str = "oidc:sid:4711";

/// The labels that the table holds for a session.
async fn stored_labels(client: &Client, id: SessionId) -> Vec<String> {
    let text = "SELECT label FROM session_labels WHERE session_id = $1 ORDER BY label";
    client.query(text, &[&id.expose()]).await.unwrap().iter().map(|row| row.get(0)).collect()
}

async fn label_rows(client: &Client) -> i64 {
    client.query_one("SELECT count(*) FROM session_labels", &[]).await.unwrap().get(0)
}

async fn listed(node: &SessionManager, label: &str) -> Vec<SessionId> {
    let mut listed = ids(&node.label(label).list().await.unwrap().sessions);
    listed.sort_unstable();
    listed
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn end_by_label_ends_its_sessions_on_every_node() {
    let world = World::new();
    let [a, b] = world.nodes().await;
    let client = world.client().await;
    let mut labelled = Vec::new();
    for user in 0..3 {
        let large = "x".repeat(600);
        let create = a.create(user).set("large", &large).label(SID).label("tenant:7").label(SID);
        labelled.push(create.await.unwrap().id());
    }
    let mut rotated = read(&a, labelled[0]).await;
    a.rotate(&mut rotated).await.unwrap();
    let old = std::mem::replace(&mut labelled[0], rotated.id());
    labelled.sort_unstable();
    let (tenant, plain) =
        (a.create_anonymous().label("tenant:7").await.unwrap().id(), a.create(1).await.unwrap().id());
    for node in [&a, &b] {
        read_all(node, &labelled).await;
        read_all(node, &[old, tenant, plain]).await;
    }
    assert_eq!(listed(&b, SID).await, labelled);
    assert_eq!(listed(&b, "tenant:7").await.len(), 4);
    let page = b.label(SID).page(None).await.unwrap();
    assert_eq!((ids(&page.sessions), page.truncated), (labelled.clone(), false), "by their ids");
    assert_eq!(ids(&b.label(SID).page(Some(labelled[1])).await.unwrap().sessions), labelled[2..]);
    assert_eq!((b.label(SID).count().await.unwrap(), b.label("tenant:7").count().await.unwrap()), (3, 4));
    assert_eq!(listed(&b, "oidc:sid:471").await, []);
    assert_eq!(stored_labels(&client, old).await, Vec::<String>::new(), "a retired id has none");

    let mut observer = Observer::new(&world).await;
    assert_eq!(b.label(SID).delete().await.unwrap(), 3);
    let notified = observer.notified().await;
    assert!(notified.iter().all(|payload| payload.starts_with("1d")), "{notified:?}");
    for id in labelled.iter().copied().chain([old]) {
        assert!(hit(&b, id).is_none(), "before the answer");
        assert!(notified.iter().any(|payload| payload.contains(&id.expose().simple().to_string())));
        eventually("the other node was notified", async || hit(&a, id).is_none()).await;
        assert!(a.get(id).await.unwrap().is_none());
    }
    for node in [&a, &b] {
        assert!(hit(node, tenant).is_some() && hit(node, plain).is_some(), "the others stay in memory");
    }
    assert_eq!(label_rows(&client).await, 1, "one session has one label");
    assert_eq!(b.label(SID).delete().await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rotation_keeps_labels_unless_it_names_others() {
    let world = World::new();
    let node = world.node().await;
    let client = world.client().await;
    let mut session = node.create_anonymous().label("a").label("b").await.unwrap();
    node.rotate(&mut session).await.unwrap();
    node.rotate(&mut session).user(1).grace(Duration::ZERO).await.unwrap();
    assert_eq!(stored_labels(&client, session.id()).await, ["a", "b"]);
    for n in 0..10 {
        node.rotate(&mut session).label(&format!("sid:{n}")).label("b").await.unwrap();
    }
    assert_eq!(stored_labels(&client, session.id()).await, ["b", "sid:9"], "they do not add up");
    node.rotate(&mut session).without_labels().await.unwrap();
    assert_eq!(label_rows(&client).await, 0);
    node.rotate(&mut session).label("late").await.unwrap();
    assert_eq!(listed(&node, "late").await, [session.id()]);
    // Many in one statement: each keeps or gets its own.
    let mut sessions = make(&node, 3).await;
    for (n, session) in sessions.iter_mut().enumerate().take(2) {
        node.rotate(session).label(&n.to_string()).await.unwrap();
    }
    let [first, second, third] = &mut sessions[..] else { panic!("three") };
    let (one, two, three) =
        tokio::join!(node.rotate(first), node.rotate(second).label("new"), node.rotate(third));
    one.and(two).and(three).unwrap();
    let mut found = Vec::new();
    for session in &sessions {
        found.push(stored_labels(&client, session.id()).await);
    }
    assert_eq!(found, [vec!["0".to_owned()], vec!["new".to_owned()], vec![]]);
}

/// B: adds a label, and holds the row ┊ A: rotates the version before, waits ┊ B: commits ┊ A goes on with a snapshot that has
/// not got the label: it has to begin again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn label_added_during_rotation_goes_to_the_new_id() {
    let world = World::new();
    let node = world.node().await;
    let observer = world.client().await;
    let mut session = node.create(1).label("first").await.unwrap();
    let id = session.id();
    let add = format!("SELECT session_add_label('{}', 'late')", id.expose());
    let holder = Holder::begin(&world, &add).await;
    let rotation = tokio::spawn({
        let node = node.clone();
        async move { node.rotate(&mut session).await.map(|()| session.id()) }
    });
    holder.blocks(&observer).await;
    holder.commit().await;
    let new = in_time("the rotation is done", rotation).await.unwrap().unwrap();
    assert_eq!(stored_labels(&observer, new).await, ["first", "late"]);
    assert_eq!(label_rows(&observer).await, 2);
}

/// A: creates, not committed ┊ B: ends the sessions of the label, and of the user, and returns ┊ A: commits. The session
/// stays: the login came after the logout. It is one order for labels, users and groups.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn create_in_flight_during_end_by_label_or_user_stays() {
    let world = World::new();
    let node = world.node().await;
    let create = format!(
        "SELECT set_config('test.id', session_create(session_user_of(1), '{{}}', NULL, session_user_of(7),
                                                     labels => '{{{SID}}}')::text, false)"
    );
    let login = Holder::begin(&world, &create).await;
    let ended = [
        in_time("the label's end does not wait", node.label(SID).delete()).await.unwrap(),
        in_time("the user's end does not wait", node.user(1).delete()).await.unwrap(),
        in_time("the group's end does not wait", node.group(7).delete()).await.unwrap(),
    ];
    assert_eq!(ended, [0, 0, 0]);
    login.client.batch_execute("COMMIT").await.unwrap();
    let id: String = login.client.query_one("SELECT current_setting('test.id')", &[]).await.unwrap().get(0);
    assert_eq!(listed(&node, SID).await, [id.parse().unwrap()]);
    assert_eq!(node.label(SID).delete().await.unwrap(), 1, "the next end finds it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn labels_are_deleted_with_their_session_by_every_path() {
    let world = World::new();
    let clocks = Clocks::new(&world).await;
    let node = clocks.node(&world, world.config()).await;
    let client = world.operator().await;
    for path in 0..9 {
        let mut session = node.create(1).group(7).label(SID).label("b").await.unwrap();
        let id = session.id();
        assert_eq!(label_rows(&client).await, 2);
        match path {
            0 => drop(node.delete(id).await.unwrap()),
            1 => drop(node.user(1).delete().await.unwrap()),
            2 => drop(node.group(7).delete().await.unwrap()),
            3 => drop(node.delete_all_sessions().await.unwrap()),
            4 => drop(client.execute("DELETE FROM sessions WHERE id = $1", &[&id.expose()]).await.unwrap()),
            5 => client.batch_execute("TRUNCATE sessions").await.unwrap(),
            6 => drop(node.create(1).cap(1).await.unwrap()),
            7 => {
                node.rotate(&mut session).without_labels().grace(Duration::ZERO).await.unwrap();
            }
            _ => {
                let expire = "UPDATE sessions SET expires_at = last_accessed_at - interval '2 days',
                                  version = version + 1";
                world.client().await.execute(expire, &[]).await.unwrap();
                node.cleanup().await.unwrap();
            }
        }
        assert_eq!(label_rows(&client).await, 0, "path {path}");
    }
}

#[tokio::test]
async fn labels_of_sql_are_added_listed_removed_and_ended() {
    let world = World::new();
    let [a, b] = world.nodes().await;
    let operator = world.operator().await;
    let create = "SELECT session_create(session_user_of(1), labels => '{tenant:7,tenant:7}')";
    let id = SessionId::from_uuid(operator.query_one(create, &[]).await.unwrap().get(0));
    let other = a.create(2).await.unwrap().id();
    for node in [&a, &b] {
        read_all(node, &[id, other]).await;
    }
    let add = "SELECT session_add_label($1, $2)";
    let version = |call: &'static str, label: &'static str| {
        let operator = &operator;
        async move { operator.query_one(call, &[&other.expose(), &label]).await.map(|row| row.get::<_, i64>(0)) }
    };
    assert_eq!(version(add, "tenant:7").await.unwrap(), 2);
    assert_eq!(version(add, "tenant:7").await.unwrap(), 2, "it has it already");
    for node in [&a, &b] {
        eventually("the old version left the memory", async || {
            hit(node, other).is_none_or(|session| session.version().get() == 2)
        })
        .await;
    }
    for label in ["2", "3", "4", "5", "6", "7", "8"] {
        version(add, label).await.unwrap();
    }
    let (code, hint) = rejection(&version(add, "9").await.unwrap_err());
    assert_eq!((code.as_str(), hint.contains("session_remove_label")), ("PS006", true));
    let remove = "SELECT session_remove_label($1, $2)";
    assert_eq!(version(remove, "8").await.unwrap(), 10);
    assert_eq!(version(remove, "8").await.unwrap(), 10, "it has it no more");
    let row = operator.query_one("SELECT labels FROM session_get($1)", &[&other.expose()]).await.unwrap();
    assert_eq!(row.get::<_, Vec<String>>(0), ["2", "3", "4", "5", "6", "7", "tenant:7"]);
    let listed = operator.query("SELECT id FROM session_list_label('tenant:7')", &[]).await.unwrap();
    assert_eq!(listed.len(), 2);

    // The change of a label by SQL and a save of a node know of each other.
    let mut stale = read(&a, other).await;
    version(remove, "7").await.unwrap();
    stale.set("n", &1).unwrap();
    let saved = a.save(&mut stale).check_version().await;
    assert!(matches!(saved, Err(UpdateError::Conflict { .. })), "{saved:?}");

    for node in [&a, &b] {
        read_all(node, &[id, other]).await;
    }
    let mut observer = Observer::new(&world).await;
    let statement = sql::end_label("tenant:7").except(other).cause(Cause::Backchannel);
    let statement = statement.statement(&world.config()).unwrap();
    let params: Vec<&(dyn ToSql + Sync)> =
        statement.parameters().iter().map(|text| text as &(dyn ToSql + Sync)).collect();
    let ended: i64 = operator.query_one(statement.text(), &params).await.unwrap().get(0);
    assert_eq!(ended, 1);
    let plain = id.expose().simple();
    assert_eq!(observer.notified_with_causes().await, [format!("1cbs{plain}"), format!("1d{plain}")]);
    for node in [&a, &b] {
        eventually("it left the memory", async || hit(node, id).is_none()).await;
        assert!(hit(node, other).is_some(), "one is spared");
    }
    let end = "SELECT session_end_label('tenant:7')";
    assert_eq!(operator.query_one(end, &[]).await.unwrap().get::<_, i64>(0), 1);
    assert_eq!(operator.query_one(end, &[]).await.unwrap().get::<_, i64>(0), 0);
    assert_eq!(label_rows(&operator).await, 0);
}

/// B: ends by label in SQL, waits for the row ┊ A: rotates ┊ B has to look for the new id.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sql_end_by_label_ends_a_session_that_is_being_rotated() {
    let world = World::new();
    let node = world.node().await;
    let observer = world.client().await;
    let mut session = node.create(1).label(SID).await.unwrap();
    let holder = Holder::hold(&world, &[session.id()]).await;
    let rotation = tokio::spawn({
        let node = node.clone();
        async move { node.rotate(&mut session).await.map(|()| session.id()) }
    });
    holder.blocks_many(&observer, 1).await;
    let end = tokio::spawn({
        let operator = world.operator().await;
        async move {
            let text = format!("SELECT session_end_label('{SID}')");
            operator.query_one(&text, &[]).await.map(|row| row.get::<_, i64>(0))
        }
    });
    holder.blocks_many(&observer, 2).await;
    holder.commit().await;
    let new = in_time("the rotation is done", rotation).await.unwrap().unwrap();
    assert_eq!(in_time("the end is done", end).await.unwrap().unwrap(), 1);
    assert!(node.get(new).bypass_cache().await.unwrap().is_none());
    assert_eq!(label_rows(&observer).await, 0);
}

#[tokio::test]
async fn label_that_no_session_can_have_is_an_error() {
    let world = World::new();
    let node = world.node().await;
    let long = "x".repeat(SessionManager::LABEL_BYTES_MAX + 1);
    for label in ["", "a\0b", &long] {
        let invalid = Some(ErrorKind::InvalidArgument);
        assert_eq!(node.create(1).label(label).await.err().map(|error| error.kind()), invalid);
        assert_eq!(node.label(label).list().await.err().map(|error| error.kind()), invalid);
        assert_eq!(node.label(label).count().await.err().map(|error| error.kind()), invalid);
        assert_eq!(node.label(label).delete().await.err().map(|error| error.kind()), invalid);
        assert!(sql::end_label(label).statement(&world.config()).is_err());
    }
    let mut session = node.create(1).label(&long[1..]).await.unwrap();
    let (operator, id) = (world.operator().await, session.id().expose());
    for (call, code) in [
        (format!("session_add_label('{id}', '')"), "PS004"),
        (format!("session_add_label('{id}', NULL)"), "PS004"),
        (format!("session_add_label('{id}', repeat('ä', 128))"), "PS006"),
        ("session_add_label(gen_random_uuid(), 'a')".to_owned(), "PS002"),
        ("session_remove_label(gen_random_uuid(), 'a')".to_owned(), "PS002"),
        ("session_end_label(NULL)".to_owned(), "PS004"),
        ("session_end_label('a', cause => 'bored')".to_owned(), "PS004"),
        ("session_create(labels => '{a,NULL}')".to_owned(), "PS004"),
        ("session_create(labels => '{1,2,3,4,5,6,7,8,9}')".to_owned(), "PS006"),
    ] {
        let error = operator.query(&format!("SELECT {call}"), &[]).await.expect_err(&call);
        let (found, hint) = rejection(&error);
        assert_eq!((found.as_str(), hint.is_empty()), (code, false), "{call}");
    }
    let mut rotate = node.rotate(&mut session);
    for n in 0..=SessionManager::LABELS_MAX {
        rotate = rotate.label(&n.to_string());
    }
    let Err(UpdateError::Failed(error)) = rotate.await else { panic!("too many") };
    assert_eq!(error.kind(), ErrorKind::LimitExceeded);
    assert_eq!(listed(&node, &long[1..]).await, [session.id()]);
}

#[tokio::test]
async fn a_role_may_be_allowed_to_end_by_label_only() {
    let world = World::new();
    let node = world.node().await;
    let (admin, schema) = (world.operator().await, &world.schema);
    let role = format!("label_support_of_{schema}");
    let script = format!(
        "{} CREATE ROLE {role}; GRANT USAGE ON SCHEMA {schema} TO {role};
         GRANT EXECUTE ON FUNCTION revoke_label_sessions TO {role}; SET ROLE {role}",
        Migrations::definer_sql(&world.config()).unwrap()
    );
    let id = node.create(1).label(SID).await.unwrap().id();
    read(&node, id).await;
    admin.batch_execute(&script).await.unwrap();
    for call in ["session_end_label('x')", "session_end_all()", "revoke_user_sessions(gen_random_uuid())"] {
        let error = admin.query(&format!("SELECT {call}"), &[]).await.expect_err(call);
        assert_eq!(error.code().map(|code| code.code()), Some("42501"), "{call}");
    }
    let end = format!("SELECT revoke_label_sessions('{SID}')");
    assert_eq!(admin.query_one(&end, &[]).await.unwrap().get::<_, i64>(0), 1);
    eventually("it left the memory", async || hit(&node, id).is_none()).await;
}
