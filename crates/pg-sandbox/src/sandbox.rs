//! The sandbox as its owner sees it: where the server is, what happened to it, and what to do to it.
//!
//! States: running ⇄ paused, running → stopped (in order, or by a crash) → running. The lock is held through a
//! transition, so that two callers see one after the other.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{
    account::Account,
    binaries::Binaries,
    client::Client,
    directory::Directory,
    error::{Error, ErrorKind},
    launch::Launch,
    port::Port,
    reaper::{Reaper, Running},
    server::{Server, StartError},
    settings::Settings,
    version::ServerVersion,
};

/// How many ports are tried before giving up. The second is needed where ports cannot be reserved.
const PORT_TRIES_MAX: usize = 8;

/// A private PostgreSQL server, gone without a trace when this value is dropped or its process ends.
///
/// **It asks for no password.** It listens on 127.0.0.1 only, but every user with an account on the
/// machine can connect as superuser. Keep secrets out of it.
///
/// All calls take `&self`, so one sandbox in a static can serve all tests of a binary. A static is
/// never dropped, and is cleaned up all the same. Calls that change the server's state **block**
/// for tens of milliseconds, and longer after a crash. In a single-threaded runtime nothing else
/// runs meanwhile. `tokio::task::spawn_blocking` avoids that.
#[derive(Debug)]
#[must_use = "a sandbox that is dropped is stopped and removed"]
pub struct Sandbox {
    launch: Launch,
    port: Port,
    socket_dir: PathBuf,
    log_path: PathBuf,
    state: Mutex<State>,
}

/// What changes. The reaper comes first because fields are dropped in order: it ends the server gently.
#[derive(Debug)]
struct State {
    reaper: Reaper,
    server: Option<Server>,
}

impl Sandbox {
    /// Makes and starts a server of `binaries` on the cluster that `fill` makes.
    pub(crate) fn launch(
        binaries: Binaries,
        settings: &Settings,
        within: Option<&Path>,
        fill: impl FnOnce(&Launch, &mut Reaper, &str) -> Result<(), Error>,
    ) -> Result<Self, Error> {
        let account = Account::to_drop_to()?;
        let directory = match within {
            Some(parent) => Directory::within(parent, account)?,
            None => Directory::choose(account),
        };
        let conf = settings.render(&directory)?;
        // From here on the reaper cleans up, also if this process dies.
        let mut reaper = Reaper::watch(directory.clone())?;
        directory.furnish(account)?;
        let launch = Launch { binaries, account, directory };
        fill(&launch, &mut reaper, &conf)?;

        let mut state = State { reaper, server: None };
        let port = state.run_on_a_free_port(&launch)?;
        let (socket_dir, log_path) = (launch.directory.sockets(), launch.directory.log());
        Ok(Self { launch, port, socket_dir, log_path, state: Mutex::new(state) })
    }

    /// How to connect: `postgres://postgres@127.0.0.1:PORT/postgres`, as superuser, without a password. It stays the
    /// same over restarts.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://postgres@{}/postgres", self.addr())
    }

    /// Where the server listens: a port on 127.0.0.1.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.port.addr()
    }

    /// The directory of the server's Unix socket, for `host=…` in a connection string. Only the caller, the server's
    /// account and root get in.
    #[must_use]
    pub fn socket_dir(&self) -> &Path {
        &self.socket_dir
    }

    /// Which PostgreSQL this is.
    #[must_use]
    pub fn version(&self) -> &ServerVersion {
        self.launch.binaries.version()
    }

    /// The file that the server logs to. It goes away with the sandbox.
    #[must_use]
    pub fn log_path(&self) -> &Path {
        &self.log_path
    }

    /// All that the server has logged since the sandbox began, over restarts; if the log cannot be read, why.
    #[must_use]
    pub fn log(&self) -> String {
        match fs::read(&self.log_path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => format!("(the log {} cannot be read: {error})", self.log_path.display()),
        }
    }

    /// Whether there is a server: not stopped, not killed, and not ended by itself. A paused one counts.
    ///
    /// # Errors
    /// [`ErrorKind::Process`] if the kernel does not say.
    pub fn is_running(&self) -> Result<bool, Error> {
        self.state().server.as_mut().map_or(Ok(false), Server::is_running)
    }

    /// Shuts the server down in order: connections are closed, transactions in flight are rolled back, what is
    /// committed is kept. A paused server is resumed for it. Does nothing if it is stopped already.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] if it took too long and had to be killed.
    pub fn stop(&self) -> Result<(), Error> {
        self.state().end(Server::stop)
    }

    /// Starts a stopped or killed server again, on the same port with the same data; after a crash PostgreSQL recovers
    /// first. Does nothing if it runs.
    ///
    /// # Errors
    /// [`ErrorKind::Start`] with the end of the log.
    pub fn start_again(&self) -> Result<(), Error> {
        self.state().start_again(&self.launch, &self.port)
    }

    /// [`stop`](Self::stop), then [`start_again`](Self::start_again).
    ///
    /// # Errors
    /// Theirs.
    pub fn restart(&self) -> Result<(), Error> {
        self.stop()?;
        self.start_again()
    }

    /// `kill -9` for the postmaster and all of its children, as a crash. What was committed comes back with
    /// [`start_again`](Self::start_again). Does nothing if the server is stopped.
    ///
    /// # Errors
    /// [`ErrorKind::Process`] or [`ErrorKind::Timeout`] if a process could not be killed.
    pub fn kill(&self) -> Result<(), Error> {
        self.state().end(Server::kill)
    }

    /// Freezes the postmaster and all of its children (`SIGSTOP`): connections stay open, and nothing answers, until
    /// [`resume`](Self::resume). New connections are made by the kernel, and hang.
    ///
    /// # Errors
    /// [`ErrorKind::NotRunning`] if there is no server.
    pub fn pause(&self) -> Result<(), Error> {
        self.state().running()?.pause()
    }

    /// Lets a paused server go on. Does nothing if it is not paused.
    ///
    /// # Errors
    /// [`ErrorKind::NotRunning`] if there is no server.
    pub fn resume(&self) -> Result<(), Error> {
        self.state().running()?.resume()
    }

    /// What dropping does, with an answer: ends the server, removes the directory, waits for both.
    ///
    /// # Errors
    /// [`ErrorKind::Process`] or [`ErrorKind::Timeout`] if something may be left.
    pub fn close(self) -> Result<(), Error> {
        self.state().reaper.reap()
    }

    /// Stops the server, puts another cluster in the place of its own, and starts it on the same port.
    pub(crate) fn replace_cluster(
        &self,
        settings: &Settings,
        fill: impl FnOnce(&Launch, &str) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let conf = settings.render(&self.launch.directory)?;
        let mut state = self.state();
        state.end(Server::stop)?;
        self.launch.directory.empty_data()?;
        fill(&self.launch, &conf)?;
        state.start_again(&self.launch, &self.port)
    }

    /// A connection for the sandbox's own queries.
    ///
    /// # Errors
    /// [`ErrorKind::NotRunning`] if there is no server, [`ErrorKind::Query`] if it refuses the connection.
    pub(crate) fn client(&self) -> Result<Client, Error> {
        self.state().running()?;
        Client::connect(&self.socket_dir, self.addr().port(), "postgres")
    }

    pub(crate) fn setup(&self) -> &Launch {
        &self.launch
    }

    /// Nothing is left half-done by a panic under this lock that the next call could not see for itself.
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn run_on_a_free_port(&mut self, launch: &Launch) -> Result<Port, Error> {
        let mut tries = 1;
        loop {
            let port = Port::reserve().map_err(|error| {
                Error::caused(ErrorKind::Port, "could not get a port on 127.0.0.1", error)
            })?;
            match self.run_on(launch, &port) {
                Ok(()) => return Ok(port),
                Err(StartError::PortTaken(_)) if tries < PORT_TRIES_MAX => tries += 1,
                Err(StartError::PortTaken(error) | StartError::Failed(error)) => return Err(error),
            }
        }
    }

    fn run_on(&mut self, launch: &Launch, port: &Port) -> Result<(), StartError> {
        let server = launch.start_server(port.addr().port(), &mut self.reaper).map_err(StartError::Failed)?;
        self.server.insert(server).wait_until_ready(&launch.directory).inspect_err(|_| self.server = None)
    }

    fn start_again(&mut self, launch: &Launch, port: &Port) -> Result<(), Error> {
        if self.server.as_mut().map_or(Ok(false), Server::is_running)? {
            return Ok(());
        }
        self.server = None;
        self.run_on(launch, port).map_err(|trouble| match trouble {
            StartError::PortTaken(error) | StartError::Failed(error) => error,
        })
    }

    fn end(&mut self, how: impl FnOnce(Server) -> Result<(), Error>) -> Result<(), Error> {
        match self.server.take() {
            Some(server) => how(server).and(self.reaper.tell(Running::None)),
            None => Ok(()),
        }
    }

    fn running(&mut self) -> Result<&mut Server, Error> {
        if let Some(server) = &mut self.server
            && server.is_running()?
        {
            return Ok(server);
        }
        Err(Error::new(ErrorKind::NotRunning, "the server is not running: call `start_again` first"))
    }
}
