-- 0001: sessions and their attributes.
--
-- No index on a column that changes with every write or touch (version, updated_at, last_accessed_at), and room on
-- each page: nearly every update is a heap-only tuple (HOT) and touches no index.

CREATE TABLE "{schema}"."{prefix}sessions" (
    id               uuid        NOT NULL,
    user_id          uuid        NOT NULL,
    group_id         uuid,
    version          bigint      NOT NULL,
    idle_limited     boolean     NOT NULL,
    created_at       timestamptz NOT NULL,
    updated_at       timestamptz NOT NULL,
    last_accessed_at timestamptz NOT NULL,
    expires_at       timestamptz NOT NULL,
    CONSTRAINT "{prefix}sessions_pkey" PRIMARY KEY (id),
    CONSTRAINT "{prefix}sessions_version_check" CHECK (version > 0),
    CONSTRAINT "{prefix}sessions_expires_at_check"
        CHECK (expires_at > '1970-01-01 00:00:00+00' AND expires_at < '2200-01-01 00:00:00+00')
) WITH (fillfactor = 70);

CREATE INDEX "{prefix}sessions_user_id_idx" ON "{schema}"."{prefix}sessions" (user_id);
CREATE INDEX "{prefix}sessions_group_id_idx" ON "{schema}"."{prefix}sessions" (group_id) WHERE group_id IS NOT NULL;
CREATE INDEX "{prefix}sessions_expires_at_idx" ON "{schema}"."{prefix}sessions" (expires_at);

-- version: the session's version that last wrote the attribute. It never repeats, so an attribute that was deleted
-- and created again is told from the one that was there before.
CREATE TABLE "{schema}"."{prefix}session_attributes" (
    session_id uuid        NOT NULL,
    key        text        NOT NULL COLLATE "C",
    value      text        NOT NULL,
    expires_at timestamptz,
    version    bigint      NOT NULL,
    CONSTRAINT "{prefix}session_attributes_pkey" PRIMARY KEY (session_id, key),
    CONSTRAINT "{prefix}session_attributes_session_id_fkey"
        FOREIGN KEY (session_id) REFERENCES "{schema}"."{prefix}sessions" (id) ON DELETE CASCADE,
    CONSTRAINT "{prefix}session_attributes_key_check" CHECK (octet_length(key) BETWEEN 1 AND 512),
    CONSTRAINT "{prefix}session_attributes_value_check" CHECK (octet_length(value) <= 1048576)
) WITH (fillfactor = 80);

CREATE INDEX "{prefix}session_attributes_expires_at_idx" ON "{schema}"."{prefix}session_attributes" (expires_at)
    WHERE expires_at IS NOT NULL;
