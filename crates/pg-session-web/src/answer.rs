//! [`Answer`]: what an edge answers where a guard, or an error of the session, takes the place of the handler.

use crate::error::Error;
use crate::guard::{Cause, LoginRequired};
use crate::refusal::Refusal;
use crate::step_up::{Denied, STEP_UP_HEADER};

/// What to answer instead of the handler's response: for edges.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Status 303 to this page of the site.
    Redirect(String),
    /// The refusal, with a header beside it.
    Refuse(Refusal, Option<(&'static str, &'static str)>),
}

impl Answer {
    /// The HTTP status.
    #[must_use]
    pub fn status(&self) -> u16 {
        match self {
            Self::Redirect(_) => 303,
            Self::Refuse(refusal, _) => refusal.status,
        }
    }
}

impl From<&Error> for Answer {
    fn from(error: &Error) -> Self {
        Self::Refuse(error.refusal(), None)
    }
}

/// A browser that asks for a page is sent to the login page, if there is one. A script, or a form that is posted, is refused.
impl From<&LoginRequired> for Answer {
    fn from(required: &LoginRequired) -> Self {
        match &required.0 {
            Cause::SignedOut { location: Some(location) } => Self::Redirect(location.clone()),
            Cause::SignedOut { location: None } => (&Error::signed_out()).into(),
            Cause::Failed(error) => error.into(),
        }
    }
}

impl From<&Denied> for Answer {
    fn from(denied: &Denied) -> Self {
        match denied {
            Denied::Missing { page: Some(page), .. } => Self::Redirect(page.clone()),
            Denied::Missing { privilege, page: None } => {
                let sentence =
                    format!("A step-up to {privilege:?} is needed. Prove who you are, then try again.");
                Self::Refuse(Refusal::new(403, &sentence), Some((STEP_UP_HEADER, privilege)))
            }
            Denied::SignedOut(required) => required.into(),
            Denied::Failed(error) => error.into(),
        }
    }
}
