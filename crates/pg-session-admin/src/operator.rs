//! [`Operator`]: a person whom the host application has signed in.

/// The host application puts one into the extensions of a request, and the console lets it in.
///
/// **Nothing else is checked.** Put one into a request only after the application has proved who sends it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Operator {
    name: String,
    allow_changes: bool,
}

impl Operator {
    /// May look. The name is in the record of changes, and in the audit log of the database: it has 1 to 255 bytes and no
    /// control character. With another name, each change is an error.
    #[must_use]
    pub fn named(name: impl Into<String>) -> Self {
        Self { name: name.into(), allow_changes: false }
    }

    /// May end sessions.
    #[must_use]
    pub fn allow_changes(mut self) -> Self {
        self.allow_changes = true;
        self
    }

    /// The name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the operator may end sessions.
    #[must_use]
    pub fn may_change(&self) -> bool {
        self.allow_changes
    }
}
