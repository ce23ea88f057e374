//! The settings: one struct, every field with its meaning, unit, default and cost; checked before anything starts.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::clock::Clock;
use crate::error::{Error, ErrorKind};
use crate::session::limits::Limits;
use crate::session::record::Policy;

/// Default of `cache_bytes_max`, for each of `cache_sessions_max`.
const CACHE_BYTES_PER_SESSION: usize = 16 * 1_024;

/// How a [`SessionManager`](crate::SessionManager) behaves. [`Config::default()`] is safe to run in production; set the fields that you
/// want otherwise. Durations read as text (`"48h"`, `"10m"`, `"1500ms"`) through serde; unknown fields are refused.
///
/// ```
/// # use std::time::Duration;
/// use pg_session::{Config, Migrations};
///
/// let mut config = Config::default();
/// config.idle_timeout = Duration::from_secs(3_600);
/// config.last_access_flush_interval = Duration::from_secs(300);
/// config.validate()?;
///
/// let config = Config::default().with(|config| config.migrations = Migrations::Apply);
///
/// let config: Config = serde_json::from_str(r#"{ "schema": "auth", "absolute_timeout": "12h", "idle_timeout": "1h" }"#)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[non_exhaustive]
pub struct Config {
    /// The schema that holds the tables. Any name that PostgreSQL takes, quoted by the library. Default `public`.
    pub schema: String,
    /// Put before each table's name, so that several applications can share a schema. Default empty.
    pub table_prefix: String,
    /// Whether to create or upgrade the tables at start. Default [`Migrations::Check`].
    pub migrations: Migrations,

    /// How long a session lives at most, from its creation, unless `create` says otherwise. Default 30 days, which
    /// is what NIST SP 800-63B allows at AAL1.
    #[serde(with = "humantime_serde")]
    pub absolute_timeout: Duration,
    /// How long a session may go without access. Default 48 hours. Sessions that are exempt ignore it.
    #[serde(with = "humantime_serde")]
    pub idle_timeout: Duration,
    /// Live sessions that a user may have at once; 0 means unlimited. Default 50: a bound on logins that run away, which
    /// people do not reach. `create` keeps it exactly, under an advisory lock for its user, and logs each session that it
    /// ends. A login can have [a cap of its own](crate::Create::cap).
    pub sessions_per_user_max: u32,
    /// What `create` does for a user who has them all. Default [`SessionLimit::EvictLeastRecentlyUsed`].
    pub on_session_limit: SessionLimit,

    /// How long the retired id stays readable after a rotation, for requests in flight. Default 10
    /// s, at most 60 s. Zero ends the old id at once, and a page's parallel requests may be logged
    /// out.
    #[serde(with = "humantime_serde")]
    pub rotation_grace: Duration,

    /// Longest key, in bytes. Default 128, at most 512 (the table checks that, too).
    pub attribute_key_bytes_max: usize,
    /// Longest value as JSON, in bytes. Default 16 KiB, at most 1 MiB (the table checks that, too).
    pub attribute_value_bytes_max: usize,
    /// Attributes of one session. Default 100.
    pub attributes_max: usize,
    /// Keys and values of one session together, in bytes. Default 256 KiB.
    pub session_bytes_max: usize,

    /// Sessions that the node keeps in memory. Default 10 000; each costs some 450 bytes beyond its attributes.
    pub cache_sessions_max: usize,
    /// Bytes of the sessions that the node keeps in memory: keys, values, and 450 for each session. At least
    /// `session_bytes_max` and 1 KiB. Default 16 KiB for each of `cache_sessions_max`: 156 MiB. Values that
    /// [`get_shared`](crate::Session::get_shared) has decoded do not count.
    pub cache_bytes_max: Option<usize>,
    /// How long an unchanged session stays in memory before it is read again. Default 48 hours: a backstop only.
    #[serde(with = "humantime_serde")]
    pub cache_ttl: Duration,
    /// **The revocation bound.** A node that has not proved for this long that it receives the database's notifications stops serving
    /// from memory. Default 6 s, 500 ms to 10 min. Shorter costs more: each node writes
    /// one row every quarter of it, and one notification wakes every listener. Longer serves revoked sessions longer when
    /// the network fails.
    #[serde(with = "humantime_serde")]
    pub trust_window: Duration,

    /// Whether updates notify the other nodes, unless one says otherwise. Default true. **Without it, other nodes may
    /// serve the old version for as long as they cache it.** A save that changes a limit or the group notifies in any case.
    pub notify_updates: bool,
    /// Whether an update that fails its check notifies the nodes of the version that it found. Then
    /// nodes that cache an older one drop it. Default false: the successful update has already
    /// notified them.
    pub notify_conflicts: bool,

    /// One answer from memory in so many is compared with the database afterwards. Default 10 000; 0 turns it off.
    ///
    /// [`Status::observer`](crate::Status::observer) has the results; its `stale` must stay 0. An update with
    /// [`no_notify`](crate::Save::no_notify) counts as stale where another node serves the old version: turn this off beside
    /// it. Without `notify_updates`, only ends are compared.
    pub observed_hits_interval: u32,

    /// How often the node looks for ended sessions and attributes to delete, with a jitter of half of it. Default
    /// 1 h; zero turns it off on this node. Only one node of a cluster cleans at a time.
    #[serde(with = "humantime_serde")]
    pub cleanup_interval: Duration,
    /// Rows that one statement of the clean-up deletes. Default 500.
    pub cleanup_batch_max: usize,

    /// How often last accesses are written. Default 10 min, at most a quarter of `idle_timeout`. Accesses closer together
    /// than a tenth of it, or than a minute, count as one.
    #[serde(with = "humantime_serde")]
    pub last_access_flush_interval: Duration,
    /// Last accesses written by one statement. Default 5 000. A flush starts early only if more sessions wait than
    /// the larger of the cache and a batch holds.
    pub touch_batch_max: usize,

    /// Connections in the pool that [`connect`](crate::SessionManager::connect) makes; the listener has one more of
    /// its own. Default 8.
    pub pool_connections_max: usize,
    /// How long connecting may take, over all hosts, from name resolution to authentication. Each host has its share. Default
    /// 5 s. A caller waits for a connection for `query_timeout` at most; the attempt goes on without it.
    #[serde(with = "humantime_serde")]
    pub connect_timeout: Duration,
    /// How long the provider of connection settings may take; see [`Builder::connect_with`](crate::Builder::connect_with).
    /// Default 10 s.
    #[serde(with = "humantime_serde")]
    pub provider_timeout: Duration,
    /// How long a statement may take, waiting for a connection included, before its callers get an error. Default 5 s.
    #[serde(with = "humantime_serde")]
    pub query_timeout: Duration,
    /// How long a write waits inside PostgreSQL for a row that another transaction has locked. Default 5 ms.
    ///
    /// Then the statement is repeated without the writes that need this row. Those are tried again until `query_timeout` is
    /// over ([`ErrorKind::Contention`]); a bulk delete is tried for 12 times as long.
    #[serde(with = "humantime_serde")]
    pub row_lock_wait: Duration,
    /// Whether statements are prepared on the server. Default [`StatementMode::Auto`].
    pub statement_mode: StatementMode,
    /// What is between the listener and PostgreSQL. Default [`ListenerPath::Direct`].
    pub listener_path: ListenerPath,

    /// Statements of one kind of write that may be in flight at once. The kinds: updates, creates, rotations, deletes, bulk
    /// deletes. Default 2. A further one leaves only when the youngest has been in flight for 5 ms. Each needs a connection
    /// while it is in flight.
    pub write_concurrency: usize,
    /// Changes that one statement combines. Default 512.
    pub write_batch_max: usize,
    /// Writes that may wait in each queue before a caller gets [`ErrorKind::Overloaded`]. Default 8 192.
    pub write_queue_max: usize,
    /// Sessions that one statement loads. Default 256.
    pub load_batch_max: usize,
    /// Different sessions that may wait to be loaded before a caller gets [`ErrorKind::Overloaded`]. Default 8 192.
    pub load_queue_max: usize,
}

/// Whether the manager may create and upgrade its tables.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Migrations {
    /// Only look: missing or outdated tables are an error that says what to do. Needs no right to create anything.
    #[default]
    Check,
    /// Create the schema if it is missing, and bring the tables up to date, under an advisory lock.
    Apply,
}

/// What `create` does for a user who already has `sessions_per_user_max` live sessions.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum SessionLimit {
    /// End the sessions whose last known access is oldest.
    #[default]
    EvictLeastRecentlyUsed,
    /// Fail with [`ErrorKind::SessionLimit`].
    Refuse,
}

/// How statements are sent.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum StatementMode {
    /// Prepared on each connection that leads directly to PostgreSQL, which the node asks it once; otherwise unnamed.
    #[default]
    Auto,
    /// As `Auto`, and prepared behind a pooler, too. `connect` refuses that if the pooler shares server connections between
    /// clients and does not track prepared statements. **It must not begin to do so later:** one process would execute the
    /// statements of another.
    Prepared,
    /// Sent with their types each time, and planned each time: safe behind every pooler, and slower.
    Unnamed,
}

/// What is between the listener and PostgreSQL.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ListenerPath {
    /// Nothing that reads the protocol. `connect` refuses a pooler, which may lose notifications.
    #[default]
    Direct,
    /// A pooler in session mode, where PostgreSQL's own address cannot be reached. Only a notification that arrives while the
    /// listener sends nothing makes the node trusted. A pooler in another mode delivers none, so `connect` refuses it, and
    /// later the node is not trusted.
    SessionPooler,
}

impl Default for Config {
    fn default() -> Self {
        const HOUR: Duration = Duration::from_secs(3_600);
        Self {
            schema: "public".to_owned(),
            table_prefix: String::new(),
            migrations: Migrations::default(),
            absolute_timeout: HOUR * 24 * 30,
            idle_timeout: HOUR * 48,
            sessions_per_user_max: 50,
            on_session_limit: SessionLimit::default(),
            rotation_grace: Duration::from_secs(10),
            attribute_key_bytes_max: 128,
            attribute_value_bytes_max: 16 * 1024,
            attributes_max: 100,
            session_bytes_max: 256 * 1024,
            cache_sessions_max: 10_000,
            cache_bytes_max: None,
            cache_ttl: HOUR * 48,
            trust_window: Duration::from_secs(6),
            notify_updates: true,
            notify_conflicts: false,
            observed_hits_interval: 10_000,
            cleanup_interval: HOUR,
            cleanup_batch_max: 500,
            last_access_flush_interval: Duration::from_secs(600),
            touch_batch_max: 5_000,
            pool_connections_max: 8,
            connect_timeout: Duration::from_secs(5),
            provider_timeout: Duration::from_secs(10),
            query_timeout: Duration::from_secs(5),
            row_lock_wait: Duration::from_millis(5),
            statement_mode: StatementMode::default(),
            listener_path: ListenerPath::default(),
            write_concurrency: 2,
            write_batch_max: 512,
            write_queue_max: 8_192,
            load_batch_max: 256,
            load_queue_max: 8_192,
        }
    }
}

/// The hard limit on a key, which the table checks as well. Keep in step with `migrations/0001_initial.sql`.
pub(crate) const KEY_BYTES_MAX: usize = 512;
/// The hard limit on a value, which the table checks as well. Keep in step with `migrations/0001_initial.sql`.
pub(crate) const VALUE_BYTES_MAX: usize = 1024 * 1024;
/// Ten years: far beyond any standard's limit, near enough that no sum of times can overflow.
pub(crate) const LIFETIME_MAX: Duration = Duration::from_secs(10 * 366 * 24 * 3_600);

/// The longest that an old id may be read after its rotation. Parallel requests are over by then,
/// and a stolen id must not be worth more.
pub(crate) const ROTATION_GRACE_MAX: Duration = Duration::from_secs(60);

impl Config {
    /// `sessions_per_user_max`, or `None` if the number of sessions is not limited.
    pub(crate) fn sessions_max(&self) -> Option<u32> {
        (self.sessions_per_user_max > 0).then_some(self.sessions_per_user_max)
    }

    /// These settings with a change, as one expression.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// Checks every field; [`SessionManager`](crate::SessionManager) does so before it connects.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] with the first field that is out of bounds and what it may be.
    pub fn validate(&self) -> Result<(), Error> {
        self.validate_lives()?;
        self.validate_limits()?;
        self.validate_queues()
    }

    fn validate_lives(&self) -> Result<(), Error> {
        const MS: Duration = Duration::from_millis(1);
        let between = |field, value, least, most| {
            between(field, HumanDuration(value), HumanDuration(least), HumanDuration(most))
        };
        between("absolute_timeout", self.absolute_timeout, MS, LIFETIME_MAX)?;
        between("idle_timeout", self.idle_timeout, MS * 4, LIFETIME_MAX)?;
        between("cache_ttl", self.cache_ttl, MS, LIFETIME_MAX)?;
        between("trust_window", self.trust_window, MS * 500, Duration::from_secs(600))?;
        between("connect_timeout", self.connect_timeout, MS * 10, Duration::from_secs(600))?;
        between("provider_timeout", self.provider_timeout, MS * 10, Duration::from_secs(600))?;
        between("query_timeout", self.query_timeout, MS * 10, Duration::from_secs(600))?;
        between("row_lock_wait", self.row_lock_wait, MS, Duration::from_secs(600))?;
        between("rotation_grace", self.rotation_grace, Duration::ZERO, ROTATION_GRACE_MAX)?;
        between("cleanup_interval", self.cleanup_interval, Duration::ZERO, LIFETIME_MAX)?;
        // A quarter keeps an active session from going idle in the database; see `session::expiry`.
        if self.last_access_flush_interval < MS || self.last_access_flush_interval > self.idle_timeout / 4 {
            return Err(fault(format!(
                "last_access_flush_interval = {} must be between 1ms and a quarter of idle_timeout = {}, or active sessions \
                 could end as idle; lower last_access_flush_interval",
                HumanDuration(self.last_access_flush_interval),
                HumanDuration(self.idle_timeout)
            )));
        }
        Ok(())
    }

    fn validate_limits(&self) -> Result<(), Error> {
        between("attribute_key_bytes_max", self.attribute_key_bytes_max, 1, KEY_BYTES_MAX)?;
        between("attribute_value_bytes_max", self.attribute_value_bytes_max, 2, VALUE_BYTES_MAX)?;
        between("attributes_max", self.attributes_max, 1, 10_000)?;
        between("session_bytes_max", self.session_bytes_max, 2, 64 * VALUE_BYTES_MAX)?;
        between("cache_sessions_max", self.cache_sessions_max, 1, 100_000_000)?;
        let largest = self.session_bytes_max + 1_024;
        if self.cache_bytes_max.is_some_and(|bytes| bytes < largest) {
            return Err(fault(format!(
                "cache_bytes_max = {} must be at least session_bytes_max + 1024 = {largest}, or the largest sessions are never \
                 in memory; raise cache_bytes_max",
                self.cache_bytes_max.unwrap_or_default()
            )));
        }
        Ok(())
    }

    /// Bytes of the sessions in memory, at most.
    pub(crate) fn cache_bytes(&self) -> usize {
        // Room for the largest session in any case.
        let default = self.cache_sessions_max.saturating_mul(CACHE_BYTES_PER_SESSION);
        self.cache_bytes_max.unwrap_or(default.max(self.session_bytes_max + 1_024))
    }

    fn validate_queues(&self) -> Result<(), Error> {
        between("cleanup_batch_max", self.cleanup_batch_max, 1, 100_000)?;
        between("touch_batch_max", self.touch_batch_max, 1, 50_000)?;
        between("pool_connections_max", self.pool_connections_max, 1, 1_000)?;
        between("write_concurrency", self.write_concurrency, 1, 16)?;
        between("write_batch_max", self.write_batch_max, 1, 10_000)?;
        between("write_queue_max", self.write_queue_max, 1, 1_000_000)?;
        between("load_batch_max", self.load_batch_max, 1, 10_000)?;
        between("load_queue_max", self.load_queue_max, 1, 1_000_000)
    }

    /// What sessions are judged by, with the node's clock.
    pub(crate) fn policy(&self, clock: Clock) -> Arc<Policy> {
        let limits = Limits {
            key_bytes_max: self.attribute_key_bytes_max,
            value_bytes_max: self.attribute_value_bytes_max,
            attributes_max: self.attributes_max,
            session_bytes_max: self.session_bytes_max,
        };
        // A hit is then one comparison, and what was evicted and is loaded again is not written again.
        let touch_resolution = (self.last_access_flush_interval / 10).min(Duration::from_secs(60));
        Arc::new(Policy { clock, limits, idle_timeout: self.idle_timeout, touch_resolution })
    }
}

fn between<T: PartialOrd + Copy + fmt::Display>(
    field: &str,
    value: T,
    least: T,
    most: T,
) -> Result<(), Error> {
    if value < least || value > most {
        return Err(fault(format!("{field} = {value} must be between {least} and {most}")));
    }
    Ok(())
}

/// A duration as the settings are read: `48h`, not `172800s`.
#[derive(Clone, Copy, PartialEq, PartialOrd)]
pub(crate) struct HumanDuration(pub(crate) Duration);

impl fmt::Display for HumanDuration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        humantime_serde::re::humantime::format_duration(self.0).fmt(f)
    }
}

fn fault(message: String) -> Error {
    Error::new(ErrorKind::Config, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(change: impl FnOnce(&mut Config)) -> String {
        let mut config = Config::default();
        change(&mut config);
        let error = config.validate().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        error.to_string()
    }

    #[test]
    fn the_default_is_valid_however_it_is_built() {
        Config::default().validate().unwrap();
        let from_nothing: Config = serde_json::from_str("{}").unwrap();
        assert_eq!(from_nothing, Config::default());
    }

    #[test]
    fn an_error_names_the_field_and_what_it_may_be() {
        assert!(
            message(|c| c.absolute_timeout = Duration::ZERO)
                .starts_with("absolute_timeout = 0s must be between 1ms and 10years ")
        );
        assert!(message(|c| c.trust_window = Duration::from_millis(1)).contains("trust_window"));
        assert!(
            message(|c| c.last_access_flush_interval = c.idle_timeout).contains("a quarter of idle_timeout")
        );
        assert!(
            message(|c| c.attribute_key_bytes_max = KEY_BYTES_MAX + 1).contains("attribute_key_bytes_max")
        );
        assert!(message(|c| c.write_concurrency = 0).contains("write_concurrency"));
        assert!(message(|c| c.absolute_timeout = Duration::MAX).contains("absolute_timeout"));
    }

    #[test]
    fn unknown_and_malformed_settings_are_refused_by_name() {
        let unknown = serde_json::from_str::<Config>(r#"{ "trust_widow": "6s" }"#).unwrap_err().to_string();
        assert!(unknown.contains("trust_widow") && unknown.contains("trust_window"), "{unknown}");
        let malformed =
            serde_json::from_str::<Config>(r#"{ "trust_window": "six" }"#).unwrap_err().to_string();
        assert!(malformed.contains("six") || malformed.contains("number"), "{malformed}");
    }

    #[test]
    fn a_configuration_survives_serde() {
        let text = serde_json::to_string(&Config::default()).unwrap();
        assert!(text.contains(r#""idle_timeout":"2days""#), "{text}");
        assert_eq!(serde_json::from_str::<Config>(&text).unwrap(), Config::default());
    }
}
