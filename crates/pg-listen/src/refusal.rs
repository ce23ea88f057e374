//! Why a connection could not be made: a mistake in the configuration, an address without a server, or an outage.

use std::error::Error as _;
use std::io;

use tokio_postgres::error::DbError;

use crate::error_kind::ErrorKind;
use crate::pooler_check;

/// The classes of SQLSTATE with which a server says that it cannot serve *now*: resources, operator intervention, system
/// errors.
const OUTAGE_CLASSES: [&str; 3] = ["53", "57", "58"];

/// Connection exceptions and internal errors. PostgreSQL never answers our startup packet with them. Proxies and poolers do,
/// where they have no better code.
const PROXY_CLASSES: [&str; 2] = ["08", "XX"];

/// What proxies answer to a client whose settings are wrong. They do not translate it. Anything else may be an outage behind
/// them, or too many clients.
const PROXY_REFUSALS: [&str; 8] = [
    "no such database",
    "no such user",
    "not found",
    "does not exist",
    "authentication failed",
    "auth failed",
    "login rejected",
    "ssl required",
];

/// How the driver's errors begin about a server that has ended the connection, or whose answer has no meaning.
const NO_ANSWERS: [&str; 5] = [
    "connection closed",
    "error communicating with the server",
    "error parsing response from server",
    "error performing TLS handshake",
    "unexpected message from server",
];

/// The kind of error that a failed attempt to connect is.
pub(crate) fn kind(error: &tokio_postgres::Error) -> ErrorKind {
    if let Some(answer) = error.as_db_error() {
        return kind_of_answer(answer);
    }
    // The driver tells its own errors apart by text only.
    let text = error.to_string();
    let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
    match cause {
        _ if text.starts_with("invalid configuration") || text.starts_with("authentication error") => {
            ErrorKind::Refused
        }
        // TLS itself reports invalid data, or no `io::Error`.
        None | Some(io::ErrorKind::InvalidData) if text.starts_with("error performing TLS handshake") => {
            ErrorKind::Refused
        }
        Some(_) if text.starts_with("error connecting to server") => ErrorKind::Unreachable,
        // It accepts connections, and ends them or does not answer as PostgreSQL does: another service, or a proxy without a server.
        _ if NO_ANSWERS.iter().any(|start| text.starts_with(start)) => ErrorKind::Unreachable,
        _ => ErrorKind::Connection,
    }
}

/// Whether the server answers, and is no primary as `target_session_attrs` asks.
pub(crate) fn is_read_only(error: &tokio_postgres::Error) -> bool {
    error.source().is_some_and(|cause| cause.to_string() == "database does not allow writes")
}

fn kind_of_answer(answer: &DbError) -> ErrorKind {
    if pooler_check::names_a_pooler(answer) {
        return ErrorKind::Pooler;
    }
    let is_of = |classes: &[&str]| classes.iter().any(|class| answer.code().code().starts_with(class));
    let message = answer.message().to_lowercase();
    if is_of(&PROXY_CLASSES) && !PROXY_REFUSALS.iter().any(|text| message.contains(text)) {
        ErrorKind::Proxy
    } else if is_of(&OUTAGE_CLASSES) {
        ErrorKind::Connection
    } else {
        ErrorKind::Refused
    }
}
