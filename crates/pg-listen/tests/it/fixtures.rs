//! The scene of every test: one server for the binary, a proxy per test, and readers with a deadline.
//!
//! Nothing waits by sleeping: every wait is for an event or a condition, and [`WAIT_MAX`] only says when to give up.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use pg_listen::{Builder, Event, Listener, LostReason, Subscription};
use pg_sandbox::{Proxy, Sandbox};
use tokio::time::timeout;
use tokio_postgres::{Client, Config, NoTls};
use uuid::Uuid;

/// When a test gives up. Far above what anything takes, so that a busy machine fails nothing.
pub(crate) const WAIT_MAX: Duration = Duration::from_secs(30);

/// A barrier timeout for tests with faults: short, and still long enough for a busy machine.
pub(crate) const TIMEOUT: Duration = Duration::from_millis(1_000);

/// An interval that never comes: the test decides when there are barriers.
pub(crate) const NEVER: Duration = Duration::from_secs(3_600);

/// The server of all tests that do not restart it. It logs statements, so that tests can look at what was sent.
pub(crate) static SANDBOX: LazyLock<Sandbox> = LazyLock::new(|| {
    Sandbox::builder()
        .setting("max_connections", "200")
        .setting("log_statement", "all")
        .start()
        .expect("PostgreSQL for the tests")
});

/// A listener behind a proxy, known to the server by a name of its own.
pub(crate) struct Proxied {
    pub(crate) proxy: Proxy,
    pub(crate) name: String,
    config: Config,
    direct: Config,
}

impl Proxied {
    pub(crate) async fn new() -> Self {
        Self::on(&SANDBOX).await
    }

    pub(crate) async fn on(sandbox: &Sandbox) -> Self {
        let proxy = Proxy::start(sandbox.addr()).await.unwrap();
        let name = unique("listener");
        let mut config: Config = proxy.url_for(&sandbox.url()).parse().unwrap();
        config.application_name(&name);
        let direct = sandbox.url().parse().unwrap();
        Self { proxy, name, config, direct }
    }

    /// A listener with quick reactions: barriers of its own four times a second.
    pub(crate) fn listener(&self) -> Builder {
        Listener::builder(self.config.clone())
            .barrier_interval(Duration::from_millis(250))
            .barrier_timeout(TIMEOUT)
            .connect_timeout(TIMEOUT)
            .backoff(Duration::from_millis(10), Duration::from_millis(100))
    }

    /// A listener that sends barriers only when something asks for them.
    pub(crate) fn quiet_listener(&self) -> Builder {
        self.listener().barrier_interval(NEVER).barrier_timeout(WAIT_MAX)
    }

    /// A connection of an application, straight to the server.
    pub(crate) async fn client(&self) -> Client {
        let (client, connection) = self.direct.connect(NoTls).await.unwrap();
        tokio::spawn(connection);
        client
    }

    /// How many server processes serve this listener.
    pub(crate) async fn backends(&self, client: &Client) -> i64 {
        let count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = $1";
        client.query_one(count, &[&self.name]).await.unwrap().get(0)
    }

    /// Waits until the listener has this many server processes.
    pub(crate) async fn wait_for_backends(&self, client: &Client, backends: i64) {
        eventually("the listener's backends", async || self.backends(client).await == backends).await;
    }
}

/// A name that no other test uses.
pub(crate) fn unique(name: &str) -> String {
    format!("{name}_{}", &Uuid::new_v4().simple().to_string()[..12])
}

/// Sends one notification in a transaction of its own.
pub(crate) async fn notify(client: &Client, channel: &str, payload: &str) {
    client.execute("SELECT pg_notify($1, $2)", &[&channel, &payload]).await.unwrap();
}

/// The next event of any kind.
pub(crate) async fn next(subscription: &mut Subscription) -> Event {
    let event = timeout(WAIT_MAX, subscription.recv()).await.expect("an event in time");
    event.expect("the subscription is open")
}

/// The next event but `InSync`, which may come at any time, and keeps coming.
pub(crate) async fn next_but_in_sync(subscription: &mut Subscription) -> Event {
    let next = async {
        loop {
            match next(subscription).await {
                Event::InSync { .. } => {}
                event => return event,
            }
        }
    };
    timeout(WAIT_MAX, next).await.expect("an event besides InSync in time")
}

pub(crate) async fn expect_listening(subscription: &mut Subscription) {
    let event = next(subscription).await;
    assert!(matches!(event, Event::Listening), "{event:?}");
}

pub(crate) async fn expect_in_sync(subscription: &mut Subscription) -> Instant {
    match next(subscription).await {
        Event::InSync { as_of } => as_of,
        event => panic!("{event:?} instead of InSync"),
    }
}

/// `Listening`, then `InSync`, and nothing else.
pub(crate) async fn expect_start(subscription: &mut Subscription) -> Instant {
    expect_listening(subscription).await;
    expect_in_sync(subscription).await
}

/// A subscription that is in sync.
pub(crate) async fn started(listener: &Listener, channel: &str) -> Subscription {
    let mut subscription = listener.subscribe(channel).await.unwrap();
    expect_start(&mut subscription).await;
    subscription
}

pub(crate) async fn expect_payload(subscription: &mut Subscription) -> String {
    match next_but_in_sync(subscription).await {
        Event::Notification(notification) => notification.payload().to_owned(),
        event => panic!("{event:?} instead of a notification"),
    }
}

pub(crate) async fn expect_lost(subscription: &mut Subscription) -> LostReason {
    match next_but_in_sync(subscription).await {
        Event::Lost(reason) => reason,
        event => panic!("{event:?} instead of Lost"),
    }
}

/// Asks again and again until the answer is yes.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !holds().await {
        assert!(start.elapsed() < WAIT_MAX, "{what}: not within {WAIT_MAX:?}");
        tokio::time::sleep(Duration::from_millis(2)).await; // between two looks, not instead of one
    }
}

/// What is queued now, one letter an event: `L`istening, `n`otification, in `s`ync, `O`verflow, other loss `X`.
pub(crate) fn drain(subscription: &mut Subscription) -> (String, Vec<String>) {
    let (mut letters, mut payloads) = (String::new(), Vec::new());
    while let Some(event) = subscription.try_recv() {
        letters.push(match event {
            Event::Listening => 'L',
            Event::Notification(notification) => {
                payloads.push(notification.payload().to_owned());
                'n'
            }
            Event::InSync { .. } => 's',
            Event::Lost(LostReason::Overflow) => 'O',
            Event::Lost(_) => 'X',
            _ => '?',
        });
    }
    (letters, payloads)
}
