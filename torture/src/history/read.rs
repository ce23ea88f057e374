//! Reading histories back. The last line of a process that was killed may be torn; any other that cannot be read is a
//! mistake.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::{Entry, History};
use crate::clock::Nanos;

/// Beside the processes' histories, so that a run that was kept can be checked again.
const TABLES: &str = "tables.json";

/// The histories of all processes that wrote into `dir`.
pub fn load(dir: &Path) -> Result<HashMap<u64, Vec<Entry>>> {
    let mut processes = HashMap::new();
    for file in fs::read_dir(dir)? {
        let path = file?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let Some(number) = name.strip_prefix("history-").and_then(|name| name.strip_suffix(".jsonl")) else {
            continue;
        };
        let process = u64::from_str_radix(number, 16).with_context(|| format!("{name} is no history"))?;
        let entries = parse(&fs::read(&path)?).with_context(|| format!("{name} cannot be read"))?;
        processes.insert(process, entries);
    }
    Ok(processes)
}

/// Puts what the database had beside the histories of a run that took `length`.
pub fn keep(dir: &Path, history: &History, length: Nanos) -> Result<()> {
    let kept = serde_json::to_vec(&(length, &history.tables))?;
    fs::write(dir.join(TABLES), kept).context("the tables cannot be kept")
}

/// All of a run that was kept, and how long it took.
pub fn load_kept(dir: &Path) -> Result<(History, Nanos)> {
    let kept = fs::read(dir.join(TABLES)).with_context(|| format!("no run was kept in {}", dir.display()))?;
    let (length, tables) = serde_json::from_slice(&kept).context("the tables cannot be read")?;
    Ok((History { processes: load(dir)?, tables }, length))
}

fn parse(bytes: &[u8]) -> Result<Vec<Entry>> {
    let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
    let lines = bytes[..whole].split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).context("a line is no entry")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::history::Journal;

    #[test]
    fn a_torn_last_line_is_left_out_and_any_other_is_a_mistake() {
        let line = serde_json::to_string(&Entry::Trust { at: 1, trusted: true }).unwrap();
        assert_eq!(parse(format!("{line}\n{line}\n").as_bytes()).unwrap().len(), 2);
        assert_eq!(parse(format!("{line}\n{}", &line[..9]).as_bytes()).unwrap().len(), 1);
        assert!(parse(format!("{}\n{line}\n", &line[..9]).as_bytes()).is_err());
        assert!(parse(b"").unwrap().is_empty());
    }

    #[test]
    fn what_was_kept_is_found_again() {
        let dir = std::env::temp_dir().join(format!("torture-kept-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        assert!(load_kept(&dir).is_err(), "no run was kept there");
        Journal::create(&dir, 7).unwrap().write(&Entry::Trust { at: 1, trusted: true });
        let mut history = History::default();
        history.tables.accepted.push((1, 8, 9));
        keep(&dir, &history, 5).unwrap();
        let (kept, length) = load_kept(&dir).unwrap();
        fs::remove_dir_all(&dir).unwrap();
        assert_eq!((length, kept.tables.accepted), (5, vec![(1, 8, 9)]));
        assert_eq!(kept.processes[&7].len(), 1);
    }
}
