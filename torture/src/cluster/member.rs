//! One node as the controller controls it: its wires, its process, and what it says.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use pg_sandbox::Proxy;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::watch;

use crate::node::Word;
use crate::plan::NodePlan;

/// How long a node may take to begin and to end.
const WAIT_MAX: Duration = Duration::from_secs(30);
/// Times that a node is started before that is an error, and the pause between them.
const STARTS_MAX: u32 = 20;
/// Refused starts after which the faults of its own wires end. The one that accompanies another lasts for as long as that
/// takes: a node that was killed behind a half-open wire would never start, and the wire never be healed.
const REFUSALS_BY_WIRE: u32 = 2;
const PAUSE: Duration = Duration::from_millis(500);

/// A node, over all its incarnations.
pub struct Member {
    pub index: usize,
    /// The wire of its pool, and that of its listener.
    pub pool: Proxy,
    pub listener: Proxy,
    plan: NodePlan,
    process: Option<Process>,
}

struct Process {
    child: Child,
    /// Dropping it tells the node to end.
    orders: ChildStdin,
    said: watch::Receiver<Said>,
}

/// All that a process has said.
#[derive(Clone, Debug, Default)]
struct Said {
    refused: Option<String>,
    is_ready: bool,
    is_trusted: bool,
    ended: Option<String>,
    is_silent: bool,
}

/// How a node is started.
#[derive(Clone, Debug, Default)]
pub struct Way {
    /// Another way to the database for its pool, with unprepared statements.
    pub pool_url: Option<String>,
    /// Another way for its listener.
    pub listener_url: Option<String>,
    /// What is added to its environment.
    pub environment: Vec<(String, String)>,
}

impl Member {
    pub fn new(plan: NodePlan, pool: Proxy, listener: Proxy) -> Self {
        Self { index: plan.node, pool, listener, plan, process: None }
    }

    /// Starts the next incarnation and waits until it serves. As a supervisor does, again and again: its first
    /// connections may meet the fault of a wire that accompanies this one.
    pub async fn start(&mut self, way: &Way) -> Result<()> {
        let mut starts = 1;
        while let Some(refusal) = self.try_start(way).await? {
            if starts == STARTS_MAX {
                bail!("node {} did not start: {refusal}", self.index);
            }
            if starts == REFUSALS_BY_WIRE {
                self.heal();
            }
            starts += 1;
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    /// As [`start`](Member::start); a node that refuses to start says why.
    pub async fn try_start(&mut self, way: &Way) -> Result<Option<String>> {
        let mut plan = self.plan.clone();
        self.plan.incarnation += 1;
        if let Some(url) = &way.pool_url {
            plan.pool_url.clone_from(url);
            plan.unnamed = true;
        }
        if let Some(url) = &way.listener_url {
            plan.listener_url.clone_from(url);
        }
        let mut child = Command::new(std::env::current_exe()?)
            .arg("node")
            .arg(serde_json::to_string(&plan)?)
            .envs(way.environment.iter().cloned())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .context("the process of a node cannot be started")?;
        let orders = child.stdin.take().ok_or_else(|| anyhow!("no standard input"))?;
        let output = child.stdout.take().ok_or_else(|| anyhow!("no standard output"))?;
        let (sender, mut said) = watch::channel(Said::default());
        tokio::spawn(listen(BufReader::new(output), sender));
        let begun = said.wait_for(|said| said.is_ready || said.refused.is_some() || said.is_silent);
        let refusal = {
            let said = tokio::time::timeout(WAIT_MAX, begun).await.context("a node did not begin")??;
            if said.is_ready {
                None
            } else {
                Some(said.refused.clone().unwrap_or_else(|| "it died".to_owned()))
            }
        };
        if refusal.is_some() {
            child.wait().await.context("a node that refused to start does not end")?;
        } else {
            self.process = Some(Process { child, orders, said });
        }
        Ok(refusal)
    }

    /// Tells it to end, and waits until it has.
    pub async fn stop(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        drop(process.orders);
        let ended = process.said.wait_for(|said| said.ended.is_some() || said.is_silent);
        let left = tokio::time::timeout(WAIT_MAX, ended).await.context("a node did not end")??.ended.clone();
        tokio::time::timeout(WAIT_MAX, process.child.wait()).await.context("a node did not end")??;
        match left {
            Some(left) if left.is_empty() => Ok(()),
            Some(left) => bail!("node {} left something behind: {left}", self.index),
            None => bail!("node {} died before its shutdown was over", self.index),
        }
    }

    /// `kill -9`.
    pub async fn kill(&mut self) -> Result<()> {
        let Some(mut process) = self.process.take() else { return Ok(()) };
        process.child.kill().await.context("a node cannot be killed")
    }

    /// Stops the process where it is, or continues it.
    pub fn freeze(&self, frozen: bool) -> Result<()> {
        let signal = if frozen { Signal::SIGSTOP } else { Signal::SIGCONT };
        let pid = self.pid().context("the node does not run")?;
        Ok(kill(Pid::from_raw(i32::try_from(pid)?), signal)?)
    }

    /// Continues it, and starts it if it is gone.
    pub async fn repair(&mut self) -> Result<()> {
        if self.process.as_ref().is_none_or(|process| process.said.borrow().is_silent) {
            self.kill().await?;
            return self.start(&Way::default()).await;
        }
        self.freeze(false)
    }

    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref()?.child.id()
    }

    /// Waits until the node is trusted; an error if it is not there any more.
    pub async fn wait_until_trusted(&mut self) -> Result<()> {
        let process = self.process.as_mut().context("the node does not run")?;
        let said = process.said.wait_for(|said| said.is_trusted || said.is_silent).await?;
        if said.is_silent { bail!("the node has died") } else { Ok(()) }
    }

    /// Whether it is trusted now.
    pub fn is_trusted(&self) -> bool {
        self.process.as_ref().is_some_and(|process| process.said.borrow().is_trusted)
    }

    /// Leads both wires to another server, and cuts them.
    pub fn redirect(&self, server: SocketAddr) {
        for wire in [&self.pool, &self.listener] {
            wire.redirect(server);
            wire.cut();
        }
    }

    /// Ends both wires' faults.
    pub fn heal(&self) {
        self.pool.heal();
        self.listener.heal();
    }
}

async fn listen(output: BufReader<tokio::process::ChildStdout>, said: watch::Sender<Said>) {
    let mut lines = output.lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let Ok(word) = serde_json::from_str::<Word>(&line) else { continue };
        said.send_modify(|said| match word {
            Word::Refused(why) => said.refused = Some(why),
            Word::Ready => said.is_ready = true,
            Word::Trusted(trusted) => said.is_trusted = trusted,
            Word::Ended(left) => said.ended = Some(left),
        });
    }
    said.send_modify(|said| {
        said.is_silent = true;
        said.is_trusted = false;
    });
}
