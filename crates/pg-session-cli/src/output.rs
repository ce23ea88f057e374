//! What a command prints: tables with colours on a terminal, tab-separated lines in a pipe, JSON with `--json`.
//!
//! Times are relative on a terminal, and RFC 3339 otherwise. A reader that went away (`list | head`) ends the command with an
//! error, not with a panic.

use std::io::{self, IsTerminal, Write};
use std::time::{Duration, Instant, SystemTime};

use anstyle::{AnsiColor, Style};
use pg_session_admin::shared::relative;
pub(crate) use pg_session_admin::shared::{counted, rfc3339, roughly};
use serde::Serialize;

const HEAD: Style = Style::new().bold();
const NAME: Style = AnsiColor::Cyan.on_default();
/// Before a command says how far it is.
const SILENT_FOR: Duration = Duration::from_secs(1);

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
        relative(time, now)
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

/// Empties a terminal for what is shown next.
pub(crate) fn clear() -> io::Result<()> {
    let mut out = io::stdout().lock();
    write!(out, "\u{1b}[H\u{1b}[2J")?;
    out.flush()
}

pub(crate) fn print_json(value: &impl Serialize) -> io::Result<()> {
    let mut out = io::stdout().lock();
    serde_json::to_writer(&mut out, value)?;
    writeln!(out)
}

/// A long text. A reader that has enough of it (`migrate --print | head -1`) is no error.
pub(crate) fn print_text(text: &[u8]) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome,
    }
}

/// A line for people, on stderr, so that a pipe holds the result alone.
pub(crate) fn remark(text: &str) {
    // If stderr is closed as well, no reader is left.
    let _ = writeln!(anstream::stderr(), "{text}");
}

/// A text of an application, without control characters: they could command a terminal, or make a line of their own.
pub(crate) fn harmless(text: &str) -> String {
    let escape =
        |char: char| if char.is_control() { char.escape_default().to_string() } else { char.to_string() };
    text.chars().map(escape).collect()
}

/// Says on a terminal what a command waits for, if it takes longer than a second.
pub(crate) async fn waiting<T>(what: &str, work: impl Future<Output = T>) -> T {
    let mut work = std::pin::pin!(work);
    tokio::select! {
        biased;
        outcome = &mut work => return outcome,
        () = tokio::time::sleep(SILENT_FOR) => {}
    }
    if io::stderr().is_terminal() {
        remark(&format!("{what} …"));
    }
    work.await
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
    fn a_text_of_an_application_commands_no_terminal() {
        assert_eq!(harmless("a\u{1b}[2J\tü\n\u{9b}"), "a\\u{1b}[2J\\tü\\n\\u{9b}");
    }
}
