//! What threads do to one cache at the same time. Each story asserts what must hold in every schedule.
//!
//! A counter stands for the database: what it holds is committed. Calls are made in the order in which the library's
//! lanes make them; each opens with what could go wrong.

use shuttle::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};
use shuttle::sync::{Arc, Mutex};
use shuttle::thread::{self, JoinHandle};

use crate::memory::{Memory, id};

/// A cache and the database, and what was told of the session `id(0)`.
struct Stage<M> {
    cache: M,
    /// The version that is committed.
    row: AtomicI64,
    gone: AtomicBool,
    /// The highest version whose invalidation was handled.
    handled: AtomicI64,
    /// The highest version that a caller was answered with.
    told: AtomicI64,
    told_gone: AtomicBool,
    /// One load at a time for each session, as the loader sees to.
    flight: Mutex<()>,
}

impl<M: Memory> Stage<M> {
    fn new(sessions_max: usize) -> Arc<Self> {
        Arc::new(Self {
            cache: M::new(sessions_max),
            row: AtomicI64::new(1),
            gone: AtomicBool::new(false),
            handled: AtomicI64::new(0),
            told: AtomicI64::new(0),
            told_gone: AtomicBool::new(false),
            flight: Mutex::new(()),
        })
    }

    fn run(self: &Arc<Self>, part: impl FnOnce(&Self) + Send + 'static) -> JoinHandle<()> {
        let stage = Arc::clone(self);
        thread::spawn(move || part(&stage))
    }

    fn commit(&self) -> i64 {
        self.row.fetch_add(1, SeqCst) + 1
    }

    /// A load, and its answer.
    fn load(&self) {
        let _flight = self.flight.lock().expect("no story panics in a load");
        let ticket = self.cache.ticket();
        if self.gone.load(SeqCst) {
            self.cache.discard(id(0));
            self.told_gone.store(true, SeqCst);
        } else {
            let version = self.row.load(SeqCst);
            self.cache.install(ticket, id(0), version);
            self.told.fetch_max(version, SeqCst);
        }
    }

    /// An update of this node, and its answer.
    fn update(&self) {
        self.cache.writing(id(0), || {
            let ticket = self.cache.ticket();
            if !self.gone.load(SeqCst) {
                let version = self.commit();
                self.cache.publish(ticket, id(0), version);
                self.told.fetch_max(version, SeqCst);
            }
        });
    }

    /// An update elsewhere, and its notification.
    fn hear_an_update(&self) {
        let version = self.commit();
        self.cache.invalidate(id(0), version);
        self.handled.fetch_max(version, SeqCst);
    }

    fn look(&self) {
        let least = self.told.load(SeqCst).max(self.handled.load(SeqCst));
        let gone = self.told_gone.load(SeqCst);
        if let Some(found) = self.cache.get(id(0)) {
            assert!(found >= least, "found {found}, but {least} was told or handled before");
            assert!(!gone, "found {found}, but its end was told before");
        }
    }

    /// The indices hold what the slots hold, and nobody was left behind.
    fn agree(&self) {
        let sessions = self.cache.sessions();
        assert_eq!(self.cache.indexed(), (sessions, sessions), "the indices and the slots");
    }
}

fn join(parts: impl IntoIterator<Item = JoinHandle<()>>) {
    parts.into_iter().for_each(|part| part.join().expect("a part that does not panic"));
}

/// A load's query leaves; an update elsewhere commits and is handled; the load's row is installed.
pub fn a_load_is_overtaken_by_invalidations<M: Memory>() {
    let stage = Stage::<M>::new(4);
    join([
        stage.run(|stage| {
            stage.load();
            stage.look();
        }),
        stage.run(|stage| {
            stage.hear_an_update();
            stage.look();
        }),
        stage.run(Stage::hear_an_update),
    ]);
    stage.look();
    stage.agree();
}

/// The same, and the one that matters is forgotten because others on its stripe come after it.
pub fn an_invalidation_is_forgotten<M: Memory>() {
    let stage = Stage::<M>::new(4);
    join([
        stage.run(Stage::load),
        stage.run(|stage| {
            stage.hear_an_update();
            for other in 1..=4 {
                stage.cache.invalidate(id(2 * other), 9);
            }
        }),
    ]);
    stage.look();
    stage.agree();
}

/// An update has committed; before it is published, a newer one commits elsewhere, is shown here, and is evicted.
pub fn a_publish_comes_after_a_newer_version_was_shown<M: Memory>() {
    let stage = Stage::<M>::new(4);
    join([
        stage.run(|stage| {
            stage.update();
            stage.look();
        }),
        stage.run(|stage| {
            // Its notification is still on its way.
            stage.commit();
            stage.load();
            stage.cache.evict(id(0));
        }),
    ]);
    stage.look();
    stage.agree();
}

/// The same, and everything is evicted between the write's mark and its ticket: the mark outlives it.
pub fn all_are_evicted_when_a_write_has_just_begun<M: Memory>() {
    let stage = Stage::<M>::new(4);
    join([
        stage.run(|stage| {
            stage.update();
            stage.look();
        }),
        stage.run(|stage| {
            stage.cache.drop_all();
            stage.commit();
            stage.load();
            stage.cache.evict(id(0));
        }),
    ]);
    stage.look();
    stage.agree();
}

/// A load's query leaves; an update of this node commits, is published and evicted; the load's row is installed.
pub fn a_load_is_overtaken_by_a_publish<M: Memory>() {
    let stage = Stage::<M>::new(4);
    join([
        stage.run(Stage::load),
        stage.run(|stage| {
            stage.update();
            stage.cache.evict(id(0));
            stage.look();
        }),
    ]);
    stage.look();
    stage.agree();
}

/// Two updates commit in one order and are published in the other.
pub fn two_publishes_come_out_of_order<M: Memory>() {
    let stage = Stage::<M>::new(4);
    join([
        stage.run(|stage| {
            stage.update();
            stage.look();
        }),
        stage.run(|stage| {
            stage.update();
            stage.look();
        }),
    ]);
    stage.look();
    stage.agree();
}

/// An update has committed; the session is deleted elsewhere, which nobody has heard; a load finds nothing and says so;
/// then the update is published.
pub fn a_publish_comes_after_a_load_that_found_nothing<M: Memory>() {
    let stage = Stage::<M>::new(4);
    join([
        stage.run(Stage::update),
        stage.run(|stage| {
            stage.gone.store(true, SeqCst);
            stage.load();
            stage.look();
        }),
    ]);
    stage.look();
    stage.agree();
}

/// All sessions of the user are deleted while one of them is loaded and updated: whoever asks afterwards finds nothing.
pub fn the_user_is_dropped_during_installs<M: Memory>() {
    all_end::<M>(M::drop_user);
}

/// The same with the sessions of the group, which is looked at when the user has let the session in.
pub fn the_group_is_dropped_during_installs<M: Memory>() {
    all_end::<M>(M::drop_group);
}

/// The same with all sessions of everybody.
pub fn all_are_dropped_during_installs<M: Memory>() {
    all_end::<M>(M::drop_all);
}

fn all_end<M: Memory>(drop: fn(&M)) {
    let stage = Stage::<M>::new(4);
    join([
        stage.run(Stage::load),
        stage.run(Stage::update),
        stage.run(move |stage| {
            stage.gone.store(true, SeqCst);
            drop(&stage.cache);
            stage.told_gone.store(true, SeqCst);
            stage.look();
        }),
    ]);
    stage.look();
    stage.agree();
}

/// Installs, replacements, evictions and invalidations of sessions that do not all fit.
pub fn the_indices_are_kept_through_evictions<M: Memory>() {
    let stage = Stage::<M>::new(2);
    let install = |stage: &Stage<M>, numbers: [u128; 3]| {
        for number in numbers {
            let ticket = stage.cache.ticket();
            stage.cache.install(ticket, id(number), stage.commit());
        }
    };
    join([
        stage.run(move |stage| install(stage, [1, 2, 3])),
        stage.run(move |stage| install(stage, [3, 2, 1])),
        stage.run(|stage| {
            stage.cache.evict(id(2));
            stage.cache.invalidate(id(1), stage.commit());
            stage.cache.evict(id(3));
        }),
    ]);
    stage.agree();
    stage.cache.drop_user();
    assert_eq!((stage.cache.sessions(), stage.cache.indexed()), (0, (0, 0)));
}

/// The connection is lost, an update elsewhere is missed, and the node listens again; a load from before is installed, and
/// what is in memory is verified.
pub fn an_update_is_missed_while_the_connection_is_lost<M: Memory>() {
    let stage = Stage::<M>::new(4);
    join([
        stage.run(Stage::load),
        stage.run(|stage| {
            stage.cache.stop_listening();
            stage.commit();
            stage.cache.start_listening();
            let ticket = stage.cache.ticket();
            stage.cache.verify(ticket, id(0), stage.row.load(SeqCst));
            assert_ne!(stage.cache.hit(id(0)), Some(1), "the missed update is hidden");
        }),
    ]);
    assert_ne!(stage.cache.hit(id(0)), Some(1), "the missed update is hidden");
    stage.agree();
}

/// A load's query leaves while nobody listens; listening starts at any moment; the load's row may not be kept.
pub fn a_load_leaves_while_nobody_listens<M: Memory>() {
    let stage = Stage::<M>::new(4);
    stage.cache.stop_listening();
    let listening = Arc::new(AtomicBool::new(false));
    let begins = Arc::clone(&listening);
    join([
        stage.run(move |stage| {
            let ticket = stage.cache.ticket();
            let deaf = !listening.load(SeqCst);
            let kept = stage.cache.install(ticket, id(0), stage.row.load(SeqCst));
            assert!(!(deaf && kept), "kept by a node that did not listen");
        }),
        stage.run(move |stage| {
            begins.store(true, SeqCst);
            stage.cache.start_listening();
        }),
    ]);
    stage.agree();
}

/// The connection was lost, and the database still holds what is in memory. While that is verified, all sessions are
/// deleted. What was verified must be of the earlier generation.
pub fn all_are_dropped_while_the_memory_is_verified<M: Memory>() {
    let stage = Stage::<M>::new(4);
    stage.load();
    stage.cache.stop_listening();
    stage.cache.start_listening();
    join([
        stage.run(|stage| {
            let ticket = stage.cache.ticket();
            if !stage.gone.load(SeqCst) {
                stage.cache.verify(ticket, id(0), stage.row.load(SeqCst));
            }
        }),
        stage.run(|stage| {
            stage.gone.store(true, SeqCst);
            stage.cache.drop_all();
            stage.told_gone.store(true, SeqCst);
            stage.look();
        }),
    ]);
    stage.look();
    stage.agree();
}

/// A write has committed that nobody marked; before it is published, the session is updated elsewhere, and the newer
/// version is shown here, and kept.
pub fn a_write_without_a_mark_is_published_after_a_newer_version_was_shown<M: Memory>() {
    let stage = Stage::<M>::new(4);
    let ticket = stage.cache.ticket();
    join([
        stage.run(move |stage| {
            stage.cache.publish(ticket, id(0), 1);
            stage.told.fetch_max(1, SeqCst);
            stage.look();
        }),
        stage.run(|stage| {
            // Its notification is still on its way.
            stage.commit();
            stage.load();
            stage.look();
        }),
    ]);
    stage.look();
    stage.agree();
}
