//! The keys, each followed by Enter: the terminal stays as it was found.

use std::io::{self, IsTerminal};

use tokio::sync::mpsc;

/// Keys that may wait.
const KEYS_MAX: usize = 16;

/// What a key asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Key {
    /// Ann's next step, now.
    Next,
    /// Ann pauses, or goes on.
    Pause,
    /// B loses one more wire, or gets all of them back.
    Cut,
    /// PostgreSQL is restarted.
    Restart,
    /// Every node forgets what it has in memory.
    Evict,
    /// The end.
    Quit,
    /// None of these.
    Unknown,
}

impl Key {
    pub(super) const HELP: &str =
        "Keys, with Enter: n next step · p pause · c cut B · r restart PostgreSQL · e evict · q quit";

    fn of(line: &str) -> Self {
        match line.trim() {
            "n" => Self::Next,
            "p" => Self::Pause,
            "c" => Self::Cut,
            "r" => Self::Restart,
            "e" => Self::Evict,
            "q" => Self::Quit,
            _ => Self::Unknown,
        }
    }
}

/// Reads keys until the input ends or the receiver is dropped.
///
/// On a thread of its own, which may wait in a read for ever. The program's end does not wait for
/// it, as it would for a thread of the runtime.
pub(super) fn read() -> mpsc::Receiver<Key> {
    let (pressed, keys) = mpsc::channel(KEYS_MAX);
    // A job in the background that reads from its terminal is stopped by it.
    if io::stdout().is_terminal() || !io::stdin().is_terminal() {
        std::thread::spawn(move || {
            for line in io::stdin().lines().map_while(Result::ok) {
                if pressed.blocking_send(Key::of(&line)).is_err() {
                    break;
                }
            }
        });
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_the_help_is_known() {
        let named: Vec<Key> =
            Key::HELP["Keys, with Enter: ".len()..].split(" · ").map(|key| Key::of(&key[..1])).collect();
        assert_eq!(named, [Key::Next, Key::Pause, Key::Cut, Key::Restart, Key::Evict, Key::Quit]);
        assert_eq!(Key::of(" q \n"), Key::Quit);
        assert_eq!([Key::of(""), Key::of("help")], [Key::Unknown, Key::Unknown]);
    }
}
