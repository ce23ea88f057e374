//! A streaming standby of a running sandbox: a base backup, a replication slot, and the calls of a failover.

use std::{net::SocketAddr, ptr, time::Duration};

use crate::{
    backup, deadline,
    error::{Error, ErrorKind},
    launch::Launch,
    sandbox::Sandbox,
    settings::Settings,
};

/// Oldest PostgreSQL whose standbys are configured this way.
const MAJOR_MIN: u32 = 12;
/// How long a standby may take to stream, and to replay what it was asked to wait for.
const STREAM_WAIT: Duration = Duration::from_secs(60);
/// How long a promotion may take.
const PROMOTE_WAIT: Duration = Duration::from_secs(60);

/// Chooses how a standby follows its primary, then starts it.
#[derive(Clone, Debug)]
#[must_use = "a builder does nothing until `start` or `rejoin`"]
pub struct StandbyBuilder<'a> {
    primary: &'a Sandbox,
    upstream: SocketAddr,
    apply_delay: Duration,
    settings: Settings,
}

impl Sandbox {
    /// Chooses a streaming standby of this running server. Needs PostgreSQL 12 or newer.
    ///
    /// ```no_run
    /// # fn story() -> Result<(), pg_sandbox::Error> {
    /// let primary = pg_sandbox::Sandbox::start()?;
    /// let standby = primary.standby().start()?;
    /// primary.kill()?;
    /// standby.promote()?; // the standby is the primary now
    /// standby.standby().rejoin(&primary)?; // and the old primary follows it
    /// # Ok(())
    /// # }
    /// ```
    pub fn standby(&self) -> StandbyBuilder<'_> {
        StandbyBuilder {
            primary: self,
            upstream: self.addr(),
            apply_delay: Duration::ZERO,
            settings: Settings::of_a_copy(),
        }
    }

    /// Makes this standby a primary (`pg_promote`) and waits until it accepts writes. WAL that it has received is
    /// applied first; an apply delay no longer counts.
    ///
    /// # Errors
    /// [`ErrorKind::Query`] if it is not a standby, [`ErrorKind::Timeout`] if it took longer than a minute.
    pub fn promote(&self) -> Result<(), Error> {
        const PROMOTE: &str = "SELECT pg_promote(false)";
        if !self.is_standby()? {
            self.client()?.query(PROMOTE)?;
        }
        // The WAL that is applied meanwhile may cancel each of these statements, before or after it took effect.
        let (mut is_asked, mut last) = (false, None);
        let mut look = || -> Result<bool, Error> {
            let is_standby = self.is_standby()?;
            if is_standby && !is_asked {
                self.client()?.query(PROMOTE)?;
                is_asked = true;
            }
            Ok(!is_standby)
        };
        let promoted = deadline::poll(PROMOTE_WAIT, || match look() {
            Ok(is_promoted) => Ok(is_promoted.then_some(())),
            Err(error) if error.kind() == ErrorKind::NotRunning => Err(error),
            Err(error) => {
                last = Some(error);
                Ok(None)
            }
        })?;
        promoted.ok_or_else(|| {
            let last = last.map(|error| format!("; last error: {error}")).unwrap_or_default();
            let message = format!("the standby was not promoted in {PROMOTE_WAIT:?}; read its log{last}");
            Error::new(ErrorKind::Timeout, message)
        })
    }

    /// Whether the server is in recovery, that is, a standby that was not promoted.
    ///
    /// # Errors
    /// [`ErrorKind::NotRunning`] if there is no server, [`ErrorKind::Query`] if it does not answer.
    pub fn is_standby(&self) -> Result<bool, Error> {
        Ok(self.client()?.value("SELECT pg_is_in_recovery()")? == "t")
    }

    /// Waits until this standby receives WAL from its primary.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] after a minute; the message ends with the end of its log.
    pub fn wait_until_streaming(&self) -> Result<(), Error> {
        self.wait_until("SELECT count(*) > 0 FROM pg_stat_wal_receiver WHERE status = 'streaming'", "stream")
    }

    /// Waits until this standby has applied all that `primary` has written by now.
    ///
    /// # Errors
    /// [`ErrorKind::Timeout`] after a minute; the message ends with the end of the standby's log.
    pub fn wait_until_applied(&self, primary: &Sandbox) -> Result<(), Error> {
        let position = primary.client()?.value("SELECT pg_current_wal_insert_lsn()")?;
        self.wait_until(&format!("SELECT pg_last_wal_replay_lsn() >= '{position}'"), "apply all WAL")
    }

    fn wait_until(&self, condition: &str, what: &str) -> Result<(), Error> {
        let mut client = self.client()?;
        let reached = deadline::poll(STREAM_WAIT, || {
            client.value(condition).map(|answer| (answer == "t").then_some(()))
        })?;
        reached.ok_or_else(|| {
            let log = crate::log::tail(self.log_path(), 0);
            let message = format!("the standby did not {what} in {STREAM_WAIT:?}; its log: {log}");
            Error::new(ErrorKind::Timeout, message)
        })
    }
}

impl StandbyBuilder<'_> {
    /// The address that the standby connects to. Default: the primary's own. A [`Proxy`](crate::Proxy) there can cut
    /// replication, so that a promotion loses commits.
    pub fn upstream(mut self, upstream: SocketAddr) -> Self {
        self.upstream = upstream;
        self
    }

    /// `recovery_min_apply_delay`: the standby applies a commit only this long after the primary made it. Default: none.
    /// Milliseconds are the unit; at most 24 days.
    pub fn apply_delay(mut self, delay: Duration) -> Self {
        self.apply_delay = delay;
        self
    }

    /// Adds a line to the standby's `postgresql.conf`, after those of its primary. As in
    /// [`SandboxBuilder::setting`](crate::SandboxBuilder::setting).
    pub fn setting(mut self, name: &str, value: &str) -> Self {
        self.settings.push(name, value);
        self
    }

    /// Takes a base backup, starts a server on it, and waits until it streams. The standby is a sandbox of its own,
    /// with its own port and directory, cleaned up as any other. Blocks for one or two seconds.
    ///
    /// The primary gets a replication slot for it. It keeps WAL until the standby has it, even if the standby is
    /// gone.
    ///
    /// # Errors
    /// [`ErrorKind::NotRunning`] if the primary is stopped, [`ErrorKind::Query`] if it refuses;
    /// otherwise as [`SandboxBuilder::start`](crate::SandboxBuilder::start).
    pub fn start(self) -> Result<Sandbox, Error> {
        let binaries = self.primary.setup().binaries.clone();
        let settings = self.with_recovery_settings();
        let standby = Sandbox::launch(binaries, &settings, None, |launch, _, conf| self.fill(launch, conf))?;
        standby.wait_until_streaming()?;
        Ok(standby)
    }

    /// Makes `old` a standby of this primary. It is stopped if it runs, and its data is replaced by
    /// a base backup. It starts again on its own port. **What only `old` had is lost.** An old
    /// primary returns this way after a failover.
    ///
    /// # Errors
    /// [`ErrorKind::Setting`] if `old` is the primary itself or another version; otherwise as [`start`](Self::start).
    /// After an error `old` may have no usable data.
    pub fn rejoin(self, old: &Sandbox) -> Result<(), Error> {
        if ptr::eq(self.primary, old) {
            return Err(Error::new(ErrorKind::Setting, "a server cannot be a standby of itself"));
        }
        if old.version() != self.primary.version() {
            let message = format!("a standby of {} cannot run {}", self.primary.version(), old.version());
            return Err(Error::new(ErrorKind::Setting, message));
        }
        old.replace_cluster(&self.with_recovery_settings(), |launch, conf| self.fill(launch, conf))?;
        old.wait_until_streaming()
    }

    fn with_recovery_settings(&self) -> Settings {
        let (host, port) = (self.upstream.ip(), self.upstream.port());
        let mut settings = Settings::of_a_copy();
        settings.push("primary_conninfo", &format!("host={host} port={port} user=postgres"));
        settings.push("recovery_min_apply_delay", &format!("{}ms", self.apply_delay.as_millis()));
        settings.push("hot_standby", "on");
        // The default is 5 s: a standby whose primary restarts would make tests wait.
        settings.push("wal_retrieve_retry_interval", "100ms");
        settings.extend(&self.settings);
        settings
    }

    /// Makes the cluster in the directory of `launch`.
    fn fill(&self, launch: &Launch, conf: &str) -> Result<(), Error> {
        let major = self.primary.version().major();
        if major < MAJOR_MIN {
            let message = format!("standbys need PostgreSQL {MAJOR_MIN} or newer; this is {major}");
            return Err(Error::new(ErrorKind::Setting, message));
        }
        let mut client = self.primary.client()?;
        // A slot's name has letters, digits and underscores only.
        let slot = launch.directory.name().replace('-', "_");
        client.query(&format!(
            "SELECT pg_create_physical_replication_slot('{slot}', true)
             WHERE NOT EXISTS (SELECT FROM pg_replication_slots WHERE slot_name = '{slot}')"
        ))?;
        let (from, to) = (self.primary.setup().directory.data(), launch.directory.data());
        backup::take(&mut client, major, &from, &to, launch.account)?;
        launch.append_settings(&format!("{conf}primary_slot_name = '{slot}'\n"))?;
        let signal = to.join("standby.signal");
        launch.write_private(&signal, b"").map_err(|error| {
            Error::caused(ErrorKind::Directory, format!("could not write {}", signal.display()), error)
        })
    }
}
