-- 0008: who has room for another session is found by one function, which takes the users' locks before it looks.
--
-- A statement sees what was committed when it began. If it waited for a lock itself, it would not see what the lock's
-- holder did; so the lock was a statement of its own, and a login four: BEGIN, lock, create, COMMIT. The queries of a
-- volatile function see what was committed when each of them began, so the second sees all that the first waited for.
--
-- All sessions are counted, dead or alive, because one that looks idle may be kept alive by a touch that commits
-- meanwhile. What rotations have left is no session.
--
-- enable_seqscan: the plans are kept with the connection, and those made while the table was small would read all of it.
-- plan_cache_mode: each call would be planned anew, because a short list looks cheaper than one of unknown length.

CREATE FUNCTION "{schema}"."{prefix}sessions_room"(users uuid[], seed bigint, places bigint) RETURNS SETOF uuid
LANGUAGE plpgsql VOLATILE
SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET plan_cache_mode = force_generic_plan
AS $pg_session$
BEGIN
    PERFORM pg_advisory_xact_lock(uuid_hash_extended(u.id, seed)) FROM unnest(users) AS u (id);
    RETURN QUERY SELECT u.id FROM unnest(users) AS u (id)
    WHERE (SELECT count(*) FROM "{schema}"."{prefix}sessions" s
           WHERE s.user_id = u.id AND s.rotated_to IS NULL) < places;
END
$pg_session$;
