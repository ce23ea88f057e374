//! The value of an attribute, decoded once for all readers of the node.

use std::any::Any;
use std::sync::{Arc, OnceLock};

/// A value, once a caller has asked for it.
pub(crate) type Decoded = OnceLock<Arc<dyn Any + Send + Sync>>;
