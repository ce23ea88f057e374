//! Spans: what waits for the database has one, a hit has none, and a statement follows from its callers.

use std::sync::{Arc, Mutex};

use pg_session::{SessionManager, UserId};
use tracing::subscriber::DefaultGuard;
use tracing::{Instrument, Subscriber, span};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry};

use crate::support::World;

/// A line for each span and each link, without what is not of this library.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<Vec<String>>>);

impl Seen {
    fn subscribe(&self) -> DefaultGuard {
        tracing::subscriber::set_default(Registry::default().with(self.clone()))
    }

    fn add(&self, line: String) {
        self.0.lock().unwrap().push(line);
    }

    /// The lines since the last look.
    fn take(&self) -> Vec<String> {
        let mut lines = std::mem::take(&mut *self.0.lock().unwrap());
        lines.retain(|line| line.contains("pg_session."));
        lines
    }
}

struct Fields(String);

impl tracing::field::Visit for Fields {
    fn record_debug(&mut self, field: &tracing::field::Field, value: &dyn std::fmt::Debug) {
        self.0.push_str(&format!("{}={value:?};", field.name()));
    }
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for Seen {
    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        let mut fields = Fields(String::new());
        attributes.record(&mut fields);
        let parent = context.span(id).and_then(|span| Some(span.parent()?.name())).unwrap_or("none");
        self.add(format!("{}{{{}}} in {parent}", attributes.metadata().name(), fields.0));
    }

    fn on_follows_from(&self, span: &span::Id, follows: &span::Id, context: Context<'_, S>) {
        let name = |id| context.span(id).map_or("none", |span| span.name());
        self.add(format!("{} follows from {}", name(span), name(follows)));
    }
}

async fn request<T>(work: impl Future<Output = T>) -> T {
    work.instrument(tracing::info_span!("request")).await
}

#[tokio::test]
async fn what_waits_has_a_span_and_a_hit_has_none() {
    let world = World::new();
    let (node, other): (SessionManager, SessionManager) = (world.node().await, world.node().await);
    let seen = Seen::default();
    let _guard = seen.subscribe();

    let session = request(async { other.create(UserId::from(1)).await }).await.unwrap();
    let id = session.id();
    let statement = "pg_session.statement follows from pg_session.write";
    assert_eq!(
        seen.take(),
        [
            "pg_session.write{kind=\"create\";} in request",
            "pg_session.statement{kind=\"create\";requests=1;} in none",
            statement,
        ]
    );

    assert!(!request(async { node.get(id).await }).await.unwrap().unwrap().is_from_cache());
    assert_eq!(
        seen.take(),
        [
            "pg_session.load{} in request",
            "pg_session.statement{kind=\"load\";requests=1;} in none",
            "pg_session.statement follows from pg_session.load",
        ]
    );
    assert!(request(async { node.get(id).await }).await.unwrap().unwrap().is_from_cache());
    assert_eq!(seen.take(), [""; 0], "a hit has no span");

    let lease = request(async { node.locks().try_lock("report").await }).await.unwrap();
    assert_eq!(seen.take(), ["pg_session.lock_wait{} in request"]);
    drop(lease);

    // Two callers, one statement, two links.
    let mut sessions = [node.create(2).await.unwrap(), node.create(3).await.unwrap()];
    for session in &mut sessions {
        session.set("theme", "dark").unwrap();
    }
    seen.take();
    let [a, b] = &mut sessions;
    let (a, b) = tokio::join!(request(async { node.save(a).await }), request(async { node.save(b).await }));
    a.unwrap();
    b.unwrap();
    let lines = seen.take();
    let links = lines.iter().filter(|line| *line == statement).count();
    let statements =
        lines.iter().filter(|line| line.starts_with("pg_session.statement{kind=\"update\"")).count();
    assert_eq!(
        (links, lines.iter().filter(|line| line.ends_with(" in request")).count()),
        (2, 2),
        "{lines:?}"
    );
    assert!((1..=2).contains(&statements), "{lines:?}");
    let id = id.expose().to_string();
    assert!(lines.iter().all(|line| !line.contains(&id) && !line.contains("theme")), "{lines:?}");
}
