//! The program under test as a child process, a server of "the user's", and what may be left behind.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::str::FromStr;
use std::sync::LazyLock;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};
use std::{env, fs, thread};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pg_sandbox::Sandbox;
use tokio_postgres::{Client, Config, NoTls};

/// Longer than anything here takes, so that a hang is a failure and not a hang.
pub const WAIT_MAX: Duration = Duration::from_secs(60);
/// Between two looks at what other processes do.
pub const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// Represents the user's own server. Tests that end a server start one of their own.
static SANDBOX: LazyLock<Sandbox> = LazyLock::new(|| Sandbox::start().expect("PostgreSQL starts"));

/// The program, running.
pub struct Program {
    child: Child,
    keys: ChildStdin,
    /// Its output, line by line, until it is closed.
    lines: Option<Receiver<String>>,
    err: ChildStderr,
    read: String,
}

/// How it ended. `code` is `None` if a signal ended it.
#[derive(Debug)]
pub struct End {
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Program {
    pub fn start(args: &[&str]) -> Self {
        Self::start_with(args, &[])
    }

    /// With these variables in its environment.
    pub fn start_with(args: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_pg-session"));
        command.args(args).env_remove("RUST_LOG").env_remove("CLICOLOR_FORCE");
        command.env_remove("SESSION_KEY").envs(variables.iter().copied());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("the program starts");
        let keys = child.stdin.take().expect("stdin is a pipe");
        let lines = read_lines(child.stdout.take().expect("stdout is a pipe"));
        let err = child.stderr.take().expect("stderr is a pipe");
        Self { child, keys, lines: Some(lines), err, read: String::new() }
    }

    /// What the name of every directory of this program's sandbox begins with, and the title of every process.
    pub fn sandbox_mark(&self) -> String {
        format!("pg-sandbox-{}-", self.child.id())
    }

    /// Reads on until a line has all of `texts` in it. Answers with all that was read so far.
    pub fn read_until(&mut self, texts: &[&str]) -> String {
        let deadline = Instant::now() + WAIT_MAX;
        loop {
            let line = self.next_line(deadline);
            let line = line.unwrap_or_else(|| panic!("the program ended before {texts:?}: {}", self.read));
            self.read.push_str(&line);
            if texts.iter().all(|text| line.contains(text)) {
                return self.read.clone();
            }
        }
    }

    /// `None` at the end of the output.
    fn next_line(&self, deadline: Instant) -> Option<String> {
        let lines = self.lines.as_ref().expect("the output is open");
        match lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("the program says nothing more: {}", self.read),
        }
    }

    pub fn press(&mut self, key: &str) {
        writeln!(self.keys, "{key}").expect("the program reads keys");
    }

    pub fn signal(&self, signal: Signal) {
        let id = i32::try_from(self.child.id()).expect("a process id");
        kill(Pid::from_raw(id), signal).expect("the program runs");
    }

    /// Reads no more, like `head`: the pipe is closed after the next line at the latest.
    pub fn close_output(&mut self) {
        self.lines = None;
    }

    /// Waits for the end of the output, and then of the program.
    pub fn finish(&mut self) -> End {
        let deadline = Instant::now() + WAIT_MAX;
        while self.lines.is_some() {
            match self.next_line(deadline) {
                Some(line) => self.read.push_str(&line),
                None => self.lines = None,
            }
        }
        let mut err = String::new();
        self.err.read_to_string(&mut err).expect("what is complained about is text");
        let status = self.child.wait().expect("the program ends");
        End { code: status.code(), out: std::mem::take(&mut self.read), err }
    }
}

impl Drop for Program {
    /// After a failed assertion: its sandbox, if any, cleans up after it.
    fn drop(&mut self) {
        // An error means that it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// On a thread, so that a test can stop waiting.
fn read_lines(out: ChildStdout) -> Receiver<String> {
    let (sender, lines) = mpsc::channel();
    thread::spawn(move || {
        let mut out = BufReader::new(out);
        loop {
            let mut line = String::new();
            let bytes = out.read_line(&mut line).expect("the output is text");
            if bytes == 0 || sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}

/// One test's view of the user's server.
pub struct World {
    /// With an application name by which this test's connections are known.
    pub url: String,
    pub client: Client,
    name: String,
}

impl World {
    pub async fn new(name: &str) -> Self {
        let config = Config::from_str(&SANDBOX.url()).expect("the sandbox's URL parses");
        let (client, connection) = config.connect(NoTls).await.expect("the server answers");
        tokio::spawn(connection);
        let name = format!("demo_test_{name}");
        Self { url: format!("{}?application_name={name}", SANDBOX.url()), client, name }
    }

    /// Where the server listens.
    pub fn address(&self) -> SocketAddr {
        SANDBOX.addr()
    }

    /// Neither the schema that `out` names nor a connection.
    pub async fn assert_nothing_is_left(&self, out: &str) {
        let schema = schema_in(out).expect("the schema's name is printed");
        let text = "SELECT count(*) FROM pg_namespace WHERE nspname = $1";
        assert_eq!(self.count(text, &schema).await, 0, "{schema} is still there");
        let began = Instant::now();
        // A backend notices a moment later that its client is gone.
        while self
            .count("SELECT count(*) FROM pg_stat_activity WHERE application_name = $1", &self.name)
            .await
            > 0
        {
            assert!(began.elapsed() < WAIT_MAX, "connections are still open");
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    pub async fn count(&self, text: &str, param: &str) -> i64 {
        let types = [tokio_postgres::types::Type::TEXT];
        let statement = self.client.prepare_typed(text, &types).await.expect("the statement parses");
        self.client.query_one(&statement, &[&param]).await.expect("the server answers").get(0)
    }
}

/// The name of the demo's schema.
pub fn schema_in(out: &str) -> Option<String> {
    let begin = out.find("session_demo_")?;
    let name: String =
        out[begin..].chars().take_while(|char| char.is_ascii_alphanumeric() || *char == '_').collect();
    Some(name)
}

/// No directory and no process that begins with `mark`.
pub fn assert_no_sandbox_is_left(mark: &str) {
    let began = Instant::now();
    loop {
        let left = (directories(mark), processes(mark));
        if left.0.is_empty() && left.1.is_empty() {
            return;
        }
        assert!(began.elapsed() < WAIT_MAX, "left behind: {left:?}");
        thread::sleep(POLL_INTERVAL);
    }
}

fn directories(mark: &str) -> Vec<String> {
    let mut names = Vec::new();
    // A sandbox goes to /tmp where the directory for temporary files is too deep for a socket.
    for parent in [env::temp_dir(), "/tmp".into()] {
        for entry in fs::read_dir(parent).expect("a directory for temporary files").flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            names.extend(name.starts_with(mark).then_some(name));
        }
    }
    names
}

/// The command lines that have `mark` in them, where the kernel shows them.
fn processes(mark: &str) -> Vec<String> {
    if !Path::new("/proc/self/cmdline").exists() {
        return Vec::new();
    }
    let entries = fs::read_dir("/proc").expect("/proc").flatten();
    // A process may end between the two calls.
    let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).into_owned()).filter(|line| line.contains(mark)).collect()
}
