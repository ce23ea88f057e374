//! The receipt of `everywhere()` as the commands print it, and who asked for it.

use std::env;

use pg_session::Everywhere;
use pg_session_admin::shared::Receipt;

/// This program counts as no node.
pub(super) fn of_others(everywhere: &Everywhere) -> Receipt {
    let receipt = Receipt::from(everywhere);
    Receipt { acknowledged: receipt.acknowledged.saturating_sub(1), ..receipt }
}

/// For people.
pub(super) fn fields(receipt: Receipt) -> [(&'static str, String); 3] {
    [
        ("gone everywhere after", format!("{:.0} ms", receipt.took_ms)),
        ("nodes that confirmed it", receipt.acknowledged.to_string()),
        ("nodes whose trust ended", receipt.lapsed.to_string()),
    ]
}

/// Who ends sessions, for the audit log: the option `--by`, or else the user of the operating system.
pub(super) fn actor(by: Option<&str>) -> String {
    let mut variables = ["SUDO_USER", "USER", "LOGNAME"].into_iter().filter_map(|name| env::var(name).ok());
    let user = variables.find(|user| !user.is_empty());
    by.map(str::to_owned).or(user).unwrap_or_else(|| "pg-session".to_owned())
}
