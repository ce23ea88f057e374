//! The sorts of errors, for callers that branch.

/// The sort of an [`Error`](crate::Error).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting of the builder cannot work. Found by [`start`](crate::Builder::start), before anything is
    /// done.
    Config,
    /// Not a channel's name: empty, longer than [`CHANNEL_BYTES_MAX`](crate::CHANNEL_BYTES_MAX), or with a
    /// NUL.
    Channel,
    /// Not a payload: longer than [`PAYLOAD_BYTES_MAX`](crate::PAYLOAD_BYTES_MAX), or with a NUL.
    Payload,
    /// There is no connection now, or it was lost before the answer came: **what was asked for may or may not
    /// have happened.**
    Connection,
    /// PostgreSQL answered with an error (`source()` has it); nothing was done.
    Database,
    /// A connection pooler answers in PostgreSQL's place. Behind it, notifications would be missed without a word.
    Pooler,
    /// The server refuses this configuration: its role, password, database, options or TLS settings. It keeps refusing
    /// until one side changes.
    Refused,
    /// No PostgreSQL answers at the address: the host's name is unknown, the host is unreachable or silent, or the port is
    /// closed or another service's. A server that is down looks the same.
    Unreachable,
    /// A proxy or pooler answers with an error that PostgreSQL itself does not use here (SQLSTATE class 08 or XX). It may
    /// have no server to lead to now, or the address is wrong.
    Proxy,
    /// The provider of the connection settings failed, panicked or gave no answer in time. It is asked again for the next
    /// attempt.
    Provider,
    /// A limit of the listener is reached; ask again when there is less in flight.
    Overloaded,
    /// The listener has been shut down.
    Closed,
}
