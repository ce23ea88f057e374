//! pgbouncer in transaction mode, between a node and the server.
//!
//! Before the pool it is at home. Before the listener it would be fatal and look well: LISTEN and barriers both come
//! through, as long as the same server connection happens to serve them, and what other nodes say does not. A node has
//! to tell it apart.

use std::fs;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::process::{Child, Command};

use super::node::live_otherwise;
use crate::conductor::{Stage, Way};
use crate::dice::Dice;
use crate::history::Entry;

const BEGIN_MAX: Duration = Duration::from_secs(10);
/// The account that it runs as where we are root, which it refuses to be.
const ACCOUNT: &str = "postgres";

/// A running pgbouncer, gone when this is dropped.
struct Pooler {
    _process: Child,
    url: String,
}

/// A node lives behind pgbouncer for a while, its listener past it.
pub(super) async fn before_the_pool(stage: &mut Stage, dice: &mut Dice) -> Result<()> {
    let pooler = Pooler::start(stage).await?;
    let which = dice.index(stage.nodes.len());
    let way = Way { pool_url: Some(pooler.url.clone()), ..Way::default() };
    live_otherwise(stage, which, &way, dice.millis(3_000, 6_000)).await
}

/// A node whose listener is behind pgbouncer must not start, or must never be trusted.
pub(super) async fn before_the_listener(stage: &mut Stage, dice: &mut Dice) -> Result<()> {
    let pooler = Pooler::start(stage).await?;
    let which = dice.index(stage.nodes.len());
    let way = Way { ear_url: Some(pooler.url.clone()), ..Way::default() };
    let node = &mut stage.nodes[which];
    node.stop().await?;
    let refusal = node.try_start(&way).await?;
    if refusal.is_none() {
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let is_trusted = node.is_trusted();
    node.stop().await?;
    node.start(&Way::default()).await?;
    stage.note_pids();
    let what = match &refusal {
        Some(why) => format!("a node whose listener is behind pgbouncer was refused: {why}"),
        None => "a node whose listener is behind pgbouncer was started".to_owned(),
    };
    let names_the_pooler = refusal.as_ref().is_none_or(|why| why.contains("pooler"));
    stage.journal.write(&Entry::Told { held: !is_trusted && names_the_pooler, what });
    Ok(())
}

/// Why there can be no pooler, if there can be none.
pub(super) fn is_missing() -> Option<String> {
    program().is_none().then(|| "pgbouncer is not installed (Debian: apt-get install pgbouncer)".to_owned())
}

fn program() -> Option<PathBuf> {
    let places = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer", "/usr/local/bin/pgbouncer"];
    places.iter().map(PathBuf::from).find(|path| path.exists())
}

impl Pooler {
    async fn start(stage: &Stage) -> Result<Self> {
        let program = program().context("pgbouncer is not installed")?;
        // Free at this moment; nobody on this machine hurries to take it.
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let users = stage.keep.path().join("pgbouncer-users.txt");
        fs::write(&users, "\"postgres\" \"\"\n")?;
        let settings = stage.keep.path().join("pgbouncer.ini");
        let server = stage.sandbox.addr();
        fs::write(
            &settings,
            format!(
                "[databases]\n\
                 postgres = host={} port={} dbname=postgres\n\
                 [pgbouncer]\n\
                 listen_addr = 127.0.0.1\n\
                 listen_port = {port}\n\
                 unix_socket_dir =\n\
                 auth_type = trust\n\
                 auth_file = {}\n\
                 pool_mode = transaction\n\
                 default_pool_size = 4\n\
                 ignore_startup_parameters = extra_float_digits\n",
                server.ip(),
                server.port(),
                users.display()
            ),
        )?;
        // It ends with us, however we end. (util-linux; it becomes the other account before it asks for that.)
        let mut command = Command::new("setpriv");
        command.arg("--pdeathsig=KILL");
        if nix::unistd::geteuid().is_root() {
            command.args([
                format!("--reuid={ACCOUNT}"),
                format!("--regid={ACCOUNT}"),
                "--init-groups".to_owned(),
            ]);
        }
        command.arg(program).arg("-q").arg(&settings);
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let process = command.kill_on_drop(true).spawn().context("pgbouncer cannot be started")?;
        let url = format!("postgres://postgres@127.0.0.1:{port}/postgres?application_name=pg-session");
        let began = std::time::Instant::now();
        while crate::conductor::connect(&url).await.is_err() {
            ensure!(began.elapsed() < BEGIN_MAX, "pgbouncer does not answer");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(Self { _process: process, url })
    }
}
