//! [`SessionConfig`]: the sessions of a web application. The manager, the signer, and how both meet HTTP.

use std::collections::BTreeSet;
use std::error::Error as StdError;
use std::sync::Arc;
use std::time::Duration;

use pg_session::{AssuranceLevel, IdleLimit, SessionManager, Signer, UserId};

use crate::address::{AddressSource, PROXIES_MAX, TRUSTED_NETWORKS_MAX, Trust};
use crate::client::AddressDetail;
use crate::cookie::CookiePolicy;
use crate::cross_site::{CrossSite, origins};
use crate::error::Error;
use crate::lost_cookies::LostCookies;
use crate::page::check_page;
use crate::refusal::{OnRefusal, Refusal};
use crate::request_head::RequestHead;
use crate::superseded::Superseded;
use crate::this_machine::is_local;
use crate::transport::Transport;
use crate::user_loader::UserLoader;
use crate::visitors::{ANONYMOUS_LIFETIME, ANONYMOUS_PER_SECOND, CreationLimit};

/// The sessions of a web application: made once, given to the layer or the middleware, cheap to clone.
///
/// Nodes that serve the same users need the same keys and the same settings here. Their frameworks
/// may differ.
///
/// ```no_run
/// # fn f(manager: pg_session::SessionManager, signer: pg_session::Signer) -> Result<(), pg_session_web::Error> {
/// use pg_session_web::{CookiePolicy, SessionConfig};
///
/// let sessions = SessionConfig::new(manager, signer)
///     .cookie(CookiePolicy::named("shop")?)
///     .keep_at_login(["cart", "language"])
///     .truncate_addresses();
/// # Ok(()) }
/// ```
#[derive(Clone, Debug)]
pub struct SessionConfig(Arc<Parts>);

#[derive(Clone, Debug)]
pub(crate) struct Parts {
    pub(crate) manager: SessionManager,
    pub(crate) signer: Signer,
    pub(crate) transport: Transport,
    /// Names and protects the cookies of flows, also where the session's token is in a header.
    flow_policy: CookiePolicy,
    pub(crate) kept_at_login: BTreeSet<String>,
    pub(crate) check: Check,
    pub(crate) unsaved: Unsaved,
    pub(crate) step_up_page: Option<String>,
    pub(crate) login_page: Option<String>,
    pub(crate) signed_in_cache_control: &'static str,
    pub(crate) on_refusal: OnRefusal,
    pub(crate) user_loader: Option<UserLoader>,
    /// The signing key is one for development.
    this_machine_only: bool,
    pub(crate) remembered_for: Duration,
    pub(crate) remembered_idle_limit: IdleLimit,
    anonymous_lifetime: Duration,
    pub(crate) creations: Arc<CreationLimit>,
    pub(crate) lost_cookies: Arc<LostCookies>,
    pub(crate) superseded: Arc<Superseded>,
    pub(crate) cross_site: CrossSite,
    pub(crate) untouched_paths: Vec<String>,
    pub(crate) address_source: AddressSource,
    pub(crate) address_detail: AddressDetail,
}

/// What a save at the end of a request is checked against.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Check {
    Nothing,
    Attributes,
}

/// What becomes of the response if the request's changes could not be saved because of what others did meanwhile.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Unsaved {
    Refuse,
    Pass,
}

impl SessionConfig {
    /// These sessions, with secure defaults for everything: the cookie of [`CookiePolicy::default`], nothing kept at login,
    /// whole addresses, and no header trusted.
    #[must_use]
    pub fn new(manager: SessionManager, signer: Signer) -> Self {
        manager.report_keys(&signer);
        Self(Arc::new(Parts {
            manager,
            signer,
            transport: Transport::Cookie(CookiePolicy::default()),
            flow_policy: CookiePolicy::default(),
            kept_at_login: BTreeSet::new(),
            check: Check::Nothing,
            unsaved: Unsaved::Refuse,
            step_up_page: None,
            login_page: None,
            signed_in_cache_control: "private, no-cache",
            on_refusal: OnRefusal::default(),
            user_loader: None,
            this_machine_only: false,
            remembered_for: Duration::from_secs(30 * 24 * 3_600),
            remembered_idle_limit: IdleLimit::Exempt,
            anonymous_lifetime: ANONYMOUS_LIFETIME,
            creations: Arc::new(CreationLimit::new(ANONYMOUS_PER_SECOND)),
            lost_cookies: Arc::default(),
            superseded: Arc::default(),
            cross_site: CrossSite::default(),
            untouched_paths: Vec::new(),
            address_source: AddressSource::default(),
            address_detail: AddressDetail::default(),
        }))
    }

    /// The token travels in this cookie. Default [`CookiePolicy::default`]. With [`bearer_tokens`](Self::bearer_tokens), before
    /// or after this, only the cookies of flows follow the policy.
    ///
    /// Logs a warning for a policy with `SameSite=None` and without `Secure`: browsers drop such a cookie.
    #[must_use]
    pub fn cookie(self, cookie: CookiePolicy) -> Self {
        if cookie.is_dropped_by_browsers() {
            tracing::warn!(
                cookie = cookie.name(),
                "browsers drop this cookie, because it has `SameSite=None` without `Secure`; leave out \
                 `insecure_cross_site` or `insecure_without_tls`"
            );
        }
        self.with(|parts| {
            if !parts.transport.is_bearer() {
                parts.transport = Transport::Cookie(cookie.clone());
            }
            parts.flow_policy = cookie;
        })
    }

    /// The token travels in headers instead of a cookie, for clients that are not browsers: in requests as
    /// `authorization: Bearer …`, in responses as [`SESSION_TOKEN_HEADER`](crate::SESSION_TOKEN_HEADER) whenever the client is
    /// to go on with another one; empty when it is to forget it. Cookies are not looked at then, except those of
    /// [flows](crate::Session::flow).
    #[must_use]
    pub fn bearer_tokens(self) -> Self {
        self.with(|parts| parts.transport = Transport::Bearer)
    }

    /// The attributes that an anonymous session hands on to the session that [`login`](crate::Session::login) makes of it. Default
    /// none: what a visitor could set before must not decide what a user may do.
    ///
    /// A session that already has a user keeps everything if the same user logs in again, and nothing for another one.
    #[must_use]
    pub fn keep_at_login<K: Into<String>>(self, keys: impl IntoIterator<Item = K>) -> Self {
        self.with(|parts| parts.kept_at_login = keys.into_iter().map(Into::into).collect())
    }

    /// Refuses a save if another request has changed one of the same attributes since this one read the session:
    /// [`ErrorKind::Conflict`](crate::ErrorKind::Conflict). Default: the last write of an attribute wins.
    /// ([`Session::modify`](crate::Session::modify) is atomic either way.)
    #[must_use]
    pub fn check_attributes(self) -> Self {
        self.with(|parts| parts.check = Check::Attributes)
    }

    /// Lets a response pass although its changes were not saved because the session has ended, was rotated or was in
    /// conflict meanwhile. Default: the client gets status 409 instead, because the response may say that something was
    /// done which was not.
    ///
    /// A database that does not answer is never passed over: that is 503 in any case.
    #[must_use]
    pub fn ignore_save_conflicts(self) -> Self {
        self.with(|parts| parts.unsaved = Unsaved::Pass)
    }

    /// Records only the network that a user logs in from: the first 24 bits of an IPv4 address, the first 48 of an IPv6
    /// address. Default: the whole address.
    #[must_use]
    pub fn truncate_addresses(self) -> Self {
        self.with(|parts| parts.address_detail = AddressDetail::Network)
    }

    /// Changes each response that this library makes for a request that fails by its session: a
    /// page of your own, or JSON. That is what a guard refuses (401, 403), and a `SessionError`
    /// that a handler returns. It is also what replaces a response whose changes were not saved
    /// (409, 503). Default: one sentence as plain text. Redirects are left as they are.
    ///
    /// ```no_run
    /// # fn f(sessions: pg_session_web::SessionConfig) {
    /// let sessions = sessions.on_refusal(|refusal| {
    ///     refusal.content_type = "application/json".to_owned();
    ///     refusal.body = format!(r#"{{"error":{}}}"#, refusal.status);
    /// });
    /// # }
    /// ```
    #[must_use]
    pub fn on_refusal(self, change: impl Fn(&mut Refusal) + Send + Sync + 'static) -> Self {
        self.with(|parts| parts.on_refusal = OnRefusal::new(change))
    }

    /// Loads the application's user: `Ok(None)` for one who does not exist any more. [`Session::user`](crate::Session::user)
    /// keeps the value in memory with the session, so the current user costs no query.
    ///
    /// ```no_run
    /// # struct User { name: String }
    /// # async fn find_user(id: pg_session::UserId) -> Result<Option<User>, std::io::Error> { Ok(None) }
    /// # fn f(sessions: pg_session_web::SessionConfig) {
    /// let sessions = sessions.load_user(|id| find_user(id));
    /// # }
    /// ```
    #[must_use]
    pub fn load_user<T, F, R, E>(self, load: F) -> Self
    where
        T: Send + Sync + 'static,
        F: Fn(UserId) -> R + Send + Sync + 'static,
        R: Future<Output = Result<Option<T>, E>> + Send + 'static,
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        self.with(|parts| parts.user_loader = Some(UserLoader::new(load)))
    }

    /// How long a login with [`remember(true)`](crate::Login::remember) lives. Default 30 days.
    #[must_use]
    pub fn remember_for(self, lifetime: Duration) -> Self {
        self.with(|parts| parts.remembered_for = lifetime)
    }

    /// Keeps remembered logins within an assurance level of NIST SP 800-63B-4: [`remember_for`](Self::remember_for) is lowered to its
    /// absolute limit. From AAL2 on, a remembered login ends without access, too. Call it last, and give the manager
    /// [`Config::assurance`](pg_session::Config::assurance).
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if the manager's limits are longer than those of the level.
    pub fn assurance(self, level: AssuranceLevel) -> Result<Self, Error> {
        let config = self.manager().config();
        let idle_max = level.idle_timeout_max();
        if config.absolute_timeout > level.absolute_timeout_max()
            || idle_max.is_some_and(|max| config.idle_timeout > max)
        {
            return Err(Error::config(
                "absolute_timeout or idle_timeout of the manager is longer than the assurance level allows; use Config::assurance",
            ));
        }
        Ok(self.with(|parts| {
            parts.remembered_for = parts.remembered_for.min(level.absolute_timeout_max());
            if idle_max.is_some() {
                parts.remembered_idle_limit = IdleLimit::Enforced;
            }
        }))
    }

    /// How long a session without a user lives after its last change, at most `Config::absolute_timeout`. Default 4 hours. A
    /// change renews it when half of that is over. A login gives the session the limits of a user's.
    #[must_use]
    pub fn anonymous_lifetime(self, lifetime: Duration) -> Self {
        self.with(|parts| parts.anonymous_lifetime = lifetime)
    }

    /// How many sessions without a user this node creates per second. Default 100; 0 is no limit. Logins do not count.
    ///
    /// Whatever is over the limit is refused with [`ErrorKind::AnonymousLimit`](crate::ErrorKind::AnonymousLimit), status
    /// 503. So clients without cookies leave at most this many rows times
    /// [`anonymous_lifetime`](Self::anonymous_lifetime): 1.4 million by default.
    #[must_use]
    pub fn anonymous_per_second(self, creations: u32) -> Self {
        self.with(|parts| parts.creations = Arc::new(CreationLimit::new(creations)))
    }

    /// Requests for these paths, and for everything below them, do not count as accesses. So a page
    /// that polls does not keep the session of an idle user alive. `/poll` means `/poll` and
    /// `/poll/x`, not `/polling`. Paths are compared as the layer sees them. Default: every request
    /// that reads the session is an access. One request can decide for itself with
    /// [`Session::no_touch`](crate::Session::no_touch).
    #[must_use]
    pub fn no_touch_paths<P: Into<String>>(self, paths: impl IntoIterator<Item = P>) -> Self {
        self.with(|parts| parts.untouched_paths = paths.into_iter().map(Into::into).collect())
    }

    /// Accepts requests of other sites for these paths and everything below them: callbacks of providers that post a form,
    /// webhooks. Default: the layer answers an unsafe request that a browser marks as another site's with status 403, before
    /// the handler. Unsafe are all methods but `GET`, `HEAD`, `OPTIONS` and `TRACE`, and the beginning of a WebSocket.
    ///
    /// `Sec-Fetch-Site` says where a request is from. Without it, `Origin` must name the host, or `x-forwarded-host`. A
    /// request with neither is accepted: no browser sends it. [`bearer_tokens`](Self::bearer_tokens) is exempt.
    ///
    /// A browser keeps a `SameSite` cookie back from such a request. So a handler that sets
    /// something there begins no session. That would take the place of the client's own. A
    /// [`login`](crate::Session::login) begins one.
    #[must_use]
    pub fn accept_cross_site_at<P: Into<String>>(self, paths: impl IntoIterator<Item = P>) -> Self {
        self.with(|parts| parts.cross_site.paths = paths.into_iter().map(Into::into).collect())
    }

    /// Accepts requests of pages with these origins, like `https://app.example`, for all paths; see
    /// [`accept_cross_site_at`](Self::accept_cross_site_at). Name the own public origin here if a proxy changes `host`, sends
    /// no `x-forwarded-host`, and browsers come over plain HTTP. Default none; hosts of the same site are not trusted.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for what is no origin, and for more than 64.
    pub fn trusted_origins<'a>(self, trusted: impl IntoIterator<Item = &'a str>) -> Result<Self, Error> {
        let trusted = origins(trusted)?;
        Ok(self.with(|parts| parts.cross_site.origins = trusted))
    }

    /// **Accepts requests of every site for every path.** Any page can make a user's browser send a
    /// form to this application. Check a token in each handler then; see
    /// [`Session::check_csrf_token`](crate::Session::check_csrf_token).
    #[must_use]
    pub fn insecure_accept_cross_site(self) -> Self {
        self.with(|parts| parts.cross_site.accept_all = true)
    }

    /// Takes the client's address from this header instead of the connection: `x-forwarded-for`, `forwarded` (RFC 7239), or
    /// one with a single address, like `x-real-ip`. **Your own proxy has to set it or append to it.** Default: the address
    /// of the connection.
    ///
    /// Ports, brackets, quotes and zones are left out. Several lines count as one list. An entry that hides the address
    /// (`unknown`, `_name`) or is no address leaves it unknown.
    ///
    /// Of a list, the last entry counts, which one proxy appends. For more proxies, add
    /// [`trusted_proxies`](Self::trusted_proxies) or [`trusted_networks`](Self::trusted_networks).
    #[must_use]
    pub fn trust_address_header(self, name: &str) -> Self {
        let name = name.to_ascii_lowercase();
        self.with(|parts| parts.address_source.header = Some(name))
    }

    /// How many of your own proxies each request passes. Each appends one entry to the header of
    /// [`trust_address_header`](Self::trust_address_header), so the client's address is this many entries from the right.
    /// Entries further left were written by the client and are never used. Default 1.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for 0, or more than 32.
    pub fn trusted_proxies(self, count: usize) -> Result<Self, Error> {
        if !(1..=PROXIES_MAX).contains(&count) {
            return Err(Error::config("trusted_proxies must be from 1 to 32"));
        }
        Ok(self.with(|parts| parts.address_source.trust = Trust::Count(count)))
    }

    /// The networks of your own proxies, in CIDR notation: `10.0.0.0/8`, `fd00::/8`, or one
    /// address. Instead of [`trusted_proxies`](Self::trusted_proxies), where requests take ways of
    /// different lengths. The client's address is the first from the right, beginning with the
    /// connection, that is in none of these networks. A request that does not come from one of them
    /// keeps the address of its connection.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for what is no network, for none, and for more than 256.
    pub fn trusted_networks<'a>(self, networks: impl IntoIterator<Item = &'a str>) -> Result<Self, Error> {
        let networks: Vec<_> =
            networks.into_iter().take(TRUSTED_NETWORKS_MAX + 1).map(str::parse).collect::<Result<_, _>>()?;
        if networks.is_empty() || networks.len() > TRUSTED_NETWORKS_MAX {
            return Err(Error::config("trusted_networks must name 1 to 256 networks"));
        }
        Ok(self.with(|parts| parts.address_source.trust = Trust::Networks(networks)))
    }

    /// Where a browser is sent that asks for a page that needs a login: with status 303 to `PATH?next=PAGE`. Read `next` as a
    /// [`NextPage`](crate::NextPage), and redirect to it after the login. Scripts and posted forms get status 401. Default:
    /// everything gets 401.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if `path` is not a path on this site: `/`, not followed by another `/`,
    /// and visible ASCII.
    pub fn login_page(self, path: &str) -> Result<Self, Error> {
        check_page(path, LOGIN_PAGE_MESSAGE)?;
        Ok(self.with(|parts| parts.login_page = Some(path.to_owned())))
    }

    /// Where a browser is sent that asks for what needs a step-up: `GET` and `HEAD` are answered with 303 to
    /// `PATH?privilege=NAME&next=PAGE`, as for [`login_page`](Self::login_page). Default, and for all other methods: status 403 with the header
    /// [`STEP_UP_HEADER`](crate::STEP_UP_HEADER).
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if `path` is not a path on this site: `/`, not followed by another `/`,
    /// and visible ASCII.
    pub fn step_up_page(self, path: &str) -> Result<Self, Error> {
        check_page(path, "the step-up page must be a path on this site, like `/confirm`")?;
        Ok(self.with(|parts| parts.step_up_page = Some(path.to_owned())))
    }

    /// Responses to signed-in users say `cache-control: no-store`, unless the handler decides. Default: `private, no-cache`,
    /// which lets the browser show a page again after it has asked the server. With `no-store`, the back button never shows
    /// a page from before the logout, and each page is loaded again.
    #[must_use]
    pub fn never_store_signed_in_pages(self) -> Self {
        self.with(|parts| parts.signed_in_cache_control = "no-store")
    }

    /// The manager, for what goes beyond one request.
    #[must_use]
    pub fn manager(&self) -> &SessionManager {
        &self.0.manager
    }

    /// The signer, to rotate its keys.
    #[must_use]
    pub fn signer(&self) -> &Signer {
        &self.0.signer
    }

    /// What to answer instead of the handler. It is for edges, before [`begin`](Self::begin). It
    /// refuses a request of another site that may change something. With a development key, it
    /// refuses a request that is not from this machine.
    #[must_use]
    pub fn refuse(&self, head: &impl RequestHead) -> Option<Refusal> {
        let error = if self.0.this_machine_only && !is_local(head) {
            let error = Error::development_key();
            tracing::error!(path = head.path(), %error, "a request was refused");
            error
        } else if !self.0.transport.is_bearer() && !self.0.cross_site.accepts(head) {
            let error = Error::cross_site();
            tracing::info!(path = head.path(), %error, "a request was refused");
            error
        } else {
            return None;
        };
        Some(self.0.on_refusal.apply(error.refusal()))
    }

    pub(crate) fn for_this_machine_only(self) -> Self {
        self.with(|parts| parts.this_machine_only = true)
    }

    /// What the application makes of a refusal that a handler or an extractor has answered with: for edges. `None` if it
    /// leaves refusals as they are.
    #[must_use]
    pub fn customize(&self, refusal: &Refusal) -> Option<Refusal> {
        self.0.on_refusal.is_set().then(|| self.0.on_refusal.apply(refusal.clone()))
    }

    /// The absolute limit of a session without a user.
    pub(crate) fn lifetime_of_visitors(&self) -> Duration {
        self.0.anonymous_lifetime.min(self.manager().config().absolute_timeout)
    }

    pub(crate) fn flow_policy(&self) -> &CookiePolicy {
        &self.0.flow_policy
    }

    pub(crate) fn parts(&self) -> &Parts {
        &self.0
    }

    fn with(mut self, change: impl FnOnce(&mut Parts)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }
}

/// The message for a login page that is none.
const LOGIN_PAGE_MESSAGE: &str = "the login page must be a path on this site, like `/login`";
