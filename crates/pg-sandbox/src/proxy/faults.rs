//! What the proxy does to connections at this moment: a small value, copied by each reader.

use std::{
    num::NonZeroU64,
    ops::{Index, IndexMut},
    time::Duration,
};

/// One of the two ways through the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the client to the server: requests.
    ToServer,
    /// From the server to the client: answers and notifications.
    ToClient,
}

/// One value for each direction.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct PerDirection<T> {
    to_server: T,
    to_client: T,
}

impl<T> PerDirection<T> {
    pub(super) fn of(make: impl Fn() -> T) -> Self {
        Self { to_server: make(), to_client: make() }
    }
}

impl<T> Index<Direction> for PerDirection<T> {
    type Output = T;

    fn index(&self, direction: Direction) -> &T {
        match direction {
            Direction::ToServer => &self.to_server,
            Direction::ToClient => &self.to_client,
        }
    }
}

impl<T> IndexMut<Direction> for PerDirection<T> {
    fn index_mut(&mut self, direction: Direction) -> &mut T {
        match direction {
            Direction::ToServer => &mut self.to_server,
            Direction::ToClient => &mut self.to_client,
        }
    }
}

/// How many bytes may pass before the cut. Connections recognise an allowance that is new to them by its serial.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Allowance {
    pub(super) serial: u64,
    pub(super) bytes: u64,
}

/// The faults of the moment; the default is none.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    pub(super) refusing: bool,
    pub(super) stalled: bool,
    pub(super) delay: Duration,
    /// Bytes per second that each direction of each connection may pass.
    pub(super) throttle: Option<NonZeroU64>,
    pub(super) dropped: PerDirection<bool>,
    pub(super) allowance: PerDirection<Option<Allowance>>,
    /// How often everything has been cut: a connection that saw a lower number when it was accepted has to go.
    pub(super) cuts: u64,
    /// How often the open connections were forgotten. A connection that was accepted at a lower
    /// number stays silent.
    pub(super) losses: u64,
    /// The last serial given to an allowance.
    serial: u64,
}

impl Faults {
    pub(super) fn allow(&mut self, direction: Direction, bytes: u64) {
        self.serial += 1;
        self.allowance[direction] = Some(Allowance { serial: self.serial, bytes });
    }

    /// No faults. What has been counted stays, or an old cut would be due again.
    pub(super) fn heal(&mut self) {
        *self = Self { cuts: self.cuts, losses: self.losses, serial: self.serial, ..Self::default() };
    }
}
