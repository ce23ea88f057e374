//! The ratios on the terminal.

use super::human;
use crate::ratios::Outcome;

pub(crate) fn print(outcomes: &[Outcome]) {
    println!();
    println!("{:<30} {:<36} {:>8} {:>17}  {:>7}", "ratio", "case", "median", "min … max", "target");
    for outcome in outcomes {
        let spread = format!("{} … {}", human(outcome.min), human(outcome.max));
        let met = if outcome.met { "" } else { "  MISSED" };
        println!(
            "{:<30} {:<36} {:>8} {:>17}  {:>7}{met}",
            outcome.name,
            outcome.case,
            human(outcome.value),
            spread,
            outcome.target.to_string()
        );
    }
}
