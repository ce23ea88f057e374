//! Looking at processes and signalling them. The postmaster's children are in sessions of their
//! own, so a signal to a process group does not reach them. They are found by their parent's id.

use std::{fs, io, process::Command, time::Duration};

use nix::{
    errno::Errno,
    sys::signal::{self, Signal},
    unistd::Pid,
};

use crate::{
    deadline,
    error::{Error, ErrorKind},
};

/// How long a signalled process may take to stop or to go: it is the kernel's work alone.
const SIGNAL_WAIT: Duration = Duration::from_secs(10);

/// One line of the process table.
#[derive(Clone, Copy, Debug)]
struct Process {
    id: u32,
    parent: u32,
    /// As in `ps`: `R`unning, `S`leeping, s`T`opped, `Z`ombie, …
    state: char,
}

/// The processes whose parent is `parent`, those included that have ended and not yet been waited for.
pub(crate) fn children_of(parent: u32) -> Result<Vec<u32>, Error> {
    let table = table().map_err(|error| {
        Error::caused(ErrorKind::Process, "could not list processes: mount /proc or install ps", error)
    })?;
    Ok(table.iter().filter(|process| process.parent == parent).map(|process| process.id).collect())
}

/// Signals `id`; a process that has ended already is fine.
pub(crate) fn signal(id: u32, signal: Signal) -> Result<(), Error> {
    match signal::kill(pid(id)?, signal) {
        Ok(()) | Err(Errno::ESRCH) => Ok(()),
        Err(errno) => {
            Err(Error::caused(ErrorKind::Process, format!("could not send {signal} to process {id}"), errno))
        }
    }
}

/// Waits until the kernel has stopped `id` (or it has ended): from then on it does not fork.
pub(crate) fn wait_until_stopped(id: u32) -> Result<(), Error> {
    wait_for_state(&[id], |state| matches!(state, None | Some('T' | 'Z' | 'X')))
}

/// Waits until none of `ids` runs any more. A zombie counts as gone: it holds nothing but its number.
pub(crate) fn wait_until_gone(ids: &[u32]) -> Result<(), Error> {
    wait_for_state(ids, |state| matches!(state, None | Some('Z' | 'X')))
}

fn wait_for_state(ids: &[u32], reached: impl Fn(Option<char>) -> bool) -> Result<(), Error> {
    let answer = deadline::poll(SIGNAL_WAIT, || {
        let table = table()?;
        let state_of = |id| table.iter().find(|process| process.id == id).map(|process| process.state);
        Ok::<_, io::Error>(ids.iter().all(|id| reached(state_of(*id))).then_some(()))
    });
    match answer {
        Ok(Some(())) => Ok(()),
        Ok(None) => Err(Error::new(
            ErrorKind::Timeout,
            format!("processes {ids:?} did not follow a signal in {SIGNAL_WAIT:?}"),
        )),
        Err(error) => Err(Error::caused(ErrorKind::Process, "could not list processes", error)),
    }
}

fn pid(id: u32) -> Result<Pid, Error> {
    // 0 and negative numbers mean groups to kill(2): never let one through.
    match i32::try_from(id) {
        Ok(id) if id > 0 => Ok(Pid::from_raw(id)),
        _ => Err(Error::new(ErrorKind::Process, format!("{id} is not the id of a process"))),
    }
}

/// All processes: from /proc where there is one (slim containers have no `ps`), else from `ps`.
fn table() -> io::Result<Vec<Process>> {
    if cfg!(target_os = "linux") { table_of_proc() } else { table_of_ps() }
}

fn table_of_proc() -> io::Result<Vec<Process>> {
    let mut processes = Vec::new();
    for entry in fs::read_dir("/proc")? {
        let name = entry?.file_name();
        let Some(id) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // Gone since the directory was read, or not ours to read: not one of our children either way.
        let Ok(stat) = fs::read_to_string(format!("/proc/{id}/stat")) else { continue };
        processes.extend(parse_stat(id, &stat));
    }
    Ok(processes)
}

/// `42 (any (name) at all) S 1 …`: the fields begin after the last parenthesis.
fn parse_stat(id: u32, stat: &str) -> Option<Process> {
    let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    Some(Process { id, parent: fields.next()?.parse().ok()?, state })
}

fn table_of_ps() -> io::Result<Vec<Process>> {
    let output = Command::new("ps").args(["-A", "-o", "pid=", "-o", "ppid=", "-o", "state="]).output()?;
    if !output.status.success() {
        return Err(io::Error::other(format!("ps ended with {}", output.status)));
    }
    Ok(String::from_utf8_lossy(&output.stdout).lines().filter_map(parse_ps_line).collect())
}

fn parse_ps_line(line: &str) -> Option<Process> {
    let mut fields = line.split_ascii_whitespace();
    Some(Process {
        id: fields.next()?.parse().ok()?,
        parent: fields.next()?.parse().ok()?,
        state: fields.next()?.chars().next()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_a_child_sees_it_stop_and_go() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let id = child.id();
        assert!(children_of(std::process::id()).unwrap().contains(&id));
        signal(id, Signal::SIGSTOP).unwrap();
        wait_until_stopped(id).unwrap();
        signal(id, Signal::SIGKILL).unwrap();
        wait_until_gone(&[id]).unwrap();
        child.wait().unwrap();
        wait_until_gone(&[id]).unwrap();
        signal(id, Signal::SIGCONT).unwrap();
    }

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let process = parse_stat(7, "7 (a) R 9 (b) S 3 7 7 0").unwrap();
        assert_eq!((process.parent, process.state), (3, 'S'));
    }

    #[test]
    fn no_number_becomes_a_process_group() {
        for id in [0, u32::MAX] {
            assert_eq!(signal(id, Signal::SIGCONT).unwrap_err().kind(), ErrorKind::Process);
        }
    }
}
