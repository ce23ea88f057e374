-- 0006: what belongs to a session goes with it by one trigger, not by foreign keys.
--
-- A key has row triggers on every insert and update of a session, whatever it changes, and they fetch the old row
-- again: a fifth of what PostgreSQL needs for an update of 32 sessions. Nobody needs the checks. A row that is
-- rotated points at one that its transaction has just inserted; a lock of a session is taken by a transaction that holds
-- the session (FOR KEY SHARE) until it commits, and moved by the one that inserted the session.
--
-- Like the keys' cascades, the function sees what was committed while the delete waited for such a transaction. What
-- rotations have left points at the session itself, never at one another, so this is one level deep.
--
-- enable_seqscan: the plans are kept with the connection, and those made while a table was small would read all of it.

DROP TRIGGER session_attributes_follow_delete ON "{schema}"."{prefix}sessions";
DROP TRIGGER session_attributes_follow_truncate ON "{schema}"."{prefix}sessions";
DROP FUNCTION "{schema}"."{prefix}session_attributes_follow"();

CREATE FUNCTION "{schema}"."{prefix}sessions_follow"() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $pg_session$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        TRUNCATE "{schema}"."{prefix}session_attributes";
        -- Locks of no session stay, and so do their fences.
        DELETE FROM "{schema}"."{prefix}session_locks" l WHERE l.session_id IS NOT NULL;
        RETURN NULL;
    END IF;
    -- This deletes sessions, too, and comes here again, with nothing but what rotations have left.
    IF EXISTS (SELECT FROM gone g WHERE g.rotated_to IS NULL) THEN
        DELETE FROM "{schema}"."{prefix}sessions" s
        WHERE s.rotated_to = ANY (ARRAY (SELECT g.id FROM gone g WHERE g.rotated_to IS NULL));
        DELETE FROM "{schema}"."{prefix}session_locks" l
        WHERE l.session_id = ANY (ARRAY (SELECT g.id FROM gone g WHERE g.rotated_to IS NULL));
    END IF;
    DELETE FROM "{schema}"."{prefix}session_attributes" a
    WHERE a.session_id = ANY (ARRAY (SELECT g.id FROM gone g WHERE g.spilled));
    RETURN NULL;
END
$pg_session$;

CREATE TRIGGER sessions_follow_delete AFTER DELETE ON "{schema}"."{prefix}sessions"
    REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION "{schema}"."{prefix}sessions_follow"();

CREATE TRIGGER sessions_follow_truncate AFTER TRUNCATE ON "{schema}"."{prefix}sessions"
    FOR EACH STATEMENT EXECUTE FUNCTION "{schema}"."{prefix}sessions_follow"();

ALTER TABLE "{schema}"."{prefix}sessions" DROP CONSTRAINT "{prefix}sessions_rotated_to_fkey";
ALTER TABLE "{schema}"."{prefix}session_locks" DROP CONSTRAINT "{prefix}session_locks_session_id_fkey";
