-- For roles that may end the sessions of a user or of a label, and do nothing else. The functions run with the rights of
-- their owner, who must own the session tables or have the application's rights. It is no part of the migrations.
--
-- Then: GRANT USAGE ON SCHEMA "{schema}" TO support;
--       GRANT EXECUTE ON FUNCTION "{schema}"."{prefix}revoke_user_sessions"(uuid, uuid, text) TO support;
--       GRANT EXECUTE ON FUNCTION "{schema}"."{prefix}revoke_label_sessions"(text, uuid, text) TO support;
--       GRANT EXECUTE ON FUNCTION "{schema}"."{prefix}session_user_of"(text), "{schema}"."{prefix}session_user_of"(bigint)
--           TO support; -- if it has names or numbers of users, not their UUIDs
BEGIN;
SET LOCAL search_path = pg_catalog;
CREATE OR REPLACE FUNCTION "{schema}"."{prefix}revoke_user_sessions"(
    user_id uuid, except_id uuid DEFAULT NULL, cause text DEFAULT 'admin'
) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $pg_session$
    SELECT "{schema}"."{prefix}session_end_user"($1, $2, $3)
$pg_session$;
CREATE OR REPLACE FUNCTION "{schema}"."{prefix}revoke_label_sessions"(
    label text, except_id uuid DEFAULT NULL, cause text DEFAULT 'admin'
) RETURNS bigint
LANGUAGE sql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS $pg_session$
    SELECT "{schema}"."{prefix}session_end_label"($1, $2, $3)
$pg_session$;
DO $pg_session$
DECLARE
    grantee text;
BEGIN
    FOR grantee IN {grantees} LOOP
        EXECUTE pg_catalog.concat(
            $revoke$REVOKE ALL ON FUNCTION "{schema}"."{prefix}revoke_user_sessions"(uuid, uuid, text),
                "{schema}"."{prefix}revoke_label_sessions"(text, uuid, text) FROM $revoke$, grantee);
    END LOOP;
END
$pg_session$;
COMMIT;
