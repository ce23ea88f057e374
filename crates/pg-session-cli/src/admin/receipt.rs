//! The receipt of `everywhere()` as the commands print it, and who asked for it.

use std::env;

use pg_session::Everywhere;
use serde::Serialize;

/// No node can serve what was ended. docs/cli.md describes the fields.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Receipt {
    pub(super) acknowledged: usize,
    pub(super) lapsed: usize,
    pub(super) took_ms: f64,
}

impl Receipt {
    pub(super) fn new(everywhere: &Everywhere) -> Self {
        let took_ms = (everywhere.took.as_secs_f64() * 1e4).round() / 10.0;
        Self { acknowledged: everywhere.acknowledged, lapsed: everywhere.lapsed, took_ms }
    }

    /// This program counts as no node.
    pub(super) fn of_others(everywhere: &Everywhere) -> Self {
        let receipt = Self::new(everywhere);
        Self { acknowledged: receipt.acknowledged.saturating_sub(1), ..receipt }
    }

    /// For people.
    pub(super) fn fields(self) -> [(&'static str, String); 3] {
        [
            ("gone everywhere after", format!("{:.0} ms", self.took_ms)),
            ("nodes that confirmed it", self.acknowledged.to_string()),
            ("nodes whose trust ended", self.lapsed.to_string()),
        ]
    }
}

/// Who ends sessions, for the audit log: the option `--by`, or else the user of the operating system.
pub(super) fn actor(by: Option<&str>) -> String {
    let mut variables = ["SUDO_USER", "USER", "LOGNAME"].into_iter().filter_map(|name| env::var(name).ok());
    let user = variables.find(|user| !user.is_empty());
    by.map(str::to_owned).or(user).unwrap_or_else(|| "pg-session".to_owned())
}
