//! A node's clock and the database's, both in the test's hand.

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pg_session::{Builder, Config, SessionManager};
use tokio_postgres::Client;

use crate::support::World;

/// 2030-01-01, far from what any real clock shows.
const START: Duration = Duration::from_secs(1_893_456_000);

/// The time of a world, which is paused until a test moves it.
pub struct Clocks {
    nanos: Arc<AtomicU64>,
    client: Client,
    expression: String,
    /// The key of the advisory lock under which both clocks move.
    moving: String,
}

impl Clocks {
    /// Puts a clock into the world's schema. Nodes made by [`node`](Clocks::node) go by it.
    pub async fn new(world: &World) -> Self {
        let client = world.client().await;
        let (schema, start) = (&world.schema, START.as_secs());
        let moving = format!("pg_catalog.hashtext('{schema}')");
        let script = format!(
            "CREATE SCHEMA {schema};
             CREATE TABLE {schema}.clock (now timestamptz NOT NULL);
             INSERT INTO {schema}.clock VALUES (to_timestamp({start}));
             CREATE FUNCTION {schema}.clock() RETURNS timestamptz VOLATILE LANGUAGE plpgsql AS $$
             DECLARE
                 shown timestamptz;
             BEGIN
                 PERFORM pg_catalog.pg_advisory_lock_shared({moving});
                 SELECT c.now INTO shown FROM {schema}.clock c;
                 PERFORM pg_catalog.pg_advisory_unlock_shared({moving});
                 RETURN shown;
             END $$"
        );
        client.batch_execute(&script).await.expect("a clock");
        let expression = format!("{schema}.clock()");
        Self { nanos: Arc::new(AtomicU64::new(START_NANOS)), client, expression, moving }
    }

    pub async fn node(&self, world: &World, config: Config) -> SessionManager {
        self.start(SessionManager::builder(config).url(&world.url).expect("the URL parses")).await
    }

    /// A node whose listener's connection has the schema's name as `application_name`.
    pub async fn node_named(&self, world: &World, config: Config) -> SessionManager {
        let mut listen_on = tokio_postgres::Config::from_str(&world.url).expect("the URL parses");
        listen_on.application_name(&world.schema);
        let builder = SessionManager::builder(config).url(&world.url).expect("the URL parses");
        self.start(builder.listen_on(listen_on)).await
    }

    async fn start(&self, builder: Builder) -> SessionManager {
        let builder = builder.manual_clock(Arc::clone(&self.nanos)).database_clock(&self.expression);
        let node = builder.connect().await.expect("the node starts");
        self.replace_clock_of_routines().await;
        node.wait_until_trusted().await.unwrap();
        node
    }

    /// The functions and procedures of the migration read the clock after they have locked rows. So they take no time from
    /// a statement, and here they get another clock.
    async fn replace_clock_of_routines(&self) {
        let text = "SELECT pg_get_functiondef(p.oid) FROM pg_proc p
                    WHERE p.pronamespace = current_schema()::regnamespace AND p.proname ~ '^session_(make_room|update)'";
        let mut count = 0;
        for row in self.client.query(text, &[]).await.expect("the migration has made them") {
            let definition: String = row.get(0);
            count += usize::from(
                definition.contains("pg_catalog.clock_timestamp()") || definition.contains(&self.expression),
            );
            let replaced = definition.replace("pg_catalog.clock_timestamp()", &self.expression);
            self.client.batch_execute(&replaced).await.expect("the routine is replaced");
        }
        assert_eq!(count, 4, "one keeps the limit, three update");
    }

    /// Moves both clocks to this time after the start.
    pub async fn set(&self, since: Duration) {
        let micros = i64::try_from((START + since).as_micros()).expect("a near time");
        let nanos = u64::try_from(since.as_nanos()).expect("a near time");
        let text = "UPDATE clock SET now = to_timestamp(0) + $1::bigint * interval '1 microsecond'";
        // No beat of a node reads one of them between the two moves. A statement that waits for a row hinders nothing.
        let moving = &self.moving;
        self.client.batch_execute(&format!("SELECT pg_advisory_lock({moving})")).await.expect("the lock");
        self.client.execute(text, &[&micros]).await.expect("the clock moves");
        self.nanos.store(START_NANOS + nanos, Ordering::SeqCst);
        self.client.batch_execute(&format!("SELECT pg_advisory_unlock({moving})")).await.expect("the lock");
    }

    /// Moves the database's clock alone, as an administrator does who corrects it.
    pub async fn step_database(&self, by: Duration) {
        let text = "UPDATE clock SET now = now + $1::float8 * interval '1 second'";
        self.client.execute(text, &[&by.as_secs_f64()]).await.expect("the clock moves");
    }
}

/// The node's own clock counts from elsewhere: nodes may not depend on the two being alike.
const START_NANOS: u64 = 77_000_000_000;

/// This time after the start, as the database tells it.
pub fn at(since: Duration) -> SystemTime {
    UNIX_EPOCH + START + since
}
