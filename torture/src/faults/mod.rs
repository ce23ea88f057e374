//! The faults, by name. Each begins, lasts, and has ended when its function returns; the nodes may then still recover.

mod server;
mod wire;

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::conductor::Stage;
use crate::dice::Dice;

/// A fault by its name.
struct Kind {
    name: &'static str,
    about: &'static str,
    /// Whether it is one of the mixture.
    is_mixed: bool,
}

const KINDS: &[Kind] = &[
    kind("listener-terminated", "a node's listening connection is ended by the server"),
    kind("all-terminated", "every connection is ended by the server"),
    kind("postgres-restart", "PostgreSQL is shut down and started"),
    kind("postgres-kill9", "PostgreSQL is killed and recovers"),
    kind("postgres-stop", "PostgreSQL is stopped for longer than the trust window, and continues"),
    kind("cut", "a node's connections are cut on the wire"),
    Kind { name: "none", about: "nothing, for as long", is_mixed: false },
];

const fn kind(name: &'static str, about: &'static str) -> Kind {
    Kind { name, about, is_mixed: true }
}

/// One line for each.
pub fn list() -> String {
    KINDS.iter().map(|kind| format!("  {:<22} {}\n", kind.name, kind.about)).collect()
}

/// The names that are meant: those asked for, or all that are mixed.
pub fn chosen(asked_for: &[String]) -> Result<Vec<&'static str>> {
    for name in asked_for {
        ensure!(
            KINDS.iter().any(|kind| kind.name == *name),
            "there is no fault {name}; there are\n{}",
            list()
        );
    }
    let is_chosen = |kind: &&Kind| {
        if asked_for.is_empty() { kind.is_mixed } else { asked_for.iter().any(|name| name == kind.name) }
    };
    Ok(KINDS.iter().filter(is_chosen).map(|kind| kind.name).collect())
}

/// Makes one, and ends it.
pub async fn make(name: &str, stage: &mut Stage, dice: &mut Dice) -> Result<()> {
    match name {
        "listener-terminated" => server::terminate(stage, "application_name = 'pg-listen'", 1).await,
        "all-terminated" => {
            server::terminate(stage, "application_name IN ('pg-listen', 'pg-session')", 1_000).await
        }
        "postgres-restart" => server::restart(stage).await,
        "postgres-kill9" => server::kill(stage).await,
        "postgres-stop" => server::stop(stage, dice).await,
        "cut" => wire::cut(stage, dice).await,
        _ => Ok(tokio::time::sleep(Duration::from_secs(3)).await),
    }
}
