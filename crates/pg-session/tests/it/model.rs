//! Random stories about one session, on two nodes, against a simple model of what the database must hold.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use pg_session::{Session, SessionManager, UpdateError};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio_postgres::Client;

use crate::support::World;
use crate::tables::{Stored, stored, stored_version};

const KEYS: [&str; 3] = ["a", "b", "c"];

/// One call on a handle.
#[derive(Clone, Copy, Debug)]
enum Act {
    Set(usize, u8),
    /// For an hour: longer than the test.
    SetFor(usize, u8),
    /// Until a time that has passed.
    SetExpired(usize, u8),
    Remove(usize),
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Checked {
    No,
    Version,
    Attributes,
}

/// One update of the handle, and what another handle on the other node does between its read and its save.
#[derive(Clone, Debug)]
struct Step {
    reread: bool,
    meanwhile: Vec<Act>,
    acts: Vec<Act>,
    checked: Checked,
}

fn act() -> impl Strategy<Value = Act> {
    let key = 0..KEYS.len();
    prop_oneof![
        3 => (key.clone(), any::<u8>()).prop_map(|(key, value)| Act::Set(key, value)),
        1 => (key.clone(), any::<u8>()).prop_map(|(key, value)| Act::SetFor(key, value)),
        1 => (key.clone(), any::<u8>()).prop_map(|(key, value)| Act::SetExpired(key, value)),
        3 => key.prop_map(Act::Remove),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    let checked = prop_oneof![Just(Checked::No), Just(Checked::Version), Just(Checked::Attributes)];
    let acts = |most| proptest::collection::vec(act(), 0..=most);
    let meanwhile = prop_oneof![2 => Just(Vec::new()), 1 => acts(2)];
    (any::<bool>(), meanwhile, acts(4), checked).prop_map(|(reread, meanwhile, acts, checked)| Step {
        reread,
        meanwhile,
        acts,
        checked,
    })
}

/// What the tables must hold.
#[derive(Clone, Default, Debug)]
struct Model {
    version: i64,
    rows: BTreeMap<&'static str, Row>,
}

#[derive(Clone, PartialEq, Eq, Debug)]
struct Row {
    text: String,
    version: i64,
    expired: bool,
}

/// The last call on each key; the value and whether it has expired, or `None` for a removal.
type Final = BTreeMap<&'static str, Option<(String, bool)>>;

fn finals(acts: &[Act]) -> Final {
    acts.iter()
        .map(|act| match *act {
            Act::Set(key, value) | Act::SetFor(key, value) => (KEYS[key], Some((value.to_string(), false))),
            Act::SetExpired(key, value) => (KEYS[key], Some((value.to_string(), true))),
            Act::Remove(key) => (KEYS[key], None),
        })
        .collect()
}

impl Model {
    fn apply(&mut self, finals: &Final) {
        if finals.is_empty() {
            return;
        }
        self.version += 1;
        for (key, change) in finals {
            match change {
                Some((text, expired)) => {
                    let row = Row { text: text.clone(), version: self.version, expired: *expired };
                    self.rows.insert(key, row);
                }
                None => {
                    self.rows.remove(key);
                }
            }
        }
    }

    /// Without the attributes that nobody can see any more.
    fn live(&self) -> Self {
        let rows = self.rows.iter().filter(|(_, row)| !row.expired);
        Self { version: self.version, rows: rows.map(|(key, row)| (*key, row.clone())).collect() }
    }

    fn version_of(&self, key: &str) -> i64 {
        self.rows.get(key).map_or(0, |row| row.version)
    }

    /// The keys that a checked update of a handle which saw `base` must be refused for.
    fn conflicts(&self, base: &Self, finals: &Final) -> Vec<&'static str> {
        let differs = |key: &&&str| {
            let gone = base.version_of(key) == 0 && self.rows.get(**key).is_some_and(|row| row.expired);
            base.version_of(key) != self.version_of(key) && !gone
        };
        finals.keys().filter(differs).copied().collect()
    }
}

fn call(session: &mut Session, acts: &[Act]) {
    for act in acts {
        match *act {
            Act::Set(key, value) => session.set(KEYS[key], &value).unwrap(),
            Act::SetFor(key, value) => {
                session.set_for(KEYS[key], &value, Duration::from_secs(3_600)).unwrap();
            }
            Act::SetExpired(key, value) => {
                let past = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
                session.set_until(KEYS[key], &value, past).unwrap();
            }
            Act::Remove(key) => session.remove(KEYS[key]),
        }
    }
}

/// The tables hold exactly the model: so nothing was written but what was changed.
async fn assert_tables(observer: &Client, session: &Session, model: &Model) {
    assert_eq!(stored_version(observer, session.id()).await, Some(model.version));
    let expected = model
        .rows
        .iter()
        .map(|(key, row)| ((*key).to_owned(), Stored { text: row.text.clone(), version: row.version }));
    assert_eq!(stored(observer, session.id()).await, expected.collect());
}

/// The handle shows exactly what is alive in the model.
fn assert_shows(session: &Session, model: &Model) {
    let live = model.live();
    assert_eq!(session.version().get(), model.version);
    assert_eq!(session.keys(), live.rows.keys().copied().collect::<Vec<_>>());
    for (key, row) in &live.rows {
        assert_eq!(session.get_json(key), Some(row.text.as_str()));
        assert_eq!(session.attribute_version(key).map(|version| version.get()), Some(row.version));
    }
}

struct Story<'a> {
    nodes: [&'a SessionManager; 2],
    observer: &'a Client,
    session: Session,
    model: Model,
    /// What the handle was read from or last saved to.
    base: Model,
}

impl Story<'_> {
    async fn reread(&mut self) {
        let read = self.nodes[0].get(self.session.id()).refresh().await.unwrap();
        self.session = read.expect("nobody deletes it");
        self.base = self.model.live();
        assert_shows(&self.session, &self.model);
    }

    async fn meanwhile(&mut self, acts: &[Act]) {
        let other = self.nodes[1].get(self.session.id()).refresh().await.unwrap();
        let mut other = other.expect("nobody deletes it");
        call(&mut other, acts);
        self.nodes[1].update(&mut other).await.unwrap();
        self.model.apply(&finals(acts));
        assert_shows(&other, &self.model);
    }

    async fn save(&mut self, acts: &[Act], checked: Checked) {
        let finals = finals(acts);
        call(&mut self.session, acts);
        let update = self.nodes[0].update(&mut self.session);
        let outcome = match checked {
            Checked::No => update.await,
            Checked::Version => update.check_version().await,
            Checked::Attributes => update.check_attributes().await,
        };
        let refused = match checked {
            Checked::No => None,
            Checked::Version => (self.base.version != self.model.version).then(Vec::new),
            Checked::Attributes => {
                Some(self.model.conflicts(&self.base, &finals)).filter(|keys| !keys.is_empty())
            }
        };
        match (outcome, refused.filter(|_| !finals.is_empty())) {
            (Ok(()), None) => self.saved(&finals),
            (Err(UpdateError::Conflict { keys }), Some(expected)) => {
                assert_eq!(keys, expected);
                assert!(self.session.is_modified(), "the handle keeps its changes");
                let newer = self.nodes[0].get(self.session.id()).await.unwrap().unwrap();
                assert_shows(&newer, &self.model);
                self.reread().await;
            }
            (outcome, expected) => panic!("{outcome:?} instead of {expected:?}"),
        }
        assert_tables(self.observer, &self.session, &self.model).await;
    }

    fn saved(&mut self, finals: &Final) {
        if finals.is_empty() {
            return; // nothing was sent, so the handle shows what it showed
        }
        let unseen = self.base.version != self.model.version;
        let mut base = if unseen { self.model.live() } else { self.base.clone() };
        base.apply(finals);
        self.base = base;
        self.model.apply(finals);
        assert_shows(&self.session, &self.model);
    }
}

async fn tell(nodes: [&SessionManager; 2], observer: &Client, steps: Vec<Step>) {
    let session = nodes[0].create(1).await.unwrap();
    let model = Model { version: 1, ..Model::default() };
    let mut story = Story { nodes, observer, session, base: model.clone(), model };
    for step in steps {
        if step.reread {
            story.reread().await;
        }
        story.meanwhile(&step.meanwhile).await;
        story.save(&step.acts, step.checked).await;
    }
    let fresh = nodes[1].get(story.session.id()).refresh().await.unwrap().unwrap();
    assert_shows(&fresh, &story.model);
    assert!(nodes[0].delete(fresh.id()).await.unwrap());
}

#[test]
fn the_tables_hold_what_the_model_holds_after_any_story() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let world = World::new();
    let (a, b, observer) =
        runtime.block_on(async { (world.node().await, world.node().await, world.client().await) });
    let config = Config { cases: 120, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&proptest::collection::vec(step(), 1..8), |steps| {
            runtime.block_on(tell([&a, &b], &observer, steps));
            Ok(())
        })
        .unwrap();
}
