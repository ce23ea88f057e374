//! Reading histories back. The last line of a process that was killed may be torn; any other that cannot be read is a
//! mistake.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::Entry;

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

fn parse(bytes: &[u8]) -> Result<Vec<Entry>> {
    let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |last| last + 1);
    let lines = bytes[..whole].split(|&byte| byte == b'\n').filter(|line| !line.is_empty());
    lines.map(|line| serde_json::from_slice(line).context("a line is no entry")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_last_line_is_left_out_and_any_other_is_a_mistake() {
        let line = serde_json::to_string(&Entry::Trust { at: 1, trusted: true }).unwrap();
        assert_eq!(parse(format!("{line}\n{line}\n").as_bytes()).unwrap().len(), 2);
        assert_eq!(parse(format!("{line}\n{}", &line[..9]).as_bytes()).unwrap().len(), 1);
        assert!(parse(format!("{}\n{line}\n", &line[..9]).as_bytes()).is_err());
        assert!(parse(b"").unwrap().is_empty());
    }
}
