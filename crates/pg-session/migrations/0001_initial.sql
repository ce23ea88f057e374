-- 0001: sessions, their attributes, and locks.
--
-- No index covers a column that changes with every write or touch (version, updated_at, last_accessed_at), and each
-- page has free room. So nearly every update is a heap-only tuple (HOT) update and touches no index.
--
-- The limits of a session's row are domains, not CHECK constraints of the table. PostgreSQL reads and plans the
-- constraints of a table again in each statement that writes a row. It prepares those of a domain once a connection.

CREATE DOMAIN "{schema}"."{prefix}session_expiry" AS timestamptz
    CONSTRAINT "{prefix}session_expiry_check"
        CHECK (VALUE > '1970-01-01 00:00:00+00' AND VALUE < '2200-01-01 00:00:00+00');
CREATE DOMAIN "{schema}"."{prefix}session_packed" AS text
    CONSTRAINT "{prefix}session_packed_check" CHECK (pg_catalog.octet_length(VALUE) <= 2048);

-- user_id: NULL for an anonymous session.
--
-- rotated_to: NULL for a session. A row with a value is a retired id: it shows the session as it was before a rotation,
-- for requests in flight, and ends with the grace period. It always refers to the current id, also after further
-- rotations, and is deleted with it.
--
-- attributes: the inline attributes as JSON, each with the session version that last wrote it and, if it expires, its
-- expiry in microseconds since 1970: {"role": ["admin", 3], "code": [417, 7, 1893456000000000]}. An expired attribute
-- stays until the session is written again. The library keeps the text short, so that PostgreSQL never moves the column
-- out of line. Larger attributes are rows of session_attributes.
--
-- has_overflow: whether session_attributes may hold rows of the session. A statement that inserts such a row sets it.
--
-- has_labels: the same for session_labels.
--
-- flip: each update by the library inverts it, and no other statement does. So a trigger tells them apart.
CREATE TABLE "{schema}"."{prefix}sessions" (
    id               uuid        NOT NULL,
    user_id          uuid,
    group_id         uuid,
    version          bigint      NOT NULL,
    idle_limited     boolean     NOT NULL,
    created_at       timestamptz NOT NULL,
    updated_at       timestamptz NOT NULL,
    last_accessed_at timestamptz NOT NULL,
    expires_at       "{schema}"."{prefix}session_expiry" NOT NULL,
    rotated_to       uuid,
    attributes       "{schema}"."{prefix}session_packed" NOT NULL DEFAULT '{}',
    has_overflow          boolean     NOT NULL DEFAULT true,
    has_labels       boolean     NOT NULL DEFAULT false,
    flip             boolean     NOT NULL DEFAULT false,
    CONSTRAINT "{prefix}sessions_pkey" PRIMARY KEY (id)
) WITH (fillfactor = 70);

CREATE INDEX "{prefix}sessions_user_id_idx" ON "{schema}"."{prefix}sessions" (user_id);
CREATE INDEX "{prefix}sessions_group_id_idx" ON "{schema}"."{prefix}sessions" (group_id) WHERE group_id IS NOT NULL;
CREATE INDEX "{prefix}sessions_expires_at_idx" ON "{schema}"."{prefix}sessions" (expires_at);
CREATE INDEX "{prefix}sessions_rotated_to_idx" ON "{schema}"."{prefix}sessions" (rotated_to)
    WHERE rotated_to IS NOT NULL;

-- version: the session version that last wrote the attribute. A session version never repeats, so an attribute that
-- was deleted and created again differs from the earlier one.
CREATE TABLE "{schema}"."{prefix}session_attributes" (
    session_id uuid        NOT NULL,
    key        text        NOT NULL COLLATE "C",
    value      text        NOT NULL,
    expires_at timestamptz,
    version    bigint      NOT NULL,
    CONSTRAINT "{prefix}session_attributes_pkey" PRIMARY KEY (session_id, key),
    CONSTRAINT "{prefix}session_attributes_key_check" CHECK (pg_catalog.octet_length(key) BETWEEN 1 AND 512),
    CONSTRAINT "{prefix}session_attributes_value_check" CHECK (pg_catalog.octet_length(value) <= 1048576)
) WITH (fillfactor = 80);

CREATE INDEX "{prefix}session_attributes_expires_at_idx" ON "{schema}"."{prefix}session_attributes" (expires_at)
    WHERE expires_at IS NOT NULL;

-- Labels: names of what a session belongs to, for example an OpenID Connect session, a tenant or a deployment. They are
-- not in the memory of the nodes.
--
-- A rotation moves them, so a retired id has none. Each statement that writes them also writes or locks the session's row
-- and increases its version. The limit of labels of a session is kept by these statements.
CREATE TABLE "{schema}"."{prefix}session_labels" (
    session_id uuid NOT NULL,
    label      text NOT NULL COLLATE "C",
    CONSTRAINT "{prefix}session_labels_pkey" PRIMARY KEY (session_id, label),
    CONSTRAINT "{prefix}session_labels_label_check" CHECK (pg_catalog.octet_length(label) BETWEEN 1 AND 255)
);

CREATE INDEX "{prefix}session_labels_label_idx" ON "{schema}"."{prefix}session_labels" (label);

-- Locks with leases and fencing tokens: one row for each lock that was ever taken.
--
-- A release keeps the row, because a fence must never decrease. fence: the database's clock in microseconds at the
-- acquisition, and more than the row's fence before. So fences grow across a restored backup and a deleted row, too,
-- unless the clock is set back.
--
-- scope: the session's id, or the nil UUID for a lock without a session, so that the two never meet.
-- owner: new for each acquisition, NULL after a release. The lock is free if owner is NULL or expires_at has passed.
-- Only columns that never change are indexed: every renewal is a heap-only update.
CREATE TABLE "{schema}"."{prefix}session_locks" (
    session_id  uuid,
    name        text        NOT NULL COLLATE "C",
    scope       uuid        NOT NULL
        GENERATED ALWAYS AS (COALESCE(session_id, '00000000-0000-0000-0000-000000000000')) STORED,
    owner       uuid,
    label       text,
    fence       bigint      NOT NULL,
    acquired_at timestamptz NOT NULL,
    expires_at  timestamptz NOT NULL,
    CONSTRAINT "{prefix}session_locks_pkey" PRIMARY KEY (scope, name),
    CONSTRAINT "{prefix}session_locks_session_id_check"
        CHECK (session_id <> '00000000-0000-0000-0000-000000000000'),
    CONSTRAINT "{prefix}session_locks_name_check" CHECK (pg_catalog.octet_length(name) BETWEEN 1 AND 255),
    CONSTRAINT "{prefix}session_locks_label_check" CHECK (pg_catalog.octet_length(label) BETWEEN 1 AND 255),
    CONSTRAINT "{prefix}session_locks_fence_check" CHECK (fence > 0),
    CONSTRAINT "{prefix}session_locks_expires_at_check"
        CHECK (expires_at > '1970-01-01 00:00:00+00' AND expires_at < '2200-01-01 00:00:00+00')
) WITH (fillfactor = 50);

CREATE INDEX "{prefix}session_locks_session_id_idx" ON "{schema}"."{prefix}session_locks" (session_id)
    WHERE session_id IS NOT NULL;

-- The registry: a row for each node. UNLOGGED, so that a beat waits for no flush. A crash of the server and a failover
-- empty it. The nodes then insert themselves again.
--
-- first_beat: the beat that inserted the row. It shows a node that its row was removed meanwhile.
-- beat: grows while the node runs. A node whose beat does not move for a trust window is not trusted.
-- token: a random number for the last beat. A tick is a notification with the tokens of all rows.
-- heard: the last requests of `everywhere()` that the node has handled.
-- name: application_name and address of the node's connection. settings: JSON, those that all nodes must share.
-- keys: JSON, the ids of the node's signing keys, the one that signs first, and when each has verified something last.
-- listener_lost_at: since when the node has had no listener. It is not trusted, and its beats prove nothing.
CREATE UNLOGGED TABLE "{schema}"."{prefix}session_nodes" (
    node       uuid   NOT NULL,
    first_beat bigint NOT NULL,
    beat       bigint NOT NULL,
    token      bigint NOT NULL,
    heard      bigint[] NOT NULL,
    name       text   NOT NULL,
    version    text   NOT NULL,
    settings   text   NOT NULL,
    registered_at timestamptz NOT NULL,
    listener_lost_at timestamptz,
    keys       text   NOT NULL DEFAULT '[]',
    CONSTRAINT "{prefix}session_nodes_pkey" PRIMARY KEY (node)
) WITH (fillfactor = 30);

-- Deletes all that belongs to a deleted session: its retired ids, attributes, labels and locks.
--
-- A trigger, not foreign keys: a key runs row triggers on every insert and update of a session. The checks of a key are
-- not needed. A transaction that inserts an attribute, a label or a lock has inserted, updated or locked its session before.
-- As with the cascade of a key, the queries of the function see what was committed while the delete waited.
--
-- A retired id refers to the session itself, never to another retired id, so the recursion is one level deep.
--
-- enable_seqscan: plans are kept with the connection. One that was made for a small table would later read all of it.
--
-- It notifies every node about the deleted ids, at most 64 times: many rows of few users by their users, and of too many
-- users by one notification that evicts everything. The library's statements do so themselves, and say so:
-- pg_session.direct_writes is then 'library'. They do not know what a trigger of the application deletes meanwhile. Before
-- each notification, another one says why; the SQL functions set pg_session.cause to the letter of the cause.
CREATE FUNCTION "{schema}"."{prefix}sessions_follow"() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $pg_session$
DECLARE
    -- Deleted ids of one notification; see `notification.rs`.
    ids_max constant bigint := 242;
    notifications_max constant bigint := 64;
    cause text := COALESCE(NULLIF(pg_catalog.left(pg_catalog.current_setting('pg_session.cause', true), 1), ''), 's');
    writer text := COALESCE(pg_catalog.current_setting('pg_session.direct_writes', true), '');
    is_library boolean := writer = 'library';
    parts bigint;
    users uuid[];
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        PERFORM pg_catalog.set_config('pg_session.direct_writes', 'library', true);
        -- A table that this command truncates, too, is empty and cannot be truncated again.
        IF EXISTS (SELECT FROM "{schema}"."{prefix}session_attributes") THEN
            TRUNCATE "{schema}"."{prefix}session_attributes";
        END IF;
        IF EXISTS (SELECT FROM "{schema}"."{prefix}session_labels") THEN
            TRUNCATE "{schema}"."{prefix}session_labels";
        END IF;
        PERFORM pg_catalog.set_config('pg_session.direct_writes', writer, true);
        -- Locks without a session stay, with their fences.
        DELETE FROM "{schema}"."{prefix}session_locks" l WHERE l.session_id IS NOT NULL;
        PERFORM pg_catalog.pg_notify('{channel}', pg_catalog.concat('1c', cause, 'a')), pg_catalog.pg_notify('{channel}', '1a');
        RETURN NULL;
    END IF;
    -- A DELETE runs the triggers of its table even if it deletes nothing. So a query finds out first. No one can insert such
    -- rows meanwhile: their sessions are deleted.
    --
    -- This deletes rows of sessions, too: the trigger runs again, for retired ids only.
    IF EXISTS (SELECT FROM "{schema}"."{prefix}sessions" s
               WHERE s.rotated_to = ANY (ARRAY (SELECT g.id FROM gone g WHERE g.rotated_to IS NULL)))
    THEN
        DELETE FROM "{schema}"."{prefix}sessions" s
        WHERE s.rotated_to = ANY (ARRAY (SELECT g.id FROM gone g WHERE g.rotated_to IS NULL));
    END IF;
    IF EXISTS (SELECT FROM "{schema}"."{prefix}session_locks" l
               WHERE l.session_id = ANY (ARRAY (SELECT g.id FROM gone g WHERE g.rotated_to IS NULL)))
    THEN
        DELETE FROM "{schema}"."{prefix}session_locks" l
        WHERE l.session_id = ANY (ARRAY (SELECT g.id FROM gone g WHERE g.rotated_to IS NULL));
    END IF;
    -- Most sessions have neither, and one query finds that out.
    IF EXISTS (SELECT FROM gone g WHERE g.has_overflow OR g.has_labels) THEN
        PERFORM pg_catalog.set_config('pg_session.direct_writes', 'library', true);
        DELETE FROM "{schema}"."{prefix}session_attributes" a
        WHERE a.session_id = ANY (ARRAY (SELECT g.id FROM gone g WHERE g.has_overflow));
        DELETE FROM "{schema}"."{prefix}session_labels" l
        WHERE l.session_id = ANY (ARRAY (SELECT g.id FROM gone g WHERE g.has_labels));
        PERFORM pg_catalog.set_config('pg_session.direct_writes', writer, true);
    END IF;
    -- Deeper than the library's statement, this trigger deletes retired ids, and a trigger of the application sessions.
    IF is_library AND pg_catalog.pg_trigger_depth() > 1 THEN
        is_library := NOT EXISTS (SELECT FROM gone g WHERE g.rotated_to IS NULL);
    END IF;
    IF NOT is_library THEN
        parts := ((SELECT pg_catalog.count(*) FROM gone) + ids_max - 1) / ids_max;
        IF parts > 1 THEN
            -- Anonymous sessions have no user to name them by.
            users := ARRAY (SELECT DISTINCT COALESCE(g.user_id, '00000000-0000-0000-0000-000000000000') FROM gone g
                            LIMIT notifications_max + 1);
        END IF;
        IF pg_catalog.cardinality(users) <= LEAST(parts, notifications_max)
            AND '00000000-0000-0000-0000-000000000000' <> ALL (users)
        THEN
            PERFORM pg_catalog.pg_notify('{channel}', pg_catalog.concat('1c', cause, 'u', pg_catalog.replace(u.id::pg_catalog.text, '-', ''))),
                    pg_catalog.pg_notify('{channel}', pg_catalog.concat('1u', pg_catalog.replace(u.id::pg_catalog.text, '-', '')))
            FROM pg_catalog.unnest(users) AS u (id);
        ELSIF parts <= notifications_max THEN
            PERFORM pg_catalog.pg_notify('{channel}', pg_catalog.concat('1c', cause, 's', l.ids)),
                    pg_catalog.pg_notify('{channel}', pg_catalog.concat('1d', l.ids))
            FROM (SELECT pg_catalog.string_agg(pg_catalog.replace(p.id::pg_catalog.text, '-', ''), ',') AS ids
                  FROM (SELECT g.id, (pg_catalog.row_number() OVER () - 1) / ids_max AS part FROM gone g) p
                  GROUP BY p.part) l;
        ELSE
            PERFORM pg_catalog.pg_notify('{channel}', pg_catalog.concat('1c', cause, 'a')), pg_catalog.pg_notify('{channel}', '1a');
        END IF;
    END IF;
    -- A statement of the library limits how long it waits for each row. This was the last row. The commit of a
    -- transaction that notifies waits for others that notify, and must not be limited.
    IF pg_catalog.pg_trigger_depth() = 1
        AND pg_catalog.current_setting('pg_session.limits_row_locks', true) = 'on'
    THEN
        PERFORM pg_catalog.set_config('lock_timeout', '0', true);
    END IF;
    RETURN NULL;
END
$pg_session$;

CREATE TRIGGER sessions_follow_delete AFTER DELETE ON "{schema}"."{prefix}sessions"
    REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION "{schema}"."{prefix}sessions_follow"();

CREATE TRIGGER sessions_follow_truncate AFTER TRUNCATE ON "{schema}"."{prefix}sessions"
    FOR EACH STATEMENT EXECUTE FUNCTION "{schema}"."{prefix}sessions_follow"();

-- Rejects SQL that would leave stale sessions in the memory of the nodes, unless the statement is the library's, or one of
-- the functions above, or the transaction has set pg_session.direct_writes to 'on', as a restore of a backup does. Then the
-- nodes drop everything: a statement does not know its rows here.
--
-- Class PS belongs to this library. PS001: the statement may not write the table.
CREATE FUNCTION "{schema}"."{prefix}session_reject_write"() RETURNS trigger
LANGUAGE plpgsql AS $pg_session$
DECLARE
    writer text := pg_catalog.current_setting('pg_session.direct_writes', true);
BEGIN
    IF writer OPERATOR(pg_catalog.=) 'library' THEN
        RETURN NULL;
    ELSIF writer OPERATOR(pg_catalog.=) 'on' THEN
        PERFORM pg_catalog.pg_notify('{channel}', '1a');
        RETURN NULL;
    ELSIF TG_OP OPERATOR(pg_catalog.=) 'TRUNCATE' AND NOT EXISTS (SELECT FROM "{schema}"."{prefix}sessions") THEN
        -- Together with the sessions.
        RETURN NULL;
    END IF;
    IF TG_LEVEL OPERATOR(pg_catalog.=) 'ROW' THEN
        RAISE EXCEPTION 'UPDATE of table % must not lower a fence: a resource would reject the next holder of the lock', TG_TABLE_NAME
            USING ERRCODE = 'PS001', HINT = 'Delete the row to free the lock.';
    END IF;
    RAISE EXCEPTION '% of table % is not allowed: the nodes would serve other sessions than the table holds', TG_OP, TG_TABLE_NAME
        USING ERRCODE = 'PS001',
        HINT = $hint$Use "{prefix}session_create", "{prefix}session_set" and "{prefix}session_add_label", or the library. To restore a backup, run SET pg_session.direct_writes = 'on' first.$hint$;
END
$pg_session$;

CREATE TRIGGER sessions_reject_insert AFTER INSERT ON "{schema}"."{prefix}sessions"
    FOR EACH STATEMENT EXECUTE FUNCTION "{schema}"."{prefix}session_reject_write"();

CREATE TRIGGER session_attributes_reject_write AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE
    ON "{schema}"."{prefix}session_attributes"
    FOR EACH STATEMENT EXECUTE FUNCTION "{schema}"."{prefix}session_reject_write"();

CREATE TRIGGER session_labels_reject_write AFTER INSERT OR UPDATE OR DELETE OR TRUNCATE
    ON "{schema}"."{prefix}session_labels"
    FOR EACH STATEMENT EXECUTE FUNCTION "{schema}"."{prefix}session_reject_write"();

-- Handles rows that other clients than the library write: an UPDATE, and what logical replication writes, or a client with
-- session_replication_role = replica or with pg_session.direct_writes = 'on'.
--
-- It rejects an UPDATE that does not increase the version, and notifies every node of any other. Nothing is rejected that
-- replicates or restores: the publisher's triggers have run already.
--
-- At most 64 notifications of one transaction name sessions. Then one evicts everything; PostgreSQL sends it once.
CREATE FUNCTION "{schema}"."{prefix}session_check_row"() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pg_session$
DECLARE
    notifications_max constant bigint := 64;
    writer text := COALESCE(pg_catalog.current_setting('pg_session.direct_writes', true), '');
    sent bigint := COALESCE(NULLIF(pg_catalog.current_setting('pg_session.updates_notified', true), '')::pg_catalog.int8, 0);
    accessed record;
BEGIN
    IF writer = 'library' AND pg_catalog.pg_trigger_depth() = 1 THEN
        RETURN NULL;
    END IF;
    IF TG_OP = 'UPDATE' THEN
        accessed := OLD;
        accessed.last_accessed_at := NEW.last_accessed_at;
        IF TG_NAME <> 'sessions_check_update' AND NEW IS NOT DISTINCT FROM accessed THEN
            -- Nothing in the memory of other nodes depends on a later access. One that goes back can end the session.
            IF NEW.last_accessed_at >= OLD.last_accessed_at THEN
                RETURN NULL;
            END IF;
        ELSIF writer <> 'on' AND pg_catalog.current_setting('session_replication_role') <> 'replica'
            AND (NEW.version <= OLD.version OR NEW.id <> OLD.id)
        THEN
            RAISE EXCEPTION 'UPDATE of table % must increase version and keep id: the nodes would serve the old session', TG_TABLE_NAME
                USING ERRCODE = 'PS001', HINT = 'Add "version = version + 1" to the UPDATE.';
        END IF;
    END IF;
    IF TG_OP = 'TRUNCATE' OR sent >= notifications_max THEN
        PERFORM pg_catalog.pg_notify('{channel}', '1a');
        RETURN NULL;
    END IF;
    PERFORM pg_catalog.set_config('pg_session.updates_notified', (sent + 1)::pg_catalog.text, true);
    IF TG_OP = 'DELETE' THEN
        PERFORM pg_catalog.pg_notify('{channel}', pg_catalog.concat('1css', pg_catalog.replace(OLD.id::pg_catalog.text, '-', ''))),
                pg_catalog.pg_notify('{channel}', pg_catalog.concat('1d', pg_catalog.replace(OLD.id::pg_catalog.text, '-', '')));
        RETURN NULL;
    END IF;
    IF TG_OP = 'UPDATE' THEN
        -- This version, or a higher one, may be in memory.
        PERFORM pg_catalog.pg_notify('{channel}', pg_catalog.concat('1d', pg_catalog.replace(OLD.id::pg_catalog.text, '-', '')))
        WHERE NEW.id <> OLD.id OR NEW.version <= OLD.version;
    END IF;
    PERFORM pg_catalog.pg_notify('{channel}', pg_catalog.concat(
        '1s', pg_catalog.replace(NEW.id::pg_catalog.text, '-', ''), '.', NEW.version));
    RETURN NULL;
END
$pg_session$;

-- The library always increases the version and inverts flip. So two comparisons tell its updates from the others. Each row
-- is compared, which is why they must be few and cheap.
CREATE TRIGGER sessions_check_update
    AFTER UPDATE OF id, user_id, group_id, version, idle_limited, flip, created_at, updated_at, expires_at, rotated_to,
        attributes, has_overflow, has_labels
    ON "{schema}"."{prefix}sessions" FOR EACH ROW
    WHEN (NEW.version OPERATOR(pg_catalog.<=) OLD.version OR NEW.flip OPERATOR(pg_catalog.=) OLD.flip)
    EXECUTE FUNCTION "{schema}"."{prefix}session_check_row"();

-- The library never moves an access back.
CREATE TRIGGER sessions_check_access AFTER UPDATE OF last_accessed_at ON "{schema}"."{prefix}sessions" FOR EACH ROW
    WHEN (NEW.last_accessed_at OPERATOR(pg_catalog.<) OLD.last_accessed_at)
    EXECUTE FUNCTION "{schema}"."{prefix}session_check_row"();

-- Other triggers do not run for replicated rows.
--
-- The condition: `pg_restore --disable-triggers` makes ordinary triggers of them.
CREATE TRIGGER sessions_replicated AFTER INSERT OR UPDATE OR DELETE ON "{schema}"."{prefix}sessions" FOR EACH ROW
    WHEN (pg_catalog.current_setting('session_replication_role') OPERATOR(pg_catalog.=) 'replica')
    EXECUTE FUNCTION "{schema}"."{prefix}session_check_row"();

CREATE TRIGGER sessions_replicated_truncate AFTER TRUNCATE ON "{schema}"."{prefix}sessions" FOR EACH STATEMENT
    WHEN (pg_catalog.current_setting('session_replication_role') OPERATOR(pg_catalog.=) 'replica')
    EXECUTE FUNCTION "{schema}"."{prefix}session_check_row"();

ALTER TABLE "{schema}"."{prefix}sessions"
    ENABLE REPLICA TRIGGER sessions_replicated, ENABLE REPLICA TRIGGER sessions_replicated_truncate;

-- An operator may delete a lock to free it. Its waiters are notified, as by a release: at most 64 locks of a statement; other
-- waiters look again within ten seconds. Locks that go with a session have no waiters to wake.
--
-- The payload is that of `lock_key.rs`, `topic`.
CREATE FUNCTION "{schema}"."{prefix}session_locks_wake"() RETURNS trigger
LANGUAGE plpgsql AS $pg_session$
BEGIN
    IF pg_catalog.pg_trigger_depth() OPERATOR(pg_catalog.>) 1 THEN
        RETURN NULL;
    END IF;
    PERFORM pg_catalog.pg_notify('{channel}', pg_catalog.concat('1l', pg_catalog.substr(pg_catalog.encode(
                pg_catalog.sha256(pg_catalog.convert_to('pg-session/lock/1', 'UTF8')
                    OPERATOR(pg_catalog.||) pg_catalog.decode('00', 'hex')
                    OPERATOR(pg_catalog.||) pg_catalog.uuid_send(g.scope)
                    OPERATOR(pg_catalog.||) pg_catalog.convert_to(g.name, 'UTF8')), 'hex'), 1, 32)))
    FROM gone g WHERE g.owner IS NOT NULL LIMIT 64;
    RETURN NULL;
END
$pg_session$;

CREATE TRIGGER session_locks_wake AFTER DELETE ON "{schema}"."{prefix}session_locks"
    REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION "{schema}"."{prefix}session_locks_wake"();

-- A fence never decreases: a resource would reject the next holder, or accept one before it.
CREATE TRIGGER session_locks_reject_update AFTER UPDATE OF fence ON "{schema}"."{prefix}session_locks"
    FOR EACH ROW WHEN (NEW.fence OPERATOR(pg_catalog.<) OLD.fence)
    EXECUTE FUNCTION "{schema}"."{prefix}session_reject_write"();

-- Makes room for one more session of each user. Returns a row for each user at the limit: whether it is admitted all
-- the same, and the ids of the sessions that were deleted for it, with their retired ids. Users without a row have room.
--
-- users: sorted, each once, so that two calls never wait for each other.
-- sessions_max: for each of them, the live sessions that the user may have, the new one included.
-- replaced: sessions whose places the new ones take. They are neither counted nor deleted.
-- evict: whether to delete the least recently used sessions at the limit, or not to admit the user.
-- idle_timeout: how long a session with an idle limit lives without access.
--
-- Each query of a volatile function sees what was committed when that query began. So each query after the first one
-- sees the sessions of transactions that held a user's lock before.
--
-- Retired ids are not counted.
--
-- plan_cache_mode: without it each call would be planned again, because a short array looks cheaper than the generic
-- plan.
--
-- enable_bitmapscan: each login at the limit leaves a dead row. Only a plain index scan marks the entries of dead rows,
-- so that the next scan skips them.
CREATE FUNCTION "{schema}"."{prefix}session_make_room"(
    users uuid[], sessions_max bigint[], replaced uuid[], channel text, evict boolean, idle_timeout interval
) RETURNS TABLE (user_id uuid, admitted boolean, evicted uuid[])
LANGUAGE plpgsql VOLATILE ROWS 10
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off
SET plan_cache_mode = force_generic_plan
AS $pg_session$
DECLARE
    at_limit uuid[];
    limits bigint[];
    endings text := COALESCE(pg_catalog.current_setting('pg_session.endings', true), '');
BEGIN
    PERFORM pg_catalog.pg_advisory_xact_lock(
        pg_catalog.uuid_hash_extended(u.id, pg_catalog.hashtextextended(channel, 0)))
    FROM pg_catalog.unnest(users) AS u (id);

    -- Expired and idle sessions count here: a touch that commits meanwhile may keep an idle session alive.
    SELECT pg_catalog.array_agg(u.id), pg_catalog.array_agg(u.places) INTO at_limit, limits
    FROM ROWS FROM (pg_catalog.unnest(users), pg_catalog.unnest(sessions_max)) AS u (id, places)
    WHERE (SELECT pg_catalog.count(*) FROM "{schema}"."{prefix}sessions" s
           WHERE s.user_id = u.id AND s.rotated_to IS NULL AND s.id <> ALL (replaced)) >= u.places;
    IF at_limit IS NULL THEN
        RETURN;
    END IF;

    IF NOT evict THEN
        -- Waits for touches, and keeps others out. So the sessions that are live below are live at the commit.
        PERFORM FROM "{schema}"."{prefix}sessions" s
        WHERE s.id = ANY (ARRAY (
            SELECT c.id FROM pg_catalog.unnest(at_limit) AS u (id)
            CROSS JOIN LATERAL (
                SELECT c.id FROM "{schema}"."{prefix}sessions" c WHERE c.user_id = u.id OFFSET 0
            ) c))
            AND s.rotated_to IS NULL
        ORDER BY s.id FOR NO KEY UPDATE;
        RETURN QUERY
            SELECT u.id,
                   (SELECT pg_catalog.count(*) FROM "{schema}"."{prefix}sessions" s
                    WHERE s.user_id = u.id AND s.rotated_to IS NULL AND s.id <> ALL (replaced)
                        AND s.expires_at::pg_catalog.timestamptz > pg_catalog.clock_timestamp()
                        AND (NOT s.idle_limited
                             OR s.last_accessed_at > pg_catalog.clock_timestamp() - idle_timeout)) < u.places,
                   NULL::pg_catalog.uuid[]
            FROM ROWS FROM (pg_catalog.unnest(at_limit), pg_catalog.unnest(limits)) AS u (id, places);
        RETURN;
    END IF;

    -- For the audit log: the cause is the limit.
    PERFORM pg_catalog.set_config('pg_session.endings', '[{"cause": "p"}]', true);
    -- Ranks every session, the expired and idle ones last: see above. One place is for the new session.
    RETURN QUERY
        WITH ranked AS MATERIALIZED (
            SELECT s.id, s.user_id, u.places,
                   pg_catalog.row_number() OVER (
                       PARTITION BY s.user_id
                       ORDER BY s.expires_at::pg_catalog.timestamptz > pg_catalog.clock_timestamp()
                                AND (NOT s.idle_limited
                                     OR s.last_accessed_at > pg_catalog.clock_timestamp() - idle_timeout) DESC,
                                s.last_accessed_at DESC, s.id
                   ) AS rank
            FROM ROWS FROM (pg_catalog.unnest(at_limit), pg_catalog.unnest(limits)) AS u (id, places)
            CROSS JOIN LATERAL (
                SELECT c.* FROM "{schema}"."{prefix}sessions" c
                WHERE c.user_id = u.id AND c.rotated_to IS NULL AND c.id <> ALL (replaced) OFFSET 0
            ) s
        ), over_limit AS MATERIALIZED (
            SELECT r.id, r.user_id FROM ranked r WHERE r.rank >= r.places
        ), to_evict AS MATERIALIZED (
            SELECT o.id, o.user_id FROM over_limit o
            UNION ALL
            SELECT r.id, o.user_id FROM over_limit o
            CROSS JOIN LATERAL (
                SELECT r.id FROM "{schema}"."{prefix}sessions" r WHERE r.rotated_to = o.id OFFSET 0
            ) r
        ), locked AS MATERIALIZED (
            SELECT s.id FROM "{schema}"."{prefix}sessions" s
            WHERE s.id = ANY (ARRAY (SELECT e.id FROM to_evict e)) ORDER BY s.id FOR UPDATE
        ), deleted AS (
            DELETE FROM "{schema}"."{prefix}sessions" s
            WHERE s.id = ANY (ARRAY (SELECT l.id FROM locked l)) RETURNING s.id
        ), evictions AS MATERIALIZED (
            SELECT d.id, e.user_id FROM deleted d JOIN to_evict e ON e.id = d.id
        ), notified AS MATERIALIZED (
            -- As `postgres/notify.rs` does it.
            SELECT pg_catalog.pg_notify(channel, '1cps' || l.ids) AS cause, pg_catalog.pg_notify(channel, '1d' || l.ids) AS deletion
            FROM (SELECT pg_catalog.string_agg(pg_catalog.replace(p.id::pg_catalog.text, '-', ''), ',') AS ids
                  FROM (SELECT e.id, (pg_catalog.row_number() OVER () - 1) / 242 AS part FROM evictions e) p
                  GROUP BY p.part) l
        )
        SELECT u.id, true, (SELECT pg_catalog.array_agg(e.id) FROM evictions e WHERE e.user_id = u.id)
        FROM pg_catalog.unnest(at_limit) AS u (id)
        CROSS JOIN (SELECT pg_catalog.count(*) FROM notified) n;
    PERFORM pg_catalog.set_config('pg_session.endings', endings, true);
END
$pg_session$;

-- Moves the locks of rotated sessions to their new ids.
--
-- A rotation calls it when it has locked the sessions. The query of a volatile function sees what was committed when
-- it began, so it finds the locks of transactions that the rotation waited for.
CREATE FUNCTION "{schema}"."{prefix}session_move_locks"(old_ids uuid[], new_ids uuid[]) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET plan_cache_mode = force_generic_plan
AS $pg_session$
BEGIN
    UPDATE "{schema}"."{prefix}session_locks" l SET session_id = m.new_id
    FROM ROWS FROM (pg_catalog.unnest(old_ids), pg_catalog.unnest(new_ids)) AS m (old_id, new_id)
    WHERE l.session_id = m.old_id;
END
$pg_session$;

-- Gives rotated sessions their labels under their new ids: those that they had, or new ones. The arrays `label_ids` and
-- `labels` hold the new ones, by new session id.
--
-- A rotation calls it if it has locked a session with labels, or gives it some. Its base has the labels of the table,
-- because each change of them increases the version.
CREATE FUNCTION "{schema}"."{prefix}session_move_labels"(
    old_ids uuid[], new_ids uuid[], keeps boolean[], label_ids uuid[], labels text[]
) RETURNS void
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET plan_cache_mode = force_generic_plan
AS $pg_session$
BEGIN
    DELETE FROM "{schema}"."{prefix}session_labels" l
    USING ROWS FROM (pg_catalog.unnest(old_ids), pg_catalog.unnest(keeps)) AS m (old_id, keeps)
    WHERE l.session_id = m.old_id AND NOT m.keeps;
    UPDATE "{schema}"."{prefix}session_labels" l SET session_id = m.new_id
    FROM ROWS FROM (pg_catalog.unnest(old_ids), pg_catalog.unnest(new_ids)) AS m (old_id, new_id)
    WHERE l.session_id = m.old_id;
    INSERT INTO "{schema}"."{prefix}session_labels" (session_id, label)
    SELECT n.id, n.label
    FROM ROWS FROM (pg_catalog.unnest(label_ids), pg_catalog.unnest(labels)) AS n (id, label)
    WHERE n.id = ANY (new_ids);
END
$pg_session$;

-- Updates, commits, then notifies. Each `pg_notify` at the commit of the update would make it wait for all other
-- commits that notify, each with its flush. A transaction that only notifies waits for no flush.
--
-- If the notifications fail, the update is committed: the library sends them again.
--
-- A procedure that commits cannot have a SET clause. So every name is qualified, and arrays are hidden in subselects:
-- their length must not make a plan for the actual values look cheaper than the generic one.
--
-- row_lock_wait: how long the update waits for each locked row, in milliseconds.
-- policies_active: whether row-level security is active for the role. The update then fails.
-- server: returned as it is, so that the answer names the server that has evaluated the argument.
CREATE PROCEDURE "{schema}"."{prefix}session_update_one"(
    session_id uuid, base bigint, base_at timestamptz, new_attributes text, payload text,
    channel text, idle_timeout interval, row_lock_wait text, policies_active boolean,
    INOUT written_at timestamptz, INOUT ends_at timestamptz, INOUT accessed_at timestamptz,
    INOUT server bigint
)
LANGUAGE plpgsql AS $pg_session$
DECLARE
    ignored text;
BEGIN
    IF policies_active THEN
        -- An unknown setting, so an error: a policy would hide sessions.
        ignored := pg_catalog.current_setting('pg_session.row_security_is_active');
    END IF;
    -- These end with the COMMIT. The limit must not be in force when the notifications wait for others that notify.
    ignored := pg_catalog.set_config('lock_timeout', row_lock_wait, true);
    UPDATE "{schema}"."{prefix}sessions" s
    SET version = s.version + 1,
        flip = NOT s.flip,
        attributes = COALESCE(new_attributes, s.attributes),
        updated_at = pg_catalog.clock_timestamp()
    WHERE s.id = session_id AND s.version = base AND s.updated_at = base_at AND s.rotated_to IS NULL
        AND (s.expires_at::pg_catalog.timestamptz > pg_catalog.clock_timestamp()
        AND (NOT s.idle_limited OR s.last_accessed_at > pg_catalog.clock_timestamp() - idle_timeout))
    RETURNING s.updated_at, s.expires_at, s.last_accessed_at INTO written_at, ends_at, accessed_at;
    -- Nothing to tell about an update that was not made.
    IF payload IS NULL OR written_at IS NULL THEN
        RETURN;
    END IF;
    COMMIT;
    ignored := pg_catalog.set_config('lock_timeout', '0', true);
    -- An assignment: PERFORM would run a query.
    ignored := pg_catalog.pg_notify(channel, payload);
END
$pg_session$;

-- As `session_update_one`, for many sessions. Returns arrays of those that were updated, by their numbers from 1 on.
CREATE PROCEDURE "{schema}"."{prefix}session_update"(
    ids uuid[], bases bigint[], base_times timestamptz[], packed text[], payloads text[],
    channel text, idle_timeout interval, row_lock_wait text, policies_active boolean,
    INOUT numbers bigint[], INOUT written_at timestamptz[], INOUT ends_at timestamptz[],
    INOUT accessed_at timestamptz[], INOUT server bigint
)
LANGUAGE plpgsql AS $pg_session$
DECLARE
    ignored text;
BEGIN
    IF policies_active THEN
        -- An unknown setting, so an error: a policy would hide sessions.
        ignored := pg_catalog.current_setting('pg_session.row_security_is_active');
    END IF;
    -- These end with the COMMIT. The limit must not be in force when the notifications wait for others that notify.
    ignored := pg_catalog.set_config('lock_timeout', row_lock_wait, true);
    WITH done AS (
        UPDATE "{schema}"."{prefix}sessions" s
        SET version = s.version + 1,
            flip = NOT s.flip,
            attributes = COALESCE(c.attributes, s.attributes),
            updated_at = pg_catalog.clock_timestamp()
        FROM ROWS FROM (
            pg_catalog.unnest((SELECT ids)), pg_catalog.unnest((SELECT bases)),
            pg_catalog.unnest((SELECT base_times)), pg_catalog.unnest((SELECT packed))
        ) WITH ORDINALITY AS c (id, base, base_at, attributes, n)
        WHERE s.id = c.id AND s.version = c.base AND s.updated_at = c.base_at
            AND CASE WHEN s.rotated_to IS NULL THEN
            (s.expires_at::pg_catalog.timestamptz > pg_catalog.clock_timestamp()
             AND (NOT s.idle_limited OR s.last_accessed_at > pg_catalog.clock_timestamp() - idle_timeout))
            ELSE false END
        RETURNING c.n, s.updated_at, s.expires_at::pg_catalog.timestamptz AS expires_at, s.last_accessed_at
    )
    SELECT pg_catalog.array_agg(d.n), pg_catalog.array_agg(d.updated_at), pg_catalog.array_agg(d.expires_at),
           pg_catalog.array_agg(d.last_accessed_at)
    INTO numbers, written_at, ends_at, accessed_at FROM done d;
    IF payloads = '{}' OR numbers IS NULL THEN
        RETURN;
    END IF;
    COMMIT;
    ignored := pg_catalog.set_config('lock_timeout', '0', true);
    PERFORM pg_catalog.pg_notify(channel, p.payload) FROM pg_catalog.unnest(payloads) AS p (payload);
END
$pg_session$;

-- As `session_update`, for updates that change more than inline attributes.
CREATE PROCEDURE "{schema}"."{prefix}session_update_in_full"(
    ids uuid[], bases bigint[], base_times timestamptz[], packed text[], overflows boolean[],
    ends timestamptz[], lifetimes bigint[], idle_limits boolean[], regroups boolean[], group_ids uuid[],
    item_ids uuid[], item_keys text[], item_texts text[], item_ends timestamptz[],
    removed_ids uuid[], removed_keys text[], payloads text[],
    channel text, idle_timeout interval, row_lock_wait text, policies_active boolean,
    INOUT numbers bigint[], INOUT written_at timestamptz[], INOUT ends_at timestamptz[],
    INOUT accessed_at timestamptz[], INOUT server bigint
)
LANGUAGE plpgsql AS $pg_session$
DECLARE
    ignored text;
BEGIN
    IF policies_active THEN
        -- An unknown setting, so an error: a policy would hide sessions.
        ignored := pg_catalog.current_setting('pg_session.row_security_is_active');
    END IF;
    -- These end with the COMMIT. The limit must not be in force when the notifications wait for others that notify.
    ignored := pg_catalog.set_config('lock_timeout', row_lock_wait, true);
    ignored := pg_catalog.set_config('pg_session.direct_writes', 'library', true);
    WITH done AS (
        UPDATE "{schema}"."{prefix}sessions" s
        SET version = s.version + 1,
            flip = NOT s.flip,
            attributes = COALESCE(c.attributes, s.attributes),
            has_overflow = s.has_overflow OR c.has_overflow,
            updated_at = pg_catalog.clock_timestamp(),
            expires_at = COALESCE(c.expires_at,
                pg_catalog.clock_timestamp() + c.expires_in::pg_catalog.float8 * interval '1 microsecond',
                s.expires_at),
            idle_limited = COALESCE(c.idle_limited, s.idle_limited),
            group_id = CASE WHEN c.regroup THEN c.group_id ELSE s.group_id END
        FROM ROWS FROM (
            pg_catalog.unnest((SELECT ids)), pg_catalog.unnest((SELECT bases)),
            pg_catalog.unnest((SELECT base_times)), pg_catalog.unnest((SELECT packed)),
            pg_catalog.unnest((SELECT overflows)),
            pg_catalog.unnest((SELECT ends)),
            pg_catalog.unnest((SELECT lifetimes)),
            pg_catalog.unnest((SELECT idle_limits)),
            pg_catalog.unnest((SELECT regroups)),
            pg_catalog.unnest((SELECT group_ids))
        ) WITH ORDINALITY
        AS c (id, base, base_at, attributes, has_overflow, expires_at, expires_in, idle_limited, regroup, group_id, n)
        WHERE s.id = c.id AND s.version = c.base AND s.updated_at = c.base_at
            AND CASE WHEN s.rotated_to IS NULL THEN
            (s.expires_at::pg_catalog.timestamptz > pg_catalog.clock_timestamp()
             AND (NOT s.idle_limited OR s.last_accessed_at > pg_catalog.clock_timestamp() - idle_timeout))
            ELSE false END
        RETURNING c.n, s.id, s.version, s.updated_at, s.expires_at::pg_catalog.timestamptz AS expires_at,
            s.last_accessed_at
    ), written AS (
        INSERT INTO "{schema}"."{prefix}session_attributes" AS a (session_id, key, value, expires_at, version)
        SELECT d.id, i.key, i.text, i.expires_at, d.version
        FROM done d JOIN ROWS FROM (
            pg_catalog.unnest((SELECT item_ids)), pg_catalog.unnest((SELECT item_keys)),
            pg_catalog.unnest((SELECT item_texts)), pg_catalog.unnest((SELECT item_ends))
        ) AS i (id, key, text, expires_at) ON i.id = d.id
        ON CONFLICT (session_id, key) DO UPDATE
        SET value = EXCLUDED.value, expires_at = EXCLUDED.expires_at, version = EXCLUDED.version
    ), removed AS (
        DELETE FROM "{schema}"."{prefix}session_attributes" a
        USING done d JOIN ROWS FROM (
            pg_catalog.unnest((SELECT removed_ids)), pg_catalog.unnest((SELECT removed_keys))
        ) AS i (id, key) ON i.id = d.id
        WHERE a.session_id = d.id AND a.key = i.key
    )
    SELECT pg_catalog.array_agg(d.n), pg_catalog.array_agg(d.updated_at), pg_catalog.array_agg(d.expires_at),
           pg_catalog.array_agg(d.last_accessed_at)
    INTO numbers, written_at, ends_at, accessed_at FROM done d;
    IF payloads = '{}' OR numbers IS NULL THEN
        RETURN;
    END IF;
    COMMIT;
    ignored := pg_catalog.set_config('lock_timeout', '0', true);
    PERFORM pg_catalog.pg_notify(channel, p.payload) FROM pg_catalog.unnest(payloads) AS p (payload);
END
$pg_session$;
