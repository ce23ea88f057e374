//! Password files as libpq's: `host:port:database:user:password` on each line, the first that fits counts.
//!
//! <https://www.postgresql.org/docs/current/libpq-pgpass.html>

use std::path::Path;

use tokio_postgres::Config;
use tokio_postgres::config::Host;

use super::connection_string::fault;
use crate::error::Error;

/// The largest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The password for the first host of `config`.
///
/// # Errors
/// The file cannot be read, or others than its owner can read it, too.
pub(super) fn find(path: &Path, config: &Config) -> Result<Option<String>, Error> {
    let unreadable = |error: std::io::Error| {
        fault("has a `passfile` that cannot be read; correct its path or its rights")
            .with_source(error.to_string())
    };
    let about = std::fs::metadata(path).map_err(unreadable)?;
    if !is_private(&about) {
        return Err(fault("has a `passfile` that others can read; make it private: chmod 0600"));
    }
    if !about.is_file() || about.len() > FILE_BYTES_MAX {
        return Err(fault("has a `passfile` that is no file of 1 MiB at most; correct its path"));
    }
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    Ok(look_up(&text, &wanted(config)))
}

/// Host, port, database and user, as the lines name them.
fn wanted(config: &Config) -> [String; 4] {
    let host = match (config.get_hosts().first(), config.get_hostaddrs().first()) {
        (Some(Host::Tcp(host)), _) => host.clone(),
        (Some(Host::Unix(_)), _) => "localhost".to_owned(),
        (None, Some(address)) => address.to_string(),
        (None, None) => String::new(),
    };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    let user = config.get_user().unwrap_or_default();
    let database = config.get_dbname().unwrap_or(user);
    [host, port.to_string(), database.to_owned(), user.to_owned()]
}

fn look_up(text: &str, wanted: &[String; 4]) -> Option<String> {
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut fields = fields(line);
        let fits =
            wanted.iter().all(|wanted| fields.next().is_some_and(|field| field == "*" || field == *wanted));
        if fits { fields.next().filter(|password| !password.is_empty()) } else { None }
    })
}

/// The parts of a line between `:`. A `\` quotes the next character.
fn fields(line: &str) -> impl Iterator<Item = String> + '_ {
    let mut chars = line.chars().peekable();
    std::iter::from_fn(move || {
        chars.peek()?;
        let mut field = String::new();
        while let Some(char) = chars.next() {
            match char {
                '\\' => field.extend(chars.next()),
                ':' => break,
                other => field.push(other),
            }
        }
        Some(field)
    })
}

#[cfg(unix)]
fn is_private(about: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    about.permissions().mode() & 0o077 == 0
}

#[cfg(not(unix))]
fn is_private(_: &std::fs::Metadata) -> bool {
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str, config: &str) -> Option<String> {
        look_up(text, &wanted(&config.parse().unwrap()))
    }

    #[test]
    fn the_first_line_that_fits_has_the_password() {
        let text =
            "# a comment\nother:5432:app:me:no\ndb:*:app:me:p\\:w\\\\\ndb:5432:*:*:second\n::1:5:*:me:never";
        assert_eq!(found(text, "host=db dbname=app user=me").as_deref(), Some("p:w\\"));
        assert_eq!(found(text, "host=db dbname=more user=me").as_deref(), Some("second"));
        assert_eq!(found(text, "host=db dbname=more user=me port=1"), None);
        assert_eq!(found("\\:\\:1:5:*:me:six", "host=::1 port=5 dbname=d user=me").as_deref(), Some("six"));
        assert_eq!(found("localhost:*:*:*:sock", "host=/run/pg user=me").as_deref(), Some("sock"));
        assert_eq!(found("db:*:*:*", "host=db user=me"), None, "a line without a password");
    }
}
