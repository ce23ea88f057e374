//! Restores into a running server, by PostgreSQL's own programs: the procedures of `docs/operations.md`.
//!
//! ```text
//! tables   v1 (n = 1) ── dump ── v2 (n = 2) ── restore: v1 (n = 1) ── another node: v2 (n = 3)
//! node                            caches v2                            must not serve n = 2
//! ```
//!
//! No node is notified of the restore, and the server runs on.

use std::path::{Path, PathBuf};
use std::process::Command;

use pg_session::{Session, SessionManager};

use crate::fixtures::{hit, ids, in_time, make, n, read, read_all, update_all};
use crate::support::World;

/// PostgreSQL's programs, where the server's own are.
async fn programs(world: &World) -> Option<PathBuf> {
    let text = "SELECT setting FROM pg_config WHERE name = 'BINDIR'";
    let bin: String = world.client().await.query_one(text, &[]).await.unwrap().get(0);
    Some(PathBuf::from(bin)).filter(|bin| bin.join("pg_restore").is_file() && bin.join("pg_dump").is_file())
}

struct Dump<'a> {
    bin: PathBuf,
    file: PathBuf,
    world: &'a World,
}

impl Drop for Dump<'_> {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.file);
    }
}

async fn run(program: &Path, arguments: &[&str], options: &str) {
    let mut command = Command::new(program);
    command.args(arguments).env("PGOPTIONS", options);
    let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{} {arguments:?}: {text}", program.display());
}

impl<'a> Dump<'a> {
    async fn new(world: &'a World, bin: PathBuf) -> Self {
        let file = std::env::temp_dir().join(format!("pg_session_{}.dump", uuid::Uuid::new_v4().simple()));
        let dump = Self { bin, file, world };
        let path = dump.file.display().to_string();
        let arguments = ["-Fc", "-n", &world.schema, "-f", &path, &world.url];
        run(&dump.bin.join("pg_dump"), &arguments, "").await;
        dump
    }

    async fn restore(&self, arguments: &[&str], options: &str) {
        let path = self.file.display().to_string();
        let arguments = [&["-d", &self.world.url], arguments, &[path.as_str()]].concat();
        run(&self.bin.join("pg_restore"), &arguments, options).await;
    }
}

/// Both nodes have version 2, with `n` = 2.
async fn update(node: &SessionManager, sessions: &mut [Session]) {
    update_all(node, sessions, 2).await;
    let ids = ids(sessions);
    // A node that was not trusted for a moment reads from the database.
    let cached = async {
        while !ids.iter().all(|&id| hit(node, id).is_some()) {
            read_all(node, &ids).await;
        }
    };
    in_time("they are cached", cached).await;
    assert!(read_all(node, &ids).await.iter().all(|session| n(session) == 2));
}

/// Another node makes another version 2. The first one serves it.
async fn assert_serves_what_is_restored(node: &SessionManager, other: &SessionManager, sessions: &[Session]) {
    let mut restored = Vec::new();
    for session in sessions {
        let session = in_time("it is read", other.get(session.id()).bypass_cache()).await.unwrap();
        restored.push(session.expect("it is restored"));
    }
    assert!(restored.iter().all(|session| n(session) == 1));
    update_all(other, &mut restored, 3).await;
    in_time("the node has noticed", node.catch_up()).await.unwrap();
    for session in &restored {
        assert_eq!(n(&read(node, session.id()).await), 3, "it serves the state before the restore");
        assert_eq!(
            read(node, session.id()).await.get::<String>("large").unwrap().map(|text| text.len()),
            Some(600)
        );
    }
    let created = node.create(100).await.unwrap();
    assert!(other.get(created.id()).await.unwrap().is_some());
    assert!(node.delete(created.id()).await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn restores_into_a_running_server_are_noticed() {
    let world = World::new();
    let Some(bin) = programs(&world).await else {
        eprintln!("skipped: pg_dump and pg_restore are not where the server is");
        return;
    };
    let [node, other] = world.nodes().await;
    let mut sessions = make(&node, 3).await;
    for session in &mut sessions {
        session.set("large", &"x".repeat(600)).unwrap();
        node.save(session).await.unwrap();
    }
    let dump = Dump::new(&world, bin).await;
    let operator = world.operator().await;
    let saved = sessions.clone();
    let tables = ["--data-only", "-t", "sessions", "-t", "session_attributes", "-t", "session_labels"];
    for (arguments, options) in [
        (vec!["--clean", "--if-exists", "--single-transaction"], ""),
        (tables.to_vec(), "-c pg_session.direct_writes=on"),
        ([&tables[..], &["--disable-triggers"]].concat(), ""),
    ] {
        update(&node, &mut sessions).await;
        if arguments.contains(&"--data-only") {
            operator.batch_execute("TRUNCATE sessions").await.unwrap();
        }
        dump.restore(&arguments, options).await;
        assert_serves_what_is_restored(&node, &other, &sessions).await;
        // As they are in the dump.
        operator.batch_execute("TRUNCATE sessions").await.unwrap();
        dump.restore(&tables, "-c pg_session.direct_writes=on").await;
        sessions.clone_from(&saved);
        node.catch_up().await.unwrap();
    }
    operator.batch_execute("TRUNCATE sessions").await.unwrap();
    let refused = Command::new(dump.bin.join("pg_restore"))
        .args(["-d", &world.url, "--data-only", "-t", "sessions"])
        .arg(&dump.file)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&refused.stderr);
    assert!(text.contains("pg_session.direct_writes"), "the refusal says what to set: {text}");
}
