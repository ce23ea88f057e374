//! Nothing is left behind, however the owner of a sandbox ends: by a drop, a panic, a signal, or too early to say.
//!
//! The owners that have to die are this very test binary, run again with a role in its environment.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on has failed")]
#![allow(clippy::disallowed_methods, reason = "a deadline in real time")]

use std::{
    env, fs,
    io::{self, BufRead, BufReader, Read, Write},
    net::TcpStream,
    os::unix::process::{CommandExt, ExitStatusExt},
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    process::{Child, ChildStdin, ChildStdout, Command, ExitStatus, Stdio},
    sync::LazyLock,
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use pg_sandbox::{PoolMode, Pooler, Sandbox};

/// Longer than anything here takes, so that a hang is a failure and not a hang.
const LIMIT: Duration = Duration::from_secs(60);

/// The variable that says which part to play.
const ROLE: &str = "PG_SANDBOX_TEST_ROLE";

/// Never dropped.
static FOR_ALL_TESTS: LazyLock<Sandbox> = LazyLock::new(|| Sandbox::start().unwrap());

#[test]
fn owner() {
    let Ok(role) = env::var(ROLE) else { return };
    match role.as_str() {
        "static" => tell(&FOR_ALL_TESTS.url()),
        "error" => tell(&Sandbox::start().unwrap_err().to_string()),
        "url" => tell(&Sandbox::start().unwrap().url()),
        "wait" => wait_with(&Sandbox::start().unwrap(), "ready"),
        "paused" => {
            let sandbox = Sandbox::start().unwrap();
            sandbox.pause().unwrap();
            wait_with(&sandbox, "ready");
        }
        "crashed" => {
            let sandbox = Sandbox::start().unwrap();
            sandbox.kill().unwrap();
            wait_with(&sandbox, "ready");
        }
        "restarted" => {
            let sandbox = Sandbox::start().unwrap();
            sandbox.restart().unwrap();
            sandbox.kill().unwrap();
            sandbox.start_again().unwrap();
            wait_with(&sandbox, "ready");
        }
        "standby" => {
            let primary = Sandbox::start().unwrap();
            let standby = primary.standby().start().unwrap();
            standby.promote().unwrap();
            standby.standby().rejoin(&primary).unwrap();
            wait_with(&standby, "ready");
        }
        "pooler" => {
            let sandbox = Sandbox::start().unwrap();
            let pooler = Pooler::builder(sandbox.addr(), PoolMode::Session).start().unwrap();
            pooler.kill().unwrap();
            pooler.start_again().unwrap();
            wait_with(&sandbox, &pooler.addr().to_string());
        }
        "two and a child" => {
            let _first = Sandbox::start().unwrap();
            let mut child = Command::new("sleep").arg("600").process_group(0).spawn().unwrap();
            wait_with(&Sandbox::start().unwrap(), &child.id().to_string());
            child.kill().unwrap();
            child.wait().unwrap();
        }
        "abort" => {
            let _sandbox = Sandbox::start().unwrap();
            std::process::abort();
        }
        other => panic!("no such role: {other}"),
    }
}

/// Tells the test, on a line that the test harness does not write on.
fn tell(line: &str) {
    let mut out = io::stdout().lock();
    write!(out, "\n> {line}\n").unwrap();
    out.flush().unwrap();
}

/// Says that the sandbox is there, and keeps it until the test is gone.
fn wait_with(sandbox: &Sandbox, line: &str) {
    tell(line);
    io::stdin().read_to_end(&mut Vec::new()).unwrap();
    assert!(!sandbox.url().is_empty());
}

/// A process that owns sandboxes.
struct Owner {
    child: Child,
    out: BufReader<ChildStdout>,
    _in: ChildStdin,
}

impl Owner {
    fn start(role: &str, vars: &[(&str, &str)]) -> Self {
        let mut command = Command::new(env::current_exe().unwrap());
        // A group of its own, as a shell would give it: Ctrl-C in a terminal goes to all of a group.
        command.args(["--exact", "owner", "--nocapture"]).env(ROLE, role).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.envs(vars.iter().copied()).spawn().unwrap();
        let (out, stdin) = (child.stdout.take().unwrap(), child.stdin.take().unwrap());
        Self { child, out: BufReader::new(out), _in: stdin }
    }

    fn listen(&mut self) -> String {
        let mut line = String::new();
        while self.out.read_line(&mut line).unwrap() > 0 {
            if let Some(answer) = line.strip_prefix("> ") {
                return answer.trim_end().to_owned();
            }
            line.clear();
        }
        panic!("the owner ended without a word: {}", self.child.wait().unwrap());
    }

    /// What every directory of this owner begins with, and the title of every process.
    fn mark(&self) -> String {
        format!("pg-sandbox-{}-", self.child.id())
    }

    fn directories(&self) -> Vec<PathBuf> {
        directories(&self.mark(), &env::temp_dir())
    }

    /// Signals the whole group, and waits for the owner.
    fn signal_group(&mut self, signal: Signal) -> ExitStatus {
        kill(Pid::from_raw(-i32::try_from(self.child.id()).unwrap()), signal).unwrap();
        // A process that starts the tests with the signal ignored (`nohup … &` in a script) hands that on.
        let mut ended = None;
        let look = || {
            ended = self.child.try_wait().unwrap();
            ended.is_some()
        };
        eventually(look, || format!("the owner lives on after {signal}; is it ignored here?"));
        ended.unwrap()
    }

    fn assert_nothing_is_left(&self) {
        let mark = self.mark();
        let left = || (self.directories(), processes(&mark));
        eventually(|| left() == (vec![], vec![]), || format!("left: {:?}", left()));
    }
}

fn directories(mark: &str, parent: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(parent).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(mark)).collect()
}

/// The command lines that have `mark` in them; a zombie has none.
fn processes(mark: &str) -> Vec<String> {
    let mut lines = Vec::new();
    if Path::new("/proc/self/cmdline").exists() {
        for entry in fs::read_dir("/proc").unwrap() {
            lines.extend(fs::read(entry.unwrap().path().join("cmdline")).ok());
        }
    } else {
        lines.extend(
            Command::new("ps")
                .args(["-A", "-o", "command="])
                .output()
                .unwrap()
                .stdout
                .split(|b| *b == b'\n')
                .map(Vec::from),
        );
    }
    let lines = lines.iter().map(|line| String::from_utf8_lossy(line).replace('\0', " "));
    lines.filter(|line| line.contains(mark)).map(|line| line.chars().take(120).collect()).collect()
}

#[track_caller]
fn eventually(mut condition: impl FnMut() -> bool, otherwise: impl Fn() -> String) {
    let deadline = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < deadline, "{}", otherwise());
        // The end of a process or a directory sends no signal: look again, soon.
        thread::sleep(Duration::from_millis(2));
    }
}

/// The name of a sandbox of this process: its directory's.
fn name_of(sandbox: &Sandbox) -> String {
    let directory = sandbox.socket_dir().parent().unwrap();
    directory.file_name().unwrap().to_string_lossy().into_owned()
}

#[test]
fn dropped_sandbox_is_gone_at_once() {
    let sandbox = Sandbox::start().unwrap();
    let (name, directory) = (name_of(&sandbox), sandbox.socket_dir().parent().unwrap().to_owned());
    // The check sees what it should: several processes of the server, and the watchdog.
    assert!(processes(&name).len() > 4, "{:?}", processes(&name));
    assert!(directory.exists());
    drop(sandbox);
    assert_eq!(processes(&name), Vec::<String>::new());
    assert!(!directory.exists());
}

#[test]
fn stopped_killed_and_paused_sandboxes_are_gone_after_close() {
    for fate in [Sandbox::stop, Sandbox::kill, Sandbox::pause] {
        let sandbox = Sandbox::start().unwrap();
        let (name, directory) = (name_of(&sandbox), sandbox.socket_dir().parent().unwrap().to_owned());
        fate(&sandbox).unwrap();
        sandbox.close().unwrap();
        assert_eq!(processes(&name), Vec::<String>::new());
        assert!(!directory.exists());
    }
}

#[test]
#[cfg(target_os = "linux")]
fn shared_memory_of_a_killed_server_is_gone_after_close() {
    let sandbox = Sandbox::start().unwrap();
    let lock_file =
        fs::read_to_string(sandbox.socket_dir().with_file_name("data").join("postmaster.pid")).unwrap();
    // Line 7 is "key id".
    let segment = lock_file.lines().nth(6).unwrap().split_whitespace().nth(1).unwrap().to_owned();
    let segments = || fs::read_to_string("/proc/sysvipc/shm").unwrap();
    let is_there = || segments().lines().any(|line| line.split_whitespace().nth(1) == Some(&segment));
    sandbox.kill().unwrap();
    assert!(is_there(), "no segment {segment} in {}", segments());
    sandbox.close().unwrap();
    assert!(!is_there());
}

#[test]
fn sandbox_is_gone_after_a_panic() {
    let mut name = String::new();
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        let sandbox = Sandbox::start().unwrap();
        name = name_of(&sandbox);
        panic!("as a failing test does");
    }));
    assert!(panicked.is_err());
    assert_eq!(processes(&name), Vec::<String>::new());
}

#[test]
fn sandbox_that_does_not_start_leaves_nothing() {
    let mark = format!("pg-sandbox-{}-", std::process::id());
    let error =
        Sandbox::builder().setting("cluster_name", "failing").setting("work_mem", "x").start().unwrap_err();
    assert!(error.to_string().contains("work_mem"), "{error}");
    // Other tests of this process have sandboxes: look for the one that says why it failed.
    let logs = directories(&mark, &env::temp_dir()).into_iter().map(|directory| directory.join("server.log"));
    assert!(!logs.filter_map(|log| fs::read_to_string(log).ok()).any(|log| log.contains("work_mem")));
}

#[test]
fn sandbox_in_a_static_is_gone_after_a_normal_end() {
    let mut owner = Owner::start("static", &[]);
    owner.listen();
    assert!(owner.child.wait().unwrap().success());
    owner.assert_nothing_is_left();
}

#[test]
fn sandbox_is_gone_after_an_abort() {
    let mut owner = Owner::start("abort", &[]);
    assert_eq!(owner.child.wait().unwrap().signal(), Some(Signal::SIGABRT as i32));
    owner.assert_nothing_is_left();
}

#[test]
fn sandbox_is_gone_after_ctrl_c() {
    let mut owner = Owner::start("wait", &[]);
    owner.listen();
    assert!(!owner.directories().is_empty() && processes(&owner.mark()).len() > 4);
    assert_eq!(owner.signal_group(Signal::SIGINT).signal(), Some(Signal::SIGINT as i32));
    owner.assert_nothing_is_left();
}

#[test]
fn sandboxes_in_any_state_end_after_kill_9_of_owner() {
    for role in ["wait", "paused", "crashed", "restarted"] {
        let mut owner = Owner::start(role, &[]);
        owner.listen();
        assert!(!owner.directories().is_empty(), "{role}");
        assert_eq!(owner.signal_group(Signal::SIGKILL).signal(), Some(Signal::SIGKILL as i32));
        owner.assert_nothing_is_left();
    }
}

#[test]
fn standbys_are_gone_after_kill_9_of_the_owner() {
    let mut owner = Owner::start("standby", &[]);
    owner.listen();
    assert_eq!(owner.directories().len(), 2);
    owner.signal_group(Signal::SIGKILL);
    owner.assert_nothing_is_left();
}

#[test]
fn owner_that_is_killed_while_a_standby_starts_leaves_nothing() {
    for sign in ["s", "data/base", "data/backup_label", "data/standby.signal", "data/postmaster.pid"] {
        let mut owner = Owner::start("standby", &[]);
        // The standby is the one that `initdb` did not make.
        let is_standby = |directory: &PathBuf| !directory.join("initdb.log").exists();
        let shows = || {
            let directories = owner.directories();
            directories.len() == 2
                && directories.iter().any(|directory| is_standby(directory) && directory.join(sign).exists())
        };
        eventually(shows, || format!("no {sign}"));
        owner.signal_group(Signal::SIGKILL);
        owner.assert_nothing_is_left();
    }
}

#[test]
fn pooler_is_gone_after_kill_9_of_the_owner() {
    let mut owner = Owner::start("pooler", &[]);
    let addr = owner.listen();
    assert_eq!(owner.directories().len(), 2);
    assert_eq!(processes("pgbouncer.ini").iter().filter(|line| line.contains(&owner.mark())).count(), 1);
    owner.signal_group(Signal::SIGKILL);
    owner.assert_nothing_is_left();
    assert!(TcpStream::connect(addr).is_err());
}

#[test]
fn surviving_child_of_owner_does_not_keep_sandboxes() {
    let mut owner = Owner::start("two and a child", &[]);
    let child = Pid::from_raw(owner.listen().parse().unwrap());
    assert_eq!(owner.directories().len(), 3, "two, and the cluster that later ones are copies of");
    owner.signal_group(Signal::SIGKILL);
    owner.assert_nothing_is_left();
    kill(child, None).unwrap();
    kill(child, Signal::SIGKILL).unwrap();
}

#[test]
fn owner_that_is_killed_while_its_sandbox_starts_leaves_nothing() {
    for sign in
        ["s", "initdb.log", "data/PG_VERSION", "data/base/1/PG_VERSION", "server.log", "data/postmaster.pid"]
    {
        let mut owner = Owner::start("wait", &[]);
        let shows = || owner.directories().iter().any(|directory| directory.join(sign).exists());
        eventually(shows, || format!("no {sign}"));
        owner.signal_group(Signal::SIGKILL);
        owner.assert_nothing_is_left();
    }
}

#[test]
fn owner_that_is_killed_at_any_moment_of_a_start_leaves_nothing() {
    // The moments between two signs matter as much: kill 5 ms later each time, from before the first one on.
    for delay in (0..200).step_by(5).map(Duration::from_millis) {
        let mut owner = Owner::start("wait", &[]);
        thread::sleep(delay);
        owner.signal_group(Signal::SIGKILL);
        owner.assert_nothing_is_left();
    }
}

#[test]
fn variables_that_name_a_server_are_ignored() {
    let elsewhere = "postgres://someone@127.0.0.1:1/production";
    let vars = [
        ("DATABASE_URL", elsewhere),
        ("PGHOST", "127.0.0.1"),
        ("PGPORT", "1"),
        ("PGDATA", "/nowhere"),
        ("PGOPTIONS", "-c nonsense=1"),
    ];
    let mut owner = Owner::start("url", &vars);
    let url = owner.listen();
    assert!(url.starts_with("postgres://postgres@127.0.0.1:") && !url.contains(":1/"), "{url}");
    assert!(owner.child.wait().unwrap().success());
    owner.assert_nothing_is_left();
}

#[test]
fn without_binaries_the_error_names_the_package() {
    let mut owner = Owner::start("error", &[("PG_BIN", "/nowhere")]);
    let error = owner.listen();
    assert!(error.contains("PG_BIN is /nowhere") && error.contains("apt-get install postgresql"), "{error}");
    assert!(owner.child.wait().unwrap().success());
    owner.assert_nothing_is_left();
}

#[test]
fn too_deep_or_private_temporary_directory_is_avoided() {
    let private = env::temp_dir().join(format!("private-{}", std::process::id()));
    let deep = private.join("d".repeat(100));
    fs::create_dir_all(&deep).unwrap();
    fs::set_permissions(&private, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
    for place in [&private, &deep] {
        let mut owner = Owner::start("url", &[("TMPDIR", place.to_str().unwrap())]);
        owner.listen();
        assert!(owner.child.wait().unwrap().success());
        owner.assert_nothing_is_left();
    }
    fs::remove_dir_all(private).unwrap();
}
