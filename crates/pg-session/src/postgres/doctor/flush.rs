//! How long the server takes to flush its WAL. All commits that notify, of all databases, wait for each other, and each holds
//! its lock until its flush. So they are at most as many a second as flushes.

use std::time::Duration;

use super::{Check, Finding};
use crate::error::Error;
use crate::postgres::Database;

/// The longest flush without a finding: a hundred commits a second that notify.
const FLUSH_MAX: Duration = Duration::from_millis(10);
/// Statements of each kind. The quickest counts: the others have met something else.
const SAMPLES: u32 = 3;

/// Writes a message to the WAL that no one reads, so that the commit flushes. It changes no table, and waits for no standby.
const FLUSHES: &str = "SELECT pg_catalog.set_config('synchronous_commit', 'local', true),
    pg_catalog.pg_logical_emit_message(true, 'pg-session', '')::pg_catalog.text";
const ANSWERS: &str = "SELECT 'answered', ''";
const FIX: &str = "SELECT '', CASE WHEN pg_catalog.current_setting('commit_delay') <> '0'
    THEN 'ALTER SYSTEM RESET commit_delay; SELECT pg_reload_conf();'
    ELSE 'Move the WAL to storage that flushes faster, or combine writes in fewer nodes.' END";

impl Database {
    pub(super) async fn check_flush(&self) -> Result<Vec<Finding>, Error> {
        let check = Check::warning("flush", FIX.to_owned());
        let (mut flushed, mut answered) = (Duration::MAX, Duration::MAX);
        for _ in 0..SAMPLES {
            for (sql, quickest) in [(ANSWERS, &mut answered), (FLUSHES, &mut flushed)] {
                let sent = self.policy.clock.now();
                if let Err(failure) = self.rows_of(sql).await {
                    return self.refused(&check, failure);
                }
                *quickest = self.policy.clock.now().since(sent).min(*quickest);
            }
        }
        let flush = flushed.saturating_sub(answered);
        if flush <= FLUSH_MAX {
            return Ok(Vec::new());
        }
        let fix = self.run_check(&check).await?.pop().map_or_else(String::new, |finding| finding.fix);
        let per_second = 1_000_000 / flush.as_micros().max(1);
        let message = format!(
            "a commit waits {} ms for the WAL: all nodes together make at most {per_second} commits a second that notify",
            flush.as_millis()
        );
        Ok(vec![check.finding(message, fix)])
    }
}
