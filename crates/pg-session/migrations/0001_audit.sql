-- 0001, first part: the audit log of ended sessions. docs/audit.md describes it.
--
-- It is off until session_audit_on makes the triggers, so that it costs nothing without them.

-- handle: the public name of the session, half of the SHA-256 of its id. No one can log in with it.
-- actor: who ended it, as the application or the operator says. role, client: session_user and application_name.
-- revocation: one for all sessions of a call of everywhere(). receipt: its outcome, as JSON.
CREATE TABLE "{schema}"."{prefix}session_audit" (
    entry      bigint      NOT NULL GENERATED ALWAYS AS IDENTITY,
    ended_at   timestamptz NOT NULL,
    handle     text        NOT NULL,
    user_id    uuid,
    group_id   uuid,
    cause      text        NOT NULL,
    actor      text,
    role       text        NOT NULL,
    client     text        NOT NULL,
    revocation uuid,
    receipt    text,
    CONSTRAINT "{prefix}session_audit_pkey" PRIMARY KEY (entry)
);
CREATE INDEX "{prefix}session_audit_ended_at_idx" ON "{schema}"."{prefix}session_audit" (ended_at);
CREATE INDEX "{prefix}session_audit_user_id_idx" ON "{schema}"."{prefix}session_audit" (user_id)
    WHERE user_id IS NOT NULL;
CREATE INDEX "{prefix}session_audit_revocation_idx" ON "{schema}"."{prefix}session_audit" (revocation)
    WHERE revocation IS NOT NULL;

-- Records the sessions that a statement has ended, in its transaction. It runs as the owner of the table, so that other roles
-- need no right to write it, and cannot change what it has.
--
-- The library says why, for groups of sessions, in pg_session.endings; see `ending.rs`. Other clients do so in
-- pg_session.cause, which the SQL functions set, and in pg_session.actor.
--
-- The argument of the trigger is how long entries stay. Each statement deletes at most as many old ones as it adds, and 16 more.
CREATE FUNCTION "{schema}"."{prefix}session_audit_ends"() RETURNS trigger
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $pg_session$
DECLARE
    text_bytes_max constant integer := 255;
    forgotten_min constant bigint := 16;
    endings jsonb;
    author text;
    added bigint;
BEGIN
    IF TG_OP = 'DELETE' THEN
        -- A retired id is none of its own.
        IF NOT EXISTS (SELECT FROM gone g WHERE g.rotated_to IS NULL) THEN
            RETURN NULL;
        END IF;
        IF pg_catalog.current_setting('pg_session.direct_writes', true) = 'library' THEN
            endings := NULLIF(pg_catalog.current_setting('pg_session.endings', true), '')::pg_catalog.jsonb;
        END IF;
    END IF;
    IF endings IS NULL THEN
        author := NULLIF(pg_catalog.left(pg_catalog.current_setting('pg_session.actor', true), text_bytes_max), '');
        -- A character may have several bytes, and stays whole.
        WHILE pg_catalog.octet_length(author) > text_bytes_max LOOP
            author := pg_catalog.left(author, -1);
        END LOOP;
        endings := pg_catalog.jsonb_build_array(pg_catalog.jsonb_build_object(
            'cause', COALESCE(NULLIF(pg_catalog.left(pg_catalog.current_setting('pg_session.cause', true), 1), ''), 's'),
            'actor', author));
    END IF;
    IF TG_OP = 'DELETE' THEN
        INSERT INTO "{schema}"."{prefix}session_audit"
            (ended_at, handle, user_id, group_id, cause, actor, role, client, revocation)
        SELECT LEAST(pg_catalog.clock_timestamp(), g.expires_at::pg_catalog.timestamptz),
               pg_catalog.left(pg_catalog.encode(pg_catalog.sha256(pg_catalog.uuid_send(g.id)), 'hex'), 32),
               g.user_id, g.group_id, "{schema}"."{prefix}session_cause_name"(e.value ->> 'cause'), e.value ->> 'actor',
               SESSION_USER, pg_catalog.current_setting('application_name'), (e.value ->> 'revocation')::pg_catalog.uuid
        FROM gone g LEFT JOIN LATERAL (
            SELECT l.value FROM pg_catalog.jsonb_array_elements(endings) l
            WHERE l.value -> 'ids' IS NULL OR (l.value -> 'ids') ? g.id::pg_catalog.text LIMIT 1
        ) e ON true
        WHERE g.rotated_to IS NULL;
    ELSE
        INSERT INTO "{schema}"."{prefix}session_audit" (ended_at, handle, user_id, group_id, cause, actor, role, client)
        SELECT LEAST(pg_catalog.clock_timestamp(), s.expires_at::pg_catalog.timestamptz),
               pg_catalog.left(pg_catalog.encode(pg_catalog.sha256(pg_catalog.uuid_send(s.id)), 'hex'), 32),
               s.user_id, s.group_id, "{schema}"."{prefix}session_cause_name"(endings -> 0 ->> 'cause'),
               endings -> 0 ->> 'actor', SESSION_USER, pg_catalog.current_setting('application_name')
        FROM "{schema}"."{prefix}sessions" s WHERE s.rotated_to IS NULL;
    END IF;
    GET DIAGNOSTICS added = ROW_COUNT;
    DELETE FROM "{schema}"."{prefix}session_audit" a
    WHERE a.entry = ANY (ARRAY (
        SELECT o.entry FROM "{schema}"."{prefix}session_audit" o
        WHERE o.ended_at < pg_catalog.clock_timestamp() - TG_ARGV[0]::pg_catalog.interval
        ORDER BY o.ended_at LIMIT added + forgotten_min FOR UPDATE SKIP LOCKED));
    RETURN NULL;
END
$pg_session$;

-- The name of a cause by its letter in a notification; see `cause.rs`.
CREATE FUNCTION "{schema}"."{prefix}session_cause_name"(letter text) RETURNS text
LANGUAGE sql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $pg_session$
    SELECT CASE $1
        WHEN 'l' THEN 'logout' WHEN 'e' THEN 'everywhere' WHEN 'a' THEN 'admin' WHEN 'p' THEN 'cap'
        WHEN 'r' THEN 'rotated' WHEN 'x' THEN 'expired' WHEN 'i' THEN 'idle' WHEN 'c' THEN 'credential'
        WHEN 'b' THEN 'backchannel' WHEN 's' THEN 'sql' ELSE 'unknown' END
$pg_session$;

-- Adds the receipt of a revocation to its entries, once. It runs as the owner of the table. Returns the number of entries.
CREATE FUNCTION "{schema}"."{prefix}session_audit_receipt"(revocation uuid, receipt text) RETURNS bigint
LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $pg_session$
DECLARE
    receipt_bytes_max constant integer := 16384;
    written bigint;
BEGIN
    IF pg_catalog.octet_length($2) > receipt_bytes_max THEN
        RAISE EXCEPTION 'a receipt must have at most % bytes', receipt_bytes_max
            USING ERRCODE = 'PS006', HINT = 'Store the receipt elsewhere.';
    END IF;
    UPDATE "{schema}"."{prefix}session_audit" a SET receipt = $2 WHERE a.revocation = $1 AND a.receipt IS NULL;
    GET DIAGNOSTICS written = ROW_COUNT;
    RETURN written;
END
$pg_session$;

-- Begins to record the sessions that end. Entries stay for `keep`. The owner of the table may call it again to change that.
CREATE FUNCTION "{schema}"."{prefix}session_audit_on"(keep interval) RETURNS void
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pg_session$
BEGIN
    -- A longer time would begin before PostgreSQL's calendar, and each logout would fail.
    IF $1 IS NULL OR $1 <= interval '0' OR $1 > interval '1000 years' THEN
        RAISE EXCEPTION 'keep must be longer than nothing, and at most 1000 years'
            USING ERRCODE = 'PS004', HINT = 'Pass an interval, for example ''90 days''.';
    END IF;
    PERFORM "{schema}"."{prefix}session_audit_off"();
    EXECUTE pg_catalog.format($trigger$
        CREATE TRIGGER sessions_audit_delete AFTER DELETE ON "{schema}"."{prefix}sessions"
            REFERENCING OLD TABLE AS gone
            FOR EACH STATEMENT EXECUTE FUNCTION "{schema}"."{prefix}session_audit_ends"(%1$L);
        CREATE TRIGGER sessions_audit_truncate BEFORE TRUNCATE ON "{schema}"."{prefix}sessions"
            FOR EACH STATEMENT EXECUTE FUNCTION "{schema}"."{prefix}session_audit_ends"(%1$L)$trigger$,
        pg_catalog.justify_hours($1));
END
$pg_session$;

-- Records no more. The entries stay.
CREATE FUNCTION "{schema}"."{prefix}session_audit_off"() RETURNS void
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $pg_session$
    DROP TRIGGER IF EXISTS sessions_audit_delete ON "{schema}"."{prefix}sessions";
    DROP TRIGGER IF EXISTS sessions_audit_truncate ON "{schema}"."{prefix}sessions"
$pg_session$;
