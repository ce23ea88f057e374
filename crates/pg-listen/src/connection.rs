//! One connection, driven by us: its messages and the answers to what was sent over it, in one place.
//!
//! The driver's `Connection` does the reading and writing only while it is polled, and its own `Future` swallows
//! notifications; so [`Connection::next`] polls `poll_message`. Statements run beside it **in the same task**. The
//! driver hands answers over in a channel of two places. While that is full, it stops reading the socket. A caller
//! that holds the future of a statement without polling it would stop all notifications. So only this file holds such
//! futures.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::oneshot;
use tokio_postgres::tls::{MakeTlsConnect, TlsConnect};
use tokio_postgres::{AsyncMessage, Client, Config, Notification, Socket};

use crate::error::Error;
use crate::notify_query::NotifyQuery;

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;
type DriverError = tokio_postgres::Error;

/// The reply to a caller that sends a notification.
pub(crate) type Sender = oneshot::Sender<Result<(), Error>>;

/// The time for an orderly close. After it, the socket is dropped.
const GOODBYE_MAX: Duration = Duration::from_secs(1);

/// Opens connections; hides the type of the TLS connector.
pub(crate) trait Connect: Send + Sync {
    fn connect(&self, config: Config) -> BoxFuture<Result<Opened, DriverError>>;
}

/// What the driver makes: the client, and the connection that has to be polled for it.
pub(crate) struct Opened {
    pub(crate) client: Client,
    pub(crate) connection: Box<dyn Messages>,
}

impl<T> Connect for T
where
    T: MakeTlsConnect<Socket> + Clone + Send + Sync + 'static,
    T::Stream: Send,
    T::TlsConnect: Send,
    <T::TlsConnect as TlsConnect<Socket>>::Future: Send,
{
    fn connect(&self, config: Config) -> BoxFuture<Result<Opened, DriverError>> {
        let tls = self.clone();
        Box::pin(async move {
            let (client, connection) = config.connect(tls).await?;
            Ok(Opened { client, connection: Box::new(connection) })
        })
    }
}

/// An open connection.
pub(crate) struct Connection {
    client: Arc<Client>,
    connection: Box<dyn Messages>,
    running: FuturesUnordered<BoxFuture<Answer>>,
}

/// What [`Connection::next`] comes back with.
#[derive(Debug)]
pub(crate) enum ConnectionEvent {
    Notification(Notification),
    /// Something that is only worth a line in the log, and has it.
    Notice,
    Answer(Answer),
    /// The connection has ended; `None` if the server closed it without a word.
    Ended(Option<DriverError>),
}

/// A statement is done.
#[derive(Debug)]
pub(crate) enum Answer {
    /// The one sent with [`Connection::control`] or [`Connection::control_notify`].
    Control(Result<(), DriverError>),
    /// One sent with [`Connection::notify`]; its sender has its answer.
    Notify,
}

impl Connection {
    pub(crate) fn new(Opened { client, connection }: Opened) -> Self {
        Self { client: Arc::new(client), connection, running: FuturesUnordered::new() }
    }

    /// Sends a statement of our own; the caller keeps it to one at a time.
    pub(crate) fn control(&mut self, statement: String) {
        let client = Arc::clone(&self.client);
        self.running.push(Box::pin(async move { Answer::Control(client.batch_execute(&statement).await) }));
    }

    /// The same for a notification of our own.
    pub(crate) fn control_notify(&mut self, query: NotifyQuery) {
        let client = Arc::clone(&self.client);
        self.running.push(Box::pin(async move { Answer::Control(query.send(&*client).await) }));
    }

    /// Sends a user's notification and reports the outcome to `sender`.
    pub(crate) fn notify(&mut self, query: NotifyQuery, sender: Sender) {
        let client = Arc::clone(&self.client);
        self.running.push(Box::pin(async move {
            let result = query.execute(&*client).await;
            drop(sender.send(result)); // a sender that has gone away does not want to know
            Answer::Notify
        }));
    }

    /// Waits for the next message or answer.
    ///
    /// # Cancel safety
    ///
    /// Cancel safe: everything in flight is kept here.
    pub(crate) async fn next(&mut self) -> ConnectionEvent {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// Statements first: a new one is sent only when it is polled, and during a flood the connection is always ready.
    /// The statements cannot starve the connection, because they need it to come to an end.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<ConnectionEvent> {
        if let Poll::Ready(Some(answer)) = self.running.poll_next_unpin(cx) {
            return Poll::Ready(ConnectionEvent::Answer(answer));
        }
        self.connection.poll_message(cx).map(|message| match message {
            Some(Ok(AsyncMessage::Notification(notification))) => ConnectionEvent::Notification(notification),
            Some(Ok(AsyncMessage::Notice(notice))) => {
                tracing::debug!(
                    severity = notice.severity(),
                    notice = notice.message(),
                    "notice from postgres"
                );
                ConnectionEvent::Notice
            }
            Some(Ok(_)) => ConnectionEvent::Notice,
            Some(Err(error)) => ConnectionEvent::Ended(Some(error)),
            None => ConnectionEvent::Ended(None),
        })
    }

    /// Says goodbye, so that the server's process ends at once; gives up after [`GOODBYE_MAX`].
    pub(crate) async fn close(self) {
        let Self { client, mut connection, running } = self;
        drop(running);
        drop(client); // the driver says goodbye when its last client is gone
        let goodbye = poll_fn(|cx| {
            while let Some(Ok(_)) = std::task::ready!(connection.poll_message(cx)) {}
            Poll::Ready(())
        });
        if tokio::time::timeout(GOODBYE_MAX, goodbye).await.is_err() {
            tracing::debug!("no goodbye from postgres in time; closing the socket");
        }
    }
}

impl std::fmt::Debug for Connection {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Connection").field("running", &self.running.len()).finish_non_exhaustive()
    }
}

/// `tokio_postgres::Connection::poll_message` without the types of socket and TLS stream.
pub(crate) trait Messages: Send {
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<AsyncMessage, DriverError>>>;
}

impl<S, T> Messages for tokio_postgres::Connection<S, T>
where
    S: AsyncRead + AsyncWrite + Unpin + Send,
    T: AsyncRead + AsyncWrite + Unpin + Send,
{
    fn poll_message(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<AsyncMessage, DriverError>>> {
        tokio_postgres::Connection::poll_message(self, cx)
    }
}
