-- 0001, last part: only the owner and the roles that it names have rights.
--
-- By default PUBLIC has USAGE on types and EXECUTE on functions. A role with USAGE on the domains could create operators
-- for them. Default privileges give rights on new tables to other roles: platforms that serve tables over HTTP to those
-- of their visitors, companies to those of their reports.
--
-- All routines are named with their arguments, because another role may have made routines of the same names.
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
                "{schema}"."{prefix}session_audit_ends"(), "{schema}"."{prefix}session_cause_name"(text),
                "{schema}"."{prefix}session_audit_on"(interval), "{schema}"."{prefix}session_audit_off"(),
                "{schema}"."{prefix}session_contract"(), "{schema}"."{prefix}session_rules"(boolean),
                "{schema}"."{prefix}session_cause"(text),
                "{schema}"."{prefix}session_is_live"(timestamptz, boolean, timestamptz, interval),
                "{schema}"."{prefix}session_read_attributes"(uuid, text, boolean),
                "{schema}"."{prefix}session_put_attribute"(uuid, text, boolean, text, text, timestamptz, bigint),
                "{schema}"."{prefix}session_write"(uuid, text, text, timestamptz),
                "{schema}"."{prefix}session_set"(uuid, text, jsonb, timestamptz),
                "{schema}"."{prefix}session_remove"(uuid, text),
                "{schema}"."{prefix}session_create"(uuid, jsonb, interval, uuid, text[]),
                "{schema}"."{prefix}session_check_labels"(text[]),
                "{schema}"."{prefix}session_change_label"(uuid, text, boolean),
                "{schema}"."{prefix}session_add_label"(uuid, text), "{schema}"."{prefix}session_remove_label"(uuid, text),
                "{schema}"."{prefix}session_list_label"(text), "{schema}"."{prefix}session_end_label"(text, uuid, text),
                "{schema}"."{prefix}session_get"(uuid), "{schema}"."{prefix}session_list"(uuid),
                "{schema}"."{prefix}session_alive"(uuid, bigint), "{schema}"."{prefix}session_touch"(uuid),
                "{schema}"."{prefix}session_end_rows"(uuid, uuid, uuid, text, uuid, text),
                "{schema}"."{prefix}session_scope"(text, uuid), "{schema}"."{prefix}session_end"(uuid, text),
                "{schema}"."{prefix}session_end_user"(uuid, uuid, text),
                "{schema}"."{prefix}session_end_group"(uuid, text), "{schema}"."{prefix}session_end_all"(text),
                "{schema}"."{prefix}session_user_of"(text), "{schema}"."{prefix}session_user_of"(bigint)
                FROM $revoke$, grantee);
        EXECUTE pg_catalog.concat($revoke$
            REVOKE ALL ON DOMAIN "{schema}"."{prefix}session_expiry", "{schema}"."{prefix}session_packed"
                FROM $revoke$, grantee);
    END LOOP;
END
$pg_session$;
