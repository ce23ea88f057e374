//! What goes into `postgresql.conf`: our own lines, then the caller's, quoted so that a value stays a value.

use crate::{
    directory::Directory,
    error::{Error, ErrorKind},
};

/// Settings that the sandbox decides by itself: it would lose its server if they changed.
const OURS: [&str; 7] = [
    "config_file",
    "data_directory",
    "external_pid_file",
    "listen_addresses",
    "logging_collector",
    "port",
    "unix_socket_directories",
];

/// Longest value of a setting, in bytes: far above any sensible one, below what would fill a disk.
const VALUE_BYTES_MAX: usize = 64 * 1024;

/// The configuration of one server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Settings {
    durable: bool,
    callers: Vec<(String, String)>,
}

impl Settings {
    pub(crate) fn set_durable(&mut self, durable: bool) {
        self.durable = durable;
    }

    pub(crate) fn push(&mut self, name: &str, value: &str) {
        self.callers.push((name.to_owned(), value.to_owned()));
    }

    /// Those of a copy of a cluster that has its own already: durable or not as the original.
    pub(crate) fn of_a_copy() -> Self {
        Self { durable: true, callers: Vec::new() }
    }

    /// Adds the caller's lines of `others`.
    pub(crate) fn extend(&mut self, others: &Self) {
        self.callers.extend(others.callers.iter().cloned());
    }

    /// The text to append to `postgresql.conf`.
    ///
    /// # Errors
    /// [`ErrorKind::Setting`] for an invalid name, a name that the sandbox sets itself, or a value that no
    /// configuration file can hold.
    pub(crate) fn render(&self, directory: &Directory) -> Result<String, Error> {
        let socket_dir = directory.sockets().to_string_lossy().into_owned();
        let mut lines: Vec<(&str, &str)> = vec![
            // Loopback only: the sandbox trusts every client that reaches it.
            ("listen_addresses", "127.0.0.1"),
            ("unix_socket_directories", &socket_dir),
            // In the title of every process: `ps` shows which sandbox it belongs to.
            ("cluster_name", directory.name()),
            // Files in the data directory: nothing is left in /dev/shm after a kill -9.
            ("dynamic_shared_memory_type", "mmap"),
            ("log_line_prefix", "%m [%p] %q%a "),
        ];
        if !self.durable {
            // Survives a crash of the server, for the kernel still has the pages; not one of the machine.
            // synchronous_commit stays on: off would lose acknowledged commits with the server's own buffers.
            lines.extend([("fsync", "off"), ("full_page_writes", "off")]);
        }
        let mut conf = String::from("\n# by pg-sandbox\n");
        for (name, value) in lines {
            push_line(&mut conf, name, value);
        }
        for (name, value) in &self.callers {
            check(name, value)?;
            push_line(&mut conf, name, value);
        }
        Ok(conf)
    }
}

fn check(name: &str, value: &str) -> Result<(), Error> {
    let refuse = |why: &str| Err(Error::new(ErrorKind::Setting, format!("setting {name:?}: {why}")));
    let starts_well = name.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_');
    if !starts_well || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.') {
        return refuse("a name is made of ASCII letters, digits, underscores and dots");
    }
    if OURS.contains(&name.to_ascii_lowercase().as_str()) {
        return refuse("the sandbox decides this one itself; leave it out");
    }
    if value.len() > VALUE_BYTES_MAX {
        return refuse("the value is longer than 64 KiB");
    }
    if value.contains(|c: char| c.is_control()) {
        return refuse("the value has a control character, which postgresql.conf cannot hold");
    }
    Ok(())
}

fn push_line(conf: &mut String, name: &str, value: &str) {
    let quoted = value.replace('\\', "\\\\").replace('\'', "''");
    conf.push_str(&format!("{name} = '{quoted}'\n"));
}

#[cfg(test)]
mod tests {
    use super::*;

    fn render(name: &str, value: &str) -> Result<String, Error> {
        let mut settings = Settings::default();
        settings.push(name, value);
        settings.render(&Directory::at("/tmp/pg-sandbox-test"))
    }

    #[test]
    fn values_are_quoted() {
        assert!(render("a.b", r"it's \ so").unwrap().ends_with("a.b = 'it''s \\\\ so'\n"));
    }

    #[test]
    fn default_commits_survive_server_crash_like_durable_ones() {
        let mut settings = Settings::default();
        let fast = settings.render(&Directory::at("/tmp/pg-sandbox-test")).unwrap();
        assert!(fast.contains("fsync = 'off'") && !fast.contains("synchronous_commit"), "{fast}");
        settings.set_durable(true);
        assert!(!settings.render(&Directory::at("/tmp/pg-sandbox-test")).unwrap().contains("fsync"));
    }

    #[test]
    fn unusable_settings_are_refused_by_name() {
        for (name, value) in
            [("", "1"), ("a b", "1"), ("1a", "1"), ("port", "1"), ("PORT", "1"), ("a", "x\ny")]
        {
            let error = render(name, value).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Setting);
            assert!(error.to_string().contains(&format!("{name:?}")), "{error}");
        }
    }
}
