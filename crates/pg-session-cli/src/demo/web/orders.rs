//! What the demo and its nodes tell each other, one line of JSON each: down over a node's stdin, up over its stdout.
//!
//! ```text
//! demo                 node
//!   Setup      ────▶   connects, listens
//!              ◀────   Report
//!   neighbours ────▶   serves
//!   end        ────▶   writes what it holds, ends
//! ```
//!
//! Nothing of it is on a command line, which every user of the machine can read. A demo that is killed closes the pipe as
//! well, so no node outlives it.

use std::io;
use std::net::SocketAddr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::failure::Failure;

/// What a node is. Holds secrets, hence no `Debug`.
#[derive(Serialize, Deserialize)]
pub(super) struct Setup {
    pub(super) name: String,
    pub(super) edge: Edge,
    /// On 127.0.0.1; 0 for any free one.
    pub(super) port: u16,
    pub(super) postgres: SocketAddr,
    pub(super) postgres_url: String,
    /// The key that signs the cookies, the same for all nodes.
    pub(super) key: String,
}

/// What a node is built with.
#[derive(Clone, Copy, Serialize, Deserialize, Debug)]
#[serde(rename_all = "lowercase")]
pub(super) enum Edge {
    Axum,
    Actix,
}

/// How the setup went.
#[derive(Serialize, Deserialize, Debug)]
#[serde(rename_all = "lowercase")]
pub(super) enum Report {
    /// On this port, and in sync.
    Listening(u16),
    Failed(String),
}

/// A node, as the page knows it.
#[derive(Clone, Serialize, Deserialize, Debug)]
pub(super) struct Neighbour {
    pub(super) name: String,
    pub(super) edge: Edge,
    pub(super) url: String,
}

impl Edge {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Axum => "axum",
            Self::Actix => "actix",
        }
    }
}

/// The lines that a node receives.
pub(super) struct Orders(mpsc::Receiver<String>);

impl Orders {
    /// Reads stdin on a thread of its own, for which the program's end does not wait.
    pub(super) fn read() -> Self {
        let (sender, orders) = mpsc::channel(1);
        std::thread::spawn(move || {
            for line in io::stdin().lines().map_while(Result::ok) {
                if sender.blocking_send(line).is_err() {
                    break;
                }
            }
        });
        Self(orders)
    }

    /// The next one.
    ///
    /// # Errors
    /// If it is none, or the demo has ended.
    pub(super) async fn next<T: DeserializeOwned>(&mut self) -> Result<T, Failure> {
        let line = self.0.recv().await.ok_or_else(|| Failure::new("only `demo --web` starts a node"))?;
        // The error says where, not what: the line holds secrets.
        serde_json::from_str(&line).map_err(|_| Failure::new("only `demo --web` tells a node what to do"))
    }

    /// Returns when the demo has closed the pipe, or is gone.
    pub(super) async fn end(&mut self) {
        while self.0.recv().await.is_some() {}
    }
}
