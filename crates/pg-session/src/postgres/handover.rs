//! Gives each outcome of an attempt to one request that waits.
//!
//! Attempts and requests are not tied to each other. A request that gives up leaves its attempt to the next request:
//!
//! ```text
//! attempts running ≥ requests waiting
//! ```
//!
//! [`ask`](Handover::ask) starts an attempt to keep this. Each attempt that ends, in whatever way, serves one request. So no
//! request waits for an attempt that does not exist.
//!
//! **Nothing of another owner runs while the lock is held**: no task is started, woken or dropped. A runtime that ends drops
//! a task in place of starting it, and the dropped task takes the lock.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// The requests that wait for outcomes, and the attempts that run for them.
#[derive(Debug)]
pub(super) struct Handover<T, E>(Mutex<State<T, E>>);

#[derive(Debug)]
struct State<T, E> {
    /// In the order of their arrival.
    waiting: VecDeque<oneshot::Sender<Result<T, E>>>,
    running: usize,
    /// A success that no request waited for, or that one has not read. At most one is kept.
    spare: Option<T>,
    is_closed: bool,
}

/// A request, and the attempt that it starts.
type Asked<T, E> = (Waiting<T, E>, Option<Running<T, E>>);

impl<T, E> Handover<T, E> {
    pub(super) fn new() -> Arc<Self> {
        let state = State { waiting: VecDeque::new(), running: 0, spare: None, is_closed: false };
        Arc::new(Self(Mutex::new(state)))
    }

    /// A request waits, and starts an attempt if it gets one. `None` after [`close`](Handover::close).
    pub(super) fn ask(self: &Arc<Self>) -> Option<Asked<T, E>> {
        let mut state = self.lock();
        if state.is_closed {
            return None;
        }
        let (sender, outcome) = oneshot::channel();
        state.waiting.retain(|request| !request.is_closed());
        state.waiting.push_back(sender);
        let starts = state.running < state.waiting.len();
        state.running += usize::from(starts);
        drop(state);
        let waiting = Waiting { handover: Arc::clone(self), outcome };
        Some((waiting, starts.then(|| Running { handover: Arc::clone(self), is_done: false })))
    }

    /// Takes the success that no request waited for.
    pub(super) fn take_spare(&self) -> Option<T> {
        self.lock().spare.take()
    }

    /// Ends the wait of all requests. Later outcomes are dropped.
    pub(super) fn close(&self) {
        let mut state = self.lock();
        state.is_closed = true;
        let ended = (std::mem::take(&mut state.waiting), state.spare.take());
        drop(state);
        drop(ended);
    }

    /// Gives an outcome to the first request that still waits. Returns whether it is kept for a later one.
    fn give(&self, mut outcome: Result<T, E>) -> bool {
        loop {
            let mut state = self.lock();
            let Some(request) = state.waiting.pop_front() else {
                return match outcome {
                    Ok(success) if state.spare.is_none() && !state.is_closed => {
                        state.spare = Some(success);
                        true
                    }
                    unused => {
                        drop(state);
                        drop(unused);
                        false
                    }
                };
            };
            drop(state);
            match request.send(outcome) {
                Ok(()) => return false,
                Err(unsent) => outcome = unsent,
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<T, E>> {
        // Only the allocator can panic while the lock is held.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A request that waits. If it is dropped with an outcome that it has not read, the next request gets it.
#[derive(Debug)]
pub(super) struct Waiting<T, E> {
    handover: Arc<Handover<T, E>>,
    outcome: oneshot::Receiver<Result<T, E>>,
}

impl<T, E> Waiting<T, E> {
    /// Returns `None` if the attempt was aborted.
    pub(super) async fn outcome(&mut self) -> Option<Result<T, E>> {
        (&mut self.outcome).await.ok()
    }
}

impl<T, E> Drop for Waiting<T, E> {
    fn drop(&mut self) {
        self.outcome.close();
        // The failure of an attempt is of no use to a later request.
        if let Ok(Ok(success)) = self.outcome.try_recv() {
            self.handover.give(Ok(success));
        }
    }
}

/// An attempt that has not ended. One that is dropped ends the wait of one request.
#[derive(Debug)]
pub(super) struct Running<T, E> {
    handover: Arc<Handover<T, E>>,
    is_done: bool,
}

impl<T, E> Running<T, E> {
    /// Serves one request. Returns whether the outcome is kept for a later one.
    pub(super) fn end(mut self, outcome: Result<T, E>) -> bool {
        self.is_done = true;
        self.handover.lock().running -= 1;
        self.handover.give(outcome)
    }
}

impl<T, E> Drop for Running<T, E> {
    fn drop(&mut self) {
        if self.is_done {
            return;
        }
        let mut state = self.handover.lock();
        state.running -= 1;
        let request = state.waiting.pop_front();
        drop(state);
        drop(request);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// ```text
    /// request 1   waits ────────────── gives up
    /// attempt            1 is served ┊
    /// request 2          waits       ┊           served
    /// ```
    #[tokio::test]
    async fn an_outcome_that_is_not_read_serves_the_next_request() {
        let handover = Handover::<u32, &str>::new();
        let (first, attempt) = handover.ask().unwrap();
        let (mut second, other) = handover.ask().unwrap();
        assert!(!attempt.unwrap().end(Ok(1)));
        drop(first);
        assert_eq!(second.outcome().await, Some(Ok(1)));

        assert!(other.unwrap().end(Ok(2)), "no request waits");
        assert_eq!(handover.take_spare(), Some(2));
    }

    /// ```text
    /// request 1   waits ── gives up
    /// attempt     ─────────────────────────── ends
    /// request 2                      waits ── served
    /// ```
    #[tokio::test]
    async fn a_request_takes_over_the_attempt_of_one_that_gave_up() {
        let handover = Handover::<u32, &str>::new();
        let (first, attempt) = handover.ask().unwrap();
        drop(first);
        let (mut second, other) = handover.ask().unwrap();
        assert!(other.is_none(), "an attempt runs");
        attempt.unwrap().end(Ok(1));
        assert_eq!(second.outcome().await, Some(Ok(1)));
    }

    #[tokio::test]
    async fn an_aborted_attempt_leaves_no_request_without_one() {
        let handover = Handover::<u32, &str>::new();
        let (gone, abandoned) = handover.ask().unwrap();
        let (mut first, attempt) = handover.ask().unwrap();
        drop(gone);
        let (mut second, other) = handover.ask().unwrap();
        assert!(other.is_none(), "two attempts run for two requests");
        drop(attempt);
        assert_eq!(first.outcome().await, None);
        drop(abandoned);
        assert_eq!(second.outcome().await, None);
    }

    #[tokio::test]
    async fn a_closed_handover_serves_no_request() {
        let handover = Handover::<u32, &str>::new();
        let (mut first, attempt) = handover.ask().unwrap();
        handover.close();
        assert_eq!(first.outcome().await, None);
        assert!(!attempt.unwrap().end(Ok(1)), "nothing is kept");
        assert!(handover.ask().is_none());
    }
}
