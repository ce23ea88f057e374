//! Password files as libpq's: `host:port:database:user:password` on each line, the first that fits counts.
//!
//! <https://www.postgresql.org/docs/current/libpq-pgpass.html>

use std::path::Path;

use tracing::warn;

use tokio_postgres::Config;
use tokio_postgres::config::Host;

use super::connection_string::fault;
use crate::error::Error;

/// The largest file that is read, in bytes.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// The password for each host of `config`. As by libpq, a file that others than its owner can read is not used.
///
/// # Errors
/// The file cannot be read.
pub(super) fn find(path: &Path, config: &Config) -> Result<Vec<Option<String>>, Error> {
    let unreadable = |error: std::io::Error| {
        fault("has a `passfile` that cannot be read; correct its path or its rights")
            .with_source(error.to_string())
    };
    let about = std::fs::metadata(path).map_err(unreadable)?;
    if !about.is_file() || about.len() > FILE_BYTES_MAX {
        warn!("the `passfile` is not used, because it is no file of 1 MiB at most; correct its path");
        return Ok(Vec::new());
    }
    if !is_private(&about) {
        warn!("the `passfile` is not used, because others can read it; make it private: chmod 0600");
        return Ok(Vec::new());
    }
    let bytes = std::fs::read(path).map_err(unreadable)?;
    Ok(look_up_all(&text_of(&bytes), config))
}

/// The lines that are UTF-8. Another one does not hide those of other hosts.
fn text_of(bytes: &[u8]) -> String {
    let lines = bytes.split(|&byte| byte == b'\n').map(std::str::from_utf8);
    if lines.clone().any(|line| line.is_err()) {
        warn!("a line of the `passfile` is not used, because it is not UTF-8; write it as UTF-8");
    }
    lines.flatten().collect::<Vec<_>>().join("\n")
}

fn look_up_all(text: &str, config: &Config) -> Vec<Option<String>> {
    let hosts = config.get_hosts().len().max(config.get_hostaddrs().len());
    (0..hosts).map(|number| look_up(text, &Wanted::of(config, number))).collect()
}

/// What a line has to name.
struct Wanted {
    /// Any of these.
    hosts: Vec<String>,
    /// Port, database and user.
    others: [String; 3],
}

impl Wanted {
    /// For the host with this place in the list.
    fn of(config: &Config, number: usize) -> Self {
        let hosts = match (config.get_hosts().get(number), config.get_hostaddrs().get(number)) {
            (Some(Host::Tcp(host)), _) => vec![host.clone()],
            // libpq wants `localhost` for the directory that it was built with, and the path of any other.
            #[cfg(unix)]
            (Some(Host::Unix(path)), _) => vec!["localhost".to_owned(), path.display().to_string()],
            (None, Some(address)) => vec![address.to_string()],
            (None, None) => Vec::new(),
        };
        let ports = config.get_ports();
        let port = ports.get(number).or(ports.first()).copied().unwrap_or(5432);
        let user = config.get_user().unwrap_or_default();
        let database = config.get_dbname().unwrap_or(user);
        Self { hosts, others: [port.to_string(), database.to_owned(), user.to_owned()] }
    }
}

fn look_up(text: &str, wanted: &Wanted) -> Option<String> {
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut fields = fields(line);
        let is_host = fields.next().is_some_and(|field| field == "*" || wanted.hosts.contains(&field));
        let mut is_other =
            |wanted: &String| fields.next().is_some_and(|field| field == "*" || field == *wanted);
        let fits = is_host && wanted.others.iter().all(&mut is_other);
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
        look_up_all(text, &config.parse().unwrap()).swap_remove(0)
    }

    #[test]
    fn a_line_that_is_not_utf_8_hides_no_other() {
        let text = text_of(b"# caf\xe9\nother:*:*:*:p\xe4ss\r\ndb:*:*:me:good\r\n");
        assert_eq!(found(&text, "host=db user=me").as_deref(), Some("good"));
        assert_eq!(found(&text, "host=other user=me"), None);
    }

    #[test]
    fn each_host_has_its_own_line() {
        let text = "a:1:*:me:first\nb:2:*:me:second\n*:9:*:me:third";
        let all = |config: &str| look_up_all(text, &config.parse().unwrap());
        let some = |password: &str| Some(password.to_owned());
        assert_eq!(all("host=a,b,c port=1,2,9 user=me"), [some("first"), some("second"), some("third")]);
        assert_eq!(all("host=b,a,c port=2,1,3 user=me"), [some("second"), some("first"), None]);
        assert_eq!(all("hostaddr=10.0.0.1,10.0.0.2 port=9 user=me"), [some("third"), some("third")]);
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
        assert_eq!(found("/run/pg:*:*:*:sock", "host=/run/pg user=me").as_deref(), Some("sock"));
        assert_eq!(found("db:*:*:*", "host=db user=me"), None, "a line without a password");
    }
}
