//! The browsers that are signed in.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::http::HeaderMap;
use tokio::time::Instant;
use uuid::Uuid;

use super::cookies::cookies;
use crate::secret::Secret;

pub(super) const COOKIE_NAME: &str = "pg-session-console";
/// Sign-ins at one time. The oldest ends first.
const SIGN_INS_MAX: usize = 64;
/// A working day.
pub(super) const LIFETIME: Duration = Duration::from_secs(8 * 3_600);

/// One browser. The form token is in each form of its pages, where another site cannot read it.
#[derive(Clone)]
pub(super) struct SignIn {
    key: Arc<Secret>,
    pub(super) form_token: Arc<Secret>,
    until: Instant,
}

impl fmt::Debug for SignIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignIn").field("until", &self.until).finish_non_exhaustive()
    }
}

#[derive(Debug, Default)]
pub(super) struct SignIns(Mutex<VecDeque<SignIn>>);

impl SignIns {
    /// Returns the new key.
    pub(super) fn add(&self) -> String {
        let [key, form_token] = [random(), random()];
        let sign_in = SignIn {
            key: Arc::new(Secret::known(key.clone())),
            form_token: Arc::new(Secret::known(form_token)),
            until: Instant::now() + LIFETIME,
        };
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if all.len() == SIGN_INS_MAX {
            all.pop_front();
        }
        all.push_back(sign_in);
        key
    }

    /// The sign-in that the browser's cookie names.
    pub(super) fn find(&self, headers: &HeaderMap) -> Option<SignIn> {
        let now = Instant::now();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|sign_in| now < sign_in.until);
        let is_sent = |sign_in: &&SignIn| cookies(headers, COOKIE_NAME).any(|key| sign_in.key.is(key));
        all.iter().find(is_sent).cloned()
    }

    pub(super) fn remove(&self, headers: &HeaderMap) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|sign_in| !cookies(headers, COOKIE_NAME).any(|key| sign_in.key.is(key)));
    }
}

/// 244 random bits.
pub(super) fn random() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}
