//! Random stories about one session, on two nodes and in SQL, against a simple model of the database.

use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use pg_session::{Session, SessionManager, UpdateError};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use tokio_postgres::Client;

use crate::support::World;
use crate::tables::{Stored, stored, stored_version};

/// More than the session's row has room for, and one that only goes apart.
const KEYS: [&str; 6] = ["a", "b", "c", "d", "e", "\"quoted\""];

/// The padding behind the number: small, so large that three of them fill the session's row, or too large for it.
fn value(of: u8) -> String {
    let bytes = [1, 30, 450, 700][usize::from(of % 4)];
    format!("{of:0bytes$}")
}

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

/// By which way changes come between.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    /// A handle on the other node.
    Library,
    /// The SQL contract, in one transaction.
    Sql,
    /// The same, and the transaction is rolled back.
    RolledBack,
}

/// One update of the handle, and what comes between its read and its save.
#[derive(Clone, Debug)]
struct Step {
    reread: bool,
    meanwhile: Vec<Act>,
    way: Way,
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
    let way = prop_oneof![2 => Just(Way::Library), 1 => Just(Way::Sql), 1 => Just(Way::RolledBack)];
    (any::<bool>(), meanwhile, way, acts(4), checked)
        .prop_map(|(reread, meanwhile, way, acts, checked)| Step { reread, meanwhile, way, acts, checked })
}

/// What the tables must hold.
#[derive(Clone, Default, Debug)]
struct Model {
    version: i64,
    /// The live ones. The model does not say whether and where the expired ones are.
    rows: BTreeMap<&'static str, Stored>,
}

/// The value that the last call on each key set; `None` for a removal, or for one that has expired, which is the same.
type Final = BTreeMap<&'static str, Option<String>>;

fn finals(acts: &[Act]) -> Final {
    acts.iter()
        .map(|act| match *act {
            Act::Set(key, of) | Act::SetFor(key, of) => (KEYS[key], Some(format!("{:?}", value(of)))),
            Act::SetExpired(key, _) | Act::Remove(key) => (KEYS[key], None),
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
                Some(text) => {
                    self.rows.insert(key, Stored { text: text.clone(), version: self.version });
                }
                None => {
                    self.rows.remove(key);
                }
            }
        }
    }

    fn version_of(&self, key: &str) -> i64 {
        self.rows.get(key).map_or(0, |row| row.version)
    }

    /// The keys that a checked update of a handle which saw `base` must be refused for.
    fn conflicts(&self, base: &Self, finals: &Final) -> Vec<&'static str> {
        finals.keys().filter(|key| base.version_of(key) != self.version_of(key)).copied().collect()
    }
}

fn call(session: &mut Session, acts: &[Act]) {
    for act in acts {
        match *act {
            Act::Set(key, of) => session.set(KEYS[key], &value(of)).unwrap(),
            Act::SetFor(key, of) => {
                session.set_for(KEYS[key], &value(of), Duration::from_secs(3_600)).unwrap();
            }
            Act::SetExpired(key, of) => {
                let past = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
                session.set_until(KEYS[key], &value(of), past).unwrap();
            }
            Act::Remove(key) => session.remove(KEYS[key]),
        }
    }
}

/// The tables hold exactly the model: so nothing was written but what was changed. And the row has a bound.
async fn assert_tables(observer: &Client, session: &Session, model: &Model) {
    assert_eq!(stored_version(observer, session.id()).await, Some(model.version));
    let expected = model.rows.iter().map(|(key, row)| ((*key).to_owned(), row.clone()));
    assert_eq!(stored(observer, session.id()).await, expected.collect());
    let text = "SELECT FROM sessions s WHERE id = $1 AND octet_length(attributes) <= 1536
                    AND (has_overflow OR NOT EXISTS (SELECT FROM session_attributes a WHERE a.session_id = s.id))";
    assert_eq!(observer.execute(text, &[&session.id().expose()]).await.unwrap(), 1);
}

/// The handle shows exactly what is alive in the model.
fn assert_shows(session: &Session, model: &Model) {
    assert_eq!(session.version().get(), model.version);
    assert_eq!(session.keys(), model.rows.keys().copied().collect::<Vec<_>>());
    for (key, row) in &model.rows {
        assert_eq!(session.get_raw(key), Some(row.text.as_str()));
        assert_eq!(session.attribute_version(key).map(|version| version.get()), Some(row.version));
    }
}

struct Story<'a> {
    nodes: [&'a SessionManager; 2],
    observer: &'a Client,
    /// Another process: its changes are those of the SQL contract.
    operator: &'a Client,
    session: Session,
    model: Model,
    /// What the handle was read from or last saved to.
    base: Model,
}

impl Story<'_> {
    async fn reread(&mut self) {
        let read = self.nodes[0].get(self.session.id()).bypass_cache().await.unwrap();
        self.session = read.expect("no client deletes it");
        self.base = self.model.clone();
        assert_shows(&self.session, &self.model);
    }

    async fn meanwhile(&mut self, acts: &[Act]) {
        let other = self.nodes[1].get(self.session.id()).bypass_cache().await.unwrap();
        let mut other = other.expect("no client deletes it");
        call(&mut other, acts);
        self.nodes[1].save(&mut other).await.unwrap();
        self.model.apply(&finals(acts));
        assert_shows(&other, &self.model);
    }

    /// Each call makes a version of its own.
    async fn meanwhile_in_sql(&mut self, acts: &[Act], is_committed: bool) {
        let id = self.session.id().expose();
        let mut model = self.model.clone();
        self.operator.batch_execute("BEGIN").await.unwrap();
        for act in acts {
            let (key, text) = match *act {
                Act::Set(key, of) | Act::SetFor(key, of) => (KEYS[key], Some(format!("{:?}", value(of)))),
                Act::SetExpired(key, _) | Act::Remove(key) => (KEYS[key], None),
            };
            let version = match &text {
                Some(text) => {
                    let lives = matches!(act, Act::SetFor(..)).then_some("1 hour");
                    let set = "SELECT session_set($1, $2, $3::text::jsonb, now() + $4::text::interval)";
                    self.operator.query_one(set, &[&id, &key, text, &lives]).await.unwrap()
                }
                // The model does not say whether a row of an expired attribute is there.
                None if !model.rows.contains_key(key) => continue,
                None => self.operator.query_one("SELECT session_remove($1, $2)", &[&id, &key]).await.unwrap(),
            };
            model.apply(&Final::from([(key, text)]));
            assert_eq!(version.get::<_, i64>(0), model.version, "{act:?}");
        }
        self.operator.batch_execute(if is_committed { "COMMIT" } else { "ROLLBACK" }).await.unwrap();
        if is_committed {
            self.model = model;
        }
        assert_tables(self.observer, &self.session, &self.model).await;
    }

    async fn save(&mut self, acts: &[Act], checked: Checked) {
        let finals = finals(acts);
        call(&mut self.session, acts);
        let update = self.nodes[0].save(&mut self.session);
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
        self.model.apply(finals);
        self.base = self.model.clone();
        assert_shows(&self.session, &self.model);
    }
}

async fn tell(nodes: [&SessionManager; 2], [observer, operator]: [&Client; 2], steps: Vec<Step>) {
    let session = nodes[0].create(1).await.unwrap();
    let model = Model { version: 1, ..Model::default() };
    let mut story = Story { nodes, observer, operator, session, base: model.clone(), model };
    for step in steps {
        if step.reread {
            story.reread().await;
        }
        match step.way {
            Way::Library => story.meanwhile(&step.meanwhile).await,
            Way::Sql => story.meanwhile_in_sql(&step.meanwhile, true).await,
            Way::RolledBack => story.meanwhile_in_sql(&step.meanwhile, false).await,
        }
        story.save(&step.acts, step.checked).await;
    }
    let fresh = nodes[1].get(story.session.id()).bypass_cache().await.unwrap().unwrap();
    assert_shows(&fresh, &story.model);
    assert!(nodes[0].delete(fresh.id()).await.unwrap());
}

#[test]
fn the_tables_hold_what_the_model_holds_after_any_story() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let world = World::new();
    let (a, b) = runtime.block_on(async { (world.node().await, world.node().await) });
    let (observer, operator) = runtime.block_on(async { (world.client().await, world.operator().await) });
    let config = Config { cases: 120, failure_persistence: None, ..Config::default() };
    TestRunner::new(config)
        .run(&proptest::collection::vec(step(), 1..8), |steps| {
            runtime.block_on(tell([&a, &b], [&observer, &operator], steps));
            Ok(())
        })
        .unwrap();
}
