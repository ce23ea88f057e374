//! The contenders. Each is a store of numbered sessions that can be read, updated and created.

pub(crate) mod bare;
pub(crate) mod bare_batches;
pub(crate) mod bare_inserts;
pub(crate) mod ours;
pub(crate) mod pool;
pub(crate) mod redis;
pub(crate) mod tower_sessions;

use anyhow::bail;
use async_trait::async_trait;

/// A contender under load. An operation that is not measured with this contender fails.
#[async_trait]
pub(crate) trait Peer: Send + Sync + 'static {
    /// Fills the contender's own memory with every numbered session, if it has one.
    async fn warm(&self) -> anyhow::Result<()> {
        Ok(())
    }

    /// Reads all attributes of a session; fails if it is not there.
    async fn read(&self, session: usize) -> anyhow::Result<()>;

    /// Writes the counter attribute and returns when that is acknowledged.
    async fn update(&self, session: usize, count: u64) -> anyhow::Result<()>;

    /// Creates another session and returns when that is acknowledged.
    async fn create(&self) -> anyhow::Result<()> {
        bail!("this contender's creates are not measured")
    }

    /// What the numbered sessions hold, in the order of their numbers, asked of the store itself.
    async fn stored(&self) -> anyhow::Result<Vec<Stored>>;

    /// The number of sessions in the store.
    async fn rows(&self) -> anyhow::Result<u64>;
}

/// What one session holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Stored {
    /// The counter attribute: updates that are in it.
    pub(crate) count: u64,
    /// The session's version, if the store has any; each update adds one to it.
    pub(crate) version: Option<u64>,
}
