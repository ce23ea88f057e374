//! The log output of one thread, for tests that search it: through `tracing`, and by code that asks for [`CapturedLogs::here`].
//!
//! One subscriber for the whole process, which hands each event to the listener of the thread that it comes from. Not one for
//! each test (`tracing::subscriber::set_default`): while a process has a single subscriber, the first thread at a callsite
//! decides for all whether it is received, *by its own subscriber*. The thread of another test has none, and the callsite
//! stays disabled.

use std::cell::RefCell;
use std::io::Write;
use std::sync::{Arc, Mutex, Once};

use tracing_subscriber::filter::{EnvFilter, LevelFilter, dynamic_filter_fn};
use tracing_subscriber::fmt::{self, writer::OptionalWriter};
use tracing_subscriber::{Layer as _, layer::SubscriberExt as _};

/// The captured text. Clones share it.
#[derive(Clone, Default)]
pub struct CapturedLogs(Arc<Mutex<Vec<u8>>>);

/// Listens until it is dropped.
#[must_use = "nothing is received without it"]
pub struct Capture(());

thread_local! {
    static LISTENER: RefCell<Option<CapturedLogs>> = const { RefCell::new(None) };
}

/// Sets the process's subscriber: for the listeners, at the finest level, and for the test's output what `RUST_LOG` asks for.
/// To be called before anything is logged, so that no callsite is met without it.
pub fn init() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Asked at each event: a listener comes and goes.
        let captured = fmt::layer()
            .with_ansi(false)
            .with_writer(|| OptionalWriter::from(CapturedLogs::here()))
            .with_filter(dynamic_filter_fn(|_, _| CapturedLogs::here().is_some()));
        let asked_for = EnvFilter::builder()
            .with_default_directive(LevelFilter::OFF.into())
            .from_env()
            .expect("RUST_LOG");
        let shown = fmt::layer().with_ansi(false).with_test_writer().with_filter(asked_for);
        let subscriber = tracing_subscriber::registry().with(captured).with(shown);
        tracing::subscriber::set_global_default(subscriber).expect("no other code sets one");
    });
    // What was met before is judged again.
    tracing::callsite::rebuild_interest_cache();
}

impl CapturedLogs {
    /// Captures what this thread logs from now on. The tasks of a test's runtime of one thread log here, too.
    pub fn listen(&self) -> Capture {
        init();
        LISTENER.with_borrow_mut(|listener| *listener = Some(self.clone()));
        Capture(())
    }

    /// This thread's listener. None in a thread that is ending, either.
    pub fn here() -> Option<Self> {
        LISTENER.try_with(|listener| listener.borrow().clone()).ok().flatten()
    }

    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).expect("log lines are text")
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        LISTENER.with_borrow_mut(|listener| *listener = None);
    }
}

impl Write for CapturedLogs {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}
