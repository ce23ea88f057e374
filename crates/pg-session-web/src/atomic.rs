//! Reading and writing an attribute in one step: no other request comes in between, on any node.

use pg_session::UpdateError;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::{RawValue, to_raw_value};

use crate::draft::{Lifetime, decode};
use crate::error::Error;
use crate::session::{RESERVED, Session, check_key};
use crate::state::{SessionState, TokenAction};

/// What becomes of the attribute.
enum Next {
    Keep,
    Set(Box<RawValue>),
    Remove,
}

/// In one step: what these return is committed if the session exists already, and part of the first save otherwise. What the
/// request has set before is saved first.
impl Session {
    /// Replaces an attribute by what `change` makes of it, and returns that. If another request was quicker, the attribute is
    /// read and `change` called again, so it must be repeatable.
    ///
    /// ```no_run
    /// # async fn f(session: pg_session_web::Session) -> Result<(), pg_session_web::Error> {
    /// let visits = session.modify("visits", |visits: Option<u32>| visits.unwrap_or(0) + 1).await?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// As [`set`](Session::set) and [`save`](Session::save); [`ErrorKind::Decode`](pg_session::ErrorKind::Decode) if the value is
    /// not a `T`.
    ///
    /// # Cancel safety
    /// **Dropping the future does not undo an update that was submitted.**
    pub async fn modify<T: Serialize + DeserializeOwned + Send>(
        &self,
        key: &str,
        mut change: impl FnMut(Option<T>) -> T + Send,
    ) -> Result<T, Error> {
        check_key(key)?;
        self.step(key, |text| {
            let value = change(decode(text)?);
            Ok((Next::Set(encode(&value)?), value))
        })
        .await
    }

    /// The attribute; if there is none, what `make` returns is stored and returned. All requests get the same value, whichever
    /// of them stored it.
    ///
    /// # Errors
    /// As [`modify`](Session::modify).
    ///
    /// # Cancel safety
    /// As [`modify`](Session::modify).
    pub async fn get_or_insert_with<T: Serialize + DeserializeOwned + Send>(
        &self,
        key: &str,
        mut make: impl FnMut() -> T + Send,
    ) -> Result<T, Error> {
        check_key(key)?;
        if let Some(value) = self.get(key).await? {
            return Ok(value);
        }
        self.step(key, |text| match decode(text)? {
            Some(value) => Ok((Next::Keep, value)),
            None => {
                let value = make();
                Ok((Next::Set(encode(&value)?), value))
            }
        })
        .await
    }

    /// The attribute; if there is none, `value` is stored and returned.
    ///
    /// # Errors
    /// As [`modify`](Session::modify).
    ///
    /// # Cancel safety
    /// As [`modify`](Session::modify).
    pub async fn get_or_insert<T: Serialize + DeserializeOwned + Send + Sync + Clone>(
        &self,
        key: &str,
        value: T,
    ) -> Result<T, Error> {
        self.get_or_insert_with(key, || value.clone()).await
    }

    /// Removes an attribute and returns it. Of several requests that take it at the same time, one gets it.
    ///
    /// # Errors
    /// As [`modify`](Session::modify). What is not a `T` stays where it is.
    ///
    /// # Cancel safety
    /// **Dropping the future does not undo a removal that was submitted**: then the value is lost.
    pub async fn take<T: DeserializeOwned + Send>(&self, key: &str) -> Result<Option<T>, Error> {
        check_key(key)?;
        self.take_any(key).await
    }

    /// Leaves a message for a later page, usually the next one: "saved", after a redirect. One for each `name`; a later one
    /// replaces it.
    ///
    /// # Errors
    /// As [`set`](Session::set).
    pub async fn flash<T: Serialize + ?Sized + Sync>(&self, name: &str, message: &T) -> Result<(), Error> {
        let mut state = self.open_to_change().await?;
        state.put(self.sessions(), &flash_key(name), message, Lifetime::Session)
    }

    /// Returns the message that an earlier request left, to one request only.
    ///
    /// # Errors
    /// As [`take`](Session::take).
    ///
    /// # Cancel safety
    /// As [`take`](Session::take).
    pub async fn take_flash<T: DeserializeOwned + Send>(&self, name: &str) -> Result<Option<T>, Error> {
        self.take_any(&flash_key(name)).await
    }

    async fn take_any<T: DeserializeOwned + Send>(&self, key: &str) -> Result<Option<T>, Error> {
        self.step(key, |text| match decode(text)? {
            Some(value) => Ok((Next::Remove, Some(value))),
            None => Ok((Next::Keep, None)),
        })
        .await
    }

    /// One step from what the attribute is to what it becomes. `step` may be called more than once.
    async fn step<R: Send>(
        &self,
        key: &str,
        mut step: impl FnMut(Option<&str>) -> Result<(Next, R), Error> + Send,
    ) -> Result<R, Error> {
        let web = self.sessions();
        let mut state = self.open_to_change().await?;
        if let SessionState::Absent(draft) = &mut state.session_state {
            // No other request knows it.
            let (next, result) = step(draft.get_raw(key))?;
            match next {
                Next::Keep => {}
                Next::Set(value) => draft.set(web.manager(), key, &value, Lifetime::Session)?,
                Next::Remove => draft.remove(key),
            }
            return Ok(result);
        }
        state.save(web).await?;
        // The result if `step` is not reached: there is no session any more.
        let mut outcome = Err(UpdateError::NotFound.into());
        if let SessionState::Present(session) = &mut state.session_state {
            let version = session.version();
            let change = |session: &mut pg_session::Session| match step(session.get_raw(key)) {
                Ok((next, result)) => {
                    outcome = Ok(result);
                    match next {
                        Next::Keep => Ok(()),
                        Next::Set(value) => session.set(key, &value),
                        Next::Remove => {
                            session.remove(key);
                            Ok(())
                        }
                    }
                }
                Err(error) => {
                    outcome = Err(error);
                    Ok(())
                }
            };
            **session = web.manager().modify(session.id(), change).await?;
            if session.version() > version {
                state.tell(TokenAction::Fresher);
                state.renew(web).await;
            }
        }
        outcome
    }
}

fn encode<T: Serialize>(value: &T) -> Result<Box<RawValue>, Error> {
    to_raw_value(value).map_err(|_| Error::encode())
}

fn flash_key(name: &str) -> String {
    format!("{RESERVED}flash/{name}")
}
