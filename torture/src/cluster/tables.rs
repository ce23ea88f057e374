//! The database's own memory of what was committed: a trigger records each write, a resource records each use of a lock.

use anyhow::Result;
use pg_session::{Config, Migrations, SessionManager};

use super::client::connect;
use crate::history::Row as Alive;
use crate::history::{Tables, Written};
use crate::plan::SCHEMA;

/// Each change of a session writes its attribute `a`, and so a row here, in its own transaction: from wherever the
/// attribute is put. In the session's row others stand beside it, so there it is what has the row's version.
const WRITTEN: &str = "
    CREATE TABLE {schema}.written (
        session_id uuid NOT NULL, version bigint NOT NULL, op bigint NOT NULL,
        n bigint GENERATED ALWAYS AS IDENTITY (SEQUENCE NAME {schema}.written_numbers));
    CREATE FUNCTION {schema}.note_apart() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN
        INSERT INTO {schema}.written VALUES (NEW.session_id, NEW.version, (NEW.value::json ->> 0)::bigint);
        RETURN NULL;
    END $$;
    CREATE TRIGGER note AFTER INSERT OR UPDATE ON {schema}.session_attributes
        FOR EACH ROW WHEN (NEW.key = 'a') EXECUTE FUNCTION {schema}.note_apart();
    CREATE FUNCTION {schema}.note_packed() RETURNS trigger LANGUAGE plpgsql AS $$
    DECLARE a json := NEW.attributes::json -> 'a';
    BEGIN
        IF (a ->> 1)::bigint = NEW.version THEN
            INSERT INTO {schema}.written VALUES (NEW.id, NEW.version, (a -> 0 ->> 0)::bigint);
        END IF;
        RETURN NULL;
    END $$;
    CREATE TRIGGER note_new AFTER INSERT ON {schema}.sessions
        FOR EACH ROW EXECUTE FUNCTION {schema}.note_packed();
    -- Not of an access, which makes no version.
    CREATE TRIGGER note AFTER UPDATE ON {schema}.sessions
        FOR EACH ROW WHEN (NEW.version <> OLD.version) EXECUTE FUNCTION {schema}.note_packed();";

/// What is alive: the counter, from one place or the other, and how many attributes stand in none or both of them.
const ALIVE: &str = "
    WITH alive AS (
        SELECT *, attributes::json AS packed FROM {schema}.sessions WHERE expires_at > clock_timestamp()
    )
    SELECT s.id, s.user_id, s.version, COALESCE((COALESCE(s.packed -> 'n' -> 0, a.n) ->> 0)::bigint, 0),
           s.rotated_to IS NOT NULL, COALESCE(a.misplaced, 0)
    FROM alive s CROSS JOIN LATERAL (
        SELECT (array_agg(a.value::json) FILTER (WHERE a.key = 'n'))[1] AS n,
               count(*) FILTER (WHERE NOT s.has_overflow OR s.packed -> a.key IS NOT NULL) AS misplaced
        FROM {schema}.session_attributes a
        WHERE a.session_id = s.id AND (a.expires_at IS NULL OR a.expires_at > clock_timestamp())
    ) a";

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

/// Reads all of it.
pub async fn read(url: &str) -> Result<Tables> {
    let client = connect(url).await?;
    let mut tables = Tables::default();
    let written = format!("SELECT session_id, version, op, n FROM {SCHEMA}.written");
    for row in client.query(&written, &[]).await? {
        let op: i64 = row.get(2);
        let (session, version, n) = (row.get(0), row.get(1), row.get(3));
        tables.writes.push(Written { n, session, version, op: op.cast_unsigned() });
    }
    for row in client.query(&ALIVE.replace("{schema}", SCHEMA), &[]).await? {
        tables.sessions.push(Alive {
            session: row.get(0),
            user: row.get(1),
            version: row.get(2),
            n: row.get(3),
            rotated: row.get(4),
            misplaced: row.get(5),
        });
    }
    let accepted = "SELECT name, fence, op FROM torture_resource.accepted ORDER BY n";
    for row in client.query(accepted, &[]).await? {
        let (name, op): (i64, i64) = (row.get(0), row.get(2));
        tables.accepted.push((name.cast_unsigned(), row.get(1), op.cast_unsigned()));
    }
    Ok(tables)
}

/// The number of the last write: later ones have higher numbers.
pub async fn last_number(url: &str) -> Result<i64> {
    let client = connect(url).await?;
    let last = format!("SELECT last_value FROM {SCHEMA}.written_numbers");
    Ok(client.query_one(&last, &[]).await?.get(0))
}
