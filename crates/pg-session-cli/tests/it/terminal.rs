//! The program on a terminal: tables with colours, a question before anything ends, and what it says while it waits.

use std::fs::File;
use std::io::{Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use nix::pty::openpty;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pg_sandbox::Proxy;

use crate::admin::Application;
use crate::support::WAIT_MAX;

/// The program on a terminal of its own.
struct Terminal {
    child: Child,
    keyboard: File,
    screen: Receiver<Vec<u8>>,
    shown: String,
}

impl Terminal {
    fn start(app: &Application, args: &[&str]) -> Self {
        Self::start_on(&app.world.url, app, args)
    }

    fn start_on(url: &str, app: &Application, args: &[&str]) -> Self {
        let pty = openpty(None, None).expect("a terminal");
        let side = || Stdio::from(pty.slave.try_clone().expect("a descriptor"));
        let mut command = Command::new(env!("CARGO_BIN_EXE_pg-session"));
        command.args(args).args(["--database-url", url, "--schema", &app.schema]);
        command.env("TERM", "xterm").env_remove("NO_COLOR").env_remove("RUST_LOG");
        command.stdin(side()).stdout(side()).stderr(side());
        let child = command.spawn().expect("the program starts");
        let keyboard = File::from(pty.master);
        let mut glass = keyboard.try_clone().expect("a descriptor");
        let (sender, screen) = mpsc::channel();
        // An error means that the program has ended, and with it the other side.
        thread::spawn(move || {
            let mut bytes = [0; 4_096];
            while let Ok(count @ 1..) = glass.read(&mut bytes) {
                if sender.send(bytes[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        Self { child, keyboard, screen, shown: String::new() }
    }

    fn read_until(&mut self, text: &str) -> &str {
        let deadline = Instant::now() + WAIT_MAX;
        while !self.shown.contains(text) {
            let left = deadline.saturating_duration_since(Instant::now());
            let bytes = self.screen.recv_timeout(left);
            let bytes = bytes.unwrap_or_else(|error| panic!("{error} before {text:?}: {}", self.shown));
            self.shown.push_str(&String::from_utf8_lossy(&bytes));
        }
        &self.shown
    }

    fn answer(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).expect("the terminal takes keys");
    }

    /// All that was shown, and the exit code.
    fn finish(mut self) -> (String, Option<i32>) {
        let code = self.child.wait().expect("the program ends").code();
        while let Ok(bytes) = self.screen.recv_timeout(Duration::from_millis(100)) {
            self.shown.push_str(&String::from_utf8_lossy(&bytes));
        }
        (std::mem::take(&mut self.shown), code)
    }
}

impl Drop for Terminal {
    /// After a failed assertion. An error means that it has ended.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_ends_on_a_terminal_without_the_word_yes() {
    let app = Application::new("consent").await;
    let session = app.node.create(1).await.unwrap();
    for command in ["revoke", "erase"] {
        // What a hurried operator types, and the end of the input.
        for refusal in ["y\r", "YES\r", "\r", "yes please\r", "\u{4}"] {
            let mut terminal = Terminal::start(&app, &[command, "--user", "1"]);
            terminal.read_until("? Type yes: ");
            terminal.answer(refusal);
            let (shown, code) = terminal.finish();
            assert_eq!(code, Some(1), "{command} {refusal:?}: {shown}");
            assert!(shown.contains("nothing was "), "{command} {refusal:?}: {shown}");
            assert!(app.alive(&session).await, "{command} {refusal:?}");
        }
    }
    let mut terminal = Terminal::start(&app, &["revoke", "--user", "1"]);
    let shown = terminal.read_until("End 1 session? Type yes: ");
    assert!(shown.contains(&session.id().handle().to_string()), "it shows what ends: {shown}");
    terminal.answer("yes\r");
    let (shown, code) = terminal.finish();
    assert_eq!(code, Some(0), "{shown}");
    assert!(!app.alive(&session).await && !shown.contains(&session.id().expose().to_string()), "{shown}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ctrl_c_at_the_question_ends_nothing_and_leaves_no_node() {
    let app = Application::new("doubt").await;
    let session = app.node.create(1).await.unwrap();
    let nodes = format!("SELECT count(*) FROM {}.session_nodes WHERE $1::text IS NOT NULL", app.schema);
    for command in ["revoke", "erase"] {
        for signal in [Signal::SIGINT, Signal::SIGTERM] {
            let mut terminal = Terminal::start(&app, &[command, "--user", "1"]);
            terminal.read_until("? Type yes: ");
            let pid = i32::try_from(terminal.child.id()).expect("a process id");
            kill(Pid::from_raw(pid), signal).expect("the program runs");
            let (shown, code) = terminal.finish();
            assert_eq!(code, Some(128 + signal as i32), "{command}: {shown}");
            assert!(shown.contains("interrupted; nothing was "), "{command}: {shown}");
            assert_eq!(app.world.count(&nodes, "").await, 1, "{command}: only the application's node");
        }
    }
    assert!(app.alive(&session).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_terminal_gets_tables_with_colours_and_relative_times() {
    let app = Application::new("table").await;
    app.node.create(1).await.unwrap();
    let (shown, code) = Terminal::start(&app, &["list"]).finish();
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("\u{1b}[") && shown.contains(" s ago") && !shown.contains('\t'), "{shown:?}");
    let mut watch = Terminal::start(&app, &["watch", "--every", "500ms"]);
    watch.read_until("\u{1b}[2J");
    watch.read_until("this node answers from memory");
    let pid = i32::try_from(watch.child.id()).expect("a process id");
    kill(Pid::from_raw(pid), Signal::SIGINT).expect("the program runs");
    let (shown, code) = watch.finish();
    assert_eq!(code, Some(0), "{shown:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_command_says_what_it_waits_for() {
    let app = Application::new("slow").await;
    let wire = Proxy::start(app.world.address()).await.expect("a proxy");
    wire.delay(Duration::from_millis(300));
    for (command, words) in [("list", "connecting …"), ("doctor", "checking …"), ("migrate", "migrating …")]
    {
        let (shown, code) = Terminal::start_on(&wire.url_for(&app.world.url), &app, &[command]).finish();
        assert_eq!(code, Some(0), "{command}: {shown}");
        assert!(shown.contains(words), "{command}: {shown}");
    }
}
