//! The ratios and the slopes on the terminal.

use super::human;
use crate::curves::Fitted;
use crate::ratios::Outcome;

pub(crate) fn print(outcomes: &[Outcome], curves: &[Fitted]) {
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
    for Fitted { curve, line, points, slope } in curves {
        let points: Vec<String> = points
            .iter()
            .map(|point| format!("{} at {}", human(point.spread.median), human(point.at)))
            .collect();
        println!("{curve}, {line}: slope {slope:.2} ({})", points.join(", "));
    }
}
