//! Signing in and out: each of them changes the id, or ends it.

use std::future::IntoFuture;
use std::pin::Pin;
use std::time::Duration;

use pg_session::{GroupId, IdleLimit, SessionId, SessionManager, UpdateError, UserId};

use crate::cookie::{KEEP_KEY, Keep};
use crate::devices;
use crate::draft::Draft;
use crate::error::Error;
use crate::session::Session;
use crate::state::{SessionState, State, TokenAction};
use crate::step_up;

impl Session {
    /// Signs a user in, whose identity the application has just established; awaiting the builder does it, and commits it.
    ///
    /// The session gets a new id, so that an id that an attacker planted before the login is worth nothing. Of an anonymous
    /// session, the attributes named in [`keep_at_login`](crate::SessionConfig::keep_at_login) go along, and what this request has set
    /// itself. Parallel requests with the old id are served for a grace of
    /// [`Config::rotation_grace`](pg_session::Config::rotation_grace), **with what the old session was**; they cannot write.
    /// Address and user agent are recorded for [`devices`](Session::devices).
    ///
    /// A parallel request may have signed in the same user with the same old id, as after a double
    /// click. Then this login goes on with that session and its options. It does not if that
    /// session has a privilege by now. If the former session has ended, the login begins with an
    /// empty one.
    ///
    /// ```no_run
    /// # async fn f(session: pg_session_web::Session) -> Result<(), pg_session_web::Error> {
    /// session.login(42).await?;
    /// # Ok(()) }
    /// ```
    pub fn login(&self, user: impl Into<UserId>) -> Login<'_> {
        Login {
            session: self,
            user: user.into(),
            group: None,
            expires_in: None,
            idle_limit: None,
            remember: None,
            grace: None,
            cap: None,
            labels: Vec::new(),
        }
    }

    /// Ends the session, on every node, for good; the client forgets its token. Returns whether there was one. What the
    /// request sets afterwards begins a new, anonymous session.
    ///
    /// Without a token this is free. Of a request that presents the tokens of several sessions, all of them end. With the old
    /// id of a session that was rotated, the session that it became ends.
    ///
    /// # Errors
    /// Those of [`SessionManager::delete`](pg_session::SessionManager::delete): **then the user is not logged out.**
    /// [`ErrorKind::Closed`](crate::ErrorKind::Closed). [`ErrorKind::Ambiguous`](crate::ErrorKind::Ambiguous) if the request presents
    /// more sessions than are looked at: those that were have ended.
    ///
    /// # Cancel safety
    /// **Dropping the future does not undo a logout that was submitted.**
    pub async fn logout(&self) -> Result<bool, Error> {
        let mut state = self.lock().await;
        if state.closed {
            return Err(Error::closed());
        }
        state.accessed = true;
        self.supersede();
        let manager = self.sessions().manager();
        let was_alive = match &state.session_state {
            SessionState::Unread(token) => manager.delete(token.id).await?,
            // One of them is the user's.
            SessionState::Ambiguous(several) => {
                manager.delete_many(several.tokens.iter().map(|token| token.id)).await? > 0
            }
            SessionState::Present(session) => manager.delete(session.id()).await?,
            SessionState::Absent(_) => manager.delete_many(state.rivals.iter().copied()).await? > 0,
        };
        if state.flooded {
            return Err(Error::ambiguous());
        }
        state.rivals.clear();
        self.forget(&mut state);
        Ok(was_alive)
    }

    /// Ends all sessions of the user who is signed in, this one included. Returns how many there were.
    ///
    /// # Errors
    /// [`ErrorKind::SignedOut`](crate::ErrorKind::SignedOut), [`ErrorKind::Rotated`](crate::ErrorKind::Rotated); see also
    /// [`logout`](Session::logout).
    ///
    /// # Cancel safety
    /// As [`logout`](Session::logout).
    pub async fn logout_everywhere(&self) -> Result<u64, Error> {
        let mut state = self.open_to_change().await?;
        let (_, user) = state.signed_in()?;
        self.supersede();
        let ended = self.sessions().manager().user(user).delete().await?;
        self.forget(&mut state);
        Ok(ended)
    }

    /// Ends all other sessions of the user who is signed in, and the retired ids of this one. After
    /// this, only the client's own id reads as the user. Returns how many other sessions there
    /// were.
    ///
    /// # Errors
    /// As [`logout_everywhere`](Session::logout_everywhere).
    ///
    /// # Cancel safety
    /// As [`logout`](Session::logout).
    pub async fn logout_others(&self) -> Result<u64, Error> {
        let state = self.open_to_change().await?;
        let (session, user) = state.signed_in()?;
        Ok(self.sessions().manager().user(user).delete_except(session.id()).await?)
    }

    fn forget(&self, state: &mut State) {
        state.session_state = SessionState::Absent(Draft::default());
        state.news = if self.presented_something() { TokenAction::Gone } else { TokenAction::Nothing };
    }
}

impl State {
    /// The session and its user. A session that was rotated does not speak for its user any more.
    pub(crate) fn signed_in(&self) -> Result<(&pg_session::Session, UserId), Error> {
        let session = self.present().ok_or_else(Error::signed_out)?;
        if session.is_retired() {
            return Err(UpdateError::Rotated.into());
        }
        Ok((session, session.user_id().ok_or_else(Error::signed_out)?))
    }
}

/// A login to be carried out by awaiting this; made by [`Session::login`].
///
/// # Errors
/// [`ErrorKind::SessionLimit`](pg_session::ErrorKind::SessionLimit) if the user has all the sessions that the policy allows, those
/// of [`Session::save`], and [`ErrorKind::Closed`](crate::ErrorKind::Closed). No user is signed in then.
///
/// # Cancel safety
/// **Dropping the future does not undo a login that was submitted**, but the client never learns the new id.
#[derive(Debug)]
#[must_use = "no user is signed in until this is awaited"]
pub struct Login<'a> {
    session: &'a Session,
    user: UserId,
    group: Option<GroupId>,
    expires_in: Option<Duration>,
    idle_limit: Option<IdleLimit>,
    remember: Option<bool>,
    grace: Option<Duration>,
    cap: Option<u32>,
    labels: Vec<String>,
}

impl Login<'_> {
    /// Puts the session into a group. Default: none.
    pub fn group(mut self, group: impl Into<GroupId>) -> Self {
        self.group = Some(group.into());
        self
    }

    /// Gives the session a label, for example the `sid` of an OpenID Connect session: `SessionManager::label` lists and ends
    /// the sessions that have it. At most [`LABELS_MAX`](pg_session::SessionManager::LABELS_MAX) labels. Those that the session
    /// had before go if this login names some, or if the user changes.
    pub fn label(mut self, label: &str) -> Self {
        // The builder of the session refuses one too many.
        if self.labels.len() <= SessionManager::LABELS_MAX {
            self.labels.push(label.to_owned());
        }
        self
    }

    /// The absolute limit, from now. Default `Config::absolute_timeout`.
    pub fn expires_in(mut self, lifetime: Duration) -> Self {
        self.expires_in = Some(lifetime);
        self
    }

    /// Whether the session ends after `Config::idle_timeout` without access. Default: it does.
    pub fn idle_limit(mut self, idle_limit: IdleLimit) -> Self {
        self.idle_limit = Some(idle_limit);
        self
    }

    /// What the box "stay signed in" says.
    ///
    /// | | `true` | `false` |
    /// |---|---|---|
    /// | the browser keeps the cookie | while the session can live | until it is closed |
    /// | absolute limit | [`remember_for`](crate::SessionConfig::remember_for), 30 days by default | `Config::absolute_timeout` |
    /// | idle limit | none, but from AAL2 on ([`assurance`](crate::SessionConfig::assurance)) | `Config::idle_timeout` |
    ///
    /// [`expires_in`](Self::expires_in) and [`idle_limit`](Self::idle_limit) take precedence. It holds for the session, under
    /// each id that it gets by a step-up. Default: the cookie as its policy says, and the limits of a session.
    pub fn remember(mut self, remember: bool) -> Self {
        self.remember = Some(remember);
        self
    }

    /// Ends the old id at once, instead of after [`Config::rotation_grace`](pg_session::Config::rotation_grace). For a login
    /// after a theft. Requests that the same page has in flight may find themselves logged out.
    ///
    /// **A parallel login of the same user may come first.** Then this one goes on with its session, as
    /// [`login`](Session::login) does, and the old id ends with the grace of that login.
    /// [`logout_others`](Session::logout_others) ends it at once.
    pub fn without_grace(mut self) -> Self {
        self.grace = Some(Duration::ZERO);
        self
    }

    /// How many sessions the user may have, this one included: instead of
    /// [`Config::sessions_per_user_max`](pg_session::Config::sessions_per_user_max), more or fewer. At least 1. By default
    /// the least recently used ones over it end. So `cap(1)` ends all others.
    pub fn cap(mut self, sessions_max: u32) -> Self {
        self.cap = Some(sessions_max);
        self
    }

    /// What the session is to have. `None`: as it was, or as a new one has it.
    fn limits(&self, new_user: bool) -> (Option<Duration>, Option<IdleLimit>, Option<Keep>) {
        let web = self.session.sessions();
        let (lifetime, idle_limit, keep) = match self.remember {
            Some(true) => {
                let lifetime = web.parts().remembered_for;
                let idle_limit = web.parts().remembered_idle_limit;
                (Some(lifetime), Some(idle_limit), Some(Keep::WhileTheSessionCanLive))
            }
            Some(false) => {
                let lifetime = web.manager().config().absolute_timeout;
                (Some(lifetime), Some(IdleLimit::Enforced), Some(Keep::UntilTheBrowserCloses))
            }
            // Another user does not inherit an exemption.
            None => (None, new_user.then_some(IdleLimit::Enforced), None),
        };
        (self.expires_in.or(lifetime), self.idle_limit.or(idle_limit), keep)
    }

    async fn submit(self) -> Result<(), Error> {
        let mut state = self.session.open_to_change().await?;
        self.session.supersede();
        state.end_rivals(self.session.sessions()).await?;
        let session = match &state.session_state {
            SessionState::Present(former) => match self.rotate(former).await {
                Err(UpdateError::Rotated) => match self.join(former.id()).await? {
                    Some(session) => session,
                    None => self.create(&Draft::default()).await?,
                },
                Err(UpdateError::NotFound) => self.create(&Draft::default()).await?,
                rotated => rotated?,
            },
            SessionState::Absent(draft) => self.create(draft).await?,
            // `open_to_change` has loaded it.
            SessionState::Unread(_) | SessionState::Ambiguous(_) => self.create(&Draft::default()).await?,
        };
        state.session_state = SessionState::Present(Box::new(session));
        state.tell(TokenAction::NewId);
        Ok(())
    }

    /// On a copy: a login that fails leaves nothing behind that a later save would write.
    async fn rotate(&self, former: &pg_session::Session) -> Result<pg_session::Session, UpdateError> {
        let web = self.session.sessions();
        let mut session = former.clone();
        session.set(devices::KEY, self.session.client())?;
        let (lifetime, idle_limit, keep) = self.limits(former.user_id() != Some(self.user));
        if let Some(keep) = keep {
            session.set(KEEP_KEY, &keep)?;
        }
        let mut rotate = web.manager().rotate(&mut session).user(self.user);
        if former.user_id().is_none() {
            rotate = rotate.keep(web.parts().kept_at_login.iter().map(String::as_str));
        }
        // Another user does not inherit the group.
        if self.group.is_some() || former.user_id() != Some(self.user) {
            rotate = rotate.group(self.group);
        }
        // Nor the labels. The first new label removes them as well.
        if former.user_id() != Some(self.user) {
            rotate = rotate.without_labels();
        }
        for label in &self.labels {
            rotate = rotate.label(label);
        }
        if let Some(grace) = self.grace {
            rotate = rotate.grace(grace);
        }
        if let Some(cap) = self.cap {
            rotate = rotate.cap(cap);
        }
        if let Some(lifetime) = lifetime {
            rotate = rotate.expires_in(lifetime);
        }
        if let Some(idle_limit) = idle_limit {
            rotate = rotate.idle_limit(idle_limit);
        }
        rotate.await?;
        Ok(session)
    }

    /// The session that a parallel login has made of the same old id, if it has no more than a login gives.
    async fn join(&self, retired: SessionId) -> Result<Option<pg_session::Session>, Error> {
        let found = self.session.sessions().manager().successor(retired, self.user).await?;
        Ok(found.filter(|session| !step_up::has_any_privilege(session)))
    }

    async fn create(&self, draft: &Draft) -> Result<pg_session::Session, Error> {
        let manager = self.session.sessions().manager();
        let mut create = draft.put_into(manager.create(self.user));
        create = create.set(devices::KEY, self.session.client());
        if let Some(group) = self.group {
            create = create.group(group);
        }
        for label in &self.labels {
            create = create.label(label);
        }
        if let Some(cap) = self.cap {
            create = create.cap(cap);
        }
        let (lifetime, idle_limit, keep) = self.limits(true);
        if let Some(lifetime) = lifetime {
            create = create.expires_in(lifetime);
        }
        if let Some(idle_limit) = idle_limit {
            create = create.idle_limit(idle_limit);
        }
        if let Some(keep) = keep {
            create = create.set(KEEP_KEY, &keep);
        }
        Ok(create.await?)
    }
}

impl<'a> IntoFuture for Login<'a> {
    type Output = Result<(), Error>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send + 'a>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(self.submit())
    }
}
