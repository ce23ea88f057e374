//! Nothing that logs a person in, and no attribute's value, gets into a log, a `Debug` output or an error.

use std::fmt::Debug;
use std::io::Write;
use std::sync::Once;

use pg_session::{SessionId, SessionManager, UpdateError};

use crate::captured_logs::{Capture, CapturedLogs};
use crate::support::World;

const VALUE: &str = "top-secret-4711";

/// Everything that is logs on this thread, through `tracing` and through the `log` facade of the driver.
fn listen(logs: &CapturedLogs) -> Capture {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&Facade).expect("no other code sets one");
        log::set_max_level(log::LevelFilter::Trace);
    });
    logs.listen()
}

fn add(logs: &CapturedLogs, text: &impl Debug) {
    writeln!(logs.clone(), "{text:?} {text:#?}").expect("memory takes it");
}

/// What the driver logs, to the capture of its thread.
struct Facade;

impl log::Log for Facade {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        CapturedLogs::here().is_some()
    }

    fn log(&self, record: &log::Record<'_>) {
        if let Some(mut logs) = CapturedLogs::here() {
            writeln!(logs, "{} {} {}", record.level(), record.target(), record.args())
                .expect("memory takes it");
        }
    }

    fn flush(&self) {}
}

/// An error and everything behind it.
fn add_chain(logs: &CapturedLogs, error: &(dyn std::error::Error + 'static)) {
    let mut next = Some(error);
    while let Some(error) = next {
        add(logs, &error);
        add(logs, &error.to_string());
        next = error.source();
    }
}

/// A little of everything that can be done with a session; returns the ids that were used.
async fn story(logs: &CapturedLogs, a: &SessionManager, b: &SessionManager) -> Vec<SessionId> {
    let create = a.create(1).set("token", VALUE);
    add(logs, &create);
    let mut session = create.await.unwrap();
    let other = b.create(1).set("token", VALUE).await.unwrap();
    let mut stale = b.get(session.id()).await.unwrap().unwrap();
    add(logs, &b.get(session.id()));
    session.set("more", &[VALUE]).unwrap();
    add(logs, &session);
    add(logs, &session.get_shared::<String>("token").unwrap().map(|_| "decoded"));
    add(logs, &a.save(&mut session));
    a.save(&mut session).check_attributes().await.unwrap();
    stale.set("more", VALUE).unwrap();
    add_chain(logs, &b.save(&mut stale).check_attributes().await.unwrap_err());
    add_chain(logs, &session.get::<u64>("token").unwrap_err());
    add_chain(logs, &session.get_shared::<u64>("token").unwrap_err());
    add_chain(logs, &session.set("token", &VALUE.repeat(10_000)).unwrap_err());
    a.catch_up().await.unwrap();
    a.user(1).evict().await.unwrap();
    a.delete(session.id()).await.unwrap();
    b.catch_up().await.unwrap();
    add_chain(logs, &b.save(&mut stale).await.unwrap_err());
    a.delete_many([other.id()]).await.unwrap();
    add(logs, &(a, b, a.status(), a.config()));
    vec![session.id(), other.id()]
}

/// The server's words about a refused row quote it in their detail.
async fn refused_story(logs: &CapturedLogs, world: &World, a: &SessionManager) -> Vec<SessionId> {
    let mut session = a.create(2).set("token", "fine").await.unwrap();
    let script = "ALTER TABLE sessions ADD CONSTRAINT refused CHECK (position('poison' IN attributes) = 0);
                  ALTER TABLE session_attributes ADD CONSTRAINT refused CHECK (key <> 'poison')";
    world.client().await.batch_execute(script).await.unwrap();
    for value in [VALUE.to_owned(), VALUE.repeat(60)] {
        session.set("poison", &value).unwrap();
        let refused = a.save(&mut session).await.unwrap_err();
        add_chain(logs, &refused);
        assert!(matches!(&refused, UpdateError::Failed(_)));
        add_chain(logs, &a.create(2).set("poison", &value).await.unwrap_err());
    }
    let text = session.id().expose().to_string();
    add_chain(logs, &text.to_uppercase().parse::<SessionId>().unwrap_err());
    // A table that is gone: every read and every write says so, once per id and once for all.
    world.client().await.batch_execute("ALTER TABLE sessions RENAME TO hidden").await.unwrap();
    add_chain(logs, &a.get(session.id()).bypass_cache().await.unwrap_err());
    add_chain(logs, &a.save(&mut session).await.unwrap_err());
    add_chain(logs, &a.delete(session.id()).await.unwrap_err());
    world.client().await.batch_execute("ALTER TABLE hidden RENAME TO sessions").await.unwrap();
    vec![session.id()]
}

#[tokio::test]
async fn no_log_no_debug_output_and_no_error_tells_an_id_or_a_value() {
    let world = World::new();
    let logs = CapturedLogs::default();
    let _listening = listen(&logs);
    let (a, b) = (world.node().await, world.node().await);
    let mut ids = story(&logs, &a, &b).await;
    ids.extend(refused_story(&logs, &world, &a).await);
    assert!(a.shutdown(std::time::Duration::from_secs(10)).await.is_complete());
    let text = logs.text();
    for control in ["tokio_postgres", "executing statement", "pg_session", "pg_listen", "SQLSTATE"] {
        assert!(text.contains(control), "{control:?} must be logs, or this test receives nothing");
    }
    let text = text.to_lowercase();
    assert!(!text.contains(VALUE), "a value: {}", around(&text, VALUE));
    for id in ids {
        for form in [id.expose().simple().to_string(), id.expose().hyphenated().to_string()] {
            assert!(!text.contains(&form), "a session id: {}", around(&text, &form));
        }
    }
}

fn around<'a>(text: &'a str, found: &str) -> &'a str {
    text.lines().find(|line| line.contains(found)).unwrap_or(text)
}
