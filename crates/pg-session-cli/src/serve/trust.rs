//! Says when this node cannot answer from memory any more, with the cause, and when it can again.

use std::io::{self, Write};
use std::time::SystemTime;

use pg_session::{Event, SessionManager};

use crate::output::{harmless, remark, rfc3339};

/// A line for each change, until the node ends: text on stderr, or JSON on stdout. It is rare, whatever clients send.
pub(super) async fn report(manager: SessionManager, json: bool) {
    let mut events = manager.events();
    // The program says that it serves: that it answers from memory needs no line.
    let mut was_trusted = true;
    let mut is_trusted = manager.status().trusted_for.is_some();
    loop {
        if is_trusted != was_trusted {
            say(is_trusted, &manager, json);
            was_trusted = is_trusted;
        }
        is_trusted = match events.next().await {
            Some(Event::Trusted) => true,
            Some(Event::Untrusted) => false,
            Some(_) => was_trusted,
            None => return,
        };
    }
}

fn say(is_trusted: bool, manager: &SessionManager, json: bool) {
    let (time, cause) = (rfc3339(SystemTime::now()), manager.status().trust_error);
    if json {
        let cause = cause.filter(|_| !is_trusted);
        let line =
            serde_json::json!({ "event": "trust", "time": time, "trusted": is_trusted, "error": cause });
        // A reader that went away is an error of the next line that matters: that of a change.
        let _ = writeln!(io::stdout(), "{line}");
    } else if is_trusted {
        remark(&format!("{time} This node answers from memory again."));
    } else {
        let cause = cause.as_deref().map_or_else(|| "the cause is over".to_owned(), harmless);
        remark(&format!(
            "{time} This node has lost its listener, and reads each session from PostgreSQL: {cause}"
        ));
    }
}
