//! What a command prints: tables with colours on a terminal, tab-separated lines in a pipe, JSON with `--json`.
//!
//! Times are relative on a terminal, and RFC 3339 otherwise. A reader that went away (`list | head`) ends the command with an
//! error, not with a panic.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anstyle::{AnsiColor, Style};
use serde::Serialize;

const HEAD: Style = Style::new().bold();
const NAME: Style = AnsiColor::Cyan.on_default();
/// Before a command says how far it is.
const SILENT_FOR: Duration = Duration::from_secs(1);
const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;
const DAY: u64 = 24 * HOUR;

/// How a command prints.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For `cut` and `awk`.
    Tabs,
    /// One object a line.
    Json,
}

impl Format {
    pub(crate) fn new(json: bool) -> Self {
        match (json, io::stdout().is_terminal()) {
            (true, _) => Self::Json,
            (false, true) => Self::Table,
            (false, false) => Self::Tabs,
        }
    }

    /// A time, compared with `now` for people.
    pub(crate) fn time(self, time: SystemTime, now: SystemTime) -> String {
        if self != Self::Table {
            return rfc3339(time);
        }
        match (now.duration_since(time), time.duration_since(now)) {
            (Ok(ago), _) => format!("{} ago", roughly(ago)),
            (_, Ok(left)) => format!("in {}", roughly(left)),
            _ => rfc3339(time),
        }
    }
}

/// The first line names the columns. The first column is a name.
pub(crate) fn print_rows(format: Format, head: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    if format != Format::Table {
        writeln!(out, "{}", head.join("\t"))?;
        return rows.iter().try_for_each(|row| writeln!(out, "{}", row.join("\t")));
    }
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
        cells.chain([head[column].chars().count()]).max().unwrap_or_default()
    };
    let widths: Vec<usize> = (0..head.len()).map(width).collect();
    let heads = head.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
    writeln!(out, "{HEAD}{}{HEAD:#}", heads.collect::<Vec<_>>().join("  ").trim_end())?;
    for row in rows {
        let mut cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        let name = cells.next().unwrap_or_default();
        let rest = cells.collect::<Vec<_>>().join("  ");
        writeln!(out, "{NAME}{name}{NAME:#}  {}", rest.trim_end())?;
    }
    Ok(())
}

/// Names and values, one a line.
pub(crate) fn print_fields(format: Format, fields: &[(&str, String)]) -> io::Result<()> {
    let mut out = anstream::stdout().lock();
    let width = fields.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
    for (name, value) in fields {
        match format {
            Format::Table => writeln!(out, "{HEAD}{name:<width$}{HEAD:#}  {value}")?,
            Format::Tabs | Format::Json => writeln!(out, "{name}\t{value}")?,
        }
    }
    Ok(())
}

pub(crate) fn print_json(value: &impl Serialize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, value)?;
    writeln!(out)
}

/// A line for people, on stderr, so that a pipe holds the result alone.
pub(crate) fn remark(text: &str) {
    // If stderr is closed as well, no reader is left.
    let _ = writeln!(anstream::stderr(), "{text}");
}

/// Seconds are enough for people and for machines.
pub(crate) fn rfc3339(time: SystemTime) -> String {
    if time < UNIX_EPOCH {
        return "before 1970".to_owned();
    }
    humantime::format_rfc3339_seconds(time).to_string()
}

/// A text of an application, without control characters: they could command a terminal, or make a line of their own.
pub(crate) fn harmless(text: &str) -> String {
    let escape =
        |char: char| if char.is_control() { char.escape_default().to_string() } else { char.to_string() };
    text.chars().map(escape).collect()
}

/// A duration in its largest unit, rounded down.
pub(crate) fn roughly(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ ..MINUTE => format!("{seconds} s"),
        seconds @ ..HOUR => format!("{} min", seconds / MINUTE),
        seconds @ ..DAY => format!("{} h", seconds / HOUR),
        seconds => format!("{} d", seconds / DAY),
    }
}

/// `1 session`, `2 sessions`.
pub(crate) fn counted(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Says on a terminal how far a command is, if it takes longer than a second.
pub(crate) struct Progress {
    began: Instant,
    shown: bool,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self { began: Instant::now(), shown: false }
    }

    pub(crate) fn at(&mut self, count: usize, noun: &str) {
        if self.began.elapsed() > SILENT_FOR && io::stderr().is_terminal() {
            self.shown = true;
            let _ = write!(io::stderr(), "\r{count} {noun}s …");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown {
            let _ = writeln!(io::stderr());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_relative_for_people_and_exact_for_programs() {
        let now = UNIX_EPOCH + Duration::from_secs(1_000_000_000);
        let ago = |seconds| Format::Table.time(now - Duration::from_secs(seconds), now);
        assert_eq!(
            [ago(59), ago(3_599), ago(86_399), ago(172_800)],
            ["59 s ago", "59 min ago", "23 h ago", "2 d ago"]
        );
        assert_eq!(Format::Table.time(now + Duration::from_secs(90), now), "in 1 min");
        assert_eq!(Format::Tabs.time(now, now), "2001-09-09T01:46:40Z");
        assert_eq!(rfc3339(UNIX_EPOCH - Duration::from_secs(1)), "before 1970");
    }

    #[test]
    fn a_text_of_an_application_commands_no_terminal() {
        assert_eq!(harmless("a\u{1b}[2J\tü\n\u{9b}"), "a\\u{1b}[2J\\tü\\n\\u{9b}");
    }
}
