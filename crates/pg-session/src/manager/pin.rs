//! Pinning a session: registered first, then found alive, so that no end falls between the two.

use super::SessionManager;
use crate::cause::Cause;
use crate::error::Error;
use crate::pinning::look_up;
use crate::pins::{Closed, Life, Named, Pin};
use crate::postgres::failure::{Failure, Verdict};
use crate::session::Session;

impl SessionManager {
    /// Pins a session, so that a socket, a stream or a job ends with it. See [`Pin`].
    ///
    /// It asks the database if the session is not in memory. If the session has ended meanwhile, the pin says so. A pin of a
    /// [retired](Session::is_retired) id has ended, with [`Cause::Rotated`], and knows the [`successor`](Pin::successor).
    ///
    /// # Errors
    /// [`ErrorKind::Unavailable`](crate::ErrorKind::Unavailable) or [`ErrorKind::Timeout`](crate::ErrorKind::Timeout) if the
    /// database is needed and does not answer.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn pin(&self, session: &Session) -> Result<Pin, Error> {
        let node = &self.0;
        node.check_open()?;
        let (core, record) = (&node.core, session.record());
        let id = record.row.id;
        let pin = core.pins.register(id, Life::of(record));
        if pin.check() != Err(Closed::Unproved) {
            return Ok(pin);
        }
        if record.row.rotated {
            // It has ended. Only the database knows where it leads, and may have forgotten it.
            core.pins.doubt(Named::Sessions(&[id]), Some(Cause::Rotated));
        }
        let question = core.pins.question();
        if !record.row.rotated
            && let Some((known, _)) = node.hit(id)
            && !known.row.rotated
        {
            core.pins.alive(id, question, Life::of(&known));
            if pin.check() != Err(Closed::Unproved) {
                return Ok(pin);
            }
        }
        match look_up(core, &[id]).await {
            Ok(()) => {}
            // The node is not trusted. The next proof leads to another lookup, and the pin is not proved until then.
            Err(Failure { verdict: Verdict::WrongServer, .. }) => {}
            Err(_) if record.row.rotated => core.pins.end(id, Some(Cause::Rotated), None),
            Err(failure) => return Err(failure.into_read_error()),
        }
        Ok(pin)
    }
}

#[cfg(feature = "testing")]
impl SessionManager {
    /// Pinned sessions that are to be looked up.
    #[must_use]
    pub fn doubted_pins(&self) -> usize {
        self.0.core.pins.some_doubted(None, usize::MAX).len()
    }
}
