//! Changes in SQL that were rolled back: no notification names them. That no read shows them is a matter of I5 and I6.

use super::report::Finding;
use crate::history::{Answer, Entry, History, Op, Outcome, is_in_sql};

pub fn check(history: &History) -> Finding {
    let mut finding = Finding::new("rollback", "no notification names what was rolled back");
    for entry in history.processes.values().flatten() {
        if let Entry::Notified { notifications, of_rolled_back, example } = entry {
            finding
                .count(*notifications, *of_rolled_back, || format!("{of_rolled_back} do, such as {example}"));
        }
    }
    finding
}

/// How many changes were made on nodes and in SQL.
pub fn figures(history: &History) -> String {
    let entries = || history.processes.values().flatten();
    let answers = |is_meant: fn(Op, &Outcome) -> bool| {
        let answers = entries().filter(|entry| match entry {
            Entry::Answer(Answer { op, outcome, .. }) => is_meant(*op, outcome),
            _ => false,
        });
        answers.count()
    };
    format!(
        "changes: {} by the nodes, {} in SQL, {} in SQL that were rolled back",
        answers(|op, outcome| !is_in_sql(op) && is_made(outcome)),
        answers(|op, outcome| is_in_sql(op) && is_made(outcome)),
        answers(|_, outcome| matches!(outcome, Outcome::RolledBack)),
    )
}

fn is_made(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Made { .. } | Outcome::Wrote { .. } | Outcome::Gone)
}
