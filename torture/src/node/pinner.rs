//! A pinner holds a pin, as a socket does, asks it again and again, and notes what it says.

use std::sync::Arc;
use std::time::Duration;

use pg_session::{Closed, Pin};
use tokio::sync::watch;
use uuid::Uuid;

use super::Node;
use super::client::Client;
use crate::clock::now;
use crate::history::{Entry, Pinned};

/// How long a pin is held: far longer than a session may seem to live after its end.
const HELD_MS: (u64, u64) = (1_000, 6_000);
/// Between two messages of the socket.
const MESSAGE_MS: (u64, u64) = (20, 60);
const PAUSE: Duration = Duration::from_millis(100);

pub(super) async fn run(node: Arc<Node>, number: usize, mut stopped: watch::Receiver<bool>) {
    let rng = node.rng.fork(0x9111 + number as u64);
    let mut client = Client::new(Arc::clone(&node), rng);
    loop {
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stopped| *stopped) => return,
            () = tokio::time::sleep(PAUSE) => {}
        }
        let Some((session, pin)) = client.pin_some().await else { continue };
        let held = client.rng().millis(HELD_MS.0, HELD_MS.1);
        let pinned = hold(&mut client, session, pin, held).await;
        node.journal.write(&Entry::Pinned(pinned));
    }
}

/// Until it ends, or for a while.
async fn hold(client: &mut Client, session: Uuid, pin: Pin, held: Duration) -> Pinned {
    let mut pinned = Pinned { session, alive: 0, ended: None, unproved: 0 };
    let until = tokio::time::Instant::now() + held;
    while tokio::time::Instant::now() < until {
        let at = now();
        match pin.check() {
            Ok(()) => pinned.alive = at,
            Err(Closed::Ended(cause)) => {
                pinned.ended = Some((now(), cause.to_string()));
                return pinned;
            }
            Err(_) => pinned.unproved += 1,
        }
        let pause = client.rng().millis(MESSAGE_MS.0, MESSAGE_MS.1);
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // A holder waits for the end, too.
            _ = pin.ended() => {}
        }
    }
    pinned
}
