//! What a session may hold.

use crate::error::{Error, ErrorKind};

/// What a session may hold. Checked where a value is set and again on the whole session before it is sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) key_bytes_max: usize,
    pub(crate) value_bytes_max: usize,
    pub(crate) attributes_max: usize,
    pub(crate) session_bytes_max: usize,
}

impl Limits {
    pub(crate) fn check_key(&self, key: &str) -> Result<(), Error> {
        let (kind, message) = if key.is_empty() {
            (ErrorKind::InvalidArgument, "an attribute's key must not be empty".to_owned())
        } else if key.contains('\0') {
            let message =
                "an attribute's key must not contain a NUL byte, which PostgreSQL's text cannot hold";
            (ErrorKind::InvalidArgument, message.to_owned())
        } else if key.len() > self.key_bytes_max {
            let (bytes, max) = (key.len(), self.key_bytes_max);
            let message = format!(
                "an attribute's key of {bytes} bytes is over attribute_key_bytes_max = {max}; shorten the key"
            );
            (ErrorKind::LimitExceeded, message)
        } else {
            return Ok(());
        };
        Err(Error::new(kind, message))
    }

    pub(crate) fn check_value(&self, key: &str, text: &str) -> Result<(), Error> {
        if text.len() > self.value_bytes_max {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                format!(
                    "attribute {key:?} takes {} bytes of JSON, over attribute_value_bytes_max = {}; keep large values \
                     elsewhere and store a reference",
                    text.len(),
                    self.value_bytes_max
                ),
            ));
        }
        Ok(())
    }

    /// Whether a session may hold so many attributes with so many bytes in keys and texts.
    pub(crate) fn admit(&self, count: usize, bytes: usize) -> bool {
        count <= self.attributes_max && bytes <= self.session_bytes_max
    }

    /// Checks what the session would hold, given each attribute's key and text.
    pub(crate) fn check_total<'a>(
        &self,
        attributes: impl Iterator<Item = (&'a str, &'a str)>,
    ) -> Result<(), Error> {
        let (mut count, mut bytes) = (0, 0);
        for (key, text) in attributes {
            count += 1;
            bytes += key.len() + text.len();
        }
        if count > self.attributes_max {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                format!(
                    "the session would hold {count} attributes, over attributes_max = {}; remove some or group them in one",
                    self.attributes_max
                ),
            ));
        }
        if bytes > self.session_bytes_max {
            return Err(Error::new(
                ErrorKind::LimitExceeded,
                format!(
                    "the session's attributes would take {bytes} bytes, over session_bytes_max = {}; remove some",
                    self.session_bytes_max
                ),
            ));
        }
        Ok(())
    }
}
