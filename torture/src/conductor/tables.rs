//! The database's own memory of what was committed: a trigger records each write, a resource records each use of a lock.

use anyhow::Result;
use pg_session::{Config, Migrations, SessionManager};

use super::stage::connect;
use crate::history::Row as Alive;
use crate::history::{Tables, Written};
use crate::plan::SCHEMA;

/// Each change of a session writes its attribute `a`, and so a row here, in its own transaction.
const WRITTEN: &str = "
    CREATE TABLE {schema}.written (session_id uuid NOT NULL, version bigint NOT NULL, op text NOT NULL);
    CREATE FUNCTION {schema}.note() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO {schema}.written VALUES (NEW.session_id, NEW.version, NEW.value);
        RETURN NULL;
    END $$;
    CREATE TRIGGER note AFTER INSERT OR UPDATE ON {schema}.session_attributes
        FOR EACH ROW WHEN (NEW.key = 'a') EXECUTE FUNCTION {schema}.note();";

/// What the locks protect: it knows the highest fence, and refuses lower ones.
const RESOURCE: &str = "
    CREATE SCHEMA torture_resource;
    CREATE TABLE torture_resource.guarded (name bigint PRIMARY KEY, fence bigint NOT NULL);
    CREATE TABLE torture_resource.accepted (
        n bigint GENERATED ALWAYS AS IDENTITY, name bigint NOT NULL, fence bigint NOT NULL, op bigint NOT NULL);
    CREATE FUNCTION torture_resource.use_it(lock bigint, token bigint, holder bigint) RETURNS void LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO torture_resource.guarded AS g VALUES (lock, token)
            ON CONFLICT (name) DO UPDATE SET fence = EXCLUDED.fence WHERE g.fence <= EXCLUDED.fence;
        IF FOUND THEN
            INSERT INTO torture_resource.accepted (name, fence, op) VALUES (lock, token, holder);
        END IF;
    END $$;";

/// Makes the library's tables and ours.
pub(super) async fn prepare(url: &str) -> Result<()> {
    let mut config = Config::default();
    SCHEMA.clone_into(&mut config.schema);
    config.migrations = Migrations::Apply;
    let manager = SessionManager::connect(url, config).await?;
    let _ = manager.shutdown(std::time::Duration::from_secs(5)).await;
    let client = connect(url).await?;
    client.batch_execute(&WRITTEN.replace("{schema}", SCHEMA)).await?;
    client.batch_execute(RESOURCE).await?;
    Ok(())
}

/// Reads all of it, at the end.
pub(super) async fn read(url: &str) -> Result<Tables> {
    let client = connect(url).await?;
    let mut tables = Tables::default();
    let written = format!("SELECT session_id, version, op FROM {SCHEMA}.written");
    for row in client.query(&written, &[]).await? {
        let op: String = row.get(2);
        tables.writes.push(Written { session: row.get(0), version: row.get(1), op: op.parse()? });
    }
    let alive = format!(
        "SELECT s.id, s.user_id, s.version, coalesce(n.value::bigint, 0), s.rotated_to IS NOT NULL
         FROM {SCHEMA}.sessions s LEFT JOIN {SCHEMA}.session_attributes n ON n.session_id = s.id AND n.key = 'n'
         WHERE s.expires_at > clock_timestamp()"
    );
    for row in client.query(&alive, &[]).await? {
        tables.sessions.push(Alive {
            session: row.get(0),
            user: row.get(1),
            version: row.get(2),
            n: row.get(3),
            rotated: row.get(4),
        });
    }
    let accepted = "SELECT name, fence, op FROM torture_resource.accepted ORDER BY n";
    for row in client.query(accepted, &[]).await? {
        let (name, op): (i64, i64) = (row.get(0), row.get(2));
        tables.accepted.push((name.cast_unsigned(), row.get(1), op.cast_unsigned()));
    }
    Ok(tables)
}
