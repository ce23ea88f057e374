//! What threads do to one cache at the same time. Each story asserts what must hold in every schedule.
//!
//! A counter represents the database. A story calls the cache in the order of the library's own tasks. Each story
//! opens with the interleaving that could break it.

use shuttle::sync::atomic::{AtomicBool, AtomicI64, Ordering::SeqCst};
use shuttle::sync::{Arc, Mutex};
use shuttle::thread::{self, JoinHandle};

use pg_session_model_cache::{Memory, Missing, id};

/// A node's cache, the database, and the answers about the session `id(0)`.
struct Node {
    cache: Memory,
    /// The committed version.
    row: AtomicI64,
    gone: AtomicBool,
    /// The highest version whose invalidation was handled.
    handled: AtomicI64,
    /// The highest version in an answer to a caller.
    answered: AtomicI64,
    answered_absent: AtomicBool,
    /// One load at a time for each session, as in the loader.
    flight: Mutex<()>,
}

impl Node {
    fn new(sessions_max: usize, missing: Option<Missing>) -> Arc<Self> {
        Arc::new(Self {
            cache: Memory::new(sessions_max, missing),
            row: AtomicI64::new(1),
            gone: AtomicBool::new(false),
            handled: AtomicI64::new(0),
            answered: AtomicI64::new(0),
            answered_absent: AtomicBool::new(false),
            flight: Mutex::new(()),
        })
    }

    fn run(self: &Arc<Self>, part: impl FnOnce(&Self) + Send + 'static) -> JoinHandle<()> {
        let node = Arc::clone(self);
        thread::spawn(move || part(&node))
    }

    fn commit(&self) -> i64 {
        self.row.fetch_add(1, SeqCst) + 1
    }

    /// A load and its answer.
    fn load(&self) {
        let _flight = self.flight.lock().expect("no story panics in a load");
        let ticket = self.cache.ticket();
        if self.gone.load(SeqCst) {
            self.cache.mark_absent(ticket, id(0));
            self.answered_absent.store(true, SeqCst);
        } else {
            let version = self.row.load(SeqCst);
            self.cache.install(ticket, id(0), version);
            self.answered.fetch_max(version, SeqCst);
        }
    }

    /// An update of this node and its answer.
    fn update(&self) {
        self.cache.writing(id(0), || {
            let ticket = self.cache.ticket();
            if !self.gone.load(SeqCst) {
                let version = self.commit();
                self.cache.publish(ticket, id(0), version);
                self.answered.fetch_max(version, SeqCst);
            }
        });
    }

    /// An update of another node and its notification.
    fn handle_remote_update(&self) {
        let version = self.commit();
        self.cache.invalidate(id(0), version);
        self.handled.fetch_max(version, SeqCst);
    }

    fn check_read(&self) {
        let least = self.answered.load(SeqCst).max(self.handled.load(SeqCst));
        let gone = self.answered_absent.load(SeqCst);
        if let Some(found) = self.cache.get(id(0)) {
            assert!(found >= least, "found {found}, but {least} was answered or handled before");
            assert!(!gone, "found {found}, but a load had answered that it is gone");
        }
    }

    /// The indices list exactly the entries in memory.
    fn check_indices(&self) {
        let sessions = self.cache.sessions();
        assert_eq!(self.cache.indexed(), (sessions, sessions), "the indices and the slots");
    }
}

fn join(parts: impl IntoIterator<Item = JoinHandle<()>>) {
    parts.into_iter().for_each(|part| part.join().expect("a part that does not panic"));
}

/// A load sends its query. Another node's update commits and is handled. The load's row is installed.
pub fn load_overtaken_by_invalidations(missing: Option<Missing>) {
    let node = Node::new(4, missing);
    join([
        node.run(|node| {
            node.load();
            node.check_read();
        }),
        node.run(|node| {
            node.handle_remote_update();
            node.check_read();
        }),
        node.run(Node::handle_remote_update),
    ]);
    node.check_read();
    node.check_indices();
}

/// The same, but later invalidations on the stripe push out the one that matters.
pub fn invalidation_forgotten_by_stripe(missing: Option<Missing>) {
    let node = Node::new(4, missing);
    join([
        node.run(Node::load),
        node.run(|node| {
            node.handle_remote_update();
            for other in 1..=4 {
                node.cache.invalidate(id(2 * other), 9);
            }
        }),
    ]);
    node.check_read();
    node.check_indices();
}

/// An update commits. Before its publish, a newer version commits elsewhere, is read here and is evicted.
pub fn publish_after_newer_version_was_read(missing: Option<Missing>) {
    let node = Node::new(4, missing);
    join([
        node.run(|node| {
            node.update();
            node.check_read();
        }),
        node.run(|node| {
            // Its notification is still in flight.
            node.commit();
            node.load();
            node.cache.evict(id(0));
        }),
    ]);
    node.check_read();
    node.check_indices();
}

/// The same, but all entries are dropped between the write's mark and its ticket. The mark must survive.
pub fn drop_all_between_write_mark_and_ticket(missing: Option<Missing>) {
    let node = Node::new(4, missing);
    join([
        node.run(|node| {
            node.update();
            node.check_read();
        }),
        node.run(|node| {
            node.cache.remove_all();
            node.commit();
            node.load();
            node.cache.evict(id(0));
        }),
    ]);
    node.check_read();
    node.check_indices();
}

/// A load sends its query. This node's update commits, is published and evicted. The load's row is installed.
pub fn load_overtaken_by_publish(missing: Option<Missing>) {
    let node = Node::new(4, missing);
    join([
        node.run(Node::load),
        node.run(|node| {
            node.update();
            node.cache.evict(id(0));
            node.check_read();
        }),
    ]);
    node.check_read();
    node.check_indices();
}

/// Two updates commit in one order and publish in the other.
pub fn publishes_out_of_order(missing: Option<Missing>) {
    let node = Node::new(4, missing);
    join([
        node.run(|node| {
            node.update();
            node.check_read();
        }),
        node.run(|node| {
            node.update();
            node.check_read();
        }),
    ]);
    node.check_read();
    node.check_indices();
}

/// An update commits. The session is deleted elsewhere, without a notification yet. A load answers that it is gone.
/// Then the update is published.
pub fn publish_after_load_found_nothing(missing: Option<Missing>) {
    let node = Node::new(4, missing);
    join([
        node.run(Node::update),
        node.run(|node| {
            node.gone.store(true, SeqCst);
            node.load();
            node.check_read();
        }),
    ]);
    node.check_read();
    node.check_indices();
}

/// A load finds no row. The session is created elsewhere, under an id that was known, and its notification is handled. Then
/// the load is answered.
pub fn absent_load_overtaken_by_creation(missing: Option<Missing>) {
    let node = Node::new(4, missing);
    node.gone.store(true, SeqCst);
    join([
        node.run(Node::load),
        node.run(|node| {
            node.gone.store(false, SeqCst);
            node.cache.invalidate(id(0), 1);
            assert!(!node.cache.is_ended(id(0)), "the session exists");
        }),
    ]);
    assert!(!node.cache.is_ended(id(0)), "the session exists");
    node.check_indices();
}

/// All sessions of the user are deleted while one of them is loaded and updated. Later reads find none.
pub fn user_dropped_during_fills(missing: Option<Missing>) {
    all_end(missing, Memory::remove_user);
}

/// The same with the sessions of the group, whose index is checked after the user's index has accepted the entry.
pub fn group_dropped_during_fills(missing: Option<Missing>) {
    all_end(missing, Memory::remove_group);
}

/// The same with all sessions.
pub fn all_dropped_during_fills(missing: Option<Missing>) {
    all_end(missing, Memory::remove_all);
}

fn all_end(missing: Option<Missing>, drop: fn(&Memory)) {
    let node = Node::new(4, missing);
    join([
        node.run(Node::load),
        node.run(Node::update),
        node.run(move |node| {
            node.gone.store(true, SeqCst);
            drop(&node.cache);
            node.answered_absent.store(true, SeqCst);
            node.check_read();
        }),
    ]);
    node.check_read();
    node.check_indices();
}

/// Installs, replacements, evictions and invalidations of more sessions than the cache holds.
pub fn indices_consistent_under_evictions(missing: Option<Missing>) {
    let node = Node::new(2, missing);
    let install = |node: &Node, numbers: [u128; 3]| {
        for number in numbers {
            let ticket = node.cache.ticket();
            node.cache.install(ticket, id(number), node.commit());
        }
    };
    join([
        node.run(move |node| install(node, [1, 2, 3])),
        node.run(move |node| install(node, [3, 2, 1])),
        node.run(|node| {
            node.cache.evict(id(2));
            node.cache.invalidate(id(1), node.commit());
            node.cache.evict(id(3));
        }),
    ]);
    node.check_indices();
    node.cache.remove_user();
    assert_eq!((node.cache.sessions(), node.cache.indexed()), (0, (0, 0)));
}

/// The connection is lost, an update elsewhere is missed, the node listens again. A load from before the loss is
/// installed, and the entry in memory is verified.
pub fn update_missed_while_disconnected(missing: Option<Missing>) {
    let node = Node::new(4, missing);
    join([
        node.run(Node::load),
        node.run(|node| {
            node.cache.stop_listening();
            node.commit();
            node.cache.start_listening();
            let ticket = node.cache.ticket();
            node.cache.verify(ticket, id(0), node.row.load(SeqCst));
            assert_ne!(node.cache.hit(id(0)), Some(1), "the missed update is hidden");
        }),
    ]);
    assert_ne!(node.cache.hit(id(0)), Some(1), "the missed update is hidden");
    node.check_indices();
}

/// A load sends its query while the node does not listen. Listening starts at any moment. The row may not be kept.
pub fn load_begun_while_not_listening(missing: Option<Missing>) {
    let node = Node::new(4, missing);
    node.cache.stop_listening();
    let listening = Arc::new(AtomicBool::new(false));
    let begins = Arc::clone(&listening);
    join([
        node.run(move |node| {
            let ticket = node.cache.ticket();
            let disconnected = !listening.load(SeqCst);
            let kept = node.cache.install(ticket, id(0), node.row.load(SeqCst));
            assert!(!(disconnected && kept), "kept by a node that did not listen");
        }),
        node.run(move |node| {
            begins.store(true, SeqCst);
            node.cache.start_listening();
        }),
    ]);
    node.check_indices();
}

/// After a connection loss the entry in memory is still current. While it is verified, all sessions are deleted. The
/// verified entry must belong to the earlier generation.
pub fn all_dropped_during_verification(missing: Option<Missing>) {
    let node = Node::new(4, missing);
    node.load();
    node.cache.stop_listening();
    node.cache.start_listening();
    join([
        node.run(|node| {
            let ticket = node.cache.ticket();
            if !node.gone.load(SeqCst) {
                node.cache.verify(ticket, id(0), node.row.load(SeqCst));
            }
        }),
        node.run(|node| {
            node.gone.store(true, SeqCst);
            node.cache.remove_all();
            node.answered_absent.store(true, SeqCst);
            node.check_read();
        }),
    ]);
    node.check_read();
    node.check_indices();
}

/// A write without a mark commits. Before its publish, the session is updated elsewhere, and the newer version is read
/// and kept here.
pub fn unmarked_publish_after_newer_version_was_read(missing: Option<Missing>) {
    let node = Node::new(4, missing);
    let ticket = node.cache.ticket();
    join([
        node.run(move |node| {
            node.cache.publish(ticket, id(0), 1);
            node.answered.fetch_max(1, SeqCst);
            node.check_read();
        }),
        node.run(|node| {
            // Its notification is still in flight.
            node.commit();
            node.load();
            node.check_read();
        }),
    ]);
    node.check_read();
    node.check_indices();
}
