//! Waiting for something that sends no signal: ask, nap, ask again, until a limit.

use std::{
    thread,
    time::{Duration, Instant},
};

/// The pause between two questions: short beside the tens of milliseconds that PostgreSQL takes to do anything.
const POLL_INTERVAL: Duration = Duration::from_millis(5);

/// Asks until `question` has an answer, at most for `limit`; `Ok(None)` means that the time is up.
///
/// # Errors
/// What `question` fails with ends the waiting.
pub(crate) fn poll<T, E>(
    limit: Duration,
    mut question: impl FnMut() -> Result<Option<T>, E>,
) -> Result<Option<T>, E> {
    let deadline = Instant::now() + limit;
    loop {
        // Ask once more after the deadline has passed: a paused process must not time out without having looked.
        let late = Instant::now() >= deadline;
        if let Some(answer) = question()? {
            return Ok(Some(answer));
        }
        if late {
            return Ok(None);
        }
        thread::sleep(POLL_INTERVAL);
    }
}
