//! Logins at a provider: what a browser has to bring back from another site, once.
//!
//! ```text
//! begin ── a row with nonce, verifier and return address; a signed cookie that names it ──▶ provider
//! take  ◀── the provider's `state` names the cookie; deleting the row decides who takes it ── provider
//! ```
//!
//! A flow does not need the session's cookie. A browser does not send that with a form of another
//! site, or, if it is `Strict`, with any request of another site.

use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pg_session::{IdleLimit, Purpose, SessionId};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::flow_cookie::FlowCookie;
use crate::page::NextPage;
use crate::session::{RESERVED, Session};

/// How long a flow may take.
pub const FLOW_LIFETIME: Duration = Duration::from_secs(600);
/// Flows of one browser, at most. The next one ends the oldest.
pub const FLOWS_MAX: usize = 8;

const PURPOSE: Purpose = Purpose::new("pg-session/flow");
/// Random bytes of state, nonce and verifier: 43 characters each.
const SECRET_BYTES: usize = 32;
/// Of the digest of provider and state, in the cookie.
const DIGEST_BYTES: usize = 16;
/// The row's id as text.
const ID_CHARS: usize = 36;
/// The row's id, the time in seconds, the digest.
const MESSAGE_BYTES: usize = ID_CHARS + 8 + DIGEST_BYTES;

/// What a flow's row holds.
#[derive(Debug, Serialize, Deserialize)]
struct Content {
    nonce: String,
    verifier: String,
    return_to: NextPage,
}

impl Session {
    /// A login at this provider: OAuth, OpenID Connect or SAML. [`begin`](Flow::begin) it before the redirect to the provider;
    /// [`take`](Flow::take) it in the callback.
    ///
    /// A flow lives for [`FLOW_LIFETIME`] and can be taken once, on any node. Its cookie is not the
    /// session's, and is always `SameSite=Lax`. Each flow has one, so that two tabs do not disturb
    /// each other. With [`bearer_tokens`](crate::SessionConfig::bearer_tokens) it is a cookie, too.
    ///
    /// ```no_run
    /// # async fn f(session: pg_session_web::Session, state: &str) -> Result<(), pg_session_web::Error> {
    /// // GET /login/google?next=/account
    /// let begun = session.flow("google").return_to("/account").begin().await?;
    /// let location = format!(
    ///     "https://accounts.google.com/o/oauth2/v2/auth?response_type=code&state={}&nonce={}\
    ///      &code_challenge_method=S256&code_challenge={}", // and client_id, scope, redirect_uri
    ///     begun.state(), begun.nonce(), begun.code_challenge(),
    /// );
    ///
    /// // GET /callback/google?code=…&state=…
    /// let taken = session.flow("google").take(state).await?;
    /// // Exchange the code with `taken.code_verifier()`, compare the id token's nonce with `taken.nonce()`, then:
    /// session.login(42).await?;
    /// // Redirect to `taken.return_to()`.
    /// # Ok(()) }
    /// ```
    pub fn flow<'a>(&'a self, provider: &'a str) -> Flow<'a> {
        Flow { session: self, provider, return_to: NextPage::default(), form_post: false }
    }
}

/// A login at a provider; made by [`Session::flow`].
#[derive(Debug)]
#[must_use = "nothing is done until `begin` or `take` is awaited"]
pub struct Flow<'a> {
    session: &'a Session,
    provider: &'a str,
    return_to: NextPage,
    form_post: bool,
}

impl Flow<'_> {
    /// The callback is a `POST` from the provider's page: `response_mode=form_post`, as Apple and SAML do it. The flow's cookie
    /// is `SameSite=None; Secure` then. **Name the callback's path in
    /// [`accept_cross_site_at`](crate::SessionConfig::accept_cross_site_at)**, or the layer refuses it.
    pub fn form_post(mut self) -> Self {
        self.form_post = true;
        self
    }

    /// Where the user is sent afterwards: a path of this site, as [`NextPage`] accepts it. Anything else counts as `/`, so
    /// the address may come from the request. Default `/`.
    pub fn return_to(mut self, address: &str) -> Self {
        self.return_to = NextPage::new(address);
        self
    }

    /// Creates the flow. The response sets its cookie. Costs one statement, and counts as one of
    /// [`anonymous_per_second`](crate::SessionConfig::anonymous_per_second).
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for a provider's name that has other characters than lower-case letters,
    /// digits, `-` and `_`, or none, or more than 32; and for [`form_post`](Self::form_post) without TLS.
    /// [`ErrorKind::AnonymousLimit`](crate::ErrorKind::AnonymousLimit), [`ErrorKind::Closed`](crate::ErrorKind::Closed), and the
    /// errors of [`SessionManager::create_anonymous`](pg_session::SessionManager::create_anonymous).
    ///
    /// # Cancel safety
    /// Dropping the future may leave a flow without a client, until its end.
    pub async fn begin(self) -> Result<BegunFlow, Error> {
        check_name(self.provider)?;
        let web = self.session.sessions();
        let (manager, policy) = (web.manager(), web.flow_policy());
        if self.form_post && !policy.is_secure() {
            return Err(Error::config(
                "a flow with `form_post` needs a cookie with `Secure`; serve over TLS, also in development",
            ));
        }
        let mut state = self.session.lock().await;
        if state.closed {
            return Err(Error::closed());
        }
        let now = manager.database_time();
        if !web.parts().creations.admit(now) {
            return Err(Error::anonymous_limit());
        }
        let flow = BegunFlow { state: secret()?, nonce: secret()?, code_verifier: secret()? };
        let content = Content {
            nonce: flow.nonce.clone(),
            verifier: flow.code_verifier.clone(),
            return_to: self.return_to.clone(),
        };
        let row = manager
            .create_anonymous()
            .set(&key(self.provider), &content)
            .expires_in(FLOW_LIFETIME)
            .idle_limit(IdleLimit::Exempt)
            .await?;
        let digest = digest(self.provider, &flow.state);
        let mut message = Vec::with_capacity(MESSAGE_BYTES);
        message.extend_from_slice(row.id().expose().to_string().as_bytes());
        message.extend_from_slice(&unix_seconds(now).to_be_bytes());
        message.extend_from_slice(&digest);
        // The row ends by the database's clock. A node's clock decides nothing.
        let value =
            web.signer().sign_message(PURPOSE, &message, Duration::MAX, now).map_err(|_| Error::encode())?;
        let name = policy.flow_name(self.provider, &suffix(&digest));
        state.flow_headers.push(policy.issue_flow(&name, &value, FLOW_LIFETIME, self.form_post));
        let surplus = self.surplus();
        for cookie in &surplus {
            state.flow_headers.push(policy.remove_flow(&cookie.name, self.form_post));
        }
        drop(state);
        let ended = surplus.iter().filter_map(|cookie| self.read(cookie)).map(|known| known.id);
        manager.delete_many(ended).await?;
        Ok(flow)
    }

    /// Takes the flow that began with this `state`, in this browser. Of several callbacks with one state, on any nodes, one
    /// gets it. The response removes its cookie. Take it also if the provider sends an `error` instead of a code: that uses
    /// the flow up.
    ///
    /// # Errors
    /// [`ErrorKind::Flow`](crate::ErrorKind::Flow), status 400, if the request does not bring the flow's cookie, the flow belongs
    /// to another provider or state, is older than [`FLOW_LIFETIME`], or was taken already: **do not sign a user in then.**
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed), and the errors of
    /// [`SessionManager::delete`](pg_session::SessionManager::delete), after which the flow may be used up.
    ///
    /// # Cancel safety
    /// **Dropping the future may use the flow up**: then no request gets it.
    pub async fn take(self, state: &str) -> Result<TakenFlow, Error> {
        check_name(self.provider)?;
        let web = self.session.sessions();
        let policy = web.flow_policy();
        let digest = digest(self.provider, state);
        let name = policy.flow_name(self.provider, &suffix(&digest));
        let mut state = self.session.lock().await;
        if state.closed {
            return Err(Error::closed());
        }
        state.in_flow = true;
        let mut known = self.session.flow_cookies().iter().filter(|cookie| cookie.name == name);
        // Of several cookies with one name, other pages have planted those that do not verify.
        let id = known.find_map(|cookie| self.read(cookie).filter(|known| known.digest == digest));
        let id = id.ok_or_else(Error::flow)?.id;
        state.flow_headers.push(policy.remove_flow(&name, self.form_post));
        drop(state);
        let manager = web.manager();
        let row = manager.get(id).no_touch().await?.ok_or_else(Error::flow)?;
        let content: Content = row.get(&key(self.provider))?.ok_or_else(Error::flow)?;
        // The row never changes, so memory may answer the read. The delete decides in the database.
        if manager.delete(id).await? { Ok(TakenFlow(content)) } else { Err(Error::flow()) }
    }

    /// The browser's oldest flows, if it has no room for another one, and all that are none of ours.
    fn surplus(&self) -> Vec<&FlowCookie> {
        let mut cookies: Vec<_> = self
            .session
            .flow_cookies()
            .iter()
            .map(|cookie| (self.read(cookie).map_or(0, |known| known.began), cookie))
            .collect();
        cookies.sort_by_key(|(began, _)| std::cmp::Reverse(*began));
        let kept = cookies.iter().take_while(|(began, _)| *began > 0).count().min(FLOWS_MAX - 1);
        cookies.drain(kept..).map(|(_, cookie)| cookie).collect()
    }

    fn read(&self, cookie: &FlowCookie) -> Option<Known> {
        let web = self.session.sessions();
        let now = web.manager().database_time();
        let message = web.signer().verify_message(PURPOSE, &cookie.value, now).ok()?;
        let (id, rest) = message.split_first_chunk::<ID_CHARS>()?;
        let (began, digest) = rest.split_first_chunk::<8>()?;
        Some(Known {
            id: std::str::from_utf8(id).ok()?.parse().ok()?,
            began: u64::from_be_bytes(*began),
            digest: digest.try_into().ok()?,
        })
    }
}

/// What an authentic cookie says.
struct Known {
    id: SessionId,
    /// Seconds since 1970.
    began: u64,
    digest: [u8; DIGEST_BYTES],
}

/// A flow that has begun: what the provider is to get. All texts are base64url.
#[must_use = "the provider needs the state"]
pub struct BegunFlow {
    state: String,
    nonce: String,
    code_verifier: String,
}

impl BegunFlow {
    /// The parameter `state` of OAuth, `RelayState` of SAML.
    #[must_use]
    pub fn state(&self) -> &str {
        &self.state
    }

    /// The parameter `nonce` of OpenID Connect.
    #[must_use]
    pub fn nonce(&self) -> &str {
        &self.nonce
    }

    /// The parameter `code_challenge` with `code_challenge_method=S256` (RFC 7636).
    #[must_use]
    pub fn code_challenge(&self) -> String {
        URL_SAFE_NO_PAD.encode(Sha256::digest(self.code_verifier.as_bytes()))
    }
}

/// A flow that has come back.
#[must_use = "the nonce and the verifier have to be checked"]
pub struct TakenFlow(Content);

impl TakenFlow {
    /// The nonce that the id token must carry.
    #[must_use]
    pub fn nonce(&self) -> &str {
        &self.0.nonce
    }

    /// The parameter `code_verifier` of the token request.
    #[must_use]
    pub fn code_verifier(&self) -> &str {
        &self.0.verifier
    }

    /// Where to send the user: a path on this site.
    ///
    /// **With a `SameSite=Strict` session, do not redirect there.** In a redirect that began on
    /// another site, the browser does not send the new cookie. Answer with a page that links or
    /// forwards there.
    #[must_use]
    pub fn return_to(&self) -> &NextPage {
        &self.0.return_to
    }
}

/// No secrets.
impl std::fmt::Debug for BegunFlow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BegunFlow").finish_non_exhaustive()
    }
}

/// No secrets.
impl std::fmt::Debug for TakenFlow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TakenFlow").field("return_to", &self.0.return_to).finish_non_exhaustive()
    }
}

fn check_name(provider: &str) -> Result<(), Error> {
    let fine = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte);
    if provider.is_empty() || provider.len() > 32 || !provider.bytes().all(fine) {
        return Err(Error::config(
            "a provider's name must have 1 to 32 lower-case letters, digits, `-` and `_`",
        ));
    }
    Ok(())
}

fn key(provider: &str) -> String {
    format!("{RESERVED}flow/{provider}")
}

fn secret() -> Result<String, Error> {
    let mut bytes = [0; SECRET_BYTES];
    getrandom::fill(&mut bytes).map_err(|_| Error::no_randomness())?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

fn digest(provider: &str, state: &str) -> [u8; DIGEST_BYTES] {
    let digest = Sha256::new().chain_update(provider).chain_update("\0").chain_update(state).finalize();
    let mut half = [0; DIGEST_BYTES];
    half.copy_from_slice(&digest[..DIGEST_BYTES]);
    half
}

/// Tells the cookies of one browser's flows apart.
fn suffix(digest: &[u8; DIGEST_BYTES]) -> String {
    URL_SAFE_NO_PAD.encode(&digest[..6])
}

fn unix_seconds(time: std::time::SystemTime) -> u64 {
    time.duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn provider_names_are_checked() {
        for fine in ["google", "a", "my-idp_2"] {
            assert!(check_name(fine).is_ok(), "{fine}");
        }
        for wrong in ["", "Google", "a b", "a;b", "a.b", &"a".repeat(33)] {
            assert!(check_name(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_code_challenge_is_that_of_rfc_7636() {
        let flow = BegunFlow {
            state: String::new(),
            nonce: String::new(),
            code_verifier: "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".to_owned(),
        };
        assert_eq!(flow.code_challenge(), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }
}
