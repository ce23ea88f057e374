//! Writing a history: one line, one system call, so that whatever was written survives the process.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use super::Entry;

/// The history of one process.
#[derive(Debug)]
pub struct Journal(Mutex<File>);

impl Journal {
    pub fn path(dir: &Path, process: u64) -> PathBuf {
        dir.join(format!("history-{process:x}.jsonl"))
    }

    pub fn create(dir: &Path, process: u64) -> io::Result<Self> {
        let file = OpenOptions::new().create_new(true).append(true).open(Self::path(dir, process))?;
        Ok(Self(Mutex::new(file)))
    }

    /// Returns when the kernel has it. A history that cannot be kept ends the process: nothing after it could be
    /// checked.
    pub fn write(&self, entry: &Entry) {
        let written = serde_json::to_vec(entry).map_err(io::Error::other).and_then(|mut line| {
            line.push(b'\n');
            self.0.lock().unwrap_or_else(PoisonError::into_inner).write_all(&line)
        });
        if let Err(error) = written {
            eprintln!("torture: the history cannot be written: {error}");
            std::process::exit(1);
        }
    }
}
