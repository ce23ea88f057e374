//! Labels: names of what sessions belong to, for example an OpenID Connect session, a tenant or a deployment.
//!
//! A label is text. The nodes do not keep labels in memory, so sessions with a label are always looked for in the database.

use std::fmt;

use crate::error::{Error, ErrorKind};

/// Bytes of a label, as in the table's constraint.
pub(crate) const LABEL_BYTES_MAX: usize = 255;
/// Labels of a session, as in `session_check_labels` of the SQL contract.
pub(crate) const LABELS_MAX: usize = 8;

/// A label that the table can hold. It may come from an identity provider, so no output shows it.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Label(Box<str>);

impl Label {
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] for a text that is empty, too long or has a NUL byte.
    pub(crate) fn new(text: &str) -> Result<Self, Error> {
        let fault = if text.is_empty() {
            "`label` is empty; pass a text".to_owned()
        } else if text.len() > LABEL_BYTES_MAX {
            format!("`label` has {} bytes; use at most {LABEL_BYTES_MAX}, or a hash of the text", text.len())
        } else if text.contains('\0') {
            "`label` has a NUL byte, which PostgreSQL cannot store; remove it".to_owned()
        } else {
            return Ok(Self(text.into()));
        };
        Err(Error::new(ErrorKind::InvalidArgument, fault))
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Label {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Label").finish_non_exhaustive()
    }
}

/// The labels of one session, each once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Labels(Vec<Label>);

impl Labels {
    /// # Errors
    /// As [`Label::new`]. [`ErrorKind::LimitExceeded`] for more than [`LABELS_MAX`] labels.
    pub(crate) fn add(&mut self, text: &str) -> Result<(), Error> {
        let label = Label::new(text)?;
        if self.0.contains(&label) {
            return Ok(());
        }
        if self.0.len() == LABELS_MAX {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                format!("a session may have {LABELS_MAX} labels; pass fewer"),
            ));
        }
        self.0.push(label);
        Ok(())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(Label::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_bounded_in_bytes_and_number() {
        for fine in ["a".to_owned(), "ä".repeat(127), "x".repeat(LABEL_BYTES_MAX)] {
            assert_eq!(Label::new(&fine).unwrap().as_str(), fine);
        }
        for wrong in ["".to_owned(), "ä".repeat(128), "x".repeat(LABEL_BYTES_MAX + 1), "a\0b".to_owned()] {
            let error = Label::new(&wrong).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidArgument, "{error}");
        }
        let mut labels = Labels::default();
        for n in 0..LABELS_MAX {
            labels.add(&n.to_string()).unwrap();
            labels.add("0").unwrap();
        }
        assert_eq!(labels.add("one more").unwrap_err().kind(), ErrorKind::LimitExceeded);
        assert_eq!(labels.iter().collect::<Vec<_>>(), ["0", "1", "2", "3", "4", "5", "6", "7"]);
    }

    #[test]
    fn no_debug_output_of_a_label_shows_it() {
        let mut labels = Labels::default();
        labels.add("sid-4711").unwrap();
        assert!(!format!("{labels:?}").contains("4711"));
    }
}
