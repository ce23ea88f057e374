//! Where the server is and how it is trusted: the settings of a connection string, checked and ready to connect with.

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use pg_listen::Server;
use tokio_postgres::config::{
    ChannelBinding, Host, LoadBalanceHosts, SslMode, SslNegotiation, TargetSessionAttrs,
};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::connection_string::{self, Settings, check_host, fault};
use super::tls::{ClientCertificate, Proof, Roots, Tls, TlsVersion};
use super::{environment, password_file};
use crate::error::{Error, ErrorKind};

/// Where PostgreSQL is, who connects, and what the server's certificate must prove.
///
/// `Debug` shows neither the password nor the certificate's key.
#[derive(Clone)]
pub struct ConnectOptions {
    pub(crate) config: tokio_postgres::Config,
    pub(crate) tls: Tls,
    /// The file that the passwords come from, which is read again for each attempt to connect.
    password_file: Option<PathBuf>,
}

impl fmt::Debug for ConnectOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnectOptions").field("config", &self.config).field("tls", &self.tls).finish()
    }
}

impl From<tokio_postgres::Config> for ConnectOptions {
    fn from(mut config: tokio_postgres::Config) -> Self {
        if config.get_keepalives_idle() == DRIVER_KEEPALIVE {
            keep_alive(&mut config);
        }
        let tls = Tls::unverified(config.get_ssl_negotiation() == SslNegotiation::Direct);
        Self { config, tls, password_file: None }
    }
}

/// The settings of one attempt to connect, with what files contain.
pub(crate) struct ServerSettings {
    pub(crate) config: tokio_postgres::Config,
    pub(crate) tls: MakeRustlsConnect,
    /// Of the hosts, in their order.
    pub(crate) passwords: Vec<Option<String>>,
}

impl From<ServerSettings> for Server {
    fn from(ServerSettings { config, tls, passwords }: ServerSettings) -> Self {
        Self::new(config).tls(tls).host_passwords(passwords)
    }
}

/// How well a connection is protected. Later ones include earlier ones.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Protection {
    /// Plain text is possible (`disable`, `allow`, `prefer`).
    None,
    /// Encrypted, perhaps to an impostor (`require`).
    Encrypted,
    /// The server's certificate comes from a known authority (`verify-ca`).
    Authority,
    /// And it is for this host (`verify-full`).
    Host,
}

impl Protection {
    fn sslmode(self) -> &'static str {
        match self {
            Self::None => "prefer",
            Self::Encrypted => "require",
            Self::Authority => "verify-ca",
            Self::Host => "verify-full",
        }
    }
}

impl ConnectOptions {
    /// Reads a connection string: a URL, or `host=… user=…`, as `psql` reads it.
    ///
    /// No PG* variable and no file is used that the string does not name.
    ///
    /// # Errors
    /// [`ErrorKind::Config`], which names the option that is wrong or not supported. Neither the message nor its source
    /// repeats a value.
    pub fn parse(text: &str) -> Result<Self, Error> {
        Self::from_settings(&connection_string::parse(text)?)
    }

    /// Reads `DATABASE_URL`, and libpq's variables (`PGHOST`, `PGPASSWORD`, `PGSSLMODE`, …) for what it does not name.
    ///
    /// A password that neither gives is looked up in `PGPASSFILE`, or else in `~/.pgpass`, as by `psql`.
    ///
    /// # Errors
    /// As [`parse`](ConnectOptions::parse); or the variables name no host.
    pub fn from_env() -> Result<Self, Error> {
        let variable = |name: &str| std::env::var_os(name);
        let settings = environment::settings(variable)?;
        Self::from_settings(&settings).map_err(|error| {
            let read = |settings: &Settings| Self::from_settings(settings).err();
            environment::explain(variable, &settings, error, read)
        })
    }

    /// Replaces the password: for one that is valid for a short time.
    #[must_use]
    pub fn password(mut self, password: &str) -> Self {
        self.config.password(password);
        self.password_file = None;
        self
    }

    /// Replaces the role.
    #[must_use]
    pub fn user(mut self, user: &str) -> Self {
        self.config.user(user);
        self
    }

    pub(crate) fn from_settings(settings: &Settings) -> Result<Self, Error> {
        let get = |name: &str| settings.get(name).map(String::as_str);
        let tls = tls(settings)?;
        let mut config = tokio_postgres::Config::new();
        keep_alive(&mut config);
        config.ssl_mode(match get("sslmode") {
            Some("disable") => SslMode::Disable,
            _ if tls.proof != Proof::None || get("sslmode") == Some("require") => SslMode::Require,
            _ => SslMode::Prefer,
        });
        if tls.direct {
            config.ssl_negotiation(SslNegotiation::Direct);
        }
        put_identity(settings, &mut config)?;
        put_hosts(settings, &mut config)?;
        // As in libpq, a Unix socket is never encrypted.
        if is_local(&config) {
            config.ssl_mode(SslMode::Disable);
        }
        put_limits(settings, &mut config)?;
        put_choices(settings, &mut config)?;
        let password_file = get("passfile").filter(|_| config.get_password().is_none()).map(PathBuf::from);
        let options = Self { config, tls, password_file };
        // A file that cannot be read is an error at once.
        options.host_passwords()?;
        Ok(options)
    }

    fn host_passwords(&self) -> Result<Vec<Option<String>>, Error> {
        self.password_file.as_ref().map_or(Ok(Vec::new()), |path| password_file::find(path, &self.config))
    }

    /// Reads the files that these options name: for each attempt to connect, because they may be replaced at any time.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if one cannot be read.
    pub(crate) fn read_files(self) -> Result<ServerSettings, Error> {
        Ok(ServerSettings {
            tls: self.tls.connector()?,
            passwords: self.host_passwords()?,
            config: self.config,
        })
    }

    /// What a cancel request of an application's pool does TLS with, whose own connector is not known. The request carries
    /// nothing but a number that is worth one cancellation.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if TLS cannot be set up.
    pub(crate) fn unverified() -> Result<MakeRustlsConnect, Error> {
        Tls::unverified(false).connector()
    }

    pub(crate) fn protection(&self) -> Protection {
        match (self.tls.proof, self.config.get_ssl_mode()) {
            (Proof::Host, _) => Protection::Host,
            (Proof::Authority, _) => Protection::Authority,
            (Proof::None, SslMode::Require) => Protection::Encrypted,
            (Proof::None, _) => Protection::None,
        }
    }

    /// The driver's configuration for the listener, protected as this one: the driver cannot ask for verification.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if it asks for plain text, and this one is encrypted.
    pub(crate) fn protect(&self, mut config: tokio_postgres::Config) -> Result<Self, Error> {
        if self.protection() == Protection::None || is_local(&config) {
            return Ok(config.into());
        }
        if config.get_ssl_mode() == SslMode::Disable {
            return Err(weaker(Protection::None, self.protection()));
        }
        config.ssl_mode(SslMode::Require).ssl_negotiation(self.config.get_ssl_negotiation());
        Ok(Self { tls: self.tls.clone(), ..config.into() })
    }

    /// # Errors
    /// [`ErrorKind::Config`] if `listener` is protected less than this one.
    pub(crate) fn check_listener(&self, listener: &Self) -> Result<(), Error> {
        if listener.protection() < self.protection() && !is_local(&listener.config) {
            return Err(weaker(listener.protection(), self.protection()));
        }
        Ok(())
    }

    /// For a listener beside an application's pool whose connections are encrypted. Whether they verify the server cannot be
    /// seen.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] if plain text is possible.
    pub(crate) fn check_encrypted(&self) -> Result<(), Error> {
        if self.protection() > Protection::None || is_local(&self.config) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Config,
            "the connections of the application's pool are encrypted, and the listener's need not be; give `listen_on_url` \
             the pool's sslmode and sslrootcert",
        ))
    }
}

/// An idle connection is probed after this long. Firewalls and load balancers drop idle connections after some minutes.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_RETRIES: u32 = 3;
/// The driver's default, which looks like a setting of the caller.
const DRIVER_KEEPALIVE: Duration = Duration::from_secs(2 * 3_600);

fn keep_alive(config: &mut tokio_postgres::Config) {
    config.keepalives_idle(KEEPALIVE_IDLE);
    if config.get_keepalives_interval().is_none() {
        config.keepalives_interval(KEEPALIVE_INTERVAL);
    }
    if config.get_keepalives_retries().is_none() {
        config.keepalives_retries(KEEPALIVE_RETRIES);
    }
}

fn weaker(listener: Protection, pool: Protection) -> Error {
    let (listener, pool) = (listener.sslmode(), pool.sslmode());
    Error::new(
        ErrorKind::Config,
        format!(
            "the listener's connection (sslmode={listener}) is protected less than the pool's (sslmode={pool}); give \
             `listen_on_url` the same sslmode and sslrootcert"
        ),
    )
}

/// Whether all hosts are directories of Unix sockets, which no network can reach.
fn is_local(config: &tokio_postgres::Config) -> bool {
    let hosts = config.get_hosts();
    config.get_hostaddrs().is_empty()
        && !hosts.is_empty()
        && hosts.iter().all(|host| matches!(host, Host::Unix(_)))
}

/// `sslmode` and what belongs to it, with libpq's policy of how they go together.
fn tls(settings: &Settings) -> Result<Tls, Error> {
    let get = |name: &str| settings.get(name).map(String::as_str);
    if settings.contains_key("ssl") {
        return Err(fault(
            "has a value of `ssl` other than true; use `sslmode`: verify-full verifies, disable is plain text",
        ));
    }
    let root = get("sslrootcert");
    let is_system = root == Some("system");
    let mode = get("sslmode").unwrap_or(if is_system { "verify-full" } else { "prefer" });
    let proof = match mode {
        "disable" | "allow" | "prefer" => Proof::None,
        // A root certificate is there to be verified with.
        "require" if root.is_some() => Proof::Authority,
        "require" => Proof::None,
        "verify-ca" => Proof::Authority,
        "verify-full" => Proof::Host,
        _ => {
            return Err(fault(
                "has an unknown value of `sslmode`; use disable, allow, prefer, require, verify-ca or verify-full",
            ));
        }
    };
    if is_system && mode != "verify-full" {
        // Each site can have a certificate of a public authority for its own name.
        return Err(fault(
            "has `sslrootcert=system` with a weaker `sslmode` than verify-full; use sslmode=verify-full",
        ));
    }
    if mode == "verify-ca" && root.is_none() {
        return Err(fault(
            "has `sslmode=verify-ca` without `sslrootcert`, which would accept any name; name the PEM file of your authority, or use sslmode=verify-full",
        ));
    }
    if root.is_some() && proof == Proof::None && mode != "disable" {
        tracing::warn!(
            sslmode = mode,
            "sslrootcert is not used, the server is not verified; use sslmode=verify-full"
        );
    }
    let direct =
        choice(settings, "sslnegotiation", &[("postgres", false), ("direct", true)])?.unwrap_or(false);
    if direct && matches!(mode, "disable" | "allow" | "prefer") {
        return Err(fault(
            "has `sslnegotiation=direct` with a weaker `sslmode` than require; use sslmode=require or a stronger one",
        ));
    }
    // Whether the server asked for a certificate, as `require` demands, the driver does not say.
    let is_sent = choice(settings, "sslcertmode", &[("disable", false), ("allow", true)])?.unwrap_or(true);
    let client = match (get("sslcert"), get("sslkey")) {
        _ if !is_sent => None,
        (Some(certificate), Some(key)) => {
            Some(ClientCertificate { certificate: certificate.to_owned(), key: key.to_owned() })
        }
        (Some(_), None) => {
            return Err(fault("has `sslcert` without `sslkey`; name the PEM file of its key in `sslkey`"));
        }
        (None, Some(_)) => {
            return Err(fault(
                "has `sslkey` without `sslcert`; name the PEM file of its certificate in `sslcert`",
            ));
        }
        (None, None) => None,
    };
    let versions = &[
        ("TLSv1", TlsVersion::V12),
        ("TLSv1.1", TlsVersion::V12),
        ("TLSv1.2", TlsVersion::V12),
        ("TLSv1.3", TlsVersion::V13),
    ];
    let newest = choice(settings, "ssl_max_protocol_version", &versions[2..])?.unwrap_or(TlsVersion::V13);
    let oldest = choice(settings, "ssl_min_protocol_version", versions)?.unwrap_or(TlsVersion::V12);
    if oldest > newest {
        return Err(fault(
            "has a `ssl_min_protocol_version` above `ssl_max_protocol_version`; exchange them",
        ));
    }
    Ok(Tls {
        proof,
        roots: match root {
            Some(path) if !is_system => Roots::File(path.to_owned()),
            _ => Roots::System,
        },
        revoked: get("sslcrl").map(ToOwned::to_owned),
        client,
        direct,
        send_name: choice(settings, "sslsni", &[("0", false), ("1", true)])?.unwrap_or(true),
        versions: (oldest, newest),
    })
}

fn put_identity(settings: &Settings, config: &mut tokio_postgres::Config) -> Result<(), Error> {
    let get = |name: &str| settings.get(name).map(String::as_str);
    if let Some(user) = get("user") {
        config.user(user);
    }
    if let Some(password) = get("password") {
        config.password(password);
    }
    if let Some(database) = get("dbname") {
        config.dbname(database);
    }
    if let Some(options) = get("options") {
        config.options(options);
    }
    if let Some(name) = get("application_name").or(get("fallback_application_name")) {
        config.application_name(name);
    }
    if settings.values().any(|value| value.contains('\0')) {
        return Err(fault("has a zero byte in a value; remove it"));
    }
    Ok(())
}

fn put_hosts(settings: &Settings, config: &mut tokio_postgres::Config) -> Result<(), Error> {
    let list =
        |name: &str| settings.get(name).map(|text| text.split(',').collect::<Vec<_>>()).unwrap_or_default();
    let (hosts, addresses, ports) = (list("host"), list("hostaddr"), list("port"));
    if hosts.is_empty() && addresses.is_empty() {
        return Err(fault(
            "names no host; write postgres://user:password@host:5432/database, or host=/run/postgresql for a Unix socket",
        ));
    }
    if addresses.is_empty() && hosts.contains(&"") {
        return Err(fault("has an empty host in its list; remove the extra comma"));
    }
    if !hosts.is_empty() && !addresses.is_empty() && hosts.len() != addresses.len() {
        return Err(fault(format_args!(
            "has {} of `host` and {} of `hostaddr`; name one address for each host",
            hosts.len(),
            addresses.len()
        )));
    }
    let count = hosts.len().max(addresses.len());
    if count > HOSTS_MAX {
        return Err(fault(format_args!("names {count} hosts; name {HOSTS_MAX} at most")));
    }
    if ports.len() > 1 && ports.len() != count {
        return Err(fault(format_args!(
            "has {} ports for {count} hosts; name one port for all, or one for each",
            ports.len()
        )));
    }
    for host in hosts {
        check_host(host)?;
        config.host(host);
    }
    for address in addresses {
        let address = IpAddr::from_str(address)
            .map_err(|_| fault("has a `hostaddr` that is no IP address; use `host` for a name"))?;
        // Without a name, the certificate is compared with the address.
        if settings.contains_key("host") {
            config.hostaddr(address);
        } else {
            config.host(address.to_string());
        }
    }
    for port in ports {
        let port = if port.is_empty() { Ok(5432) } else { port.trim().parse::<u16>() };
        match port {
            Ok(port) if port > 0 => config.port(port),
            _ => return Err(fault("has a `port` that is no number between 1 and 65535; correct it")),
        };
    }
    Ok(())
}

/// Hosts of one connection string: each attempt to connect tries them all.
const HOSTS_MAX: usize = 16;

/// The longest limit of time that a connection string may set.
const LIMIT_MAX: Duration = Duration::from_secs(24 * 3_600);

fn put_limits(settings: &Settings, config: &mut tokio_postgres::Config) -> Result<(), Error> {
    let number = |name: &str, unit: Duration| -> Result<Option<Duration>, Error> {
        let Some(text) = settings.get(name) else { return Ok(None) };
        let wrong =
            || fault(format_args!("has a value of `{name}` that is no whole number up to a day; correct it"));
        let value = text.trim().parse::<i32>().map_err(|_| wrong())?;
        // As in libpq, zero and less mean the default.
        let Ok(value) = u32::try_from(value) else { return Ok(None) };
        let value = unit.saturating_mul(value);
        if value > LIMIT_MAX { Err(wrong()) } else { Ok(Some(value).filter(|value| !value.is_zero())) }
    };
    const SECOND: Duration = Duration::from_secs(1);
    if let Some(limit) = number("connect_timeout", SECOND)? {
        config.connect_timeout(limit);
    }
    if let Some(limit) = number("tcp_user_timeout", Duration::from_millis(1))? {
        config.tcp_user_timeout(limit);
    }
    if let Some(alive) = choice(settings, "keepalives", &[("0", false), ("1", true)])? {
        config.keepalives(alive);
    }
    if let Some(idle) = number("keepalives_idle", SECOND)? {
        config.keepalives_idle(idle);
    }
    if let Some(interval) = number("keepalives_interval", SECOND)? {
        config.keepalives_interval(interval);
    }
    for name in ["keepalives_retries", "keepalives_count"] {
        if let Some(count) = number(name, SECOND)? {
            config.keepalives_retries(u32::try_from(count.as_secs()).unwrap_or(u32::MAX));
        }
    }
    Ok(())
}

fn put_choices(settings: &Settings, config: &mut tokio_postgres::Config) -> Result<(), Error> {
    let bindings = [
        ("disable", ChannelBinding::Disable),
        ("prefer", ChannelBinding::Prefer),
        ("require", ChannelBinding::Require),
    ];
    if let Some(binding) = choice(settings, "channel_binding", &bindings)? {
        config.channel_binding(binding);
        if binding == ChannelBinding::Require && config.get_ssl_mode() != SslMode::Require {
            return Err(fault(
                "has `channel_binding=require` with a weaker `sslmode` than require; use sslmode=require or a stronger one",
            ));
        }
    }
    let balances = [("disable", LoadBalanceHosts::Disable), ("random", LoadBalanceHosts::Random)];
    if let Some(balance) = choice(settings, "load_balance_hosts", &balances)? {
        config.load_balance_hosts(balance);
    }
    match settings.get("target_session_attrs").map(String::as_str) {
        // Sessions need the primary. Of several hosts, it is the one that accepts writes.
        None | Some("any") if config.get_hosts().len() == 1 => {}
        None | Some("any" | "read-write" | "primary") => {
            config.target_session_attrs(TargetSessionAttrs::ReadWrite);
        }
        Some("read-only" | "standby" | "prefer-standby") => {
            return Err(fault(
                "asks for a standby with `target_session_attrs`, which cannot serve sessions; use read-write or primary",
            ));
        }
        Some(_) => {
            return Err(fault(
                "has an unknown value of `target_session_attrs`; use any, read-write or primary",
            ));
        }
    }
    // The driver always speaks UTF-8, and never GSSAPI.
    let encodings = [("auto", ()), ("utf8", ()), ("utf-8", ()), ("UTF8", ()), ("UTF-8", ()), ("unicode", ())];
    choice(settings, "client_encoding", &encodings)?;
    // The driver speaks 3.0, which each server does.
    choice(settings, "min_protocol_version", &[("3.0", ())])?;
    choice(settings, "max_protocol_version", &[("3.0", ()), ("3.2", ()), ("latest", ())])?;
    choice(settings, "gssencmode", &[("disable", ()), ("prefer", ())])?;
    Ok(())
}

/// The setting's value, one of `choices`.
fn choice<T: Copy>(settings: &Settings, name: &str, choices: &[(&str, T)]) -> Result<Option<T>, Error> {
    let Some(value) = settings.get(name) else { return Ok(None) };
    match choices.iter().find(|(text, _)| text == value) {
        Some((_, choice)) => Ok(Some(*choice)),
        None => {
            let supported: Vec<&str> = choices.iter().map(|(text, _)| *text).collect();
            let supported = supported.join(", ");
            Err(fault(format_args!("has a value of `{name}` that is not supported; use one of: {supported}")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> tokio_postgres::Config {
        ConnectOptions::parse(text).unwrap_or_else(|error| panic!("{text}: {error}")).config
    }

    #[test]
    fn what_psql_accepts_reaches_the_driver() {
        let read = config(
            "postgres://me:p?w@a:1,b:2/app?connect_timeout=3&keepalives_idle=5&keepalives_count=2&tcp_user_timeout=1500\
             &options=-c%20geqo%3Doff&target_session_attrs=primary&sslmode=allow&client_encoding=UTF8&gssencmode=prefer\
             &krbsrvname=pg&load_balance_hosts=random&sslcompression=0&fallback_application_name=shop\
             &max_protocol_version=latest\n",
        );
        assert_eq!(read.get_password(), Some("p?w".as_bytes()));
        assert_eq!(read.get_hosts(), [Host::Tcp("a".to_owned()), Host::Tcp("b".to_owned())]);
        assert_eq!(read.get_ports(), [1, 2]);
        assert_eq!(read.get_connect_timeout(), Some(&Duration::from_secs(3)));
        assert_eq!(
            (read.get_keepalives_idle(), read.get_keepalives_retries()),
            (Duration::from_secs(5), Some(2))
        );
        assert_eq!(
            read.get_tcp_user_timeout(),
            Some(&Duration::from_millis(1_500)),
            "libpq counts milliseconds"
        );
        assert_eq!(read.get_options(), Some("-c geqo=off"));
        assert_eq!(read.get_target_session_attrs(), TargetSessionAttrs::ReadWrite);
        assert_eq!(read.get_ssl_mode(), SslMode::Prefer);
        assert_eq!(read.get_load_balance_hosts(), LoadBalanceHosts::Random);
        assert_eq!(read.get_application_name(), Some("shop"));
    }

    #[test]
    fn of_several_hosts_the_primary_is_taken() {
        let attributes = |text: &str| config(text).get_target_session_attrs();
        assert_eq!(attributes("host=a"), TargetSessionAttrs::Any);
        for several in ["host=a,b", "host=a,b target_session_attrs=any", "hostaddr=127.0.0.1,127.0.0.2"] {
            assert_eq!(attributes(several), TargetSessionAttrs::ReadWrite, "{several}");
        }
    }

    #[test]
    fn an_unix_socket_is_never_encrypted() {
        for text in ["host=/run/pg sslmode=verify-full", "postgres://%2Frun%2Fpg/app?sslmode=require"] {
            let read = config(text);
            assert!(matches!(read.get_hosts(), [Host::Unix(_)]), "{text}");
            assert_eq!(read.get_ssl_mode(), SslMode::Disable, "{text}");
        }
    }

    #[test]
    fn idle_connections_are_probed_after_a_minute() {
        for read in [config("host=a"), ConnectOptions::from(tokio_postgres::Config::new()).config] {
            assert_eq!(read.get_keepalives_idle(), Duration::from_secs(60));
            assert_eq!(
                (read.get_keepalives_interval(), read.get_keepalives_retries()),
                (Some(KEEPALIVE_INTERVAL), Some(3))
            );
        }
    }
}
