//! One connection through the proxy: two lanes, one task.
//!
//! Both lanes are in one task. So one place decides about the connection, between two steps:
//! whether to cut it, whether it lost bytes, whether it is finished.

use std::{sync::Arc, time::Duration};

use socket2::SockRef;
use tokio::{net::TcpStream, sync::watch::Receiver};

use super::{
    Counts,
    faults::{Direction, Faults},
    lane::{Lane, Step},
};

/// A client, the server, and what is between them.
#[derive(Debug)]
pub(super) struct Connection {
    client: Arc<TcpStream>,
    server: Arc<TcpStream>,
    requests: Lane,
    answers: Lane,
    /// How often everything had been cut when this connection was accepted.
    cuts: u64,
    /// The same for how often all were forgotten.
    losses: u64,
    counts: Arc<Counts>,
}

impl Connection {
    pub(super) fn new(client: TcpStream, server: TcpStream, born: &Faults, counts: &Arc<Counts>) -> Self {
        // Small writes go out at once, or Nagle's delay would look like a fault. A socket that refuses this is dying.
        let _ = client.set_nodelay(true);
        let (client, server) = (Arc::new(client), Arc::new(server));
        Self {
            requests: Lane::new(Direction::ToServer, &client, &server),
            answers: Lane::new(Direction::ToClient, &server, &client),
            client,
            server,
            cuts: born.cuts,
            losses: born.losses,
            counts: Arc::clone(counts),
        }
    }

    /// Forwards until both sides have ended, one of them breaks, or a fault cuts.
    pub(super) async fn run(mut self, mut faults: Receiver<Faults>) {
        loop {
            let now = *faults.borrow_and_update();
            if self.must_be_cut(&now) {
                return self.reset();
            }
            if now.losses != self.losses {
                match faults.changed().await {
                    Ok(()) => continue,
                    Err(_) => return self.reset(),
                }
            }
            if self.requests.is_finished() && self.answers.is_finished() {
                return;
            }
            let (ready, lane) = tokio::select! {
                changed = faults.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return self.reset(),
                },
                ready = self.requests.ready(&now), if !self.requests.is_finished() => (ready, &mut self.requests),
                ready = self.answers.ready(&now), if !self.answers.is_finished() => (ready, &mut self.answers),
            };
            // Looked up again: they may have changed while this waited, and what was held must not pass them by.
            let now = *faults.borrow();
            if now.cuts != self.cuts {
                return self.reset();
            }
            if now.losses != self.losses {
                continue;
            }
            match lane.step(ready, &now, &self.counts) {
                Step::Moved => {}
                Step::Cut => return self.reset(),
                // Dropping the sockets sends their end after what was written, so the allowed bytes arrive.
                Step::Spent => return,
            }
        }
    }

    fn must_be_cut(&self, now: &Faults) -> bool {
        now.cuts != self.cuts || self.requests.is_broken(now) || self.answers.is_broken(now)
    }

    fn reset(&self) {
        reset(&self.client);
        reset(&self.server);
    }
}

/// Makes the kernel answer with a reset when the socket is closed, as a crashed machine would.
pub(super) fn reset(stream: &TcpStream) {
    // If it cannot be set the peer sees the end of the stream instead: a cut as well.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}
