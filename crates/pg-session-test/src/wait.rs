//! Waiting for an outcome instead of sleeping.

use std::time::{Duration, Instant};

/// How long [`eventually`] and the kit's own steps wait for something that should take milliseconds.
pub const WAIT_MAX: Duration = Duration::from_secs(30);
/// The pause between two looks.
const PAUSE: Duration = Duration::from_millis(2);

/// Waits until `condition` returns true. It is called again every 2 ms.
///
/// # Panics
/// With `what`, if the condition is still false after [`WAIT_MAX`].
pub async fn eventually(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let began = Instant::now();
    while !in_time(what, condition()).await {
        assert!(began.elapsed() < WAIT_MAX, "did not happen within {WAIT_MAX:?}: {what}");
        tokio::time::sleep(PAUSE).await;
    }
}

pub(crate) async fn in_time<F: IntoFuture>(what: &str, future: F) -> F::Output {
    match tokio::time::timeout(WAIT_MAX, future).await {
        Ok(output) => output,
        Err(_) => panic!("did not happen within {WAIT_MAX:?}: {what}"),
    }
}
