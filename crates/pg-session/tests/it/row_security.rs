//! Row-level security hides rows without a word. A hidden session must not look like one that ended.

use std::str::FromStr as _;
use std::time::Duration;

use deadpool_postgres::{Manager, Pool};
use pg_sandbox::{PoolMode, Pooler};
use pg_session::{Error, ErrorKind, LockError, Migrations, SessionId, SessionManager, UpdateError};
use tokio_postgres::{Client, NoTls};

use crate::fixtures::make;
use crate::support::{World, eventually};

/// A role with all rights that is subject to policies, in tables that another role owns.
struct Subject {
    world: World,
    admin: Client,
    url: String,
}

impl Subject {
    async fn new() -> Self {
        let world = World::new();
        world.node().await;
        let admin = world.client().await;
        let (schema, role) = (&world.schema, format!("subject_of_{}", world.schema));
        let grants = format!(
            "CREATE ROLE {role} LOGIN; GRANT USAGE ON SCHEMA {schema} TO {role};
             GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO {role};
             GRANT EXECUTE ON ALL ROUTINES IN SCHEMA {schema} TO {role}"
        );
        admin.batch_execute(&grants).await.unwrap();
        let url = world.url.replace("postgres@", &format!("{role}@"));
        Self { world, admin, url }
    }

    async fn connect(&self, application_pool: bool) -> Result<SessionManager, Error> {
        let mut config = self.world.roomy();
        config.migrations = Migrations::Check;
        let builder = SessionManager::builder(config).url(&self.url)?;
        if !application_pool {
            return builder.connect().await;
        }
        let server = tokio_postgres::Config::from_str(&self.url).unwrap();
        let pool = Pool::builder(Manager::new(server, NoTls)).max_size(4).build().unwrap();
        builder.pool(pool).connect().await
    }

    async fn alter(&self, table: &str, action: &str) {
        let script = format!("ALTER TABLE {table} {action} ROW LEVEL SECURITY");
        self.admin.batch_execute(&script).await.unwrap();
    }
}

fn assert_names_row_security(error: &Error) {
    assert_eq!(error.kind(), ErrorKind::Permission, "{error:?}");
    assert!(error.to_string().contains("DISABLE ROW LEVEL SECURITY"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_security_is_refused_at_start() {
    let subject = Subject::new().await;
    for table in ["sessions", "session_attributes", "session_labels", "session_locks"] {
        subject.alter(table, "ENABLE").await;
        for application_pool in [false, true] {
            let error = subject.connect(application_pool).await.unwrap_err();
            assert_names_row_security(&error);
            assert!(error.to_string().contains(table), "{error}");
        }
        subject.alter(table, "DISABLE").await;
    }
    subject.connect(false).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_security_on_a_running_node_is_an_error_not_an_absence() {
    for application_pool in [false, true] {
        let subject = Subject::new().await;
        let node = subject.connect(application_pool).await.unwrap();
        let large = "x".repeat(2_000);
        let mut sessions = make(&node, 1).await;
        let session = &mut sessions[0];
        session.set("large", &large).unwrap();
        node.save(session).await.unwrap();
        let id = session.id();
        for table in ["sessions", "session_attributes"] {
            subject.alter(table, "ENABLE").await;
            assert_names_row_security(&node.get(id).bypass_cache().await.unwrap_err());
            if table == "sessions" {
                refuses_every_write(&node, session, id).await;
            }
            subject.alter(table, "DISABLE").await;
        }
        let read = node.get(id).bypass_cache().await.unwrap().expect("it is alive");
        assert_eq!(read.get::<String>("large").unwrap(), Some(large), "no attribute is lost");
        assert!(node.delete(id).await.unwrap());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hidden_lock_is_an_error_neither_lost_nor_free() {
    for application_pool in [false, true] {
        let subject = Subject::new().await;
        let node = subject.connect(application_pool).await.unwrap();
        let session = make(&node, 1).await.remove(0).id();
        let hour = Duration::from_secs(3_600);
        let lease = async |name: &str| node.locks().lock(name).lease(hour).await.unwrap();
        let (extended, released) = (lease("extended").await, lease("released").await);
        let of_session = node.locks().session_lock(session, "cart").lease(hour).await.unwrap();
        subject.alter("session_locks", "ENABLE").await;
        let failed = |outcome: Result<(), LockError>| match outcome {
            Err(LockError::Failed(error)) => assert_names_row_security(&error),
            other => panic!("it was hidden: {other:?}"),
        };
        failed(extended.extend(hour).await);
        failed(released.release().await);
        failed(of_session.extend(hour).await);
        failed(node.locks().lock("free").wait(Duration::ZERO).await.map(|_| ()));
        for name in ["extended", "never taken"] {
            assert_names_row_security(&node.locks().holder(name).await.unwrap_err());
        }
        assert_names_row_security(&node.locks().session_holder(session, "cart").await.unwrap_err());
        subject.alter("session_locks", "DISABLE").await;
        assert!(extended.is_held());
        extended.extend(hour).await.unwrap();
    }
}

async fn refuses_every_write(node: &SessionManager, session: &mut pg_session::Session, id: SessionId) {
    assert_names_row_security(&node.create(1).await.unwrap_err());
    assert_names_row_security(&node.delete(id).await.unwrap_err());
    assert_names_row_security(&node.delete_many([id]).await.unwrap_err());
    assert_names_row_security(&node.user(0).delete().await.unwrap_err());
    assert_names_row_security(&node.delete_all_sessions().await.unwrap_err());
    assert_names_row_security(&node.cleanup().await.unwrap_err());
    assert_names_row_security(&node.user(0).list().await.unwrap_err());
    assert_names_row_security(&node.user(0).remove_attribute("large").await.unwrap_err());
    let Err(LockError::Failed(error)) = node.locks().session_lock(id, "export").wait(Duration::ZERO).await
    else {
        panic!("it was hidden")
    };
    assert_names_row_security(&error);
    session.set("n", &9).unwrap();
    let Err(UpdateError::Failed(error)) = node.save(session).await else { panic!("it was hidden") };
    assert_names_row_security(&error);
    session.discard_changes();
    let Err(UpdateError::Failed(error)) = node.rotate(&mut session.clone()).await else {
        panic!("it was hidden")
    };
    assert_names_row_security(&error);
}

/// Through a pooler, no setting of the connection makes hidden rows an error. So the statements ask.
///
/// ```text
/// own pool   leads directly to PostgreSQL ┊ rows are hidden, its name leads to a pooler: reads and logouts are errors
/// ```
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn row_security_behind_a_pooler_is_an_error_not_an_absence() {
    let subject = Subject::new().await;
    let (world, role) = (&subject.world, format!("subject_of_{}", subject.world.schema));
    let pooler = Pooler::builder(world.addr(), PoolMode::Transaction).user(&role).start().unwrap();
    let name = world.proxy().await;
    let mut config = world.roomy();
    config.migrations = Migrations::Check;
    let builder = SessionManager::builder(config).url(&name.url_for(&subject.url)).unwrap();
    let node = builder.connect().await.unwrap();
    let id = make(&node, 1).await[0].id();
    subject.alter("sessions", "ENABLE").await;
    name.redirect(pooler.addr());
    name.cut();
    eventually("the pool leads through the pooler", async || {
        let found = node.get(id).bypass_cache().await;
        assert!(!matches!(found, Ok(None)), "a hidden session is not absent");
        found.is_err_and(|error| error.kind() == ErrorKind::Permission)
    })
    .await;
    assert_names_row_security(&node.delete(id).await.unwrap_err());
}
