//! A TCP proxy that does to connections what networks do to them, on demand.
//!
//! One task accepts, one task per connection forwards; all of them watch one value, the [`Faults`]
//! of the moment. A fault is looked up after bytes have been read and before they are written. So
//! **it applies to what is sent after the call has returned**. Bytes that were on their way already
//! may still pass.

mod acceptor;
mod connection;
mod faults;
mod lane;
mod url;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    num::NonZeroU64,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{net::TcpListener, sync::watch, task::AbortHandle};

use crate::error::{Error, ErrorKind};

pub use faults::Direction;
use faults::{Faults, PerDirection};

/// A TCP proxy on 127.0.0.1, in front of a server, with faults on demand. Dropping it closes everything.
///
/// Switches take effect on open connections as soon as the call returns. They apply to what is sent
/// later. They add up, until [`heal`](Self::heal) ends them all.
#[derive(Debug)]
#[must_use = "a proxy that is dropped closes its connections"]
pub struct Proxy {
    addr: SocketAddr,
    server: watch::Sender<SocketAddr>,
    faults: watch::Sender<Faults>,
    counts: Arc<Counts>,
    acceptor: AbortHandle,
}

/// What has been counted, shared with the tasks.
#[derive(Debug)]
struct Counts {
    open: watch::Sender<usize>,
    forwarded: PerDirection<AtomicU64>,
}

impl Proxy {
    /// Starts a proxy on a free port that forwards to `server`. It runs on the current tokio runtime, and ends with it.
    ///
    /// # Errors
    /// [`ErrorKind::Port`] if it cannot listen on 127.0.0.1.
    ///
    /// # Panics
    /// Outside a tokio runtime with I/O and time enabled, as tokio does.
    pub async fn start(server: SocketAddr) -> Result<Self, Error> {
        let no_port = |error: io::Error| {
            Error::caused(ErrorKind::Port, "the proxy could not listen on 127.0.0.1", error)
        };
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.map_err(no_port)?;
        let addr = listener.local_addr().map_err(no_port)?;
        let faults = watch::Sender::new(Faults::default());
        let counts =
            Arc::new(Counts { open: watch::Sender::new(0), forwarded: PerDirection::of(AtomicU64::default) });
        let server = watch::Sender::new(server);
        let accepting = acceptor::run(listener, server.subscribe(), faults.subscribe(), Arc::clone(&counts));
        let acceptor = tokio::spawn(accepting).abort_handle();
        Ok(Self { addr, server, faults, counts, acceptor })
    }

    /// Where the proxy listens.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// `url`, but through this proxy: the same user, database and parameters, with the proxy's host and port.
    ///
    /// # Panics
    /// If `url` is not of the form `scheme://…`: a test with such a mistake should end there.
    #[must_use]
    pub fn url_for(&self, url: &str) -> String {
        url::with_addr(url, self.addr)
    }

    /// Forwards new connections to `server`, as after a failover or a change of a name in DNS. Open ones are left alone.
    pub fn redirect(&self, server: SocketAddr) {
        self.server.send_replace(server);
    }

    /// Closes every connection that is open now (the peers see a reset, or the end of the stream). New ones are accepted.
    pub fn cut(&self) {
        self.change(|faults| faults.cuts += 1);
    }

    /// Forgets every connection that is open now, as a firewall forgets idle ones. Nothing passes
    /// any more, not even an end, and no side learns of it. New ones are forwarded.
    /// [`heal`](Self::heal) does not bring them back; [`cut`](Self::cut) closes them.
    pub fn forget(&self) {
        self.change(|faults| faults.losses += 1);
    }

    /// Refuses new connections until [`accept`](Self::accept) or [`heal`](Self::heal): they are reset as soon as
    /// they are made. Open ones are left alone.
    pub fn refuse(&self) {
        self.change(|faults| faults.refusing = true);
    }

    /// Accepts new connections again.
    pub fn accept(&self) {
        self.change(|faults| faults.refusing = false);
    }

    /// Holds every chunk back for this long, in both directions; [`Duration::ZERO`] ends it. Chunks overtake none and wait
    /// beside each other, as on a long wire: latency grows, throughput stays.
    pub fn delay(&self, delay: Duration) {
        self.change(|faults| faults.delay = delay);
    }

    /// Lets this many bytes a second pass, in each direction of each connection, in bursts of a tenth of that; 0 ends it.
    /// What does not pass yet waits, and the sender feels it.
    pub fn throttle(&self, bytes_per_second: u64) {
        self.change(|faults| faults.throttle = NonZeroU64::new(bytes_per_second));
    }

    /// Half-open: connections stay, nothing arrives in either direction, not even their end. Bytes are held, not lost;
    /// [`heal`](Self::heal) delivers them in order. New connections are made, and hang.
    pub fn stall(&self) {
        self.change(|faults| faults.stalled = true);
    }

    /// Swallows everything in one direction, the end of the stream included; the other direction goes on.
    ///
    /// **The bytes are lost for good.** A connection that lost some makes no sense any more, so [`heal`](Self::heal)
    /// cuts it.
    pub fn drop_direction(&self, direction: Direction) {
        self.change(|faults| faults.dropped[direction] = true);
    }

    /// Cuts each connection as soon as this many more bytes have passed in that direction; connections to come are
    /// counted from their beginning. With 0 the first byte to arrive cuts, and does not pass:
    /// `cut_after(0, Direction::ToClient)` loses the answer to a request that the server has carried out.
    pub fn cut_after(&self, bytes: u64, direction: Direction) {
        self.change(|faults| faults.allow(direction, bytes));
    }

    /// Back to plain forwarding: ends every fault, the refusal of connections included. Held bytes are delivered;
    /// connections that lost bytes are cut.
    pub fn heal(&self) {
        self.change(Faults::heal);
    }

    /// How many connections are open: accepted, and not closed by both sides, cut or refused.
    #[must_use]
    pub fn connections(&self) -> usize {
        *self.counts.open.borrow()
    }

    /// Waits until exactly this many connections are open. It has no limit of its own: put it under a timeout.
    ///
    /// # Cancel safety
    /// Safe: nothing changes by waiting.
    pub async fn wait_for_connections(&self, connections: usize) {
        let mut open = self.counts.open.subscribe();
        // Fails only if the sender is gone, and `self` holds it.
        let _ = open.wait_for(|open| *open == connections).await;
    }

    /// How many bytes have passed in that direction, over all connections. What is held or lost does not count.
    #[must_use]
    pub fn bytes(&self, direction: Direction) -> u64 {
        self.counts.forwarded[direction].load(Ordering::Relaxed)
    }

    fn change(&self, change: impl FnOnce(&mut Faults)) {
        self.faults.send_modify(change);
    }
}

impl Drop for Proxy {
    /// The tasks end by themselves when the faults' sender is gone; aborting closes the listener sooner.
    fn drop(&mut self) {
        self.change(|faults| faults.cuts += 1);
        self.acceptor.abort();
    }
}
