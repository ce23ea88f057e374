//! Secrets of the command line: from a file, or from a variable.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use pg_session_admin::Secret;

/// The first line of a file or the value of a variable. The file wins. `None` if neither is there.
///
/// # Errors
/// A sentence that names the setting.
pub(super) fn read(file: Option<&Path>, option: &str, variable: &str) -> Result<Option<Secret>, String> {
    let (text, source) = match (file, std::env::var_os(variable)) {
        (Some(path), _) => {
            let text =
                fs::read_to_string(path).map_err(|error| format!("{option} {}: {error}", path.display()))?;
            (text, option)
        }
        (None, Some(value)) => {
            let text = OsString::into_string(value).map_err(|_| format!("{variable} is not text"))?;
            (text, variable)
        }
        (None, None) => return Ok(None),
    };
    Secret::new(text.trim()).map(Some).map_err(|failure| format!("{source}: {failure}"))
}
