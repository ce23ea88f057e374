//! What a plain connection sees in the tables, and how it gets in the way: holding rows, finding who waits for it.

use std::collections::BTreeMap;
use std::time::SystemTime;

use pg_session::SessionId;
use tokio_postgres::Client;

use crate::support::{World, eventually};

/// One attribute as the table holds it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Stored {
    pub text: String,
    pub version: i64,
}

/// All attributes that are alive: those of the sessions' rows, and those with rows of their own.
pub const ATTRIBUTES: &str = "(
    SELECT s.id AS session_id, p.key, (p.value -> 0)::text AS value, (p.value ->> 1)::bigint AS version
    FROM sessions s CROSS JOIN json_each(s.attributes::json) p
    WHERE p.value ->> 2 IS NULL OR (p.value ->> 2)::bigint > extract(epoch FROM now()) * 1000000
    UNION ALL
    SELECT session_id, key, value, version FROM session_attributes WHERE expires_at IS NULL OR expires_at > now()
)";

/// The attributes of a session as the tables hold them. Those that have expired may stay, whatever became of their
/// keys, and are left out.
pub async fn stored(client: &Client, id: SessionId) -> BTreeMap<String, Stored> {
    let text = format!("SELECT key, value, version FROM {ATTRIBUTES} a WHERE session_id = $1");
    let rows = client.query(&text, &[&id.expose()]).await.expect("the attributes");
    let mut all = BTreeMap::new();
    for row in &rows {
        let before =
            all.insert(row.get("key"), Stored { text: row.get("value"), version: row.get("version") });
        assert_eq!(before, None, "a key is in the session's row and has a row of its own");
    }
    all
}

/// The version of a session as the table holds it.
pub async fn stored_version(client: &Client, id: SessionId) -> Option<i64> {
    let text = "SELECT version FROM sessions WHERE id = $1";
    client.query_opt(text, &[&id.expose()]).await.expect("the session").map(|row| row.get(0))
}

/// A time of a session as the table holds it.
pub async fn stored_time(client: &Client, column: &str, id: SessionId) -> SystemTime {
    let text = format!("SELECT {column} FROM sessions WHERE id = $1");
    client.query_one(&text, &[&id.expose()]).await.expect("the session").get(0)
}

/// Sessions, and attributes that are alive.
pub async fn counts(client: &Client) -> (i64, i64) {
    let text = format!("SELECT (SELECT count(*) FROM sessions), (SELECT count(*) FROM {ATTRIBUTES} a)");
    let row = client.query_one(&text, &[]).await.expect("the counts");
    (row.get(0), row.get(1))
}

/// A transaction of a plain connection that holds locks until it is ended.
pub struct Holder {
    pub client: Client,
    pub pid: i32,
}

impl Holder {
    /// Begins a transaction and carries out `script` in it.
    pub async fn begin(world: &World, script: &str) -> Self {
        let client = world.client().await;
        let pid = client.query_one("SELECT pg_backend_pid()", &[]).await.expect("a backend").get(0);
        client.batch_execute(&format!("BEGIN; {script}")).await.expect("the holder's script");
        Self { client, pid }
    }

    /// Holds the rows of these sessions.
    pub async fn hold(world: &World, ids: &[SessionId]) -> Self {
        Self::begin(world, &format!("SELECT FROM sessions WHERE id IN ({}) FOR UPDATE", list(ids))).await
    }

    /// Waits until a statement waits for this transaction.
    pub async fn blocks(&self, observer: &Client) {
        eventually("a statement waits for the held lock", async || self.has_waiter(observer).await).await;
    }

    pub async fn has_waiter(&self, observer: &Client) -> bool {
        // A statement that waits behind one that waits for us counts as well.
        let text = "SELECT FROM pg_stat_activity
                    WHERE wait_event_type = 'Lock' AND $1 = ANY (pg_blocking_pids(pid))";
        !observer.query(text, &[&self.pid]).await.expect("pg_stat_activity").is_empty()
    }

    /// Waits until so many wait for this transaction, or for one who waits for it.
    pub async fn blocks_many(&self, observer: &Client, count: i64) {
        let text = "WITH RECURSIVE queue (pid) AS (
                        SELECT $1::int UNION
                        SELECT a.pid FROM pg_stat_activity a JOIN queue q ON q.pid = ANY (pg_blocking_pids(a.pid))
                        WHERE a.wait_event_type = 'Lock'
                    ) SELECT count(*) - 1 FROM queue";
        eventually("they wait for the held lock", async || {
            let row = observer.query_one(text, &[&self.pid]).await.expect("pg_stat_activity");
            row.get::<_, i64>(0) == count
        })
        .await;
    }

    pub async fn commit(self) {
        self.client.batch_execute("COMMIT").await.expect("the holder's commit");
    }
}

/// Session ids as a SQL list.
pub fn list(ids: &[SessionId]) -> String {
    ids.iter().map(|id| format!("'{}'", id.expose())).collect::<Vec<_>>().join(", ")
}

/// Where a session's attributes are.
#[derive(PartialEq, Eq, Debug)]
pub struct Places {
    /// The text in the session's row.
    pub packed: String,
    /// The rows of their own, with the versions that wrote them, expired ones included.
    pub apart: Vec<(String, i64)>,
    /// Whether the session says that it may have such.
    pub has_overflow: bool,
}

pub async fn places(client: &Client, id: SessionId) -> Places {
    let text = "SELECT attributes, has_overflow FROM sessions WHERE id = $1";
    let row = client.query_one(text, &[&id.expose()]).await.expect("the session");
    let text = "SELECT key, version FROM session_attributes WHERE session_id = $1 ORDER BY key";
    let apart = client.query(text, &[&id.expose()]).await.expect("the rows");
    Places {
        packed: row.get(0),
        apart: apart.iter().map(|row| (row.get(0), row.get(1))).collect(),
        has_overflow: row.get(1),
    }
}

/// For comparisons.
pub fn in_places(packed: &str, apart: &[(&str, i64)], has_overflow: bool) -> Places {
    let apart = apart.iter().map(|&(key, version)| (key.to_owned(), version)).collect();
    Places { packed: packed.to_owned(), apart, has_overflow }
}
