//! [`Nodes`]: the three processes, from the outside. They are this very program, started again.

use std::net::SocketAddr;
use std::process::Stdio;
use std::time::{Duration, Instant};

use pg_session::SigningKey;
use serde::Serialize;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::orders::{Edge, Neighbour, Report, Setup};
use crate::demo::print::took;
use crate::failure::{Failure, ensure};

const CAST: [(&str, Edge); 3] = [("A", Edge::Axum), ("B", Edge::Axum), ("C", Edge::Actix)];
/// How long a node may take to end: longer than its own limit.
const END_WAIT: Duration = Duration::from_secs(13);

/// The nodes. Dropping them kills them.
pub(super) struct Nodes {
    processes: [Process; 3],
    neighbours: Vec<Neighbour>,
}

struct Process {
    name: &'static str,
    child: Child,
    orders: ChildStdin,
    reports: BufReader<ChildStdout>,
}

impl Nodes {
    /// Starts them on `first_port` and the two after it, or on free ports if it is 0, and waits until they listen.
    ///
    /// # Errors
    /// With what the first one that could not says. The others are killed then.
    pub(super) async fn start(
        postgres: SocketAddr,
        postgres_url: &str,
        first_port: u16,
    ) -> Result<Self, Failure> {
        let key = SigningKey::generate()?.expose_base64();
        let [a, b, c] = CAST.map(|(name, _)| Process::start(name));
        let mut processes = [a?, b?, c?];
        for (process, (port, (name, edge))) in processes.iter_mut().zip(ports(first_port).zip(CAST)) {
            let setup = Setup {
                name: name.to_owned(),
                edge,
                port: port.ok_or_else(|| {
                    Failure::new("--port leaves no room for three ports; choose a lower one")
                })?,
                postgres,
                postgres_url: postgres_url.to_owned(),
                key: key.clone(),
            };
            process.tell(&setup).await?;
        }
        let mut neighbours = Vec::new();
        for (process, (name, edge)) in processes.iter_mut().zip(CAST) {
            let port = process.listening().await?;
            // By name: browsers keep `Secure` cookies over plain HTTP for `localhost` alone.
            let url = format!("http://localhost:{port}");
            neighbours.push(Neighbour { name: name.to_owned(), edge, url });
        }
        for process in &mut processes {
            process.tell(&neighbours).await?;
        }
        Ok(Self { processes, neighbours })
    }

    pub(super) fn neighbours(&self) -> &[Neighbour] {
        &self.neighbours
    }

    /// Waits until one of them is gone, and says which.
    pub(super) async fn gone(&mut self) -> Failure {
        let [a, b, c] = &mut self.processes;
        tokio::select! {
            failure = a.gone() => failure,
            failure = b.gone() => failure,
            failure = c.gone() => failure,
        }
    }

    /// Has them end in order, all at the same time. Returns how long that took.
    ///
    /// # Errors
    /// If one of them could not, with its name. None of them is left then, either.
    pub(super) async fn end(self) -> Result<(String, ()), Failure> {
        let begin = Instant::now();
        let [a, b, c] = self.processes;
        let (a, b, c) = tokio::join!(a.end(), b.end(), c.end());
        a.and(b).and(c)?;
        Ok((took(begin.elapsed()), ()))
    }
}

/// `None` where the numbers end.
fn ports(first: u16) -> impl Iterator<Item = Option<u16>> {
    (0..3).map(move |at| if first == 0 { Some(0) } else { first.checked_add(at) })
}

impl Process {
    fn start(name: &'static str) -> Result<Self, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("demo-node").stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let pipe = || Failure::new("a node has no pipes");
        let orders = child.stdin.take().ok_or_else(pipe)?;
        let reports = BufReader::new(child.stdout.take().ok_or_else(pipe)?);
        Ok(Self { name, child, orders, reports })
    }

    async fn tell<T: Serialize>(&mut self, what: &T) -> Result<(), Failure> {
        let mut line = serde_json::to_vec(what)?;
        line.push(b'\n');
        Ok(self.orders.write_all(&line).await?)
    }

    async fn listening(&mut self) -> Result<u16, Failure> {
        let mut line = String::new();
        self.reports.read_line(&mut line).await?;
        match serde_json::from_str(&line) {
            Ok(Report::Listening(port)) => Ok(port),
            Ok(Report::Failed(failure)) => Err(Failure::new(failure)),
            Err(_) => Err(Failure::new(format!("{} ended before it listened", self.name))),
        }
    }

    async fn gone(&mut self) -> Failure {
        match self.child.wait().await {
            Ok(status) => Failure::new(format!("{} is gone: {status}", self.name)),
            Err(error) => error.into(),
        }
    }

    async fn end(mut self) -> Result<(), Failure> {
        drop(self.orders);
        let Ok(status) = tokio::time::timeout(END_WAIT, self.child.wait()).await else {
            self.child.kill().await?;
            return Err(Failure::new(format!("{} did not end in time and was killed", self.name)));
        };
        let status = status?;
        ensure(status.success(), || format!("{} ended with {status}", self.name))
    }
}
