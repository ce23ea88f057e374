-- 0005: a session's small attributes are kept in its own row.
--
-- attributes: those that are short and live as long as the session, as JSON, each with the version of the session that
-- last wrote it: {"role": ["admin", 3], "seen": [41, 7]}. The library bounds them, so that the row stays far below
-- the size at which PostgreSQL would move the column out of line. All others are rows of session_attributes.
--
-- spilled: whether session_attributes may hold rows of the session. Whoever inserts one sets it in the same transaction.
-- Sessions from before this migration have their attributes there, and move them as they are set again.

ALTER TABLE "{schema}"."{prefix}sessions"
    ADD COLUMN attributes text NOT NULL DEFAULT '{}',
    ADD COLUMN spilled boolean NOT NULL DEFAULT true,
    ADD CONSTRAINT "{prefix}sessions_attributes_check" CHECK (octet_length(attributes) <= 2048);

CREATE OR REPLACE FUNCTION "{schema}"."{prefix}session_attributes_follow"() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pg_session$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        TRUNCATE "{schema}"."{prefix}session_attributes";
    ELSE
        DELETE FROM "{schema}"."{prefix}session_attributes" a
        WHERE a.session_id = ANY (ARRAY (SELECT g.id FROM gone g WHERE g.spilled));
    END IF;
    RETURN NULL;
END
$pg_session$;
