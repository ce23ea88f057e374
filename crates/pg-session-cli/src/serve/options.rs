//! [`Options`] of the command line, and the [`Settings`] that follow from them after all checks.

use std::env::VarError;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use axum::http::HeaderName;
use clap::Args;
use pg_session::{KeyRing, SessionManager, SigningKey};
use pg_session_admin::{Admin, Builder, Secret};
use pg_session_web::CookiePolicy;

use super::auth::{AttributeHeader, HANDLE_HEADER, ProxyAccess, SECRET_HEADER, USER_HEADER};
use super::listener::Limits;
use super::secret;
use crate::connection::Place;
use crate::failure::Failure;

/// Connections for loads, last accesses and the admin API.
const POOL_CONNECTIONS: usize = 4;
/// Attributes that an answer carries, at most.
const ATTRIBUTES_MAX: usize = 32;
/// Until a request is answered, at least, whatever a client may take.
const ANSWER_WAIT_MIN: Duration = Duration::from_secs(30);
/// A shorter time cuts off each client, and a longer one none.
const CLIENT_WAITS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3_600);
/// Bytes of an attribute's key or header name, at most.
const NAME_BYTES_MAX: usize = 256;

/// Answer a proxy that asks who is signed in; metrics and health. Until Ctrl-C or SIGTERM.
///
/// SESSION_KEY has the signing keys, as for the application. Other nodes must use the same keys and cookie.
#[derive(Args, Debug)]
pub(crate) struct Options {
    #[command(flatten)]
    place: Place,
    /// The address to serve on. Another one than this machine's own needs a secret of the proxy.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7480")]
    listen: SocketAddr,
    /// The name of the session's cookie, without its prefix `__Host-`.
    #[arg(long, value_name = "NAME", default_value = "session")]
    cookie: String,
    /// The application's cookie is for all hosts of this domain, with the prefix `__Secure-`.
    #[arg(long, value_name = "DOMAIN", conflicts_with = "insecure_cookie_without_tls")]
    insecure_cookie_domain: Option<String>,
    /// The application's cookie has no prefix and travels without TLS.
    #[arg(long)]
    insecure_cookie_without_tls: bool,
    /// Send this attribute of the session to the proxy, in this header. May be repeated.
    #[arg(long = "attribute", value_name = "KEY=HEADER")]
    attributes: Vec<AttributeHeader>,
    /// A file with the secret that the proxy sends in `x-pg-session-secret`. Default: the variable
    /// PG_SESSION_PROXY_SECRET.
    #[arg(long, value_name = "FILE")]
    proxy_secret_file: Option<PathBuf>,
    /// Connections at one time. The next one waits.
    #[arg(long, value_name = "N", default_value = "1024", value_parser = clap::value_parser!(u16).range(1..))]
    connections_max: u16,
    /// How long a client may take to send the head of a request, or to begin the next one: 100ms to 1h.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = client_timeout)]
    client_timeout: Duration,
    /// A file with the token of the admin API and the console. Default: the variable PG_SESSION_ADMIN_TOKEN. Without a
    /// token, neither is served.
    #[arg(long, value_name = "FILE")]
    admin_token_file: Option<PathBuf>,
    /// Serve the console, under /console.
    #[arg(long)]
    console: bool,
    /// Let the console end sessions. Without it, it only shows.
    #[arg(long, requires = "console")]
    allow_changes: bool,
    /// A host name under which browsers open the console, besides localhost. May be repeated.
    #[arg(long = "console-host", value_name = "HOST", requires = "console")]
    console_hosts: Vec<String>,
    /// Print what happens as JSON: where it serves, changes, and when it loses its listener.
    #[arg(long)]
    pub(super) json: bool,
}

/// What the process runs with.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) listen: SocketAddr,
    pub(super) cookie: CookiePolicy,
    pub(super) proxies: ProxyAccess,
    connections_max: u16,
    client_timeout: Duration,
    pub(super) admin: Option<AdminSettings>,
    place: Place,
}

/// Of the admin API and the console.
#[derive(Debug)]
pub(super) struct AdminSettings {
    pub(super) console: bool,
    token: Secret,
    allow_changes: bool,
    hosts: Vec<String>,
    place: Place,
}

impl AdminSettings {
    pub(super) fn builder(self, manager: SessionManager) -> Builder {
        let place = self.place;
        let builder = Admin::builder(manager).token(self.token).doctor(move || place.builder());
        let builder = self.hosts.into_iter().fold(builder, Builder::host);
        if self.allow_changes { builder.allow_changes() } else { builder }
    }
}

impl Settings {
    /// # Errors
    /// A wrong or a missing option.
    pub(super) fn of(options: Options) -> Result<Self, Failure> {
        check_keys().map_err(Failure::usage)?;
        let secret = secret::read(
            options.proxy_secret_file.as_deref(),
            "--proxy-secret-file",
            "PG_SESSION_PROXY_SECRET",
        )
        .map_err(Failure::usage)?;
        if secret.is_none() && !options.listen.ip().is_loopback() {
            return Err(Failure::usage(format!(
                "{} can be reached from other machines, where any client could try cookies; set --proxy-secret-file, and \
                 let the proxy send its content in the header {SECRET_HEADER}",
                options.listen
            )));
        }
        if options.attributes.len() > ATTRIBUTES_MAX {
            return Err(Failure::usage(format!("--attribute can be given {ATTRIBUTES_MAX} times at most")));
        }
        let admin_token =
            secret::read(options.admin_token_file.as_deref(), "--admin-token-file", "PG_SESSION_ADMIN_TOKEN")
                .map_err(Failure::usage)?;
        if options.console && admin_token.is_none() {
            return Err(Failure::usage(
                "--console needs a token to sign in with; set --admin-token-file or PG_SESSION_ADMIN_TOKEN",
            ));
        }
        let admin = admin_token.map(|token| AdminSettings {
            console: options.console,
            token,
            allow_changes: options.allow_changes,
            hosts: options.console_hosts,
            place: options.place.clone(),
        });
        let cookie =
            cookie(&options.cookie, options.insecure_cookie_domain.as_deref()).map_err(Failure::usage)?;
        Ok(Self {
            listen: options.listen,
            cookie: if options.insecure_cookie_without_tls { cookie.insecure_without_tls() } else { cookie },
            proxies: ProxyAccess::new(secret, options.attributes),
            connections_max: options.connections_max,
            client_timeout: options.client_timeout,
            admin,
            place: options.place,
        })
    }

    /// A body may take as long as a head. A revocation that waits for all nodes takes the trust window at most.
    pub(super) fn limits(&self, trust_window: Duration) -> Limits {
        Limits {
            connections: usize::from(self.connections_max),
            client_wait: self.client_timeout,
            answer_wait: ANSWER_WAIT_MIN.max(2 * trust_window),
        }
    }

    /// A node with the settings of the application, or it would take other sessions for expired.
    ///
    /// # Errors
    /// As [`SessionManager::connect`].
    pub(super) async fn connect(&self) -> Result<SessionManager, Failure> {
        let builder = self.place.builder_with(|config| config.pool_connections_max = POOL_CONNECTIONS)?;
        Ok(Box::pin(builder.adopt_settings().connect()).await?)
    }
}

/// Before anything is connected, so that a wrong key is wrong usage.
fn check_keys() -> Result<(), String> {
    let keys = std::env::var("SESSION_KEY").map_err(|error| match error {
        VarError::NotPresent => "SESSION_KEY is not set; set it to the signing keys of the application",
        VarError::NotUnicode(_) => "SESSION_KEY is no text; set it to the signing keys of the application",
    })?;
    let keys: Result<Vec<_>, _> = keys.split(',').map(SigningKey::from_base64).collect();
    keys.and_then(|keys| KeyRing::from_keys(&keys))
        .map(|_| ())
        .map_err(|error| format!("SESSION_KEY: {error}; set it to the signing keys of the application"))
}

fn client_timeout(text: &str) -> Result<Duration, String> {
    let wait = humantime::parse_duration(text).map_err(|error| error.to_string())?;
    if CLIENT_WAITS.contains(&wait) { Ok(wait) } else { Err("give 100ms to 1h".to_owned()) }
}

fn cookie(name: &str, domain: Option<&str>) -> Result<CookiePolicy, String> {
    let policy = CookiePolicy::named(name).map_err(|error| format!("--cookie: {error}"))?;
    match domain {
        None => Ok(policy),
        Some(domain) => policy
            .insecure_for_all_hosts_of(domain)
            .map_err(|error| format!("--insecure-cookie-domain: {error}")),
    }
}

/// Headers in which proxies and applications expect something of a user. No header that has another meaning can be chosen.
impl FromStr for AttributeHeader {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (key, header) = text.split_once('=').ok_or("write KEY=HEADER, like role=X-Session-Role")?;
        if key.is_empty() || key.len() > NAME_BYTES_MAX || header.len() > NAME_BYTES_MAX {
            return Err(format!("key and header have 1 to {NAME_BYTES_MAX} bytes"));
        }
        let name = HeaderName::from_str(header).map_err(|_| format!("{header:?} is no name of a header"))?;
        let is_ours = [USER_HEADER, HANDLE_HEADER, SECRET_HEADER].contains(&name.as_str());
        let is_free = name.as_str().starts_with("x-") && !name.as_str().starts_with("x-forwarded-");
        if is_ours || !(is_free || name.as_str().starts_with("remote-")) {
            return Err(format!("{header:?} has another meaning; choose one that begins with X- or Remote-"));
        }
        Ok(Self { key: key.to_owned(), name })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_timeout_cuts_off_not_all_clients_and_not_none() {
        for wrong in ["", "0s", "99ms", "61m", "500000000y", "30"] {
            assert!(client_timeout(wrong).is_err(), "{wrong}");
        }
        for (right, expected) in [("100ms", 100), ("30s", 30_000), ("1h", 3_600_000)] {
            assert_eq!(client_timeout(right), Ok(Duration::from_millis(expected)), "{right}");
        }
    }

    #[test]
    fn headers_with_another_meaning_are_refused() {
        for wrong in [
            "",
            "role",
            "=X-Role",
            "role=",
            "role=X Role",
            "role=Authorization",
            "role=Set-Cookie",
            "role=Content-Length",
            "role=X-Forwarded-For",
            "role=X-Session-User",
            "role=x-session-handle",
        ] {
            assert!(wrong.parse::<AttributeHeader>().is_err(), "{wrong}");
        }
        let header: AttributeHeader = "role=X-Session-Role".parse().unwrap();
        assert_eq!((header.key.as_str(), header.name.as_str()), ("role", "x-session-role"));
        assert!("name=Remote-Name".parse::<AttributeHeader>().is_ok());
    }
}
