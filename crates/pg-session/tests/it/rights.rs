//! The rights that the README lists are enough for everything that a node does, and each of them is needed.

use std::time::Duration;

use pg_session::{ErrorKind, Migrations, SessionManager, UserId};

use crate::support::World;

/// A role of its own for each test, for roles are not kept in a schema.
struct Role {
    world: World,
    name: String,
}

impl Role {
    /// With the tables made by somebody else, and no rights.
    async fn new() -> Self {
        let world = World::new();
        let owner = world.node().await.shutdown(Duration::from_secs(5)).await;
        assert!(owner.is_complete());
        let name = format!("app_of_{}", world.schema);
        world.client().await.batch_execute(&format!("CREATE ROLE {name} LOGIN")).await.unwrap();
        Self { world, name }
    }

    /// The statements in the README, for this role and schema.
    fn grants(&self) -> Vec<String> {
        let readme = include_str!("../../README.md");
        let block =
            readme.split("```sql").nth(1).and_then(|rest| rest.split("```").next()).expect("a block of SQL");
        let grants =
            block.replace("public", &self.world.schema).replace("TO app;", &format!("TO {};", self.name));
        grants.lines().filter(|line| !line.is_empty()).map(ToOwned::to_owned).collect()
    }

    async fn connect(&self) -> Result<SessionManager, pg_session::Error> {
        let mut config = self.world.config();
        config.migrations = Migrations::Check;
        SessionManager::connect(&self.world.url.replace("postgres@", &format!("{}@", self.name)), config)
            .await
    }
}

#[tokio::test]
async fn a_role_with_the_rights_in_the_readme_can_do_everything() {
    let role = Role::new().await;
    role.world.client().await.batch_execute(&role.grants().concat()).await.unwrap();
    let node = role.connect().await.unwrap();
    let user = UserId::from(1);
    let mut ids = Vec::new();
    // One more than the limit: the create evicts.
    for n in 0..6 {
        ids.push(node.create(user).set("n", &n).unwrap().group(7).await.unwrap().id());
    }
    let session = node.modify(ids[5], |session| session.set("n", &9)).await.unwrap();
    assert_eq!(node.get(session.id()).refresh().await.unwrap().unwrap().get::<i32>("n").unwrap(), Some(9));
    assert_eq!(node.user_sessions(user).await.unwrap().len(), 5);
    assert_eq!(node.delete_attribute_from_user_sessions(user, "n").await.unwrap(), 5);
    node.evict_all().await.unwrap();
    for lock in [node.lock("report"), node.session_lock(ids[5], "cart")] {
        let lease = lock.await.unwrap();
        lease.extend(Duration::from_secs(90)).await.unwrap();
        lease.release().await.unwrap();
    }
    assert!(node.lock_holder("report").await.unwrap().is_none());
    assert!(node.delete(ids[5]).await.unwrap());
    assert_eq!(node.delete_many([ids[4]]).await.unwrap(), 1);
    assert_eq!(node.clean_up().await.unwrap().expired, 0);
    assert_eq!(node.delete_group_sessions(7).await.unwrap(), 3);
    assert!(node.shutdown(Duration::from_secs(5)).await.is_complete());
}

#[tokio::test]
async fn without_one_of_the_rights_in_the_readme_a_node_does_not_start_and_says_which() {
    for missing in 0..3 {
        let role = Role::new().await;
        let mut grants = role.grants();
        assert_eq!(grants.len(), 3);
        grants.remove(missing);
        role.world.client().await.batch_execute(&grants.concat()).await.unwrap();
        let error = role.connect().await.expect_err("a right is missing");
        assert_eq!(error.kind(), ErrorKind::Permission, "{error:?}");
        assert!(error.to_string().contains("grant") || error.to_string().contains("GRANT"), "{error}");
    }
}

#[tokio::test]
async fn where_functions_are_not_everybodys_the_role_needs_one_of_them() {
    let role = Role::new().await;
    let client = role.world.client().await;
    let function = format!("{}.sessions_room(uuid[], bigint, bigint)", role.world.schema);
    let revoke = format!("REVOKE EXECUTE ON FUNCTION {function} FROM PUBLIC");
    client.batch_execute(&format!("{};{revoke}", role.grants().concat())).await.unwrap();
    let error = role.connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Permission);
    assert!(error.to_string().contains("the role lacks EXECUTE on "), "{error}");
    let grant = format!("GRANT EXECUTE ON FUNCTION {function} TO {}", role.name);
    client.batch_execute(&grant).await.unwrap();
    assert!(role.connect().await.unwrap().create(1).await.is_ok());
}
