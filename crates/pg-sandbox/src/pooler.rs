//! pgbouncer in front of a server: started with a generated configuration, redirected at run time, cleaned up as a
//! sandbox is.
//!
//! States: running → killed → running. The lock is held through a transition.

use std::{
    env,
    fmt::Write as _,
    fs, io,
    net::SocketAddr,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    account::Account,
    client::{Client, Rows},
    deadline,
    directory::Directory,
    error::{Error, ErrorKind},
    gate::{self, Waiting},
    log,
    port::Port,
    reaper::{Reaper, Running},
};

/// How long pgbouncer may take until it answers.
const START_WAIT: Duration = Duration::from_secs(30);
/// Where distributions put it; `PATH` comes first.
const PLACES: [&str; 3] = ["/usr/sbin", "/usr/bin", "/usr/local/bin"];
/// The database of its admin console.
const CONSOLE: &str = "pgbouncer";
/// First version that tracks prepared statements.
const PREPARED_SINCE: (u32, u32) = (1, 21);

/// Settings that the pooler decides by itself: it would lose its process if they changed.
const OURS: [&str; 11] = [
    "admin_users",
    "auth_file",
    "auth_type",
    "listen_addr",
    "listen_port",
    "logfile",
    "max_prepared_statements",
    "pidfile",
    "pool_mode",
    "unix_socket_dir",
    "user",
];

/// When a server connection returns to the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PoolMode {
    /// When the client disconnects.
    Session,
    /// When the transaction ends.
    Transaction,
    /// When the statement ends; a transaction of several statements is refused.
    Statement,
}

impl PoolMode {
    fn name(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Transaction => "transaction",
            Self::Statement => "statement",
        }
    }
}

/// Chooses how a [`Pooler`] is configured, then starts it.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `start`"]
pub struct PoolerBuilder {
    config: Config,
}

/// A private pgbouncer, gone without a trace when this value is dropped or its process ends.
///
/// It trusts all clients that reach it, as the [`Sandbox`](crate::Sandbox) does. It serves every database of its server.
#[derive(Debug)]
#[must_use = "a pooler that is dropped is stopped and removed"]
pub struct Pooler {
    program: PathBuf,
    version: (u32, u32),
    account: Option<Account>,
    directory: Directory,
    port: Port,
    state: Mutex<State>,
}

/// What changes. The reaper comes first because fields are dropped in order.
#[derive(Debug)]
struct State {
    reaper: Reaper,
    process: Option<Process>,
    config: Config,
}

/// What the configuration file says.
#[derive(Clone, Debug)]
struct Config {
    server: SocketAddr,
    mode: PoolMode,
    users: Vec<String>,
    max_prepared_statements: Option<u32>,
    settings: Vec<(String, String)>,
}

/// A running pgbouncer. Dropping it ends the process.
#[derive(Debug)]
struct Process(Child);

impl PoolerBuilder {
    /// Lets a role connect besides `postgres`.
    pub fn user(mut self, name: &str) -> Self {
        self.config.users.push(name.to_owned());
        self
    }

    /// `max_prepared_statements`: how many prepared statements of each server connection pgbouncer tracks; 0 tracks none.
    /// Default: that of its version. pgbouncer before 1.21 tracks none, and a number above 0 is an error of
    /// [`start`](Self::start).
    pub fn max_prepared_statements(mut self, number: u32) -> Self {
        self.config.max_prepared_statements = Some(number);
        self
    }

    /// Adds a line to section `[pgbouncer]`; the last one of a name counts: `.setting("default_pool_size", "4")`.
    /// A name that is none, or one that the pooler decides itself, is an error of [`start`](Self::start).
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.config.settings.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Starts pgbouncer and waits until it answers. The server need not run yet.
    ///
    /// # Errors
    /// [`ErrorKind::BinariesMissing`] if pgbouncer is not installed, [`ErrorKind::Setting`] for a setting that it cannot
    /// have, [`ErrorKind::Start`] with its log; otherwise as
    /// [`SandboxBuilder::start`](crate::SandboxBuilder::start).
    pub fn start(self) -> Result<Pooler, Error> {
        let Self { config } = self;
        let (program, version) = find()?;
        config.check(version)?;
        let account = Account::to_drop_to()?;
        let directory = Directory::choose(account);
        let port = Port::reserve()
            .map_err(|error| Error::caused(ErrorKind::Port, "could not get a port on 127.0.0.1", error))?;
        // From here on the reaper cleans up, also if this process dies.
        let reaper = Reaper::watch(directory.clone())?;
        directory.furnish(account)?;
        let state = Mutex::new(State { reaper, process: None, config });
        let pooler = Pooler { program, version, account, directory, port, state };
        pooler.start_again()?;
        Ok(pooler)
    }
}

impl Pooler {
    /// Chooses a pooler in front of `server`, which may also be the address of a [`Proxy`](crate::Proxy).
    pub fn builder(server: SocketAddr, mode: PoolMode) -> PoolerBuilder {
        let users = vec!["postgres".to_owned()];
        PoolerBuilder {
            config: Config { server, mode, users, max_prepared_statements: None, settings: Vec::new() },
        }
    }

    /// The version of the installed pgbouncer, major and minor number.
    ///
    /// # Errors
    /// [`ErrorKind::BinariesMissing`] if there is none; the message names the package to install.
    pub fn installed() -> Result<(u32, u32), Error> {
        find().map(|(_, version)| version)
    }

    /// The version of this pgbouncer, major and minor number: (1, 18).
    #[must_use]
    pub fn version(&self) -> (u32, u32) {
        self.version
    }

    /// How to connect: `postgres://postgres@127.0.0.1:PORT/postgres`. It stays the same over restarts and redirections.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://postgres@{}/postgres", self.addr())
    }

    /// Where pgbouncer listens: a port on 127.0.0.1.
    #[must_use]
    pub fn addr(&self) -> SocketAddr {
        self.port.addr()
    }

    /// All that pgbouncer has logged, over restarts; if the log cannot be read, why.
    #[must_use]
    pub fn log(&self) -> String {
        match fs::read(self.directory.log()) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => format!("(the log cannot be read: {error})"),
        }
    }

    /// Sends new work to another server. A server connection in use goes on until it returns to the pool, as
    /// [`PoolMode`] says; then pgbouncer closes it.
    ///
    /// # Errors
    /// [`ErrorKind::NotRunning`] or [`ErrorKind::Query`]; the old server stays in force then.
    pub fn redirect(&self, server: SocketAddr) -> Result<(), Error> {
        self.change(|config| config.server = server)
    }

    /// Changes a setting of section `[pgbouncer]` at run time (`RELOAD`).
    ///
    /// # Errors
    /// [`ErrorKind::Setting`] as in [`PoolerBuilder::setting`]; otherwise as [`redirect`](Self::redirect).
    pub fn set(&self, name: &str, value: &str) -> Result<(), Error> {
        self.change(|config| config.settings.push((name.to_owned(), value.to_owned())))
    }

    /// Runs a command of the admin console, `PAUSE`, `RESUME` or `SHOW POOLS`, and returns the rows of its answer.
    ///
    /// # Errors
    /// [`ErrorKind::NotRunning`] or [`ErrorKind::Query`].
    pub fn command(&self, command: &str) -> Result<Vec<Vec<Option<String>>>, Error> {
        self.state().is_running()?;
        self.console(command)
    }

    /// `kill -9`: all connections break at once. Does nothing if it does not run.
    ///
    /// # Errors
    /// [`ErrorKind::Process`] if it could not be killed.
    pub fn kill(&self) -> Result<(), Error> {
        let mut state = self.state();
        match state.process.take() {
            Some(process) => process.end().and(state.reaper.tell(Running::None)),
            None => Ok(()),
        }
    }

    /// Starts a killed pgbouncer again on the same port. Does nothing if it runs.
    ///
    /// # Errors
    /// [`ErrorKind::Start`] or [`ErrorKind::Timeout`] with the end of its log.
    pub fn start_again(&self) -> Result<(), Error> {
        let mut state = self.state();
        if state.is_running().is_ok() {
            return Ok(());
        }
        state.process = None;
        self.write_files(&state.config)?;
        let log_path = self.directory.log();
        let log_begin = fs::metadata(&log_path).map_or(0, |metadata| metadata.len());
        let mut command = gate::command(&self.program, &log_path, self.account)?;
        command.arg(self.ini());
        let waiting = Waiting::spawn(command)?;
        state.reaper.tell(Running::Group(waiting.id()))?;
        let process = state.process.insert(Process(waiting.let_through()?));
        let answer = deadline::poll(START_WAIT, || match process.ended()? {
            Some(status) => Ok::<_, Error>(Some(Err(status))),
            None => Ok(self.console("SHOW VERSION").is_ok().then_some(Ok(()))),
        })?;
        if let Some(Ok(())) = answer {
            return Ok(());
        }
        state.process = None;
        let said = log::tail(&log_path, log_begin);
        Err(match answer {
            Some(Err(status)) => {
                Error::new(ErrorKind::Start, format!("pgbouncer ended with {status}; its log: {said}"))
            }
            _ => {
                let message = format!("pgbouncer did not answer in {START_WAIT:?}; its log: {said}");
                Error::new(ErrorKind::Timeout, message)
            }
        })
    }

    /// What dropping does, with an answer: ends pgbouncer, removes its directory, waits for both.
    ///
    /// # Errors
    /// [`ErrorKind::Process`] or [`ErrorKind::Timeout`] if something may be left.
    pub fn close(self) -> Result<(), Error> {
        self.state().reaper.reap()
    }

    fn change(&self, change: impl FnOnce(&mut Config)) -> Result<(), Error> {
        let mut state = self.state();
        state.is_running()?;
        let mut config = state.config.clone();
        change(&mut config);
        config.check(self.version)?;
        self.write_files(&config)?;
        state.config = config;
        self.console("RELOAD").map(|_| ())
    }

    fn console(&self, command: &str) -> Result<Rows, Error> {
        Client::connect(&self.directory.sockets(), self.addr().port(), CONSOLE)?.query(command)
    }

    fn ini(&self) -> PathBuf {
        self.directory.path().join("pgbouncer.ini")
    }

    fn users(&self) -> PathBuf {
        self.directory.path().join("users.txt")
    }

    fn write_files(&self, config: &Config) -> Result<(), Error> {
        let users: String = config.users.iter().map(|user| format!("\"{user}\" \"\"\n")).collect();
        let mut ini = config.render(self.version);
        for (name, value) in [
            ("listen_port", self.addr().port().to_string()),
            ("unix_socket_dir", self.directory.sockets().display().to_string()),
            ("auth_file", self.users().display().to_string()),
        ] {
            let _ = writeln!(ini, "{name} = {value}"); // a String takes everything
        }
        for (path, text) in [(self.users(), users), (self.ini(), ini)] {
            let own = || self.account.map_or(Ok(()), |account| account.own(&path));
            fs::write(&path, text).and_then(|()| own()).map_err(|error: io::Error| {
                Error::caused(ErrorKind::Directory, format!("could not write {}", path.display()), error)
            })?;
        }
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn is_running(&mut self) -> Result<(), Error> {
        if let Some(process) = &mut self.process
            && process.ended()?.is_none()
        {
            return Ok(());
        }
        Err(Error::new(ErrorKind::NotRunning, "pgbouncer is not running: call `start_again` first"))
    }
}

impl Config {
    /// Section `[databases]`, and of `[pgbouncer]` all but the paths.
    fn render(&self, version: (u32, u32)) -> String {
        let (host, port, mode) = (self.server.ip(), self.server.port(), self.mode.name());
        let mut ini = format!(
            "[databases]\n* = host={host} port={port}\n\n[pgbouncer]\n\
             listen_addr = 127.0.0.1\nauth_type = trust\nadmin_users = postgres\npool_mode = {mode}\n\
             ignore_startup_parameters = extra_float_digits\n"
        );
        // Before that version, pgbouncer does not know the setting, and tracks none.
        if let Some(number) = self.max_prepared_statements.filter(|_| version >= PREPARED_SINCE) {
            line(&mut ini, "max_prepared_statements", &number.to_string());
        }
        for (name, value) in &self.settings {
            line(&mut ini, name, value);
        }
        ini
    }

    fn check(&self, version: (u32, u32)) -> Result<(), Error> {
        let refuse = |message: String| Err(Error::new(ErrorKind::Setting, message));
        if self.max_prepared_statements.is_some_and(|number| number > 0) && version < PREPARED_SINCE {
            let (major, minor) = version;
            return refuse(format!(
                "max_prepared_statements: pgbouncer {major}.{minor} cannot track prepared statements; install 1.21 or newer"
            ));
        }
        for user in &self.users {
            if user.is_empty() || user.contains(|c: char| c.is_control() || c == '"') {
                return refuse(format!("user {user:?}: give a name without quotes and control characters"));
            }
        }
        for (name, value) in &self.settings {
            if name.is_empty()
                || !name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
            {
                return refuse(format!(
                    "setting {name:?}: a name is made of lower-case letters, digits and underscores"
                ));
            }
            if OURS.contains(&name.as_str()) {
                return refuse(format!("setting {name:?}: the pooler decides this one itself; leave it out"));
            }
            if value.contains(|c: char| c.is_control()) {
                return refuse(format!("setting {name:?}: the value has a control character"));
            }
        }
        Ok(())
    }
}

fn line(ini: &mut String, name: &str, value: &str) {
    ini.extend([name, " = ", value, "\n"]);
}

impl Process {
    fn ended(&mut self) -> Result<Option<ExitStatus>, Error> {
        self.0.try_wait().map_err(|error| {
            Error::caused(ErrorKind::Process, "could not ask for the state of pgbouncer", error)
        })
    }

    fn end(mut self) -> Result<(), Error> {
        self.kill_and_wait()
            .map_err(|error| Error::caused(ErrorKind::Process, "could not kill pgbouncer", error))
    }

    fn kill_and_wait(&mut self) -> io::Result<()> {
        if self.0.try_wait()?.is_none() {
            self.0.kill()?;
            self.0.wait()?;
        }
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Err(error) = self.kill_and_wait() {
            // A destructor cannot return an error.
            eprintln!("pg-sandbox: could not kill pgbouncer {}: {error}", self.0.id());
        }
    }
}

/// The installed program and its version.
fn find() -> Result<(PathBuf, (u32, u32)), Error> {
    let in_path =
        env::var_os("PATH").map(|path| env::split_paths(&path).collect::<Vec<_>>()).unwrap_or_default();
    let places =
        { in_path }.into_iter().chain(PLACES.iter().map(PathBuf::from)).map(|place| place.join("pgbouncer"));
    let missing = |what: String| {
        let message = format!("{what}: install the package pgbouncer (`apt-get install pgbouncer`)");
        Error::new(ErrorKind::BinariesMissing, message)
    };
    let program = { places }
        .find(|program| program.is_file())
        .ok_or_else(|| missing("pgbouncer was not found".to_owned()))?;
    let could_not = |error| {
        Error::caused(ErrorKind::BinariesMissing, format!("could not run {}", program.display()), error)
    };
    let output = Command::new(&program).arg("--version").stdin(Stdio::null()).output().map_err(could_not)?;
    let answer = String::from_utf8_lossy(&output.stdout);
    match parse_version(&answer) {
        Some(version) => Ok((program, version)),
        None => Err(missing(format!("{} --version answered {:?}", program.display(), answer.trim()))),
    }
}

/// Reads `PgBouncer 1.18.0`.
fn parse_version(answer: &str) -> Option<(u32, u32)> {
    let mut numbers = answer.strip_prefix("PgBouncer ")?.split(['.', '\n', ' ']);
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_and_compared_as_numbers() {
        assert_eq!(parse_version("PgBouncer 1.18.0\nlibevent 2.1"), Some((1, 18)));
        assert_eq!(parse_version("PgBouncer 1.9dev"), None);
        assert!((1, 9) < PREPARED_SINCE);
    }

    #[test]
    fn prepared_statements_need_a_version_that_tracks_them() {
        let tracking =
            Pooler::builder(([127, 0, 0, 1], 1).into(), PoolMode::Transaction).max_prepared_statements(9);
        let refused = tracking.config.check((1, 20)).unwrap_err();
        assert!(refused.to_string().contains("1.21"), "{refused}");
        tracking.config.check((1, 21)).unwrap();
        assert!(tracking.config.render(PREPARED_SINCE).contains("\nmax_prepared_statements = 9\n"));
    }
}
