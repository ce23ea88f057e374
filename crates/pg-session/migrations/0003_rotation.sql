-- 0003: sessions of nobody in particular, and sessions that go on under a new id.
--
-- user_id is NULL for an anonymous session.
--
-- rotated_to: set once the session goes on under a new id. What is left under the old one is a remnant: it shows what
-- the session was, for requests that were under way, and ends within the grace that the rotation gave it. It points at
-- the row that carries the session on, through any number of further rotations, and goes with it.

ALTER TABLE "{schema}"."{prefix}sessions"
    ALTER COLUMN user_id DROP NOT NULL,
    ADD COLUMN rotated_to uuid,
    ADD CONSTRAINT "{prefix}sessions_rotated_to_fkey"
        FOREIGN KEY (rotated_to) REFERENCES "{schema}"."{prefix}sessions" (id) ON DELETE CASCADE,
    ADD CONSTRAINT "{prefix}sessions_rotated_to_check" CHECK (rotated_to <> id);

CREATE INDEX "{prefix}sessions_rotated_to_idx" ON "{schema}"."{prefix}sessions" (rotated_to)
    WHERE rotated_to IS NOT NULL;
