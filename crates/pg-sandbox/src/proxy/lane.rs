//! One direction of one connection: bytes read and not yet written, and the faults that stand between.
//!
//! States: open → ended (the sender has closed or broken off; that waits behind what is held) → finished (everything
//! and the end have been passed on). `lost` means that something was swallowed for good.

use std::{
    collections::VecDeque,
    future::{self, Future},
    io,
    net::Shutdown,
    num::NonZeroU64,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use socket2::SockRef;
use tokio::{
    net::TcpStream,
    time::{Instant, sleep_until},
};

use super::{
    Counts,
    faults::{Allowance, Direction, Faults},
};

/// The most that is read at once, in bytes.
const CHUNK_BYTES_MAX: usize = 16 * 1024;
/// The most that a lane holds back, in bytes of memory (and one chunk more). Beyond it nothing is read: the sender
/// feels backpressure, as on a real wire.
const HELD_BYTES_MAX: usize = 1024 * 1024;

/// A throttled lane writes this often a second at most, less at once instead.
const BURSTS_PER_SECOND: u64 = 10;

/// What a lane can do next.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ready {
    Read,
    Write,
}

/// What came of doing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// The lane goes on.
    Moved,
    /// The connection has to be reset: a fault, or a peer that broke off.
    Cut,
    /// The connection's allowance is spent: it has to be closed after what was written.
    Spent,
}

/// One direction of one connection.
#[derive(Debug)]
pub(super) struct Lane {
    direction: Direction,
    from: Arc<TcpStream>,
    to: Arc<TcpStream>,
    held: VecDeque<Chunk>,
    held_bytes: usize,
    end: Option<End>,
    finished: bool,
    lost: bool,
    /// When a throttle lets the next bytes pass.
    free_at: Option<Instant>,
    /// What is left of the latest allowance.
    allowance: Option<Allowance>,
}

/// Bytes that were read at once.
#[derive(Debug)]
struct Chunk {
    arrived: Instant,
    bytes: Vec<u8>,
    /// How many of them have been written.
    written: usize,
}

impl Chunk {
    /// What it takes in memory: of many small chunks their bytes are the smallest part.
    fn weight(&self) -> usize {
        size_of::<Self>() + self.bytes.len()
    }
}

/// How the sender ended. It is in line like any bytes: a stalled wire hides a reset, too.
#[derive(Clone, Copy, Debug)]
struct End {
    arrived: Instant,
    reset: bool,
}

impl Lane {
    pub(super) fn new(direction: Direction, from: &Arc<TcpStream>, to: &Arc<TcpStream>) -> Self {
        Self {
            direction,
            from: Arc::clone(from),
            to: Arc::clone(to),
            held: VecDeque::new(),
            held_bytes: 0,
            end: None,
            finished: false,
            lost: false,
            free_at: None,
            allowance: None,
        }
    }

    pub(super) fn is_finished(&self) -> bool {
        self.finished
    }

    /// Bytes were lost, and the fault that lost them is over: what follows would make no sense.
    pub(super) fn is_broken(&self, now: &Faults) -> bool {
        self.lost && !now.dropped[self.direction]
    }

    /// Waits until a step is possible. Cancel safe: nothing is read or written here.
    ///
    /// The future borrows nothing of the lane, so that the lane can be stepped when it is done.
    pub(super) fn ready(&self, now: &Faults) -> impl Future<Output = Ready> + use<> {
        let (from, to) = (Arc::clone(&self.from), Arc::clone(&self.to));
        let wants_read = self.end.is_none() && self.held_bytes < HELD_BYTES_MAX;
        let due = self.due(now);
        async move {
            let readable = async {
                match wants_read {
                    // An error is met again, and handled, by the read itself.
                    true => drop(from.readable().await),
                    false => future::pending().await,
                }
            };
            let writable = async {
                match due {
                    Some(due) => {
                        if due > Instant::now() {
                            sleep_until(due).await;
                        }
                        drop(to.writable().await);
                    }
                    None => future::pending().await,
                }
            };
            tokio::select! {
                // Writing first keeps little in memory.
                biased;
                () = writable => Ready::Write,
                () = readable => Ready::Read,
            }
        }
    }

    /// Does what it is ready for, under the faults of this very moment.
    pub(super) fn step(&mut self, ready: Ready, now: &Faults, counts: &Counts) -> Step {
        let done = match ready {
            Ready::Read => self.read(),
            Ready::Write => self.write(now, counts),
        };
        match done {
            Ok(step) => step,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Step::Moved,
            Err(_) => Step::Cut,
        }
    }

    /// When what is next in line, a chunk or the end behind the last one, may pass; `None` if not until further notice.
    fn due(&self, now: &Faults) -> Option<Instant> {
        let arrived = self.held.front().map(|chunk| chunk.arrived).or(self.end.map(|end| end.arrived));
        let due = arrived.filter(|_| !now.stalled)?.checked_add(now.delay)?;
        Some(self.free_at.filter(|_| now.throttle.is_some()).map_or(due, |free_at| due.max(free_at)))
    }

    fn read(&mut self) -> io::Result<Step> {
        let mut buffer = [0; CHUNK_BYTES_MAX];
        let read = self.from.try_read(&mut buffer);
        let arrived = Instant::now();
        match read {
            Ok(0) => self.end = Some(End { arrived, reset: false }),
            Ok(read) => {
                let chunk = Chunk { arrived, bytes: buffer[..read].to_vec(), written: 0 };
                self.held_bytes += chunk.weight();
                self.held.push_back(chunk);
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Err(error),
            Err(_) => self.end = Some(End { arrived, reset: true }),
        }
        Ok(Step::Moved)
    }

    fn write(&mut self, now: &Faults, counts: &Counts) -> io::Result<Step> {
        if self.due(now).is_none_or(|due| due > Instant::now()) {
            return Ok(Step::Moved); // The faults have changed since it was ready.
        }
        if now.dropped[self.direction] {
            self.swallow();
            return Ok(Step::Moved);
        }
        if self.lost {
            return Ok(Step::Cut);
        }
        let Some(chunk) = self.held.front_mut() else { return self.pass_on_the_end() };
        let allowed = match Self::allowed(&mut self.allowance, now.allowance[self.direction]) {
            Some(0) => return Ok(Step::Cut),
            allowed => usize::try_from(allowed.unwrap_or(u64::MAX)).unwrap_or(usize::MAX),
        };
        let rest = &chunk.bytes[chunk.written..];
        let burst = now.throttle.map_or(u64::MAX, |rate| (rate.get() / BURSTS_PER_SECOND).max(1));
        let allowed = allowed.min(usize::try_from(burst).unwrap_or(usize::MAX));
        let written = self.to.try_write(&rest[..rest.len().min(allowed)])?;
        self.free_at = now.throttle.map(|rate| Instant::now() + time_of(written as u64, rate));
        chunk.written += written;
        if chunk.written == chunk.bytes.len() {
            self.held_bytes -= chunk.weight();
            self.held.pop_front();
        }
        counts.forwarded[self.direction].fetch_add(written as u64, Ordering::Relaxed);
        Ok(self.spend(written as u64))
    }

    /// How many bytes may pass: all of a new allowance, the rest of a known one, any number without one.
    fn allowed(mine: &mut Option<Allowance>, now: Option<Allowance>) -> Option<u64> {
        if mine.map(|mine| mine.serial) != now.map(|now| now.serial) {
            *mine = now;
        }
        mine.map(|allowance| allowance.bytes)
    }

    fn spend(&mut self, written: u64) -> Step {
        match &mut self.allowance {
            Some(allowance) => {
                allowance.bytes -= written;
                if allowance.bytes == 0 { Step::Spent } else { Step::Moved }
            }
            None => Step::Moved,
        }
    }

    fn swallow(&mut self) {
        self.lost = true;
        match self.held.pop_front() {
            Some(chunk) => self.held_bytes -= chunk.weight(),
            None => self.finished = true,
        }
    }

    fn pass_on_the_end(&mut self) -> io::Result<Step> {
        if self.end.is_some_and(|end| end.reset) {
            return Ok(Step::Cut);
        }
        self.finished = true;
        SockRef::from(&*self.to).shutdown(Shutdown::Write)?;
        Ok(Step::Moved)
    }
}

/// How long so many bytes take at that rate.
fn time_of(bytes: u64, rate: NonZeroU64) -> Duration {
    Duration::from_nanos(bytes.saturating_mul(1_000_000_000) / rate)
}
