//! A token for forms: derived from the session's id by the signer, stored nowhere, and another one after each rotation.

use std::time::Duration;

use pg_session::{Purpose, SessionId};
use sha2::{Digest, Sha256};

use crate::error::Error;
use crate::session::Session;

const PURPOSE: Purpose = Purpose::new("pg-session/csrf");

impl Session {
    /// A token for a form of this session, for [`check_csrf_token`](Session::check_csrf_token). It is stored nowhere, and stays
    /// the same until the session gets another id. It does not reveal the id. A visitor without a session gets one, which is
    /// saved at once.
    ///
    /// The layer refuses unsafe requests that a browser marks as another site's without it. Use it in addition where clients
    /// may be browsers that mark nothing, or behind paths of
    /// [`accept_cross_site_at`](crate::SessionConfig::accept_cross_site_at).
    ///
    /// # Errors
    /// As [`save`](Session::save), if there is no session yet.
    ///
    /// # Cancel safety
    /// As [`save`](Session::save).
    pub async fn csrf_token(&self) -> Result<String, Error> {
        let mut state = self.open_to_change().await?;
        let id = state.id_or_new(self.sessions()).await?;
        let (signer, now) = (self.sessions().signer(), self.sessions().manager().database_time());
        signer.sign_message(PURPOSE, &digest(id), Duration::MAX, now).map_err(|_| Error::encode())
    }

    /// Lets through a form that carries the token of this session. With [`bearer_tokens`](crate::SessionConfig::bearer_tokens), any: no browser
    /// sends that header by itself.
    ///
    /// # Errors
    /// [`ErrorKind::CsrfToken`](crate::ErrorKind::CsrfToken), status 403; or the session cannot be read.
    pub async fn check_csrf_token(&self, token: &str) -> Result<(), Error> {
        if self.sessions().parts().transport.is_bearer() {
            return Ok(());
        }
        let state = self.open().await?;
        let session = state.present().ok_or_else(Error::csrf_token)?;
        let (signer, now) = (self.sessions().signer(), self.sessions().manager().database_time());
        match signer.verify_message(PURPOSE, token, now) {
            Ok(message) if message == digest(session.id()) => Ok(()),
            Ok(_) | Err(_) => Err(Error::csrf_token()),
        }
    }
}

/// Names the session without revealing its id.
fn digest(id: SessionId) -> [u8; 16] {
    let digest =
        Sha256::new().chain_update("pg-session/csrf\0").chain_update(id.expose().as_bytes()).finalize();
    let mut half = [0; 16];
    half.copy_from_slice(&digest[..16]);
    half
}
