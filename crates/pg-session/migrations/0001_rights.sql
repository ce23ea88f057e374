-- 0001, last part: only the owner and the roles that it names have rights.
--
-- By default PUBLIC has USAGE on types and EXECUTE on functions. A role with USAGE on the domains could create operators
-- for them. Default privileges give rights on new tables to other roles: platforms that serve tables over HTTP to those
-- of their visitors, companies to those of their reports.
--
-- The routines that nodes and triggers call are named with their arguments, because another role may have made routines
-- of the same names.
DO $pg_session$
DECLARE
    grantee text;
BEGIN
    FOR grantee IN {grantees} LOOP
        EXECUTE pg_catalog.concat($revoke$
            REVOKE ALL ON TABLE "{schema}"."{prefix}sessions", "{schema}"."{prefix}session_attributes",
                "{schema}"."{prefix}session_labels", "{schema}"."{prefix}session_locks", "{schema}"."{prefix}session_nodes",
                "{schema}"."{prefix}session_migrations", "{schema}"."{prefix}session_settings",
                "{schema}"."{prefix}session_overview", "{schema}"."{prefix}session_audit" FROM $revoke$, grantee);
        EXECUTE pg_catalog.concat($revoke$
            REVOKE ALL ON ROUTINE "{schema}"."{prefix}sessions_follow"(), "{schema}"."{prefix}session_reject_write"(),
                "{schema}"."{prefix}session_check_row"(), "{schema}"."{prefix}session_locks_wake"(),
                {routines} FROM $revoke$, grantee);
        EXECUTE pg_catalog.concat($revoke$
            REVOKE ALL ON FUNCTION
                "{schema}"."{prefix}session_audit_ends", "{schema}"."{prefix}session_cause_name",
                "{schema}"."{prefix}session_audit_on", "{schema}"."{prefix}session_audit_off",
                "{schema}"."{prefix}session_contract", "{schema}"."{prefix}session_rules",
                "{schema}"."{prefix}session_cause", "{schema}"."{prefix}session_is_live",
                "{schema}"."{prefix}session_read_attributes", "{schema}"."{prefix}session_put_attribute",
                "{schema}"."{prefix}session_write", "{schema}"."{prefix}session_set",
                "{schema}"."{prefix}session_remove", "{schema}"."{prefix}session_create",
                "{schema}"."{prefix}session_check_labels", "{schema}"."{prefix}session_change_label",
                "{schema}"."{prefix}session_add_label", "{schema}"."{prefix}session_remove_label",
                "{schema}"."{prefix}session_list_label", "{schema}"."{prefix}session_end_label",
                "{schema}"."{prefix}session_get", "{schema}"."{prefix}session_list", "{schema}"."{prefix}session_alive",
                "{schema}"."{prefix}session_touch", "{schema}"."{prefix}session_end_rows",
                "{schema}"."{prefix}session_scope", "{schema}"."{prefix}session_end",
                "{schema}"."{prefix}session_end_user", "{schema}"."{prefix}session_end_group",
                "{schema}"."{prefix}session_end_all", "{schema}"."{prefix}session_user_of"(text),
                "{schema}"."{prefix}session_user_of"(bigint) FROM $revoke$, grantee);
        EXECUTE pg_catalog.concat($revoke$
            REVOKE ALL ON DOMAIN "{schema}"."{prefix}session_expiry", "{schema}"."{prefix}session_packed"
                FROM $revoke$, grantee);
    END LOOP;
END
$pg_session$;
