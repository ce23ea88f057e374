//! The fencing token: what lets a resource refuse a holder who does not know yet that the lock is lost.

use std::fmt;

/// A number that is higher for each holder of a lock than for all before it.
///
/// No lock can stop a holder that was paused past the lease's end from finishing its write. The resource can: it
/// remembers the highest fence that it has seen, and refuses lower ones. In SQL:
///
/// ```sql
/// UPDATE report SET body = $1, fence = $2 WHERE id = $3 AND fence <= $2
/// ```
///
/// It grows across releases, expiries and crashes, and across a restored backup or a failover that
/// loses commits. It is the database's clock in microseconds, or one more than the fence before if
/// that is higher. **Only a database clock that is set back, together with a lost row, can repeat a
/// fence.** Do not compare fences of different locks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Fence(i64);

impl Fence {
    pub(crate) fn new(number: i64) -> Self {
        debug_assert!(number > 0, "the table's check keeps fences positive");
        Self(number)
    }

    /// The number, as a column of type `bigint` takes it. Positive.
    #[must_use]
    pub fn get(self) -> i64 {
        self.0
    }
}

impl From<Fence> for i64 {
    fn from(fence: Fence) -> Self {
        fence.0
    }
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
