//! [`Slots`]: the current and the previous session of each slot, in a small file that all processes share.
//!
//! The file is not under test: every fault spares it. A reader that meets a torn entry sees a wrong checksum and reads
//! the entry again.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use uuid::Uuid;

use crate::plan::PLACES;

/// Now, before, and a sum over both.
const ENTRY_BYTES: usize = 40;
const TRIES_MAX: usize = 100;

/// One process's handle to the file.
#[derive(Debug)]
pub struct Slots(File);

/// What a slot holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Slot {
    pub now: Uuid,
    pub before: Uuid,
}

impl Slots {
    pub const FILE: &'static str = "slots";

    /// Creates the file with empty slots.
    pub fn create(dir: &Path) -> io::Result<()> {
        let slots = Self(File::create(dir.join(Self::FILE))?);
        (0..PLACES).try_for_each(|slot| slots.write(slot, Slot { now: Uuid::nil(), before: Uuid::nil() }))
    }

    pub fn open(dir: &Path) -> io::Result<Self> {
        Ok(Self(OpenOptions::new().read(true).write(true).open(dir.join(Self::FILE))?))
    }

    pub fn read(&self, slot: usize) -> io::Result<Slot> {
        let mut bytes = [0; ENTRY_BYTES];
        for _ in 0..TRIES_MAX {
            self.0.read_exact_at(&mut bytes, offset(slot))?;
            if let Some(entry) = decode(&bytes) {
                return Ok(entry);
            }
            std::thread::yield_now();
        }
        Err(io::Error::other("a slot's entry stays torn"))
    }

    /// Puts `new` in the place of `old`, unless another task was first. Two tasks at the same moment may both
    /// succeed: then one of the two sessions is on no slot, and ends by its user's limit.
    pub fn replace(&self, slot: usize, old: Uuid, new: Uuid) -> io::Result<()> {
        if self.read(slot)?.now != old {
            return Ok(());
        }
        self.write(slot, Slot { now: new, before: old })
    }

    fn write(&self, slot: usize, entry: Slot) -> io::Result<()> {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..16].copy_from_slice(entry.now.as_bytes());
        bytes[16..32].copy_from_slice(entry.before.as_bytes());
        bytes[32..].copy_from_slice(&sum(entry).to_le_bytes());
        self.0.write_all_at(&bytes, offset(slot))
    }
}

fn decode(bytes: &[u8; ENTRY_BYTES]) -> Option<Slot> {
    let uuid = |from: usize| Uuid::from_slice(&bytes[from..from + 16]).ok();
    let entry = Slot { now: uuid(0)?, before: uuid(16)? };
    (bytes[32..] == sum(entry).to_le_bytes()).then_some(entry)
}

fn sum(entry: Slot) -> u64 {
    let mix = |uuid: Uuid| {
        let (high, low) = uuid.as_u64_pair();
        high.rotate_left(17) ^ low
    };
    mix(entry.now).wrapping_mul(31).wrapping_add(mix(entry.before)) ^ 0x626f_6172_6421
}

fn offset(slot: usize) -> u64 {
    (slot * ENTRY_BYTES) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_one_process_puts_there_another_finds() {
        let dir = std::env::temp_dir().join(format!("torture-slots-{}", Uuid::new_v4()));
        std::fs::create_dir(&dir).unwrap();
        Slots::create(&dir).unwrap();
        let (one, other) = (Slots::open(&dir).unwrap(), Slots::open(&dir).unwrap());
        let (a, b) = (Uuid::new_v4(), Uuid::new_v4());
        one.replace(5, Uuid::nil(), a).unwrap();
        other.replace(5, a, b).unwrap();
        one.replace(5, a, a).unwrap();
        assert_eq!(one.read(5).unwrap(), Slot { now: b, before: a }, "who comes too late changes nothing");
        std::fs::remove_dir_all(&dir).unwrap();
    }

    #[test]
    fn a_torn_entry_is_not_believed() {
        let mut bytes = [7; ENTRY_BYTES];
        assert_eq!(decode(&bytes), None);
        let entry = Slot { now: Uuid::from_bytes([7; 16]), before: Uuid::from_bytes([7; 16]) };
        bytes[32..].copy_from_slice(&sum(entry).to_le_bytes());
        assert_eq!(decode(&bytes), Some(entry));
    }
}
