//! The cache by itself: tickets, owners, epochs, and the indices under eviction and under threads.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::time::Duration;

use uuid::Uuid;

use super::*;
use crate::clock::Clock;
use crate::session::IdleLimit;
use crate::session::attribute::OverflowAttribute;
use crate::session::attributes::Attributes;
use crate::session::inline::InlineAttributes;
use crate::session::limits::Limits;
use crate::session::record::{Policy, Row, SharedRecord};

fn policy() -> Arc<Policy> {
    let limits = Limits { key_bytes_max: 9, value_bytes_max: 9, attributes_max: 9, session_bytes_max: 99 };
    Arc::new(Policy {
        clock: Clock::monotonic(),
        limits,
        idle_timeout: Duration::from_secs(3_600),
        touch_resolution: Duration::from_secs(1),
    })
}

fn cache(sessions_max: usize) -> Cache {
    let cache = Cache::new(sessions_max, Duration::from_secs(3_600), Probes::default());
    cache.start_listening();
    cache
}

fn record(policy: &Arc<Policy>, id: SessionId, user: i64, version: i64) -> SharedRecord {
    let now = policy.clock.database_now();
    let row = Row {
        id,
        user_id: Some(UserId::from(user)),
        group_id: Some(GroupId::from(user % 2)),
        version: Version::new(version),
        created_at: now,
        updated_at: DbTime::EPOCH,
        expires_at: DbTime::NEVER,
        idle_limit: IdleLimit::Exempt,
        rotated: false,
    };
    SharedRecord::new(Record::new(Arc::clone(policy), row, Attributes::default(), now))
}

/// Of what [`record`] makes.
fn revision(version: i64) -> Revision {
    Revision { version: Version::new(version), updated_at: DbTime::EPOCH }
}

fn all(mut dropping: Dropping<'_>) {
    while dropping.step() {}
}

fn version_of(cache: &Cache, id: SessionId) -> Option<i64> {
    let slot = cache.get(id).filter(|slot| slot.epoch.is_of_generation(cache.epoch()))?;
    Some(slot.record.row.version.get())
}

#[test]
fn a_load_overtaken_by_an_invalidation_is_not_kept() {
    let (policy, cache, id) = (policy(), cache(10), SessionId::random());
    let ticket = cache.ticket();
    cache.invalidate(id, Version::new(2));
    assert!(!cache.install(ticket, &record(&policy, id, 1, 1)));
    assert_eq!(version_of(&cache, id), None);
    assert!(cache.install(ticket, &record(&policy, id, 1, 2)), "it contains what was invalidated");
    assert!(cache.install(cache.ticket(), &record(&policy, id, 1, 3)));
}

#[test]
fn load_overtaken_by_drop_of_user_group_or_all_is_not_kept() {
    let (policy, cache, id) = (policy(), cache(10), SessionId::random());
    let drops: [&dyn Fn(); 3] =
        [&|| all(cache.remove_user(UserId::from(7))), &|| all(cache.remove_group(GroupId::from(1))), &|| {
            cache.remove_all();
        }];
    for drop in drops {
        let ticket = cache.ticket();
        assert!(cache.is_current(ticket, id));
        drop();
        assert!(!cache.is_current(ticket, id), "a read that begins now must not join that load");
        assert!(!cache.install(ticket, &record(&policy, id, 7, 1)));
        assert!(cache.install(cache.ticket(), &record(&policy, id, 7, 1)), "but the next one is");
        drop();
        assert_eq!(version_of(&cache, id), None);
    }
    assert!(cache.unverified().is_empty());
    assert_eq!((cache.users.len(), cache.groups.len()), (0, 0));
}

#[test]
fn versions_never_go_backwards() {
    let (policy, cache, id) = (policy(), cache(10), SessionId::random());
    assert!(cache.install(cache.ticket(), &record(&policy, id, 1, 5)));
    assert!(!cache.install(cache.ticket(), &record(&policy, id, 1, 4)));
    assert_eq!(version_of(&cache, id), Some(5));
    // A version that was seen, though it may not be kept, makes the lower one disappear.
    cache.invalidate(id, Version::new(3));
    assert_eq!(version_of(&cache, id), Some(5), "an old notification drops nothing newer");
    cache.remove(SessionId::random());
    all(cache.remove_user(UserId::from(99)));
    cache.stop_listening();
    assert!(!cache.install(cache.ticket(), &record(&policy, id, 1, 6)));
    assert_eq!(version_of(&cache, id), None);
}

#[test]
fn older_publish_does_not_follow_evicted_newer_version() {
    let (policy, cache, id) = (policy(), cache(10), SessionId::random());
    // A writes 2; meanwhile a read of A loads 3, which leaves the cache before A publishes.
    let (writing, ticket) = (cache.begin_write(id), cache.ticket());
    assert!(cache.install(cache.ticket(), &record(&policy, id, 1, 3)));
    cache.take(id);
    cache.publish(ticket, &record(&policy, id, 1, 2));
    assert_eq!(version_of(&cache, id), None);
    drop(writing);
    // The same, but 3 was never kept.
    let (writing, ticket) = (cache.begin_write(id), cache.ticket());
    let refused = cache.ticket();
    all(cache.remove_user(UserId::from(1)));
    assert!(!cache.install(refused, &record(&policy, id, 1, 5)));
    cache.publish(ticket, &record(&policy, id, 1, 4));
    assert_eq!(version_of(&cache, id), None);
    drop(writing);
    // And if no reader has seen more, a publish is kept.
    let (writing, ticket) = (cache.begin_write(id), cache.ticket());
    cache.remove_all();
    cache.publish(cache.ticket(), &record(&policy, id, 1, 6));
    assert_eq!(version_of(&cache, id), Some(6));
    drop((writing, ticket));
    assert!(cache.stripe(id).is_newest(id, Version::new(1)), "no write is left behind");
}

#[test]
fn what_is_read_without_a_listener_is_not_kept() {
    let (policy, cache, id) = (policy(), cache(10), SessionId::random());
    cache.stop_listening();
    cache.stop_listening();
    let disconnected = cache.ticket();
    assert!(!cache.install(disconnected, &record(&policy, id, 1, 1)));
    cache.publish(disconnected, &record(&policy, id, 1, 2));
    cache.start_listening();
    cache.start_listening();
    assert!(!cache.install(disconnected, &record(&policy, id, 1, 2)), "nor if listening has begun meanwhile");
    assert_eq!((cache.stats().sessions, cache.users.len(), cache.groups.len()), (0, 0, 0));
    assert!(cache.install(cache.ticket(), &record(&policy, id, 1, 2)));
}

/// Load leaves ┊ connection lost, listening again ┊ load arrives.
#[test]
fn load_overtaken_by_loss_is_verified_before_it_is_served() {
    let (policy, cache, id) = (policy(), cache(10), SessionId::random());
    let before = cache.ticket();
    let epoch = cache.epoch();
    cache.stop_listening();
    cache.start_listening();
    assert!(cache.install(before, &record(&policy, id, 1, 1)));
    assert_eq!((cache.get(id).unwrap().epoch, cache.unverified()), (epoch, vec![id]));
    // The one way: the database is asked for its version.
    cache.verify(cache.ticket(), id, Some((revision(1), DbTime::EPOCH)));
    assert_eq!((cache.get(id).unwrap().epoch, cache.unverified()), (cache.epoch(), vec![]));
    // The other: the next reader loads it.
    cache.stop_listening();
    cache.start_listening();
    assert!(cache.install(cache.ticket(), &record(&policy, id, 1, 2)));
    assert_eq!((cache.get(id).unwrap().epoch, version_of(&cache, id)), (cache.epoch(), Some(2)));
    assert_eq!((cache.users.len(), cache.groups.len()), (1, 1));
}

/// Resync asks ┊ lost, listening, loaded again ┊ resync is answered.
#[test]
fn answer_of_earlier_epoch_does_not_verify_later_entry() {
    let (policy, cache, id) = (policy(), cache(10), SessionId::random());
    assert!(cache.install(cache.ticket(), &record(&policy, id, 1, 1)));
    cache.stop_listening();
    cache.start_listening();
    let asked = cache.ticket();
    cache.stop_listening();
    cache.start_listening();
    cache.verify(asked, id, Some((revision(1), DbTime::EPOCH)));
    assert_eq!(cache.unverified(), [id], "right once, but something may have been missed since");
    assert!(cache.install(cache.ticket(), &record(&policy, id, 1, 2)));
    cache.verify(asked, id, Some((revision(1), DbTime::EPOCH)));
    cache.verify(asked, id, None);
    assert_eq!((version_of(&cache, id), cache.unverified()), (Some(2), vec![]));
}

#[test]
fn entry_of_earlier_epoch_is_kept_only_if_still_current() {
    let (policy, cache) = (policy(), cache(10));
    let ids = [SessionId::random(), SessionId::random(), SessionId::random(), SessionId::random()];
    for id in ids {
        assert!(cache.install(cache.ticket(), &record(&policy, id, 1, 3)));
    }
    cache.stop_listening();
    cache.start_listening();
    assert_eq!(cache.unverified().len(), 4);
    let ticket = cache.ticket();
    cache.invalidate(ids[3], Version::new(4));
    let access = DbTime::EPOCH;
    cache.verify(ticket, ids[0], Some((revision(3), access)));
    cache.verify(ticket, ids[1], Some((revision(4), access)));
    cache.verify(ticket, ids[2], None);
    cache.verify(ticket, ids[3], Some((revision(3), access)));
    assert_eq!(ids.map(|id| version_of(&cache, id)), [Some(3), None, None, None]);
    assert_eq!(cache.get(ids[0]).map(|slot| slot.epoch), Some(cache.epoch()));
    assert!(cache.unverified().is_empty());
    assert_eq!((cache.users.len(), cache.groups.len()), (1, 1));
}

#[test]
fn the_indices_follow_evictions_and_replacements() {
    let (policy, cache) = (policy(), cache(50));
    for n in 0..5_000 {
        let id = SessionId::from_uuid(Uuid::from_u128(n % 700));
        let user = i64::try_from(n % 13).unwrap();
        // A session's user never changes, its group may.
        let user = user - user % 13 + i64::try_from(n % 700 % 13).unwrap();
        cache.install(cache.ticket(), &record(&policy, id, user, 1 + i64::try_from(n).unwrap()));
    }
    let sessions = cache.stats().sessions;
    assert!(sessions > 0 && sessions <= 50);
    assert_eq!((cache.users.len(), cache.groups.len()), (sessions, sessions));
    cache.remove_all();
    assert!(cache.unverified().is_empty());
    assert_eq!((cache.stats().sessions, cache.users.len(), cache.groups.len()), (0, 0, 0));
}

/// Threads install under tickets what "the database" held when they took them, while another invalidates; no thread may
/// afterwards find less than what was invalidated before the look.
#[test]
fn no_thread_finds_what_was_invalidated_before_it_looked() {
    const IDS: u128 = 8;
    let (policy, cache) = (policy(), cache(6));
    let database: Vec<AtomicI64> = (0..IDS).map(|_| AtomicI64::new(1)).collect();
    let handled: Vec<AtomicI64> = (0..IDS).map(|_| AtomicI64::new(1)).collect();
    let done = AtomicBool::new(false);
    let id = |n: usize| SessionId::from_uuid(Uuid::from_u128(n as u128));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for round in 0..20_000_usize {
                let n = round * 7 % database.len();
                let version = database[n].fetch_add(1, Ordering::SeqCst) + 1;
                match round % 50 {
                    0 => all(cache.remove_user(UserId::from(i64::try_from(n).unwrap()))),
                    1 => cache.remove_all(),
                    _ => cache.invalidate(id(n), Version::new(version)),
                }
                handled[n].store(version, Ordering::SeqCst);
            }
            done.store(true, Ordering::SeqCst);
        });
        for _ in 0..3 {
            scope.spawn(|| {
                let mut n = 0;
                while !done.load(Ordering::SeqCst) {
                    n = (n + 1) % database.len();
                    let least = handled[n].load(Ordering::SeqCst);
                    if let Some(found) = version_of(&cache, id(n)) {
                        assert!(found >= least, "found {found}, but {least} was handled before");
                    }
                    let ticket = cache.ticket();
                    let version = database[n].load(Ordering::SeqCst);
                    std::thread::yield_now();
                    cache.install(ticket, &record(&policy, id(n), i64::try_from(n).unwrap(), version));
                }
            });
        }
    });
    let sessions = cache.stats().sessions;
    assert_eq!((cache.users.len(), cache.groups.len()), (sessions, sessions));
}

/// epoch 1: v5 cached ┊ the database is restored to v3 ┊ epoch 3: a load of v3, and what may not replace what
#[test]
fn a_load_of_a_later_epoch_replaces_a_higher_version() {
    let (policy, cache, id) = (policy(), cache(10), SessionId::random());
    let early = cache.ticket();
    assert!(cache.install(early, &record(&policy, id, 1, 5)));
    assert!(!cache.install(cache.ticket(), &record(&policy, id, 1, 3)), "the same epoch: an older load");
    cache.stop_listening();
    cache.start_listening();
    assert!(!cache.install(early, &record(&policy, id, 1, 4)), "a load of the earlier epoch");
    let ticket = cache.ticket();
    cache.publish(early, &record(&policy, id, 1, 6));
    assert!(!cache.install(ticket, &record(&policy, id, 1, 3)), "overtaken by a write of this node");
    assert_eq!(version_of(&cache, id), Some(6));
    assert!(cache.install(cache.ticket(), &record(&policy, id, 1, 3)));
    assert_eq!(version_of(&cache, id), Some(3));
}

#[test]
fn another_content_of_the_same_version_is_not_verified() {
    let (policy, cache, id) = (policy(), cache(10), SessionId::random());
    assert!(cache.install(cache.ticket(), &record(&policy, id, 1, 5)));
    cache.stop_listening();
    cache.start_listening();
    let other = Revision { updated_at: DbTime::from_nanos(1_000), ..revision(5) };
    cache.verify(cache.ticket(), id, Some((other, DbTime::EPOCH)));
    assert_eq!(version_of(&cache, id), None);
}

/// load leaves ┊ all are dropped ┊ the load arrives · the entries that were there are still in memory
#[test]
fn nothing_of_an_earlier_generation_is_served() {
    let (policy, cache) = (policy(), cache(10));
    let [id, other] = [SessionId::random(), SessionId::random()];
    let early = cache.ticket();
    assert!(cache.install(early, &record(&policy, id, 1, 5)));
    assert!(cache.install(early, &record(&policy, other, 1, 5)));
    cache.remove_all();
    assert_eq!((version_of(&cache, id), cache.stats().sessions), (None, 2));
    assert!(!cache.is_current(early, id), "a read that begins now must not join that load");
    assert!(!cache.install(early, &record(&policy, id, 1, 5)));
    // An entry of an earlier generation is not verified, but loaded again.
    cache.stop_listening();
    cache.start_listening();
    cache.verify(cache.ticket(), other, Some((revision(5), DbTime::EPOCH)));
    assert_eq!(cache.stats().sessions, 1);
    assert!(cache.install(cache.ticket(), &record(&policy, id, 1, 5)));
    assert_eq!((version_of(&cache, id), cache.unverified()), (Some(5), vec![]));
    assert_eq!((cache.users.len(), cache.groups.len()), (1, 1));
}

#[test]
fn an_owner_with_more_sessions_than_a_step_is_dropped() {
    let (policy, cache) = (policy(), cache(10_000));
    let sessions = DROPPED_MAX * 2 + 1;
    for n in 0..sessions {
        let id = SessionId::from_uuid(Uuid::from_u128(n as u128));
        cache.install(cache.ticket(), &record(&policy, id, 1, 1));
    }
    let other = SessionId::random();
    cache.install(cache.ticket(), &record(&policy, other, 2, 1));
    assert_eq!(cache.stats().sessions, sessions + 1);
    let (mut dropping, mut steps) = (cache.remove_user(UserId::from(1)), 1);
    while dropping.step() {
        steps += 1;
    }
    assert_eq!((steps, cache.stats().sessions, version_of(&cache, other)), (3, 1, Some(1)));
}

#[test]
fn memory_is_bounded_by_bytes_and_by_sessions() {
    const KIB: usize = 1_024;
    let capacity = Capacity { sessions_max: 1_000, bytes_max: 4_000 * KIB, session_bytes_max: 256 * KIB };
    let memory = || {
        let cache = Cache::new(capacity, Duration::from_secs(3_600), Probes::default());
        cache.start_listening();
        cache
    };
    let (policy, cache) = (policy(), memory());
    for n in 0..100 {
        let id = SessionId::from_uuid(Uuid::from_u128(n));
        let large = OverflowAttribute::new("key", &"x".repeat(250 * KIB), Version::new(1), DbTime::NEVER);
        let attributes = Attributes::new(InlineAttributes::default(), vec![Arc::new(large)]);
        let row = record(&policy, id, 1, 1).row;
        let large = SharedRecord::new(Record::new(Arc::clone(&policy), row, attributes, DbTime::EPOCH));
        assert!(cache.install(cache.ticket(), &large));
        assert!(cache.get(id).is_some(), "the newest one has room");
        let CacheStats { sessions, bytes, .. } = cache.stats();
        assert!(sessions <= 16 && bytes <= 4_000 * KIB as u64, "{sessions} sessions, {bytes} bytes");
    }
    assert!(cache.stats().sessions >= 14, "{:?}", cache.stats());
    let cache = memory();
    for n in 0..4_000 {
        let id = SessionId::from_uuid(Uuid::from_u128(n));
        cache.install(cache.ticket(), &record(&policy, id, 1, 1));
    }
    let CacheStats { sessions, bytes, .. } = cache.stats();
    assert!((900..=1_000).contains(&sessions) && bytes <= 4_000 * KIB as u64, "{sessions}, {bytes} bytes");
}
