//! `let_pass` and real waiting have the same outcomes, for everything that ends by itself.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "tests may panic")]

use std::time::Duration;

use pg_session_test::pg_session::{IdleLimit, SessionId};
use pg_session_test::{Node, TestDatabase, eventually};

/// Every limit of the sessions here.
const LIMIT: Duration = Duration::from_secs(2);
/// The limit of what must still be there.
const LONG: Duration = Duration::from_secs(3_600);

/// What exists before and after the time.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    session: bool,
    idle_session: bool,
    remembered_session: bool,
    small_attribute: bool,
    large_attribute: bool,
    lasting_attribute: bool,
    retired_id: bool,
    current_id: bool,
    lock_is_free: bool,
}

struct Example {
    node: Node,
    session: SessionId,
    idle: SessionId,
    remembered: SessionId,
    attributes: SessionId,
    retired: SessionId,
    current: SessionId,
}

impl Example {
    /// Everything that has an end, made at about the same time.
    async fn new(database: &TestDatabase) -> Self {
        let mut config = database.config();
        config.idle_timeout = LIMIT;
        config.rotation_grace = LIMIT;
        config.last_access_flush_interval = LIMIT / 8;
        let node = database.node_with(config).await;
        let session = node.create(1).expires_in(LIMIT).await.unwrap().id();
        let idle = node.create(2).await.unwrap().id();
        let remembered = node.create(3).idle_limit(IdleLimit::Exempt).await.unwrap().id();
        let mut attributes = node.create(4).idle_limit(IdleLimit::Exempt).await.unwrap();
        attributes.set_for("small", "x", LIMIT).unwrap();
        attributes.set_for("large", &"x".repeat(4_000), LIMIT).unwrap();
        attributes.set_for("lasting", "a \"quoted\" text", LONG).unwrap();
        attributes.set("plain", &1.5e300).unwrap();
        node.save(&mut attributes).await.unwrap();
        let mut rotated = node.create(5).idle_limit(IdleLimit::Exempt).await.unwrap();
        let retired = rotated.id();
        node.rotate(&mut rotated).await.unwrap();
        // The holder ends without giving its lock back.
        let holder = database.node().await;
        let lease = holder.locks().lock("job").lease(LIMIT).await.unwrap();
        holder.cut();
        drop(lease);
        drop(holder);
        let (attributes, current) = (attributes.id(), rotated.id());
        Self { node, session, idle, remembered, attributes, retired, current }
    }

    async fn outcome(&self) -> Outcome {
        let exists = async |id| self.node.get(id).no_touch().await.unwrap().is_some();
        let attributes = self.node.get(self.attributes).no_touch().await.unwrap().expect("it has no end");
        assert_eq!(attributes.get::<f64>("plain").unwrap(), Some(1.5e300));
        Outcome {
            session: exists(self.session).await,
            idle_session: exists(self.idle).await,
            remembered_session: exists(self.remembered).await,
            small_attribute: attributes.contains("small"),
            large_attribute: attributes.contains("large"),
            lasting_attribute: attributes.get("lasting").unwrap() == Some("a \"quoted\" text".to_owned()),
            retired_id: exists(self.retired).await,
            current_id: exists(self.current).await,
            lock_is_free: self.node.locks().holder("job").await.unwrap().is_none(),
        }
    }
}

const BEFORE: Outcome = Outcome {
    session: true,
    idle_session: true,
    remembered_session: true,
    small_attribute: true,
    large_attribute: true,
    lasting_attribute: true,
    retired_id: true,
    current_id: true,
    lock_is_free: false,
};
const AFTER: Outcome = Outcome {
    session: false,
    idle_session: false,
    remembered_session: true,
    small_attribute: false,
    large_attribute: false,
    lasting_attribute: true,
    retired_id: false,
    current_id: true,
    lock_is_free: true,
};

#[tokio::test]
async fn time_that_passes_at_once_has_the_outcome_of_waiting() {
    let database = TestDatabase::new().await;
    let waited = Example::new(&database).await;
    assert_eq!(waited.outcome().await, BEFORE);
    eventually("everything with a limit has ended", async || waited.outcome().await == AFTER).await;

    let database = TestDatabase::new().await;
    let passed = Example::new(&database).await;
    assert_eq!(passed.outcome().await, BEFORE);
    database.let_pass(LIMIT).await;
    assert_eq!(passed.outcome().await, AFTER);
}

#[tokio::test]
async fn less_time_than_the_limit_ends_nothing() {
    let database = TestDatabase::new().await;
    let node = database.node().await;
    let idle = node.create(1).await.unwrap().id();
    database.let_pass(node.config().idle_timeout - Duration::from_secs(60)).await;
    assert!(node.get(idle).await.unwrap().is_some(), "and this access begins the idle time again");
    database.let_pass(node.config().idle_timeout - Duration::from_secs(60)).await;
    assert!(node.get(idle).await.unwrap().is_some());
}

#[tokio::test]
async fn a_session_can_be_saved_after_time_has_passed() {
    let database = TestDatabase::new().await;
    let node = database.node().await;
    let mut session = node.create(1).await.unwrap();
    database.let_pass(Duration::from_secs(60)).await;
    session.set("theme", "dark").unwrap();
    node.save(&mut session).await.expect("the version is still the same");
    let read = node.get(session.id()).await.unwrap().unwrap();
    assert_eq!(read.get::<String>("theme").unwrap().as_deref(), Some("dark"));
}
