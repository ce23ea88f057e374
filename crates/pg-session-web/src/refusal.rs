//! [`Refusal`]: the response that a client gets because of its session, instead of the handler's.

use std::fmt;
use std::sync::Arc;

/// A response that replaces the handler's: the request's changes were not saved, or its session could not be read.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub struct Refusal {
    /// The HTTP status.
    pub status: u16,
    /// The value of `content-type`.
    pub content_type: String,
    /// The body. By default one sentence for the client, without a secret.
    pub body: String,
}

impl Refusal {
    pub(crate) fn new(status: u16, sentence: &str) -> Self {
        Self { status, content_type: "text/plain; charset=utf-8".to_owned(), body: format!("{sentence}\n") }
    }
}

type Change = dyn Fn(&mut Refusal) + Send + Sync;

/// What the application makes of a refusal.
#[derive(Clone, Default)]
pub(crate) struct OnRefusal(Option<Arc<Change>>);

impl OnRefusal {
    pub(crate) fn new(change: impl Fn(&mut Refusal) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(change)))
    }

    pub(crate) fn apply(&self, mut refusal: Refusal) -> Refusal {
        if let Some(change) = &self.0 {
            change(&mut refusal);
        }
        refusal
    }

    pub(crate) fn is_set(&self) -> bool {
        self.0.is_some()
    }
}

impl fmt::Debug for OnRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_some() { "OnRefusal(set)" } else { "OnRefusal(default)" })
    }
}
