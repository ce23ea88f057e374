//! Whether a connection leads directly to PostgreSQL, so that a statement prepared on it stays there.
//!
//! A connection with the mark of `pooler` in its startup packet does. Any other is asked.
//!
//! At its start, the server names the process that a cancel request would reach. PostgreSQL names the process that serves
//! the connection. A pooler gives server processes to its clients in turn, so it must name one of its own. The driver does
//! not show the name. It writes it into a cancel request, so one is written into memory and read.
//!
//! The answer is known for each connection: a name can change its address while a node runs.

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};

use deadpool_postgres::{ClientWrapper, StatementCache};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, DuplexStream, ReadBuf};
use tokio_postgres::CancelToken;
use tokio_postgres::tls::{ChannelBinding, TlsConnect, TlsStream};

use super::failure::Failure;
use super::statement::query_value;
use super::{role_settings, unexpected};

/// The code of the packet that asks for TLS:
/// <https://www.postgresql.org/docs/current/protocol-message-formats.html>.
const TLS_REQUEST: i32 = 80_877_103;
/// More than both packets.
const REQUEST_BYTES: usize = 64;

/// Where a connection leads.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reach {
    /// Directly to PostgreSQL, with the settings of `pooler::pin`.
    Pinned,
    /// Directly to PostgreSQL.
    Direct,
    /// Through a pooler, which may give it another server process each time.
    Pooled,
}

/// What is known of the connections of one pool.
#[derive(Debug, Default)]
pub(crate) struct Reaches(Mutex<HashMap<usize, (Weak<StatementCache>, Known)>>);

#[derive(Clone, Copy, Debug)]
struct Known {
    reach: Reach,
    /// Whether its settings were checked.
    is_sound: bool,
}

impl Reaches {
    /// Asks a connection once, unless it is known.
    pub(super) async fn of(&self, connection: &ClientWrapper) -> Result<Reach, Failure> {
        if let Some(known) = self.known(connection) {
            return Ok(known.reach);
        }
        let reach = if is_direct(connection).await? { Reach::Direct } else { Reach::Pooled };
        self.learn(connection, Known { reach, is_sound: false });
        Ok(reach)
    }

    /// As [`of`](Self::of), for a connection that is to carry statements. Later connections may have other settings than
    /// those that were checked at the start.
    ///
    /// # Errors
    /// As [`role_settings::check`].
    pub(super) async fn of_sound(&self, connection: &ClientWrapper) -> Result<Reach, Failure> {
        if let Some(known) = self.known(connection).filter(|known| known.is_sound) {
            return Ok(known.reach);
        }
        role_settings::check(connection).await?;
        let reach = self.of(connection).await?;
        self.learn(connection, Known { reach, is_sound: true });
        Ok(reach)
    }

    /// The connection has the mark, and sound settings.
    pub(super) fn learn_pinned(&self, connection: &ClientWrapper) {
        self.learn(connection, Known { reach: Reach::Pinned, is_sound: true });
    }

    fn known(&self, connection: &ClientWrapper) -> Option<Known> {
        self.lock().get(&address(connection)).map(|entry| entry.1)
    }

    fn learn(&self, connection: &ClientWrapper, known: Known) {
        let mut all = self.lock();
        // At most the connections of the pool, and those that ended since the last new one.
        all.retain(|_, (cache, _)| cache.strong_count() > 0);
        all.insert(address(connection), (Arc::downgrade(&connection.statement_cache), known));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<usize, (Weak<StatementCache>, Known)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Identifies a connection. The weak reference beside it keeps the address from being used again.
fn address(connection: &ClientWrapper) -> usize {
    Arc::as_ptr(&connection.statement_cache).addr()
}

/// Whether the process that answers is the one that the connection's start has named.
pub(super) async fn is_direct(connection: &ClientWrapper) -> Result<bool, Failure> {
    let named = named_process(&connection.cancel_token()).await.map_err(unexpected)?;
    Ok(process(connection).await? == named)
}

/// The process that serves the connection at this moment.
pub(super) async fn process(connection: &ClientWrapper) -> Result<i32, Failure> {
    query_value(connection, "SELECT pg_catalog.pg_backend_pid()", &[]).await
}

async fn named_process(token: &CancelToken) -> io::Result<i32> {
    let (driver, mut server) = tokio::io::duplex(REQUEST_BYTES);
    let read = async move {
        loop {
            // The length, and what kind of packet it is.
            server.read_i32().await?;
            if server.read_i32().await? != TLS_REQUEST {
                return server.read_i32().await;
            }
            server.write_u8(b'S').await?;
        }
    };
    let (_, process) = tokio::join!(token.cancel_query_raw(driver, InMemory), read);
    process
}

/// Represents TLS where the request goes nowhere.
struct InMemory;

impl TlsConnect<DuplexStream> for InMemory {
    type Stream = Memory;
    type Error = Infallible;
    type Future = Ready<Result<Memory, Infallible>>;

    fn connect(self, stream: DuplexStream) -> Self::Future {
        ready(Ok(Memory(stream)))
    }
}

struct Memory(DuplexStream);

impl TlsStream for Memory {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl AsyncRead for Memory {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, buffer)
    }
}

impl AsyncWrite for Memory {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}
