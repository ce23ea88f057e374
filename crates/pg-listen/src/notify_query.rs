//! One NOTIFY as a statement with parameters, for the application's own transaction.
//!
//! It goes through `pg_notify`, because `NOTIFY` takes no parameters and would need its payload pasted into
//! SQL. Barriers go the same way: as texts of their own, they would fill `pg_stat_statements`.

use tokio_postgres::GenericClient;
use tokio_postgres::types::{ToSql, Type};

use crate::channel::Channel;
use crate::error::Error;
use crate::error_kind::ErrorKind;

/// The longest payload, in bytes. PostgreSQL refuses 8 000 and more.
pub const PAYLOAD_BYTES_MAX: usize = 7_999;

const SQL: &str = "SELECT pg_catalog.pg_notify($1, $2)";

/// A notification to be sent inside a transaction of the application. It is sent **if and when that
/// transaction commits**, in the order of commits.
///
/// ```no_run
/// # async fn example(client: &mut tokio_postgres::Client) -> Result<(), Box<dyn std::error::Error>> {
/// let transaction = client.transaction().await?;
/// transaction.execute("UPDATE stock SET n = n - 1 WHERE item = 7", &[]).await?;
/// pg_listen::NotifyQuery::new("stock", "7")?.execute(&transaction).await?;
/// transaction.commit().await?; // only now do listeners learn of it
/// # Ok(())
/// # }
/// ```
///
/// PostgreSQL folds notifications of one transaction that have the same channel **and** the same payload into
/// one. A committing transaction that notifies holds a lock of the whole cluster through its commit: batch
/// where you can.
#[derive(Clone)]
#[must_use = "nothing is sent before `execute`"]
pub struct NotifyQuery {
    channel: Channel,
    payload: String,
}

impl NotifyQuery {
    /// Checks the channel and the payload.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Channel`] for an invalid name, [`ErrorKind::Payload`] for more than [`PAYLOAD_BYTES_MAX`]
    /// bytes or a NUL byte.
    pub fn new(channel: &str, payload: impl Into<String>) -> Result<Self, Error> {
        let channel = Channel::new(channel)?;
        let payload = payload.into();
        if payload.len() > PAYLOAD_BYTES_MAX {
            let message =
                format!("payload has {} bytes; send at most {PAYLOAD_BYTES_MAX} at once", payload.len());
            return Err(Error::new(ErrorKind::Payload, message));
        }
        if payload.contains('\0') {
            return Err(Error::new(
                ErrorKind::Payload,
                "payload holds a NUL byte; encode it, postgres cannot send one",
            ));
        }
        Ok(Self { channel, payload })
    }

    /// A payload of ours, which is short and has no NUL byte.
    pub(crate) fn ours(channel: Channel, payload: String) -> Self {
        debug_assert!(payload.len() <= PAYLOAD_BYTES_MAX, "a payload of ours is short");
        Self { channel, payload }
    }

    /// The statement, with the channel as `$1` and the payload as `$2`, both `text`.
    #[must_use]
    pub fn sql(&self) -> &'static str {
        SQL
    }

    /// The channel, for `$1`.
    #[must_use]
    pub fn channel(&self) -> &str {
        self.channel.as_str()
    }

    /// The payload, for `$2`.
    #[must_use]
    pub fn payload(&self) -> &str {
        &self.payload
    }

    /// Sends the statement on `client`: a connection, or a transaction of it. One round trip, nothing
    /// prepared, so that it also works through a pooler that hands out connections per transaction.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Database`] if PostgreSQL refuses (its queue is full, or the transaction has already
    /// failed), [`ErrorKind::Connection`] if the connection is gone.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not take the statement back once it is sent.
    pub async fn execute<C: GenericClient + Sync>(&self, client: &C) -> Result<(), Error> {
        self.send(client).await.map_err(Error::driver)
    }

    /// As [`execute`](Self::execute), with the driver's own error.
    pub(crate) async fn send<C: GenericClient + Sync>(
        &self,
        client: &C,
    ) -> Result<(), tokio_postgres::Error> {
        let channel = self.channel.as_str();
        let parameters: [(&(dyn ToSql + Sync), Type); 2] =
            [(&channel, Type::TEXT), (&self.payload, Type::TEXT)];
        client.query_typed(SQL, &parameters).await.map(drop)
    }
}

impl std::fmt::Debug for NotifyQuery {
    /// Without the payload: it may hold what no log should.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NotifyQuery")
            .field("channel", &self.channel)
            .field("payload_bytes", &self.payload.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn payload_limit_is_in_bytes_and_exact() {
        assert!(NotifyQuery::new("c", "x".repeat(7_999)).is_ok());
        assert!(NotifyQuery::new("c", "").is_ok());
        for payload in ["x".repeat(8_000), "é".repeat(4_000), "a\0b".to_owned()] {
            assert_eq!(NotifyQuery::new("c", payload).unwrap_err().kind(), ErrorKind::Payload);
        }
        assert_eq!(NotifyQuery::new("", "x").unwrap_err().kind(), ErrorKind::Channel);
    }

    #[test]
    fn debug_does_not_show_the_payload() {
        let query = NotifyQuery::new("c", "secret").unwrap();
        assert!(!format!("{query:?}").contains("secret"));
    }
}
