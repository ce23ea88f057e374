-- 0002: locks with leases and fencing tokens.
--
-- One row for each lock that was ever taken. Releasing keeps the row, because the fence must never decrease: deleting
-- a row starts its fence again at 1, so delete only rows of names that are never used again.
--
-- A lock without a session has the nil UUID as its scope, one of a session has the session's id: the two never meet.
-- A session's locks go with the session. Its id is never used again, so neither is the fence that goes with it.
--
-- owner: fresh for each acquisition; NULL when released. The lock is free when owner is NULL or expires_at has passed.
-- Only the primary key and session_id are indexed, and neither ever changes: every renewal is a heap-only update.

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
    CONSTRAINT "{prefix}session_locks_session_id_fkey"
        FOREIGN KEY (session_id) REFERENCES "{schema}"."{prefix}sessions" (id) ON DELETE CASCADE,
    CONSTRAINT "{prefix}session_locks_session_id_check"
        CHECK (session_id <> '00000000-0000-0000-0000-000000000000'),
    CONSTRAINT "{prefix}session_locks_name_check" CHECK (octet_length(name) BETWEEN 1 AND 255),
    CONSTRAINT "{prefix}session_locks_label_check" CHECK (octet_length(label) BETWEEN 1 AND 255),
    CONSTRAINT "{prefix}session_locks_fence_check" CHECK (fence > 0),
    CONSTRAINT "{prefix}session_locks_expires_at_check"
        CHECK (expires_at > '1970-01-01 00:00:00+00' AND expires_at < '2200-01-01 00:00:00+00')
) WITH (fillfactor = 50);

CREATE INDEX "{prefix}session_locks_session_id_idx" ON "{schema}"."{prefix}session_locks" (session_id)
    WHERE session_id IS NOT NULL;
