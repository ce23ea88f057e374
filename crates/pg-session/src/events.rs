//! What this node does, and what it observes of the cluster, as a stream of events.
//!
//! The channel is bounded. A reader that does not keep up loses the oldest events, and gets their number. The senders never wait.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use tokio::sync::broadcast;
use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use crate::cause::Cause;
use crate::handle::Handle;
use crate::id::{GroupId, Scope, SessionId, UserId};

/// Events that a reader may be behind.
const EVENTS_MAX: usize = 1_024;

/// Something that has happened to sessions, or to this node.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum Event {
    /// A session was created on this node.
    Created {
        /// The session.
        session: Handle,
        /// `None` for an anonymous session.
        user: Option<UserId>,
    },
    /// This node has given a session a new id.
    Rotated {
        /// The handle of the old id.
        from: Handle,
        /// The handle of the new id.
        to: Handle,
        /// The user of the new id.
        user: Option<UserId>,
    },
    /// A session has ended, on any node.
    Ended {
        /// The session.
        session: Handle,
        /// Its user. `None` for an anonymous session, and if the node had the session neither in memory nor pinned.
        user: Option<UserId>,
        /// Why.
        cause: Cause,
    },
    /// Sessions of a user have ended, on any node. All but one, perhaps.
    UserEnded {
        /// The user.
        user: UserId,
        /// Why.
        cause: Cause,
    },
    /// The sessions of a group have ended, on any node.
    GroupEnded {
        /// The group.
        group: GroupId,
        /// Why.
        cause: Cause,
    },
    /// All sessions have ended.
    AllEnded {
        /// Why.
        cause: Cause,
    },
    /// This node serves from memory.
    Trusted,
    /// This node reads from the database until it is trusted again. Sessions may end meanwhile without an event.
    Untrusted,
    /// The reader was too slow: this many events are lost.
    Lagged(u64),
}

/// The events since [`SessionManager::events`](crate::SessionManager::events) was called.
#[derive(Debug)]
pub struct Events {
    receiver: broadcast::Receiver<Event>,
    ended: CancellationToken,
}

impl Events {
    /// Waits for the next event. `None` when the node was [shut down](crate::SessionManager::shutdown), or the last clone of its
    /// manager was dropped, behind the last event.
    ///
    /// # Cancel safety
    /// Dropping the future loses no event.
    pub async fn next(&mut self) -> Option<Event> {
        let received = tokio::select! {
            // What came before the end is not lost.
            biased;
            received = self.receiver.recv() => received,
            () = self.ended.cancelled() => return None,
        };
        match received {
            Ok(event) => Some(event),
            Err(RecvError::Lagged(count)) => Some(Event::Lagged(count)),
            Err(RecvError::Closed) => None,
        }
    }
}

/// Where the events come from.
#[derive(Debug)]
pub(crate) struct EventSender {
    sender: broadcast::Sender<Event>,
    /// The users of sessions that this node ends. The notification of an end may come when the memory has dropped it already.
    ending: Mutex<VecDeque<(SessionId, UserId)>>,
    ended: CancellationToken,
}

impl Default for EventSender {
    fn default() -> Self {
        Self {
            sender: broadcast::Sender::new(EVENTS_MAX),
            ending: Mutex::default(),
            ended: CancellationToken::new(),
        }
    }
}

impl EventSender {
    pub(crate) fn subscribe(&self) -> Events {
        Events { receiver: self.sender.subscribe(), ended: self.ended.clone() }
    }

    /// The node has been shut down. Clones of its manager may live on.
    pub(crate) fn end(&self) {
        self.ended.cancel();
    }

    /// Makes the event only if a reader exists.
    pub(crate) fn send(&self, event: impl FnOnce() -> Event) {
        if self.has_readers() {
            // An error means that the last reader has gone meanwhile.
            let _ = self.sender.send(event());
        }
    }

    pub(crate) fn trust_changed(&self, is_trusted: bool) {
        self.send(|| if is_trusted { Event::Trusted } else { Event::Untrusted });
    }

    pub(crate) fn has_readers(&self) -> bool {
        self.sender.receiver_count() > 0
    }

    pub(crate) fn ending(&self, id: SessionId, user: UserId) {
        if !self.has_readers() {
            return;
        }
        let mut ending = self.ending.lock().unwrap_or_else(PoisonError::into_inner);
        if ending.len() == EVENTS_MAX {
            ending.pop_front();
        }
        ending.push_back((id, user));
    }

    /// The user of a session that this node has ended. It is forgotten then.
    pub(crate) fn take_ending(&self, id: SessionId) -> Option<UserId> {
        let mut ending = self.ending.lock().unwrap_or_else(PoisonError::into_inner);
        let at = ending.iter().position(|(ended, _)| *ended == id)?;
        ending.remove(at).map(|(_, user)| user)
    }

    pub(crate) fn scope_ended(&self, scope: Scope, cause: Cause) {
        self.send(|| match scope {
            Scope::User(user) => Event::UserEnded { user, cause },
            Scope::Group(group) => Event::GroupEnded { group, cause },
            Scope::All => Event::AllEnded { cause },
        });
    }
}
