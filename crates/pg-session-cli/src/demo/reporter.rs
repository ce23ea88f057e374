//! [`Reporter`]: prints each step and its result, bounds its time, and returns the first failure.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::print;
use crate::failure::Failure;

/// How long one step may take: each takes milliseconds, or a few seconds on a machine that is busy.
const STEP_WAIT: Duration = Duration::from_secs(20);

/// Counts the steps.
#[derive(Debug)]
pub(super) struct Reporter {
    began: Instant,
    /// Acts that are numbered, and steps that held.
    acts: AtomicU64,
    steps: AtomicU64,
    act: Mutex<String>,
}

/// Why the story did not come to its end.
#[derive(Debug)]
pub(super) enum DemoError {
    /// A step did not hold.
    Step {
        /// What the act is called.
        act: String,
        /// What should have been; why it was not has been printed.
        step: String,
    },
    /// The output has no reader.
    Output(io::Error),
    /// The user asked for the end.
    Interrupted,
}

impl From<io::Error> for DemoError {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl Reporter {
    pub(super) fn new() -> Self {
        let (acts, steps) = (AtomicU64::new(0), AtomicU64::new(0));
        Self { began: Instant::now(), acts, steps, act: Mutex::new(String::new()) }
    }

    /// Begins an act of the story, with the next number.
    pub(super) fn act(&self, title: &str) -> Result<(), DemoError> {
        let number = self.acts.fetch_add(1, Ordering::Relaxed) + 1;
        self.begin(title, &format!("{number}  {title}"))
    }

    /// Begins what comes before or after the story.
    pub(super) fn frame(&self, title: &str) -> Result<(), DemoError> {
        self.begin(title, title)
    }

    fn begin(&self, title: &str, shown: &str) -> Result<(), DemoError> {
        title.clone_into(&mut self.current_act());
        Ok(print::headline(shown)?)
    }

    /// Runs one step, which answers with its figure and whatever the next ones need.
    ///
    /// # Errors
    /// [`DemoError::Step`] if it fails or takes too long.
    pub(super) async fn step<T>(
        &self,
        what: &str,
        work: impl Future<Output = Result<(String, T), Failure>>,
    ) -> Result<T, DemoError> {
        // On the heap, so that an act's future does not hold all of its steps' futures side by side.
        match tokio::time::timeout(STEP_WAIT, Box::pin(work)).await {
            Ok(Ok((figure, value))) => {
                self.steps.fetch_add(1, Ordering::Relaxed);
                print::held(what, &figure)?;
                Ok(value)
            }
            Ok(Err(failure)) => Err(self.failed(what, &failure)),
            Err(_) => Err(self
                .failed(what, &Failure::new(format!("it did not happen within {} s", STEP_WAIT.as_secs())))),
        }
    }

    /// A step that the circumstances do not allow.
    pub(super) fn skipped(&self, reason: &str) -> Result<(), DemoError> {
        Ok(print::aside(&format!("skipped: {reason}"))?)
    }

    /// Says that `step` did not hold in the current act, and why.
    pub(super) fn failed(&self, step: &str, failure: &Failure) -> DemoError {
        match print::failed(step, failure) {
            Ok(()) => DemoError::Step { act: self.current_act().clone(), step: step.to_owned() },
            Err(error) => DemoError::Output(error),
        }
    }

    /// Steps that held, and the time since the beginning.
    pub(super) fn so_far(&self) -> (u64, Duration) {
        (self.steps.load(Ordering::Relaxed), self.began.elapsed())
    }

    fn current_act(&self) -> MutexGuard<'_, String> {
        self.act.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
