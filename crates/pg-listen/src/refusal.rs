//! Why a connection could not be made: a mistake in the configuration, an address without a server, or an outage.

use std::error::Error as _;
use std::io;

use tokio_postgres::error::DbError;

use crate::error_kind::ErrorKind;
use crate::pooler_check;

/// The classes of SQLSTATE with which a server says that it cannot serve *now*: connection exceptions, resources,
/// operator intervention, system errors, internal errors.
const OUTAGE_CLASSES: [&str; 5] = ["08", "53", "57", "58", "XX"];

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
        // A connection that breaks during the handshake is an outage; TLS itself reports invalid data, or no `io::Error`.
        None | Some(io::ErrorKind::InvalidData) if text.starts_with("error performing TLS handshake") => {
            ErrorKind::Refused
        }
        Some(cause) if text.starts_with("error connecting to server") && cause != io::ErrorKind::TimedOut => {
            ErrorKind::Unreachable
        }
        _ => ErrorKind::Connection,
    }
}

fn kind_of_answer(answer: &DbError) -> ErrorKind {
    if pooler_check::names_a_pooler(answer) {
        return ErrorKind::Pooler;
    }
    let is_outage = OUTAGE_CLASSES.iter().any(|class| answer.code().code().starts_with(class));
    if is_outage { ErrorKind::Connection } else { ErrorKind::Refused }
}
