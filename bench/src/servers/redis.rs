//! A private Redis: in a directory of its own, on a port of 127.0.0.1, gone when this value or this process is.

use std::io::Write;
use std::net::TcpListener;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use futures_util::StreamExt;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, IntoConnectionInfo};
use tokio::task::JoinHandle;

/// Runs the server as its child until its own standard input ends, which happens when the owner is gone; then kills
/// the server and removes the directory.
const WATCHDOG: &str = r#"
trap '' HUP INT TERM
dir=$1; shift
redis-server --dir "$dir" "$@" <&- >/dev/null 2>&1 &
server=$!
while read -r _; do :; done
kill -KILL "$server" 2>/dev/null
wait "$server" 2>/dev/null
rm -rf "$dir"
"#;

/// How long the server may take to answer, at its start and in a turn.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// Another process may take the port between our look and the server's start.
const PORT_TRIES_MAX: usize = 5;
/// Redis's default.
const DATABASES: i64 = 16;

/// What survives of what was acknowledged.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Persistence {
    /// Nothing.
    None,
    /// Everything: the append-only file is flushed before each answer.
    FsyncAlways,
}

impl Persistence {
    fn settings(self) -> [(&'static str, &'static str); 3] {
        match self {
            Self::None => [("save", ""), ("appendonly", "no"), ("appendfsync", "everysec")],
            Self::FsyncAlways => [("save", ""), ("appendonly", "yes"), ("appendfsync", "always")],
        }
    }
}

/// The running server.
#[derive(Debug)]
pub(crate) struct Redis {
    port: u16,
    /// Databases in use.
    taken: AtomicI64,
    pub(crate) version: String,
    pub(crate) settings: Vec<(String, String)>,
    _watchdog: Watchdog,
}

pub(crate) fn installed() -> Option<String> {
    let output = Command::new("redis-server").arg("--version").stdin(Stdio::null()).output().ok()?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let version = said.split_whitespace().find_map(|word| word.strip_prefix("v="))?;
    Some(version.to_owned())
}

impl Redis {
    /// # Errors
    /// If it does not start, or does not persist as configured.
    pub(crate) async fn start(
        parent: &Path,
        persistence: Persistence,
        version: &str,
    ) -> anyhow::Result<Self> {
        let mut tries = 1;
        loop {
            match Self::try_start(parent, persistence, version).await {
                Err(error) if tries == PORT_TRIES_MAX => {
                    return Err(error.context("redis-server did not start"));
                }
                Err(_) => tries += 1,
                started => return started,
            }
        }
    }

    async fn try_start(parent: &Path, persistence: Persistence, version: &str) -> anyhow::Result<Self> {
        let port = TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let directory = parent.join(format!("pg-session-bench-redis-{}-{port}", std::process::id()));
        let watchdog = Watchdog::start(directory, port, persistence)?;
        let client = RedisDatabase(redis::Client::open(("127.0.0.1", port))?);
        let begun = Instant::now();
        let mut connection = loop {
            match client.connect().await {
                Ok(connection) => break connection,
                Err(_) if begun.elapsed() < WAIT_MAX => tokio::time::sleep(Duration::from_millis(20)).await,
                Err(error) => return Err(error),
            }
        };
        let mut settings = Vec::new();
        for (name, wanted) in persistence.settings() {
            let said: Vec<String> =
                redis::cmd("CONFIG").arg("GET").arg(name).query_async(&mut connection).await?;
            let [_, value] = &said[..] else { bail!("CONFIG GET {name} answered {said:?}") };
            ensure!(value == wanted, "{name} is {value:?} and should be {wanted:?}");
            settings.push((name.to_owned(), value.clone()));
        }
        Ok(Self {
            port,
            taken: AtomicI64::new(0),
            version: version.to_owned(),
            settings,
            _watchdog: watchdog,
        })
    }

    /// A database of the server that no contender uses.
    ///
    /// # Errors
    /// If there is none left; [`clear`](Redis::clear) frees them all.
    pub(crate) fn database(&self) -> anyhow::Result<RedisDatabase> {
        let number = self.taken.fetch_add(1, Ordering::Relaxed);
        ensure!(number < DATABASES, "all {DATABASES} databases of Redis are in use");
        let info = ("127.0.0.1", self.port).into_connection_info()?;
        let settings = info.redis_settings().clone().set_db(number);
        Ok(RedisDatabase(redis::Client::open(info.set_redis_settings(settings))?))
    }

    /// The address of a database of its own, for another process.
    pub(crate) fn url(&self) -> anyhow::Result<String> {
        let number = self.taken.fetch_add(1, Ordering::Relaxed);
        ensure!(number < DATABASES, "all {DATABASES} databases of Redis are in use");
        Ok(format!("redis://127.0.0.1:{}/{number}", self.port))
    }

    /// Empties all databases. No contender may use one any more.
    pub(crate) async fn clear(&self) -> anyhow::Result<()> {
        self.taken.store(0, Ordering::Relaxed);
        let mut connection = self.database()?.connect().await?;
        self.taken.store(0, Ordering::Relaxed);
        redis::cmd("FLUSHALL").query_async::<()>(&mut connection).await.context("FLUSHALL")
    }
}

/// One of a server's numbered databases.
#[derive(Debug)]
pub(crate) struct RedisDatabase(redis::Client);

impl RedisDatabase {
    pub(crate) async fn connect(&self) -> anyhow::Result<MultiplexedConnection> {
        // The default gives up after half a second: a slow disk is a slow figure, not an error.
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(WAIT_MAX))
            .set_response_timeout(Some(WAIT_MAX));
        let connection = self.0.get_multiplexed_async_connection_with_config(&config);
        connection.await.context("no connection to Redis")
    }

    pub(crate) async fn subscribe(&self, channel: &str) -> anyhow::Result<Listener> {
        let mut subscription = self.0.get_async_pubsub().await?;
        subscription.subscribe(channel).await?;
        let listening = tokio::spawn(async move {
            let mut messages = subscription.on_message();
            while messages.next().await.is_some() {}
        });
        Ok(Listener(listening))
    }
}

/// A connection that receives what is published and does nothing with it, for as long as this lives.
#[derive(Debug)]
pub(crate) struct Listener(JoinHandle<()>);

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The shell that ends the server; see [`WATCHDOG`].
#[derive(Debug)]
struct Watchdog {
    shell: Child,
    directory: PathBuf,
}

impl Watchdog {
    fn start(directory: PathBuf, port: u16, persistence: Persistence) -> anyhow::Result<Self> {
        std::fs::create_dir(&directory).with_context(|| format!("could not make {}", directory.display()))?;
        let mut command = Command::new("/bin/sh");
        command.args(["-c", WATCHDOG, "pg-session-bench-redis"]).arg(&directory);
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--daemonize", "no"]);
        for (name, value) in persistence.settings() {
            command.arg(format!("--{name}")).arg(value);
        }
        // A group of its own: Ctrl-C reaches this process, and the watchdog learns of its end through the pipe.
        let shell = command
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("could not start /bin/sh");
        match shell {
            Ok(shell) => Ok(Self { shell, directory }),
            Err(error) => {
                let _ = std::fs::remove_dir(&directory);
                Err(error)
            }
        }
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        if let Some(mut pipe) = self.shell.stdin.take() {
            // Only its end says anything.
            let _ = pipe.flush();
        }
        if let Err(error) = self.shell.wait() {
            eprintln!("bench: Redis in {} may be left: {error}", self.directory.display());
        }
    }
}
