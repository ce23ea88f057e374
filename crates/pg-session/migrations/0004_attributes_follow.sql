-- 0004: attributes go with their sessions by a trigger, not by a foreign key.
--
-- The key checked and locked the session again for every attribute that was inserted, a third of what a create costs.
-- Nobody needs that: an attribute is only inserted by a transaction that has just inserted or updated its session, and
-- so holds it until it commits. Like the key's cascade, the function sees what was committed while the delete waited
-- for such a transaction.

CREATE FUNCTION "{schema}"."{prefix}session_attributes_follow"() RETURNS trigger
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pg_session$
BEGIN
    IF TG_OP = 'TRUNCATE' THEN
        TRUNCATE "{schema}"."{prefix}session_attributes";
    ELSE
        DELETE FROM "{schema}"."{prefix}session_attributes" a
        WHERE a.session_id = ANY (ARRAY (SELECT g.id FROM gone g));
    END IF;
    RETURN NULL;
END
$pg_session$;

CREATE TRIGGER session_attributes_follow_delete AFTER DELETE ON "{schema}"."{prefix}sessions"
    REFERENCING OLD TABLE AS gone
    FOR EACH STATEMENT EXECUTE FUNCTION "{schema}"."{prefix}session_attributes_follow"();

CREATE TRIGGER session_attributes_follow_truncate AFTER TRUNCATE ON "{schema}"."{prefix}sessions"
    FOR EACH STATEMENT EXECUTE FUNCTION "{schema}"."{prefix}session_attributes_follow"();

ALTER TABLE "{schema}"."{prefix}session_attributes"
    DROP CONSTRAINT "{prefix}session_attributes_session_id_fkey";
