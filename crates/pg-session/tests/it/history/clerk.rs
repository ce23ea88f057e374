//! A client of the SQL contract, as a process in another language is.

use pg_session::SessionId;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use crate::observer::Observer;
use crate::support::World;

pub struct Clerk(Client);

impl Clerk {
    pub async fn new(world: &World) -> Self {
        Self(world.operator().await)
    }

    /// Writes one attribute. The new version, or none if the session has ended.
    pub async fn set(&self, id: SessionId, number: usize) -> Option<i64> {
        let text = format!("SELECT session_set($1, 'blind', '{number}')");
        match self.0.query_one(&text, &[&id.expose()]).await {
            Ok(row) => Some(row.get(0)),
            Err(error) => {
                assert_eq!(error.code().map(SqlState::code), Some("PS002"), "{error:?}");
                None
            }
        }
    }

    /// Ends a session by a function, or as an administrator types it. Whether it was alive.
    pub async fn end(&self, id: SessionId, by_hand: bool) -> bool {
        let id = id.expose();
        if by_hand {
            return self.0.execute("DELETE FROM sessions WHERE id = $1", &[&id]).await.expect("it answers")
                == 1;
        }
        self.0.query_one("SELECT session_end($1, 'admin')", &[&id]).await.expect("it answers").get(0)
    }

    /// Everything that a transaction can do with a session, and then a rollback. No read may ever show it.
    pub async fn roll_back(&self, id: SessionId) {
        let id = id.expose();
        let script = format!(
            "BEGIN; SELECT session_touch('{id}');
             SELECT session_set(s.id, 'v', '-1') FROM session_get('{id}') s;
             SELECT session_add_label(s.id, 'never') FROM session_get('{id}') s;
             SELECT session_end('{id}'); DELETE FROM sessions WHERE id = '{id}'; ROLLBACK"
        );
        match self.0.batch_execute(&script).await {
            Ok(()) => {}
            // It ended between two of the statements.
            Err(error) => {
                assert_eq!(error.code().map(SqlState::code), Some("PS002"), "{error:?}");
                self.0.batch_execute("ROLLBACK").await.expect("it answers");
            }
        }
    }
}

/// A session whose changes were all rolled back: no node was notified of one.
pub async fn bystander(world: &World, observer: &mut Observer, id: SessionId) {
    let id = id.expose();
    let notified = observer.notified_with_causes().await;
    assert!(notified.len() > 10, "a history in which little happens proves little");
    let named = id.simple().to_string();
    assert!(!notified.iter().any(|payload| payload.contains(&named)), "a rolled back change was notified");
    let client = world.client().await;
    let row =
        client.query_one("SELECT version FROM sessions WHERE id = $1", &[&id]).await.expect("it is alive");
    assert_eq!(row.get::<_, i64>(0), 1);
}
