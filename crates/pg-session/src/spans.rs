//! Spans for traces: of what waits for the database. A hit has none.
//!
//! All have the target `pg_session::trace` and the level DEBUG. A statement carries the requests of many callers. It is a trace
//! of its own, and follows from the span of each caller.

use tracing::{Span, debug_span};

/// A read that memory could not answer.
pub(crate) fn load() -> Span {
    debug_span!(target: "pg_session::trace", "pg_session.load")
}

/// A write, from its queueing to its answer.
pub(crate) fn write(kind: &'static str) -> Span {
    debug_span!(target: "pg_session::trace", "pg_session.write", kind)
}

/// An attempt to take a lock, with the wait for it.
pub(crate) fn lock_wait() -> Span {
    debug_span!(target: "pg_session::trace", "pg_session.lock_wait")
}

/// A statement for these callers. They are asked for only if a subscriber wants the span.
pub(crate) fn statement(kind: &'static str, requests: usize, callers: impl FnOnce() -> Vec<Span>) -> Span {
    let span = debug_span!(target: "pg_session::trace", parent: None, "pg_session.statement", kind, requests);
    if !span.is_disabled() {
        for caller in callers() {
            span.follows_from(&caller);
        }
    }
    span
}
