//! What can be chosen about a sandbox before it starts. Everything has a default that suits tests.

use std::path::PathBuf;

use crate::{
    binaries::Binaries,
    error::{Error, ErrorKind},
    launch::Launch,
    sandbox::Sandbox,
    settings::Settings,
    template,
};

/// Chooses how a [`Sandbox`] is configured, then starts it.
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until `start`"]
pub struct SandboxBuilder {
    settings: Settings,
    files: Vec<(String, Vec<u8>)>,
    within: Option<PathBuf>,
}

impl SandboxBuilder {
    /// Adds a line to `postgresql.conf`; the last one of a name counts. The value is quoted, so write it plainly:
    /// `.setting("max_connections", "300")`.
    ///
    /// [`start`](Self::start) rejects an invalid name, and one that the sandbox decides itself (`port`,
    /// `listen_addresses`, `unix_socket_directories` and their kin).
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push(name, value);
        self
    }

    /// Whether commits survive a crash of the machine. Default: `false`.
    ///
    /// `true` is PostgreSQL's own default: `fsync` and `full_page_writes` are on, and a commit
    /// costs a disk flush, as in production. `false` turns both off. That is faster, and as safe
    /// against [`Sandbox::kill`]. `synchronous_commit` stays on, and the kernel keeps what the
    /// server wrote.
    pub fn durable(mut self, durable: bool) -> Self {
        self.settings.set_durable(durable);
        self
    }

    /// Puts a file into the data directory, owned by the server's account and readable only by it:
    /// `server.key` and `server.crt` together with `.setting("ssl", "on")` make a TLS server; `pg_hba.conf` replaces
    /// the one that trusts all clients. A name with a slash is an error of [`start`](Self::start).
    pub fn file(mut self, name: &str, contents: impl Into<Vec<u8>>) -> Self {
        self.files.push((name.to_owned(), contents.into()));
        self
    }

    /// Makes the sandbox's directory in this one instead of the directory for temporary files. An
    /// example is a file system of the test's own, which it can fill. An absolute path that is
    /// short enough for a Unix socket and that the server's account can pass through. Any other is
    /// an error of [`start`](Self::start).
    pub fn within(mut self, directory: impl Into<PathBuf>) -> Self {
        self.within = Some(directory.into());
        self
    }

    /// Makes and starts the server. Blocks for as long as that takes: one or two seconds, mostly `initdb`, less from the
    /// third sandbox of the process on. Its cluster is a copy, so it shares the system identifier of the second one's.
    ///
    /// # Errors
    /// See [`ErrorKind`](crate::ErrorKind); the message says what to do, and ends with the log if there is one.
    pub fn start(self) -> Result<Sandbox, Error> {
        let Self { settings, files, within } = self;
        Sandbox::launch(Binaries::find()?, &settings, within.as_deref(), |launch, reaper, conf| {
            template::fill(launch, reaper)?;
            configure(launch, conf, &files)
        })
    }
}

impl Sandbox {
    /// Makes and starts a server with the defaults. Blocks for one or two seconds, mostly `initdb`.
    ///
    /// # Errors
    /// See [`ErrorKind`]; the message says what to do, and ends with the log if there is one.
    pub fn start() -> Result<Self, Error> {
        Self::builder().start()
    }

    /// Chooses settings first.
    pub fn builder() -> SandboxBuilder {
        SandboxBuilder::default()
    }
}

/// Writes the configuration and the caller's files into a fresh cluster.
fn configure(launch: &Launch, conf: &str, files: &[(String, Vec<u8>)]) -> Result<(), Error> {
    launch.append_settings(conf)?;
    for (name, contents) in files {
        if name.is_empty() || name.starts_with('.') || name.contains(['/', '\0']) {
            let message = format!("file {name:?}: give the plain name of a file in the data directory");
            return Err(Error::new(ErrorKind::Setting, message));
        }
        launch.write_private(&launch.directory.data().join(name), contents).map_err(|error| {
            Error::caused(ErrorKind::Setting, format!("file {name:?}: could not be written"), error)
        })?;
    }
    Ok(())
}
