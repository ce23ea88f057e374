//! The end of a program's log, for error messages.

use std::{fs, path::Path};

/// How much of a log a message carries, in bytes.
const MESSAGE_LOG_BYTES_MAX: usize = 4 * 1024;

/// The end of a log from `begin` on, short enough for a message.
pub(crate) fn tail(log: &Path, begin: u64) -> String {
    match fs::read(log) {
        Ok(bytes) => {
            let begin = usize::try_from(begin).unwrap_or(0).min(bytes.len());
            let begin = begin.max(bytes.len().saturating_sub(MESSAGE_LOG_BYTES_MAX));
            String::from_utf8_lossy(&bytes[begin..]).trim().to_owned()
        }
        Err(error) => format!("(the log {} cannot be read: {error})", log.display()),
    }
}
