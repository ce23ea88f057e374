//! What an update is checked against.

/// What an update is checked against before anything of it is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Check {
    /// Nothing: the changes are applied to whatever the database holds.
    #[default]
    None,
    /// The session still has the version that the caller saw.
    Version,
    /// Each changed attribute still has the version that the caller saw, or is still absent.
    Attributes,
}
