//! What the demo looks like: aligned lines, in colour on a terminal, plain in a pipe or with `NO_COLOR`.
//!
//! Every function answers with the outcome of writing: a reader that went away (`demo | head`) ends the demo in
//! order, which `println!` would do by a panic.

use std::fmt::Display;
use std::io::{self, Write};
use std::time::Duration;

use anstyle::{AnsiColor, Style};

/// Where the figures begin, in characters after a step's mark.
const FIGURE_COLUMN: usize = 66;

const TITLE: Style = Style::new().bold();
const HELD: Style = AnsiColor::Green.on_default();
const FAILED: Style = AnsiColor::Red.on_default().bold();
const FIGURE: Style = AnsiColor::Cyan.on_default();
const ASIDE: Style = Style::new().dimmed();

/// A headline, with an empty line before it.
pub(super) fn headline(text: &str) -> io::Result<()> {
    line(format_args!("\n{TITLE}{text}{TITLE:#}"))
}

/// A step that held, and its figure.
pub(super) fn held(what: &str, figure: &str) -> io::Result<()> {
    line(format_args!("   {HELD}✓{HELD:#} {what:<FIGURE_COLUMN$} {FIGURE}{figure}{FIGURE:#}"))
}

/// A step that did not hold, and why.
pub(super) fn failed(what: &str, failure: &dyn Display) -> io::Result<()> {
    line(format_args!("   {FAILED}✗ {what}{FAILED:#}\n     {failure}"))
}

/// Something to know, less important than the steps.
pub(super) fn aside(text: &str) -> io::Result<()> {
    line(format_args!("   {ASIDE}{text}{ASIDE:#}"))
}

/// A plain line.
pub(super) fn text(text: &str) -> io::Result<()> {
    line(format_args!("{text}"))
}

/// What happened while the nodes stay up: when, who, what.
pub(super) fn event(at: Duration, who: &str, what: &str) -> io::Result<()> {
    line(format_args!("{ASIDE}{:>8.2} s{ASIDE:#}  {TITLE}{who:<3}{TITLE:#} {what}", at.as_secs_f64()))
}

/// What cannot be said on the page, on stderr.
pub(super) fn complain(text: &str) {
    // If stderr is closed as well, no reader is left.
    let _ = writeln!(anstream::stderr(), "pg-session demo: {text}");
}

fn line(text: std::fmt::Arguments<'_>) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    writeln!(out, "{text}")?;
    out.flush()
}

/// A duration with the unit that suits it.
pub(super) fn took(duration: Duration) -> String {
    match duration.as_nanos() {
        nanos @ ..1_000 => format!("{nanos} ns"),
        nanos @ ..1_000_000 => format!("{}.{} µs", nanos / 1_000, nanos % 1_000 / 100),
        nanos @ ..1_000_000_000 => format!("{}.{} ms", nanos / 1_000_000, nanos % 1_000_000 / 100_000),
        _ => format!("{:.2} s", duration.as_secs_f64()),
    }
}

/// A number, in groups of three digits from ten thousand on.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    if digits.len() < 5 {
        return digits;
    }
    let mut grouped = String::with_capacity(digits.len() * 4 / 3);
    for (at, digit) in digits.char_indices() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(' ');
        }
        grouped.push(digit);
    }
    grouped
}

/// `1 commit`, `2 commits`.
pub(super) fn counted(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", count(number), if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_the_unit_that_suits_them() {
        let shown = [999, 1_000, 1_250_000, 999_999_999, 1_000_000_000, 61_000_000_000]
            .map(|nanos| took(Duration::from_nanos(nanos)));
        assert_eq!(shown, ["999 ns", "1.0 µs", "1.2 ms", "999.9 ms", "1.00 s", "61.00 s"]);
    }

    #[test]
    fn numbers_are_grouped_from_ten_thousand_on() {
        let shown = [0, 64, 9_999, 10_000, 123_456, 1_234_567].map(count);
        assert_eq!(shown, ["0", "64", "9999", "10 000", "123 456", "1 234 567"]);
    }
}
