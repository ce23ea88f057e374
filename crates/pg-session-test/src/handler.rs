//! [`SessionBuilder`]: a session for the test of a function that only reads one.

use pg_session::{Session, UserId, testing};
use serde::Serialize;

/// Builds a [`Session`] without a database. Changes of it cannot be saved.
///
/// ```
/// use pg_session_test::SessionBuilder;
///
/// fn greeting(session: &pg_session_test::pg_session::Session) -> String {
///     let name: Option<String> = session.get("name").unwrap_or_default();
///     name.map_or("Hello!".to_owned(), |name| format!("Hello, {name}!"))
/// }
///
/// let session = SessionBuilder::new().user(42).set("name", "Ada").build();
/// assert_eq!(greeting(&session), "Hello, Ada!");
/// ```
#[derive(Clone, Debug, Default)]
#[must_use = "a builder does nothing until `build` is called"]
pub struct SessionBuilder {
    user: Option<UserId>,
    attributes: Vec<(String, String)>,
}

impl SessionBuilder {
    /// A session of a visitor without attributes.
    pub fn new() -> Self {
        Self::default()
    }

    /// The user who is signed in.
    pub fn user(mut self, user: impl Into<UserId>) -> Self {
        self.user = Some(user.into());
        self
    }

    /// An attribute.
    ///
    /// # Panics
    /// If `value` cannot be written as JSON.
    pub fn set<T: Serialize + ?Sized>(mut self, key: &str, value: &T) -> Self {
        let text = serde_json::to_string(value);
        let text = text.unwrap_or_else(|error| panic!("the attribute {key:?} is not JSON: {error}"));
        self.attributes.push((key.to_owned(), text));
        self
    }

    /// The session, at version 1.
    #[must_use]
    pub fn build(&self) -> Session {
        let attributes: Vec<(&str, &str)> =
            self.attributes.iter().map(|(key, text)| (key.as_str(), text.as_str())).collect();
        testing::session_of(self.user, &attributes)
    }
}
