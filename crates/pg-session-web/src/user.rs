//! The application's own user: loaded once for each version of a session, and kept in memory with it.

use std::any::TypeId;
use std::sync::Arc;

use crate::error::Error;
use crate::guard::LoginRequired;
use crate::session::Session;

impl Session {
    /// The user who is signed in, as [`load_user`](crate::SessionConfig::load_user) loads it. `None` for a visitor, and for a
    /// user whom that function does not find.
    ///
    /// The value is loaded once for each version of the session and node, and is kept in memory with the session. It is
    /// dropped when the session changes, ends, or is evicted. So after a change of the user's own data, evict the user's
    /// sessions on all nodes: `manager.user(id).evict()`. Requests that ask at the same time may each load the user.
    ///
    /// ```no_run
    /// # async fn f(session: pg_session_web::Session) -> Result<(), pg_session_web::Error> {
    /// struct User {
    ///     name: String,
    /// }
    ///
    /// if let Some(user) = session.user::<User>().await? {
    ///     println!("hello {}", user.name);
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`ErrorKind::UserLoader`](crate::ErrorKind::UserLoader) if the function fails, [`ErrorKind::Config`](crate::ErrorKind::Config)
    /// if there is none, or it returns another type than `T`; or the session cannot be read.
    ///
    /// # Cancel safety
    /// Dropping the future drops that of the function.
    pub async fn user<T: Send + Sync + 'static>(&self) -> Result<Option<Arc<T>>, Error> {
        let loader = self.sessions().parts().user_loader.as_ref();
        let loader = loader.filter(|loader| loader.type_id == TypeId::of::<T>()).ok_or_else(|| {
            Error::config("`load_user` of the session's settings must return the type that is asked for")
        })?;
        let (session, user) = {
            let state = self.open().await?;
            let Some(session) = state.present() else { return Ok(None) };
            let Some(user) = session.user_id() else { return Ok(None) };
            if let Some(known) = session.attached() {
                return Ok(Some(known));
            }
            (session.clone(), user)
        };
        // Not with the state locked: it may take as long as a query.
        let loaded = (loader.load)(user).await.map_err(Error::user_loader)?;
        let Some(loaded) = loaded.and_then(|loaded| loaded.downcast::<T>().ok()) else { return Ok(None) };
        session.attach(Arc::clone(&loaded));
        Ok(Some(loaded))
    }

    /// Returns the user who is signed in, for guards; as [`user`](Session::user) and
    /// [`require_login`](Session::require_login).
    ///
    /// # Errors
    /// [`LoginRequired`], with the answer for the client.
    pub async fn require_user<T: Send + Sync + 'static>(&self) -> Result<Arc<T>, LoginRequired> {
        match self.user().await {
            Ok(Some(user)) => Ok(user),
            Ok(None) => Err(self.login_required(self.sessions().parts().login_page.as_deref())),
            Err(error) => Err(self.unreadable(error).await),
        }
    }
}
