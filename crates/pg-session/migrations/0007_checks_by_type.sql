-- 0007: what a session's row may hold is said by the types of its columns, not by checks of the table.
--
-- A table's checks are read and planned anew by each statement that writes a row, and evaluated for each row whatever
-- it changes: 7 % of the time of a lone update, the flush included. A type's are prepared once for a connection,
-- and evaluated where a value is assigned. Versions and what a rotation has left are the library's own, and read as
-- they are: their checks go.
--
-- The table is written anew, once.

CREATE DOMAIN "{schema}"."{prefix}session_end" AS timestamptz
    CONSTRAINT "{prefix}session_end_check"
        CHECK (VALUE > '1970-01-01 00:00:00+00' AND VALUE < '2200-01-01 00:00:00+00');
CREATE DOMAIN "{schema}"."{prefix}session_packed" AS text
    CONSTRAINT "{prefix}session_packed_check" CHECK (octet_length(VALUE) <= 2048);

ALTER TABLE "{schema}"."{prefix}sessions"
    DROP CONSTRAINT "{prefix}sessions_version_check",
    DROP CONSTRAINT "{prefix}sessions_rotated_to_check",
    DROP CONSTRAINT "{prefix}sessions_expires_at_check",
    DROP CONSTRAINT "{prefix}sessions_attributes_check",
    ALTER COLUMN expires_at TYPE "{schema}"."{prefix}session_end",
    ALTER COLUMN attributes TYPE "{schema}"."{prefix}session_packed";
