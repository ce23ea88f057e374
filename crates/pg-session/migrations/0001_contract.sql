-- 0001, continued: the SQL contract, version 1. Functions for applications in any language; docs/sql.md describes them.
--
-- Notifications are sent inside the functions. So they take effect with the caller's COMMIT, and a ROLLBACK discards
-- them. Each function runs with the rights of its caller.
--
-- A call of another function of this file passes every argument with its exact type. So no function that another role
-- creates in the schema fits better.
--
-- A body is parsed with the settings of its caller. So a text with a backslash is an E'' text, which has one meaning.
--
-- Errors have the class PS and a hint.
--   PS001: a statement may not write a table.
--   PS002: the session has ended, or has a new id.
--   PS003: the user has as many sessions as allowed.
--   PS004: an argument is invalid.
--   PS005: other transactions kept rotating the sessions.
--   PS006: an attribute, a label or a session is too large.
--   PS007: the connection or the tables are unsuitable.
--   PS008: another role has made an object with a name of the library (a migration).

CREATE FUNCTION "{schema}"."{prefix}session_contract"() RETURNS integer
LANGUAGE sql IMMUTABLE AS 'SELECT 1';

-- One row: the settings of the node that started last, for the functions. Until a node has started: the defaults.
CREATE TABLE "{schema}"."{prefix}session_settings" (
    only_row                  boolean  NOT NULL DEFAULT true,
    absolute_timeout          interval NOT NULL,
    idle_timeout              interval NOT NULL,
    sessions_per_user_max     bigint   NOT NULL,
    evict                     boolean  NOT NULL,
    attribute_key_bytes_max   bigint   NOT NULL,
    attribute_value_bytes_max bigint   NOT NULL,
    attributes_max            bigint   NOT NULL,
    session_bytes_max         bigint   NOT NULL,
    CONSTRAINT "{prefix}session_settings_pkey" PRIMARY KEY (only_row),
    CONSTRAINT "{prefix}session_settings_only_row_check" CHECK (only_row)
);
INSERT INTO "{schema}"."{prefix}session_settings" (
    absolute_timeout, idle_timeout, sessions_per_user_max, evict, attribute_key_bytes_max, attribute_value_bytes_max,
    attributes_max, session_bytes_max
) VALUES (interval '2592000 seconds', interval '172800 seconds', 50, true, 128, 16384, 100, 262144);

-- The settings, for a function that reads or changes sessions.
--
-- A standby may lag. A policy would hide sessions, which then look ended. With one snapshot for the whole transaction, a
-- change would miss the sessions that others have committed meanwhile.
CREATE FUNCTION "{schema}"."{prefix}session_rules"(is_change boolean)
RETURNS "{schema}"."{prefix}session_settings"
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pg_session$
DECLARE
    rules "{schema}"."{prefix}session_settings";
BEGIN
    IF pg_catalog.pg_is_in_recovery() THEN
        RAISE EXCEPTION 'the server is a standby, and may show sessions that have ended'
            USING ERRCODE = 'PS007', HINT = 'Connect to the primary.';
    ELSIF is_change AND pg_catalog.current_setting('transaction_read_only')::pg_catalog.bool THEN
        RAISE EXCEPTION 'the transaction is read-only'
            USING ERRCODE = 'PS007', HINT = 'Begin it with BEGIN READ WRITE.';
    END IF;
    IF pg_catalog.row_security_active($name$"{schema}"."{prefix}sessions"$name$::pg_catalog.regclass)
        OR pg_catalog.row_security_active($name$"{schema}"."{prefix}session_attributes"$name$::pg_catalog.regclass)
        OR pg_catalog.row_security_active($name$"{schema}"."{prefix}session_labels"$name$::pg_catalog.regclass)
    THEN
        RAISE EXCEPTION 'row-level security is active on the session tables for this role, and would hide sessions'
            USING ERRCODE = 'PS007', HINT = 'Run ALTER TABLE ... DISABLE ROW LEVEL SECURITY for each of them.';
    END IF;
    IF is_change AND pg_catalog.current_setting('transaction_isolation') NOT IN ('read committed', 'read uncommitted') THEN
        RAISE EXCEPTION 'the transaction is %, and would miss sessions that others have committed meanwhile',
                pg_catalog.current_setting('transaction_isolation')
            USING ERRCODE = 'PS007', HINT = 'Begin it with BEGIN ISOLATION LEVEL READ COMMITTED.';
    END IF;
    SELECT l.* INTO rules FROM "{schema}"."{prefix}session_settings" l;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the settings of the sessions are missing'
            USING ERRCODE = 'PS007', HINT = 'Start a node of the application: it writes them.';
    END IF;
    RETURN rules;
END
$pg_session$;

-- The letter of a cause in a notification; see `notification.rs`.
CREATE FUNCTION "{schema}"."{prefix}session_cause"(cause text) RETURNS text
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $pg_session$
DECLARE
    letter text := CASE COALESCE(cause, 'unknown')
        WHEN 'logout' THEN 'l' WHEN 'everywhere' THEN 'e' WHEN 'admin' THEN 'a' WHEN 'credential' THEN 'c'
        WHEN 'backchannel' THEN 'b' WHEN 'sql' THEN 's' WHEN 'unknown' THEN 'u' END;
BEGIN
    IF letter IS NULL THEN
        RAISE EXCEPTION 'cause "%" is unknown', pg_catalog.left(cause, 32) USING ERRCODE = 'PS004',
            HINT = 'Use logout, everywhere, admin, credential, backchannel, sql or unknown.';
    END IF;
    RETURN letter;
END
$pg_session$;

-- I4: as the library's statements judge it. Without a SET clause, so that PostgreSQL inlines it.
CREATE FUNCTION "{schema}"."{prefix}session_is_live"(
    expires_at timestamptz, idle_limited boolean, last_accessed_at timestamptz, idle_timeout interval
) RETURNS boolean
LANGUAGE sql VOLATILE AS $pg_session$
    SELECT $1 OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp()
        AND (NOT $2 OR $3 OPERATOR(pg_catalog.>) (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) $4))
$pg_session$;

-- The attributes that have not expired, inline and overflow. An inline attribute hides an overflow attribute.
CREATE FUNCTION "{schema}"."{prefix}session_read_attributes"(session_id uuid, packed text, has_overflow boolean)
RETURNS TABLE (key text, value json)
LANGUAGE sql VOLATILE SET search_path = pg_catalog, pg_temp AS $pg_session$
    WITH inline AS (
        SELECT p.key, p.value -> 0 AS value FROM pg_catalog.json_each($2::pg_catalog.json) p
        WHERE p.value ->> 2 IS NULL
            OR (p.value ->> 2)::pg_catalog.float8
               > pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) * 1000000::pg_catalog.float8
    )
    SELECT i.key, i.value FROM inline i
    UNION ALL
    SELECT a.key, a.value::pg_catalog.json FROM "{schema}"."{prefix}session_attributes" a
    WHERE $3 AND a.session_id = $1 AND (a.expires_at IS NULL OR a.expires_at > pg_catalog.clock_timestamp())
        AND NOT EXISTS (SELECT FROM inline i WHERE i.key = a.key)
$pg_session$;

-- Writes one attribute of a session whose row the caller has locked, with the version that the session gets. Returns the
-- new text of the inline attributes. A NULL value removes the attribute.
--
-- It places attributes as `session/placement.rs` does.
CREATE FUNCTION "{schema}"."{prefix}session_put_attribute"(
    session_id uuid, packed text, has_overflow boolean, new_key text, new_value text, ends_at timestamptz,
    new_version bigint
) RETURNS text
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pg_session$
DECLARE
    inline_value_bytes_max constant bigint := 512;
    inline_bytes_max constant bigint := 1536;
    -- Brackets, quotes, commas and a version; and an expiry.
    frame_bytes_max constant bigint := 26;
    expiry_bytes_max constant bigint := 18;
    rules "{schema}"."{prefix}session_settings";
    entries text[];
    taken bigint;
    bytes bigint;
    total record;
BEGIN
    SELECT l.* INTO STRICT rules FROM "{schema}"."{prefix}session_settings" l;
    IF COALESCE(new_key, '') = '' THEN
        RAISE EXCEPTION 'the key of an attribute must not be empty'
            USING ERRCODE = 'PS004', HINT = 'Pass a key.';
    ELSIF pg_catalog.octet_length(new_key) > rules.attribute_key_bytes_max THEN
        RAISE EXCEPTION 'a key of % bytes is over attribute_key_bytes_max = %', pg_catalog.octet_length(new_key),
                rules.attribute_key_bytes_max
            USING ERRCODE = 'PS006', HINT = 'Use a shorter key.';
    ELSIF pg_catalog.octet_length(new_value) > rules.attribute_value_bytes_max THEN
        RAISE EXCEPTION 'attribute "%" takes % bytes of JSON, over attribute_value_bytes_max = %', new_key,
                pg_catalog.octet_length(new_value), rules.attribute_value_bytes_max
            USING ERRCODE = 'PS006', HINT = 'Keep large values elsewhere, and store a reference.';
    END IF;
    -- Expired attributes leave the text.
    SELECT pg_catalog.array_agg(pg_catalog.concat(
               pg_catalog.to_json(p.key), ':[', p.value -> 0, ',', p.value -> 1,
               CASE WHEN p.value ->> 2 IS NOT NULL THEN pg_catalog.concat(',', p.value -> 2) END, ']')),
           pg_catalog.sum(pg_catalog.octet_length(p.key) + pg_catalog.octet_length((p.value -> 0)::pg_catalog.text)
               + frame_bytes_max + CASE WHEN p.value ->> 2 IS NULL THEN 0 ELSE expiry_bytes_max END)
    INTO entries, taken
    FROM pg_catalog.json_each(packed::pg_catalog.json) p
    WHERE p.key <> new_key
        AND (p.value ->> 2 IS NULL
             OR (p.value ->> 2)::pg_catalog.float8
                > pg_catalog.date_part('epoch', pg_catalog.clock_timestamp()) * 1000000::pg_catalog.float8);
    IF has_overflow THEN
        DELETE FROM "{schema}"."{prefix}session_attributes" a WHERE a.session_id = $1 AND a.key = new_key;
    END IF;
    IF new_value IS NOT NULL THEN
        bytes := pg_catalog.octet_length(new_key) + pg_catalog.octet_length(new_value) + frame_bytes_max
            + CASE WHEN ends_at IS NULL THEN 0 ELSE expiry_bytes_max END;
        IF pg_catalog.octet_length(new_value) <= inline_value_bytes_max
            AND 2 + COALESCE(taken, 0) + bytes <= inline_bytes_max
            AND new_key !~ E'[\\u0001-\\u001f"\\\\]'
        THEN
            entries := entries || pg_catalog.concat('"', new_key, '":[', new_value, ',', new_version,
                CASE WHEN ends_at IS NOT NULL THEN pg_catalog.concat(
                    ',', (pg_catalog.date_part('epoch', ends_at) * 1000000)::bigint) END, ']');
        ELSE
            INSERT INTO "{schema}"."{prefix}session_attributes" (session_id, key, value, expires_at, version)
            VALUES ($1, new_key, new_value, ends_at, new_version);
        END IF;
    END IF;
    packed := pg_catalog.concat('{', pg_catalog.array_to_string(entries, ','), '}');
    -- A session that is over a limit already may be made smaller.
    IF new_value IS NOT NULL THEN
        SELECT pg_catalog.count(*) AS attributes, pg_catalog.sum(
                   pg_catalog.octet_length(a.key) + pg_catalog.octet_length(a.value::pg_catalog.text)) AS bytes
        INTO total FROM "{schema}"."{prefix}session_read_attributes"($1, packed, true) a;
        IF total.attributes > rules.attributes_max OR total.bytes > rules.session_bytes_max THEN
            RAISE EXCEPTION 'the session would hold % attributes and % bytes, over attributes_max = % or session_bytes_max = %',
                    total.attributes, total.bytes, rules.attributes_max, rules.session_bytes_max
                USING ERRCODE = 'PS006', HINT = 'Remove attributes first.';
        END IF;
    END IF;
    RETURN packed;
END
$pg_session$;

-- Writes one attribute and notifies every node. Returns the new version. A NULL value removes the attribute.
CREATE FUNCTION "{schema}"."{prefix}session_write"(session_id uuid, new_key text, new_value text, ends_at timestamptz)
RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pg_session$
DECLARE
    rules "{schema}"."{prefix}session_settings" := "{schema}"."{prefix}session_rules"(true);
    writer text := pg_catalog.current_setting('pg_session.direct_writes', true);
    target record;
    new_text text;
BEGIN
    PERFORM FROM "{schema}"."{prefix}sessions" s WHERE s.id = $1 FOR NO KEY UPDATE;
    -- A query of its own, which judges by the time at which the row was locked.
    SELECT s.version, s.attributes::pg_catalog.text AS attributes, s.has_overflow INTO target
    FROM "{schema}"."{prefix}sessions" s
    WHERE s.id = $1 AND s.rotated_to IS NULL AND "{schema}"."{prefix}session_is_live"(
        s.expires_at::pg_catalog.timestamptz, s.idle_limited, s.last_accessed_at, rules.idle_timeout);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the session has ended, or has a new id'
            USING ERRCODE = 'PS002', HINT = 'Use the id of the newest cookie, or log the user in again.';
    END IF;
    IF new_value IS NULL AND NOT EXISTS (
        SELECT FROM "{schema}"."{prefix}session_read_attributes"($1, target.attributes, target.has_overflow) a
        WHERE a.key = new_key)
    THEN
        RETURN target.version;
    END IF;
    PERFORM pg_catalog.set_config('pg_session.direct_writes', 'library', true);
    new_text := "{schema}"."{prefix}session_put_attribute"(
        $1, target.attributes, target.has_overflow, new_key, new_value, ends_at, target.version + 1);
    UPDATE "{schema}"."{prefix}sessions" s
    SET version = s.version + 1, flip = NOT s.flip, updated_at = pg_catalog.clock_timestamp(), attributes = new_text,
        has_overflow = EXISTS (SELECT FROM "{schema}"."{prefix}session_attributes" a WHERE a.session_id = $1)
    WHERE s.id = $1;
    PERFORM pg_catalog.set_config('pg_session.direct_writes', COALESCE(writer, ''), true),
            pg_catalog.pg_notify('{channel}', pg_catalog.concat(
                '1s', pg_catalog.replace($1::pg_catalog.text, '-', ''), '.', target.version + 1));
    RETURN target.version + 1;
END
$pg_session$;

CREATE FUNCTION "{schema}"."{prefix}session_set"(
    session_id uuid, key text, value jsonb, expires_at timestamptz DEFAULT NULL
) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pg_session$
DECLARE
    -- As for sessions.
    expires_before constant timestamptz := '2200-01-01 00:00:00+00';
BEGIN
    IF $3 IS NULL THEN
        RAISE EXCEPTION 'value must not be NULL'
            USING ERRCODE = 'PS004', HINT = $hint$Remove an attribute with "{prefix}session_remove". JSON's null is 'null'.$hint$;
    ELSIF $4 <= pg_catalog.clock_timestamp() THEN
        RAISE EXCEPTION 'expires_at must be in the future'
            USING ERRCODE = 'PS004', HINT = $hint$Remove an attribute with "{prefix}session_remove".$hint$;
    ELSIF $4 >= expires_before THEN
        RAISE EXCEPTION 'expires_at must be before %', expires_before
            USING ERRCODE = 'PS004', HINT = 'Pass NULL for an attribute that ends with its session.';
    END IF;
    RETURN "{schema}"."{prefix}session_write"($1, $2, $3::pg_catalog.text, $4);
END
$pg_session$;

CREATE FUNCTION "{schema}"."{prefix}session_remove"(session_id uuid, key text) RETURNS bigint
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $pg_session$
    SELECT "{schema}"."{prefix}session_write"($1, $2, NULL::pg_catalog.text, NULL::pg_catalog.timestamptz)
$pg_session$;

-- The limits are those of `label.rs`.
CREATE FUNCTION "{schema}"."{prefix}session_check_labels"(labels text[]) RETURNS void
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $pg_session$
DECLARE
    label_bytes_max constant bigint := 255;
    labels_max constant bigint := 8;
BEGIN
    IF EXISTS (SELECT FROM pg_catalog.unnest(labels) AS l (label) WHERE COALESCE(l.label, '') = '') THEN
        RAISE EXCEPTION 'a label must not be empty or NULL' USING ERRCODE = 'PS004', HINT = 'Pass a text.';
    ELSIF EXISTS (SELECT FROM pg_catalog.unnest(labels) AS l (label)
                  WHERE pg_catalog.octet_length(l.label) > label_bytes_max) THEN
        RAISE EXCEPTION 'a label must have at most % bytes', label_bytes_max
            USING ERRCODE = 'PS006', HINT = 'Use a shorter text, or a hash of it.';
    ELSIF pg_catalog.cardinality(labels) > labels_max THEN
        RAISE EXCEPTION 'the session would have % labels, and may have %', pg_catalog.cardinality(labels), labels_max
            USING ERRCODE = 'PS006', HINT = $hint$Remove one with "{prefix}session_remove_label".$hint$;
    END IF;
END
$pg_session$;

-- Adds or removes one label and notifies every node of the new version, which it returns.
CREATE FUNCTION "{schema}"."{prefix}session_change_label"(session_id uuid, new_label text, is_added boolean)
RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pg_session$
DECLARE
    rules "{schema}"."{prefix}session_settings" := "{schema}"."{prefix}session_rules"(true);
    writer text := pg_catalog.current_setting('pg_session.direct_writes', true);
    base bigint;
    present text[];
BEGIN
    PERFORM "{schema}"."{prefix}session_check_labels"(ARRAY[new_label]::pg_catalog.text[]);
    PERFORM FROM "{schema}"."{prefix}sessions" s WHERE s.id = $1 FOR NO KEY UPDATE;
    -- A query of its own, which judges by the time at which the row was locked.
    SELECT s.version INTO base
    FROM "{schema}"."{prefix}sessions" s
    WHERE s.id = $1 AND s.rotated_to IS NULL AND "{schema}"."{prefix}session_is_live"(
        s.expires_at::pg_catalog.timestamptz, s.idle_limited, s.last_accessed_at, rules.idle_timeout);
    IF NOT FOUND THEN
        RAISE EXCEPTION 'the session has ended, or has a new id'
            USING ERRCODE = 'PS002', HINT = 'Use the id of the newest cookie, or log the user in again.';
    END IF;
    present := ARRAY (SELECT l.label FROM "{schema}"."{prefix}session_labels" l WHERE l.session_id = $1);
    IF is_added = (new_label = ANY (present)) THEN
        RETURN base;
    END IF;
    PERFORM pg_catalog.set_config('pg_session.direct_writes', 'library', true);
    IF is_added THEN
        present := present || new_label;
        PERFORM "{schema}"."{prefix}session_check_labels"(present);
        INSERT INTO "{schema}"."{prefix}session_labels" (session_id, label) VALUES ($1, new_label);
    ELSE
        present := pg_catalog.array_remove(present, new_label);
        DELETE FROM "{schema}"."{prefix}session_labels" l WHERE l.session_id = $1 AND l.label = new_label;
    END IF;
    UPDATE "{schema}"."{prefix}sessions" s
    SET version = s.version + 1, flip = NOT s.flip, updated_at = pg_catalog.clock_timestamp(), has_labels = present <> '{}'
    WHERE s.id = $1;
    PERFORM pg_catalog.set_config('pg_session.direct_writes', COALESCE(writer, ''), true),
            pg_catalog.pg_notify('{channel}', pg_catalog.concat(
                '1s', pg_catalog.replace($1::pg_catalog.text, '-', ''), '.', base + 1));
    RETURN base + 1;
END
$pg_session$;

CREATE FUNCTION "{schema}"."{prefix}session_add_label"(session_id uuid, label text) RETURNS bigint
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $pg_session$
    SELECT "{schema}"."{prefix}session_change_label"($1, $2, true)
$pg_session$;

CREATE FUNCTION "{schema}"."{prefix}session_remove_label"(session_id uuid, label text) RETURNS bigint
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $pg_session$
    SELECT "{schema}"."{prefix}session_change_label"($1, $2, false)
$pg_session$;

-- The limit of sessions is that of the library: `session_make_room` keeps it. The user's lock is held until the caller's
-- transaction ends.
CREATE FUNCTION "{schema}"."{prefix}session_create"(
    user_id uuid DEFAULT NULL, attributes jsonb DEFAULT '{}', lifetime interval DEFAULT NULL, group_id uuid DEFAULT NULL,
    labels text[] DEFAULT '{}'
) RETURNS uuid
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pg_session$
DECLARE
    rules "{schema}"."{prefix}session_settings" := "{schema}"."{prefix}session_rules"(true);
    writer text := pg_catalog.current_setting('pg_session.direct_writes', true);
    -- As `LIFETIME_MAX` of `config.rs`.
    lifetime_max constant interval := '3660 days';
    new_id uuid := pg_catalog.gen_random_uuid();
    new_text text := '{}';
    now_at timestamptz;
    attribute record;
BEGIN
    lifetime := COALESCE(lifetime, rules.absolute_timeout);
    attributes := COALESCE(attributes, '{}');
    -- Months and days of opposite signs can be longer than nothing, and end in the past.
    IF lifetime <= interval '0' OR lifetime > lifetime_max
        OR pg_catalog.clock_timestamp() + lifetime <= pg_catalog.clock_timestamp()
    THEN
        RAISE EXCEPTION 'lifetime must be positive, and at most %', lifetime_max
            USING ERRCODE = 'PS004', HINT = 'Pass NULL for absolute_timeout.';
    ELSIF pg_catalog.jsonb_typeof(attributes) <> 'object' THEN
        RAISE EXCEPTION 'attributes must be a JSON object'
            USING ERRCODE = 'PS004', HINT = 'Pass attributes as ''{"key": value}''.';
    END IF;
    labels := ARRAY (SELECT DISTINCT l.label FROM pg_catalog.unnest(labels) AS l (label));
    PERFORM "{schema}"."{prefix}session_check_labels"(labels);
    PERFORM pg_catalog.set_config('pg_session.direct_writes', 'library', true);
    IF user_id IS NOT NULL AND rules.sessions_per_user_max > 0 AND EXISTS (
        SELECT FROM "{schema}"."{prefix}session_make_room"(
            ARRAY[user_id], ARRAY[rules.sessions_per_user_max]::pg_catalog.int8[], '{}'::pg_catalog.uuid[],
            '{channel}'::pg_catalog.text, rules.evict, rules.idle_timeout) r
        WHERE NOT r.admitted)
    THEN
        RAISE EXCEPTION 'the user has % sessions, as many as allowed', rules.sessions_per_user_max
            USING ERRCODE = 'PS003', HINT = $hint$End one of them with "{prefix}session_end".$hint$;
    END IF;
    FOR attribute IN SELECT e.key, e.value::pg_catalog.text AS value FROM pg_catalog.jsonb_each(attributes) e LOOP
        new_text := "{schema}"."{prefix}session_put_attribute"(
            new_id, new_text, true, attribute.key, attribute.value, NULL::pg_catalog.timestamptz, 1::bigint);
    END LOOP;
    now_at := pg_catalog.clock_timestamp();
    INSERT INTO "{schema}"."{prefix}sessions" (id, user_id, group_id, version, idle_limited, created_at, updated_at,
                                               last_accessed_at, expires_at, attributes, has_overflow,
                                               has_labels)
    VALUES (new_id, $1, $4, 1, true, now_at, now_at, now_at, now_at + lifetime, new_text,
            EXISTS (SELECT FROM "{schema}"."{prefix}session_attributes" a WHERE a.session_id = new_id), labels <> '{}');
    IF labels <> '{}' THEN
        INSERT INTO "{schema}"."{prefix}session_labels" (session_id, label)
        SELECT new_id, l.label FROM pg_catalog.unnest(labels) AS l (label);
    END IF;
    -- A node that was asked for the id before the commit remembers that there is no such session.
    PERFORM pg_catalog.pg_notify('{channel}', pg_catalog.concat(
        '1s', pg_catalog.replace(new_id::pg_catalog.text, '-', ''), '.1'));
    PERFORM pg_catalog.set_config('pg_session.direct_writes', COALESCE(writer, ''), true);
    RETURN new_id;
END
$pg_session$;

-- The attributes are json, not jsonb: a text that a node stored may contain \u0000, which jsonb cannot hold.
CREATE FUNCTION "{schema}"."{prefix}session_get"(session_id uuid) RETURNS TABLE (
    id uuid, user_id uuid, group_id uuid, version bigint, is_retired boolean, created_at timestamptz,
    updated_at timestamptz, last_accessed_at timestamptz, expires_at timestamptz, attributes json, labels text[]
)
LANGUAGE plpgsql ROWS 1 SET search_path = pg_catalog, pg_temp AS $pg_session$
DECLARE
    rules "{schema}"."{prefix}session_settings" := "{schema}"."{prefix}session_rules"(false);
BEGIN
    RETURN QUERY
        SELECT s.id, s.user_id, s.group_id, s.version, s.rotated_to IS NOT NULL, s.created_at, s.updated_at,
               s.last_accessed_at, s.expires_at::pg_catalog.timestamptz,
               (SELECT COALESCE(pg_catalog.json_object_agg(a.key, a.value), '{}') FROM
                "{schema}"."{prefix}session_read_attributes"(s.id, s.attributes::pg_catalog.text, s.has_overflow) a),
               ARRAY (SELECT l.label FROM "{schema}"."{prefix}session_labels" l
                      WHERE s.has_labels AND l.session_id = s.id ORDER BY l.label)
        FROM "{schema}"."{prefix}sessions" s
        WHERE s.id = $1 AND "{schema}"."{prefix}session_is_live"(
            s.expires_at::pg_catalog.timestamptz, s.idle_limited, s.last_accessed_at, rules.idle_timeout);
END
$pg_session$;

-- At most as many as `SessionManager::LIST_MAX`.
CREATE FUNCTION "{schema}"."{prefix}session_list"(user_id uuid) RETURNS TABLE (
    id uuid, group_id uuid, version bigint, created_at timestamptz, updated_at timestamptz,
    last_accessed_at timestamptz, expires_at timestamptz, attributes json
)
LANGUAGE plpgsql ROWS 10 SET search_path = pg_catalog, pg_temp AS $pg_session$
DECLARE
    list_max constant bigint := 1000;
    rules "{schema}"."{prefix}session_settings" := "{schema}"."{prefix}session_rules"(false);
BEGIN
    RETURN QUERY
        SELECT s.id, s.group_id, s.version, s.created_at, s.updated_at, s.last_accessed_at,
               s.expires_at::pg_catalog.timestamptz,
               (SELECT COALESCE(pg_catalog.json_object_agg(a.key, a.value), '{}') FROM
                "{schema}"."{prefix}session_read_attributes"(s.id, s.attributes::pg_catalog.text, s.has_overflow) a)
        FROM "{schema}"."{prefix}sessions" s
        WHERE s.user_id = $1 AND s.rotated_to IS NULL AND "{schema}"."{prefix}session_is_live"(
            s.expires_at::pg_catalog.timestamptz, s.idle_limited, s.last_accessed_at, rules.idle_timeout)
        ORDER BY s.last_accessed_at DESC, s.id LIMIT list_max;
END
$pg_session$;

-- As `session_list`, for the sessions of any users that have the label.
CREATE FUNCTION "{schema}"."{prefix}session_list_label"(label text) RETURNS TABLE (
    id uuid, user_id uuid, group_id uuid, version bigint, created_at timestamptz, updated_at timestamptz,
    last_accessed_at timestamptz, expires_at timestamptz, attributes json
)
LANGUAGE plpgsql ROWS 10 SET search_path = pg_catalog, pg_temp AS $pg_session$
DECLARE
    list_max constant bigint := 1000;
    rules "{schema}"."{prefix}session_settings" := "{schema}"."{prefix}session_rules"(false);
BEGIN
    RETURN QUERY
        SELECT s.id, s.user_id, s.group_id, s.version, s.created_at, s.updated_at, s.last_accessed_at,
               s.expires_at::pg_catalog.timestamptz,
               (SELECT COALESCE(pg_catalog.json_object_agg(a.key, a.value), '{}') FROM
                "{schema}"."{prefix}session_read_attributes"(s.id, s.attributes::pg_catalog.text, s.has_overflow) a)
        FROM "{schema}"."{prefix}sessions" s
        WHERE s.id = ANY (ARRAY (SELECT l.session_id FROM "{schema}"."{prefix}session_labels" l WHERE l.label = $1))
            AND s.rotated_to IS NULL AND "{schema}"."{prefix}session_is_live"(
            s.expires_at::pg_catalog.timestamptz, s.idle_limited, s.last_accessed_at, rules.idle_timeout)
        ORDER BY s.last_accessed_at DESC, s.id LIMIT list_max;
END
$pg_session$;

CREATE FUNCTION "{schema}"."{prefix}session_alive"(session_id uuid, min_version bigint DEFAULT 0) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pg_session$
DECLARE
    rules "{schema}"."{prefix}session_settings" := "{schema}"."{prefix}session_rules"(false);
BEGIN
    RETURN EXISTS (
        SELECT FROM "{schema}"."{prefix}sessions" s
        WHERE s.id = $1 AND s.version >= COALESCE($2, 0) AND "{schema}"."{prefix}session_is_live"(
            s.expires_at::pg_catalog.timestamptz, s.idle_limited, s.last_accessed_at, rules.idle_timeout));
END
$pg_session$;

-- Records an access, which delays the end by the idle limit. Accesses within a minute count as one.
CREATE FUNCTION "{schema}"."{prefix}session_touch"(session_id uuid) RETURNS boolean
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pg_session$
DECLARE
    rules "{schema}"."{prefix}session_settings" := "{schema}"."{prefix}session_rules"(true);
    accessed_at timestamptz;
BEGIN
    SELECT s.last_accessed_at INTO accessed_at FROM "{schema}"."{prefix}sessions" s
    WHERE s.id = $1 AND s.rotated_to IS NULL AND "{schema}"."{prefix}session_is_live"(
        s.expires_at::pg_catalog.timestamptz, s.idle_limited, s.last_accessed_at, rules.idle_timeout);
    IF accessed_at > pg_catalog.clock_timestamp() - interval '1 minute' THEN
        RETURN true;
    END IF;
    UPDATE "{schema}"."{prefix}sessions" s SET last_accessed_at = pg_catalog.clock_timestamp()
    WHERE s.id = $1 AND s.rotated_to IS NULL AND "{schema}"."{prefix}session_is_live"(
        s.expires_at::pg_catalog.timestamptz, s.idle_limited, s.last_accessed_at, rules.idle_timeout);
    RETURN FOUND;
END
$pg_session$;

-- Ends these sessions, and those that rotations make of them meanwhile. Returns the number of live sessions. The trigger
-- ends what belongs to them, and notifies.
--
-- Each query of a volatile function sees what was committed when that query began. So the next look at the rows sees the
-- rotations that the locks waited for. The rows are locked in the order of their ids, as everywhere.
CREATE FUNCTION "{schema}"."{prefix}session_end_rows"(
    session_id uuid, of_user uuid, of_group uuid, of_label text, except_id uuid, cause text
) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp SET enable_seqscan = off AS $pg_session$
DECLARE
    attempts_max constant integer := 100;
    rules "{schema}"."{prefix}session_settings" := "{schema}"."{prefix}session_rules"(true);
    letter text := "{schema}"."{prefix}session_cause"(cause);
    writer text := pg_catalog.current_setting('pg_session.direct_writes', true);
    kept uuid;
    chosen uuid[];
    locked uuid[] := '{}';
    live bigint;
BEGIN
    FOR attempt IN 1..attempts_max LOOP
        kept := COALESCE((SELECT k.rotated_to FROM "{schema}"."{prefix}sessions" k WHERE k.id = except_id), except_id);
        chosen := CASE
            WHEN of_user IS NOT NULL THEN ARRAY (
                SELECT s.id FROM "{schema}"."{prefix}sessions" s
                WHERE s.user_id = of_user AND COALESCE(s.rotated_to, s.id) IS DISTINCT FROM kept
                UNION ALL
                -- A thief who stole an old id of the session that stays is among the others.
                SELECT r.id FROM "{schema}"."{prefix}sessions" r WHERE r.rotated_to = kept AND r.id <> except_id
                    AND of_user = (SELECT k.user_id FROM "{schema}"."{prefix}sessions" k WHERE k.id = kept))
            WHEN of_group IS NOT NULL THEN ARRAY (
                SELECT s.id FROM "{schema}"."{prefix}sessions" s WHERE s.group_id = of_group)
            WHEN of_label IS NOT NULL THEN ARRAY (
                SELECT s.id FROM "{schema}"."{prefix}session_labels" l JOIN "{schema}"."{prefix}sessions" s ON s.id = l.session_id
                WHERE l.label = of_label AND l.session_id IS DISTINCT FROM kept
                UNION ALL
                SELECT r.id FROM "{schema}"."{prefix}sessions" r WHERE r.rotated_to = kept AND r.id <> except_id
                    AND EXISTS (SELECT FROM "{schema}"."{prefix}session_labels" l
                                WHERE l.session_id = kept AND l.label = of_label))
            ELSE ARRAY (
                SELECT COALESCE(s.rotated_to, s.id) FROM "{schema}"."{prefix}sessions" s WHERE s.id = session_id)
            END;
        IF chosen = '{}' THEN
            RETURN 0;
        END IF;
        IF NOT EXISTS (SELECT c.id FROM pg_catalog.unnest(chosen) AS c (id)
                       EXCEPT SELECT l.id FROM pg_catalog.unnest(locked) AS l (id))
        THEN
            -- The trigger must notify, whatever the caller's transaction has set.
            PERFORM pg_catalog.set_config('pg_session.direct_writes', '', true),
                    pg_catalog.set_config('pg_session.cause', letter, true);
            WITH gone AS (
                DELETE FROM "{schema}"."{prefix}sessions" s WHERE s.id = ANY (chosen)
                RETURNING s.rotated_to IS NULL AND "{schema}"."{prefix}session_is_live"(
                    s.expires_at::pg_catalog.timestamptz, s.idle_limited, s.last_accessed_at, rules.idle_timeout) AS live
            )
            SELECT pg_catalog.count(*) FILTER (WHERE g.live) INTO live FROM gone g;
            PERFORM pg_catalog.set_config('pg_session.direct_writes', COALESCE(writer, ''), true),
                    pg_catalog.set_config('pg_session.cause', '', true);
            RETURN live;
        END IF;
        locked := ARRAY (
            SELECT s.id FROM "{schema}"."{prefix}sessions" s
            WHERE s.id = ANY (chosen || ARRAY (
                SELECT r.id FROM "{schema}"."{prefix}sessions" r WHERE r.rotated_to = ANY (chosen)))
            ORDER BY s.id FOR UPDATE);
    END LOOP;
    RAISE EXCEPTION 'other transactions kept rotating the sessions, and none was ended'
        USING ERRCODE = 'PS005', HINT = 'Try again.';
END
$pg_session$;

-- An argument that names what to end.
CREATE FUNCTION "{schema}"."{prefix}session_scope"(name text, id uuid) RETURNS uuid
LANGUAGE plpgsql IMMUTABLE SET search_path = pg_catalog, pg_temp AS $pg_session$
BEGIN
    IF id IS NULL THEN
        RAISE EXCEPTION '% must not be NULL', name
            USING ERRCODE = 'PS004', HINT = $hint$Pass a UUID. To end all sessions, use "{prefix}session_end_all".$hint$;
    END IF;
    RETURN id;
END
$pg_session$;

CREATE FUNCTION "{schema}"."{prefix}session_end"(session_id uuid, cause text DEFAULT 'sql') RETURNS boolean
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $pg_session$
    SELECT "{schema}"."{prefix}session_end_rows"(
        "{schema}"."{prefix}session_scope"('session_id'::pg_catalog.text, $1), NULL::pg_catalog.uuid,
        NULL::pg_catalog.uuid, NULL::pg_catalog.text, NULL::pg_catalog.uuid, $2) > 0
$pg_session$;

CREATE FUNCTION "{schema}"."{prefix}session_end_user"(
    user_id uuid, except_id uuid DEFAULT NULL, cause text DEFAULT 'sql'
) RETURNS bigint
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $pg_session$
    SELECT "{schema}"."{prefix}session_end_rows"(
        NULL::pg_catalog.uuid, "{schema}"."{prefix}session_scope"('user_id'::pg_catalog.text, $1),
        NULL::pg_catalog.uuid, NULL::pg_catalog.text, $2, $3)
$pg_session$;

CREATE FUNCTION "{schema}"."{prefix}session_end_group"(group_id uuid, cause text DEFAULT 'sql') RETURNS bigint
LANGUAGE sql SET search_path = pg_catalog, pg_temp AS $pg_session$
    SELECT "{schema}"."{prefix}session_end_rows"(
        NULL::pg_catalog.uuid, NULL::pg_catalog.uuid,
        "{schema}"."{prefix}session_scope"('group_id'::pg_catalog.text, $1), NULL::pg_catalog.text,
        NULL::pg_catalog.uuid, $2)
$pg_session$;

CREATE FUNCTION "{schema}"."{prefix}session_end_label"(
    label text, except_id uuid DEFAULT NULL, cause text DEFAULT 'sql'
) RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pg_session$
BEGIN
    PERFORM "{schema}"."{prefix}session_check_labels"(ARRAY[$1]::pg_catalog.text[]);
    RETURN "{schema}"."{prefix}session_end_rows"(
        NULL::pg_catalog.uuid, NULL::pg_catalog.uuid, NULL::pg_catalog.uuid, $1, $2, $3);
END
$pg_session$;

-- It repeats the deletion until it finds nothing: a rotation that a deletion waits for makes a row that it does not see.
CREATE FUNCTION "{schema}"."{prefix}session_end_all"(cause text DEFAULT 'sql') RETURNS bigint
LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $pg_session$
DECLARE
    attempts_max constant integer := 100;
    rules "{schema}"."{prefix}session_settings" := "{schema}"."{prefix}session_rules"(true);
    letter text := "{schema}"."{prefix}session_cause"(cause);
    writer text := pg_catalog.current_setting('pg_session.direct_writes', true);
    ended record;
    live bigint := 0;
BEGIN
    PERFORM pg_catalog.set_config('pg_session.direct_writes', '', true),
            pg_catalog.set_config('pg_session.cause', letter, true);
    FOR attempt IN 1..attempts_max LOOP
        PERFORM FROM "{schema}"."{prefix}sessions" s ORDER BY s.id FOR UPDATE;
        WITH gone AS (
            DELETE FROM "{schema}"."{prefix}sessions" s
            RETURNING s.rotated_to IS NULL AND "{schema}"."{prefix}session_is_live"(
                s.expires_at::pg_catalog.timestamptz, s.idle_limited, s.last_accessed_at, rules.idle_timeout) AS live
        )
        SELECT pg_catalog.count(*) AS rows, pg_catalog.count(*) FILTER (WHERE g.live) AS live INTO ended FROM gone g;
        live := live + ended.live;
        IF ended.rows = 0 THEN
            PERFORM pg_catalog.set_config('pg_session.direct_writes', COALESCE(writer, ''), true),
                    pg_catalog.set_config('pg_session.cause', '', true);
            RETURN live;
        END IF;
    END LOOP;
    RAISE EXCEPTION 'other transactions kept making sessions, and none was ended'
        USING ERRCODE = 'PS005', HINT = 'Try again.';
END
$pg_session$;

-- As `UserId::named` and `GroupId::named`.
CREATE FUNCTION "{schema}"."{prefix}session_user_of"(name text) RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp AS $pg_session$
    SELECT pg_catalog.encode(pg_catalog.set_byte(
               pg_catalog.set_byte(d.digest, 6, 136 | (pg_catalog.get_byte(d.digest, 6) & 7)),
               8, 128 | (pg_catalog.get_byte(d.digest, 8) & 63)), 'hex')::pg_catalog.uuid
    FROM (SELECT pg_catalog.substring(pg_catalog.sha256(
              pg_catalog.convert_to('pg-session/text-id/1', 'UTF8') || E'\\x00'::pg_catalog.bytea
              || pg_catalog.convert_to($1, 'UTF8')), 1, 16) AS digest) d
$pg_session$;

-- As `UserId::from` of an integer.
CREATE FUNCTION "{schema}"."{prefix}session_user_of"(number bigint) RETURNS uuid
LANGUAGE sql IMMUTABLE STRICT SET search_path = pg_catalog, pg_temp AS $pg_session$
    SELECT pg_catalog.encode(
               E'\\x70677365737380'::pg_catalog.bytea
               || pg_catalog.set_byte(E'\\x00'::pg_catalog.bytea, 0, pg_catalog.get_byte(b.bits, 0) >> 6)
               || pg_catalog.set_byte(b.bits, 0, 128 | (pg_catalog.get_byte(b.bits, 0) & 63)), 'hex')::pg_catalog.uuid
    FROM (SELECT pg_catalog.int8send($1) AS bits) b
$pg_session$;

-- The live sessions without ids and values, for dashboards. A handle names a session and logs no user in: half of the
-- SHA-256 of its id. Its first eight digits are those that the nodes log.
--
-- A view of two tables cannot be written. Its rights are those of its owner.
CREATE VIEW "{schema}"."{prefix}session_overview" AS
    SELECT pg_catalog.left(pg_catalog.encode(pg_catalog.sha256(pg_catalog.uuid_send(s.id)), 'hex'), 32) AS handle,
           s.user_id, s.group_id, s.version, s.idle_limited, s.created_at, s.updated_at, s.last_accessed_at,
           s.expires_at::pg_catalog.timestamptz AS expires_at
    FROM "{schema}"."{prefix}sessions" s CROSS JOIN "{schema}"."{prefix}session_settings" l
    WHERE s.rotated_to IS NULL AND s.expires_at::pg_catalog.timestamptz > pg_catalog.clock_timestamp()
        AND (NOT s.idle_limited OR s.last_accessed_at > pg_catalog.clock_timestamp() - l.idle_timeout);
