//! A holder that is a process of its own, and is stopped for longer than its lease: the reason for fencing tokens.
//!
//! The holder is this test binary, started again for one ignored test, with its orders in the environment. It says
//! what it finds on its standard output, and does its next step when it reads a line.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use pg_session::{Loss, SessionManager};

use crate::fixtures::in_time;
use crate::lock::assert_held;
use crate::support::{WAIT_MAX, World, eventually};

const LEASE: Duration = Duration::from_secs(2);
const URL: &str = "PG_SESSION_TEST_HOLDER_URL";
const SCHEMA: &str = "PG_SESSION_TEST_HOLDER_SCHEMA";
/// Before each line that is meant for the test; the harness writes lines of its own.
const MARK: &str = "holder: ";

/// The holder. Gone with the test, whatever becomes of it.
struct Holder {
    process: Child,
    orders: ChildStdin,
    lines: mpsc::Receiver<String>,
}

impl Holder {
    fn start(world: &World) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "lock_process::the_holder", "--ignored", "--nocapture", "--test-threads=1"])
            .env(URL, &world.url)
            .env(SCHEMA, &world.schema)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if let Some((_, line)) = line.split_once(MARK) {
                    let _ = sender.send(line.to_owned());
                }
            }
        });
        Self { orders: process.stdin.take().unwrap(), process, lines }
    }

    fn says(&self) -> String {
        self.lines.recv_timeout(WAIT_MAX).expect("the holder says something")
    }

    fn go_on(&mut self) {
        self.orders.write_all(b"\n").unwrap();
    }

    /// By the shell, which has `kill` built in.
    fn signal(&self, signal: &str) {
        let command = format!("kill -{signal} {}", self.process.id());
        assert!(Command::new("sh").args(["-c", &command]).status().unwrap().success());
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        // SIGKILL ends a stopped process, too. An error means that it has ended by itself.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// ```text
/// holder   takes (fence 1) ── renews ── ✋ stopped ······················· continues: lost, writes with fence 1
/// next                                        lease ends ── takes (2) ── writes with fence 2        refused ✗
/// ```
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn holder_stopped_for_two_leases_loses_lock_and_writes() {
    let world = World::new();
    let [node] = world.nodes().await;
    let client = world.client().await;
    client
        .batch_execute("CREATE TABLE guarded (fence bigint); INSERT INTO guarded VALUES (0)")
        .await
        .unwrap();
    let mut holder = Holder::start(&world);
    let fence: i64 = holder.says().parse().unwrap();
    assert_held(node.locks().try_lock("x").await);

    holder.signal("STOP");
    let next = in_time("its lease ends", node.locks().lock("x").wait(WAIT_MAX)).await.unwrap();
    assert!(next.fence().get() > fence);
    let write = "UPDATE guarded SET fence = $1 WHERE fence <= $1";
    assert_eq!(client.execute(write, &[&next.fence().get()]).await.unwrap(), 1);
    // Twice its lease in all, by the database's clock.
    let twice =
        "SELECT clock_timestamp() > acquired_at + $1::bigint * interval '1 millisecond' FROM session_locks";
    let twice_the_lease = i64::try_from(2 * LEASE.as_millis()).unwrap();
    eventually("it was stopped for long enough", async || {
        client.query_one(twice, &[&twice_the_lease]).await.unwrap().get(0)
    })
    .await;

    holder.go_on();
    holder.signal("CONT");
    assert_eq!(holder.says(), "held: false", "the very first look says so");
    assert_eq!(holder.says(), format!("lost: {}", Loss::Expired));
    assert_eq!(holder.says(), "rows written: 0");
    assert!(next.is_held());
    next.release().await.unwrap();
}

#[test]
#[ignore = "the holder of the test above, which starts it"]
fn the_holder() {
    let (Ok(url), Ok(schema)) = (std::env::var(URL), std::env::var(SCHEMA)) else { return };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(hold(World { url, schema }));
}

async fn hold(world: World) {
    let node: SessionManager = world.node().await;
    let client = world.client().await;
    let lease = node.locks().try_lock("x").lease(LEASE).await.unwrap();
    println!("{MARK}{}", lease.fence());
    let order = tokio::task::spawn_blocking(|| std::io::stdin().read_line(&mut String::new()));
    order.await.unwrap().unwrap();
    println!("{MARK}held: {}", lease.is_held());
    println!("{MARK}lost: {}", lease.lost().await);
    // It did not check the lease before its write. Only the fence protects the next holder's work.
    let write = "UPDATE guarded SET fence = $1 WHERE fence <= $1";
    let rows = client.execute(write, &[&lease.fence().get()]).await.unwrap();
    println!("{MARK}rows written: {rows}");
}
