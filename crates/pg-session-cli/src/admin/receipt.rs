//! The receipt of `everywhere()` as the commands print it, and who asked for it.

use std::env;
use std::process::Stdio;

use pg_session_admin::shared::Receipt;
use tokio::process::Command;

/// For people. The program is one of the nodes that confirm, and none of the application's.
pub(super) fn fields(receipt: Receipt) -> [(&'static str, String); 3] {
    let confirmed = match receipt.acknowledged.checked_sub(1) {
        Some(others) => format!("{others}, and this program"),
        None => "0".to_owned(),
    };
    [
        ("gone everywhere after", format!("{:.0} ms", receipt.took_ms)),
        ("nodes that confirmed it", confirmed),
        ("nodes whose trust ended", receipt.lapsed.to_string()),
    ]
}

/// Who ends sessions, for the audit log: the option `--by`, or else the user of the operating system.
pub(super) async fn actor(by: Option<&str>) -> String {
    if let Some(by) = by {
        return by.to_owned();
    }
    let mut variables = ["SUDO_USER", "USER", "LOGNAME"].into_iter().filter_map(|name| env::var(name).ok());
    match variables.find(|user| !user.is_empty()) {
        Some(user) => user,
        // A scheduled job or a container has no such variable.
        None => own_user().await.unwrap_or_else(|| "pg-session".to_owned()),
    }
}

/// The name of the user that the process has. `None` if the user has no name.
async fn own_user() -> Option<String> {
    let output = Command::new("id").arg("-un").stdin(Stdio::null()).stderr(Stdio::null()).output().await;
    let output = output.ok().filter(|output| output.status.success())?;
    let name = String::from_utf8(output.stdout).ok()?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}
