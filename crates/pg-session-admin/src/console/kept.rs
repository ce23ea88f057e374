//! [`Kept`]: an answer that is shown for a while, because the question is expensive.

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

/// Asks one question at a time. A failure is kept as well.
#[derive(Debug)]
pub(super) struct Kept<T> {
    age_max: Duration,
    answer: Mutex<Option<(Instant, Result<T, String>)>>,
}

impl<T: Clone> Kept<T> {
    pub(super) fn new(age_max: Duration) -> Self {
        Self { age_max, answer: Mutex::default() }
    }

    pub(super) async fn get(&self, ask: impl Future<Output = Result<T, String>>) -> Result<T, String> {
        let mut kept = self.answer.lock().await;
        if let Some((at, answer)) = &*kept
            && at.elapsed() < self.age_max
        {
            return answer.clone();
        }
        let answer = ask.await;
        *kept = Some((Instant::now(), answer.clone()));
        answer
    }
}
