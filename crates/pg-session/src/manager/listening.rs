//! Whether the node receives notifications, and why not: at start as an error that names the setting, later in the status.

use std::time::Duration;

use pg_listen::{ErrorKind as ListenError, Event, Listener, Phase};

use super::Node;
use crate::config::ListenerPath;
use crate::error::{Error, ErrorKind};
use crate::notification::Token;
use crate::postgres::Database;

/// Where the address of the listener comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    /// The connection string of the pool.
    Pool,
    ListenOn,
    ListenOnUrl,
    /// The application made the listener.
    Application,
}

/// How a start without a mistake in the configuration ended.
pub(super) enum Begun {
    Trusted,
    /// An outage, which may pass; with its cause.
    Untrusted(String),
}

impl Way {
    /// What the user corrects.
    fn setting(self) -> &'static str {
        match self {
            Self::Pool => "the connection string",
            Self::ListenOn => "`listen_on`",
            Self::ListenOnUrl => "`listen_on_url`",
            Self::Application => "the configuration of the listener that is given to `listener`",
        }
    }
}

/// Fails if what the pool commits does not reach the listener. For a start that is about to make tables: a mistake in
/// `listen_on` leaves none behind.
///
/// An outage is no error here, unless it is one of [`begin_listening`](Node::begin_listening).
pub(super) async fn prove_path(
    listener: &Listener,
    database: &Database,
    way: Way,
    path: ListenerPath,
    wait_max: Duration,
) -> Result<(), Error> {
    // Not the nodes' own channel, whose payloads they parse.
    let channel = format!("{}_start", database.names().channel());
    let payload = format!("{:032x}", Token::random().0);
    let mut events = listener.subscribe(&channel).await.map_err(from_listener_error)?;
    let mut is_sent = false;
    let proof = async {
        listener.wait_connected().await.map_err(|error| refused(way, error))?;
        while let Some(event) = events.recv().await {
            match event {
                Event::Listening => match database.notify_on(&channel, &payload).await {
                    Ok(()) => is_sent = true,
                    Err(failure) => {
                        let error = failure.into_read_error();
                        return if error.is_retryable() { Ok(()) } else { Err(error) };
                    }
                },
                Event::Notification(notification) if notification.payload() == payload => return Ok(()),
                _ => {}
            }
        }
        Ok(())
    };
    match tokio::time::timeout(wait_max, proof).await {
        Ok(outcome) => outcome,
        Err(_) if is_sent && listener.status().phase() == Phase::InSync => Err(another_server(path)),
        Err(_) => unreached(listener, way).map_or(Ok(()), Err),
    }
}

/// A listener that reaches nothing, by another address than the pool's.
fn unreached(listener: &Listener, way: Way) -> Option<Error> {
    let status = listener.status();
    let absent = match status.last_error_kind() {
        _ if status.is_connected() => None,
        Some(ListenError::Unreachable) => Some("no server"),
        Some(ListenError::Proxy) => Some("a proxy or pooler that has no connection for it"),
        _ => None,
    };
    // The pool has just reached the address that it shares with the listener: there, only an outage is left.
    let absent = absent.filter(|_| way != Way::Pool)?;
    let message = format!("the listener reaches {absent}; correct host and port of {}", way.setting());
    let cause = status.last_error().unwrap_or_default().to_owned();
    Some(Error::new(ErrorKind::Unavailable, message).with_source(cause))
}

/// The pool's notifications do not reach the listener.
fn another_server(path: ListenerPath) -> Error {
    let message = match path {
        ListenerPath::Direct => {
            "the listener did not receive a notification that the pool committed: they reach different databases or \
             servers; correct `listen_on` (host, port and dbname), or the address of the pool"
        }
        ListenerPath::SessionPooler => {
            "the listener did not receive a notification that the pool committed: its pooler is not in session mode, or \
             leads to another database or server than the pool; correct the pooler (pgbouncer: pool_mode = session) or \
             `listen_on`"
        }
    };
    Error::new(ErrorKind::Config, message)
}

impl Node {
    /// Waits until the node is trusted, for `wait_max`. An error is a mistake in the configuration. An outage is none: it
    /// passes.
    pub(super) async fn begin_listening(&self, way: Way, wait_max: Duration) -> Result<Begun, Error> {
        let mut changes = self.trust.watch();
        let begin = async {
            self.listener.wait_connected().await.map_err(|error| refused(way, error))?;
            // An error means that the sender is gone, which `self` keeps.
            let _ = changes.wait_for(|trust| self.core.policy.clock.now() < trust.until).await;
            Ok(())
        };
        match tokio::time::timeout(wait_max, begin).await {
            Ok(begun) => return begun.map(|()| Begun::Trusted),
            Err(_) if self.receives_another_server() => return Err(self.another_server()),
            Err(_) => {}
        }
        if let Some(error) = unreached(&self.listener, way) {
            return Err(error);
        }
        Ok(Begun::Untrusted(self.trust_error()))
    }

    /// Why the node is not trusted.
    pub(super) fn trust_error(&self) -> String {
        if let Some(ended) = self.trust.ended() {
            return ended.error().to_string();
        }
        let status = self.listener.status();
        let failed = status.last_error().filter(|_| status.failures() > 0);
        if !status.is_connected() {
            let cause = failed.unwrap_or("no answer yet");
            return format!("the listener is not connected: {cause}");
        }
        let attempts = self.prover.watch().borrow().clone();
        match (attempts.error, failed) {
            (Some(error), _) => format!(
                "no notification could be sent through the pool: {}",
                crate::error::chain(error.as_ref())
            ),
            (None, _) if attempts.unreceived > 0 => self.another_server().to_string(),
            (None, Some(cause)) => {
                format!("the listener is connected again and not in sync yet, after: {cause}")
            }
            (None, None) => "the listener has received no notification from the pool yet".to_owned(),
        }
    }

    fn another_server(&self) -> Error {
        another_server(self.core.config.listener_path)
    }

    /// Whether the listener works, and has not received what the pool committed.
    fn receives_another_server(&self) -> bool {
        self.listener.status().phase() == Phase::InSync && self.prover.watch().borrow().committed
    }
}

/// A listener that its server refuses.
fn refused(way: Way, error: pg_listen::Error) -> Error {
    let message = match error.kind() {
        ListenError::Pooler => format!(
            "the listener is behind a connection pooler, which loses notifications; give it PostgreSQL's own address {}; if only \
             a pooler in session mode can be reached, set `listener_path = \"session_pooler\"`",
            if way == Way::Application {
                "with `pg_listen::Listener::builder`"
            } else {
                "with `listen_on_url`"
            },
        ),
        ListenError::Refused => {
            format!(
                "PostgreSQL refused the connection of the listener, see the cause; correct {} (user, password, dbname or sslmode)",
                way.setting()
            )
        }
        _ => return from_listener_error(error),
    };
    Error::new(ErrorKind::Config, message).with_source(error)
}

pub(super) fn from_listener_error(error: pg_listen::Error) -> Error {
    Error::new(ErrorKind::Config, "the listener could not be started; look at its cause").with_source(error)
}
