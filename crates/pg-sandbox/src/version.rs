//! Which PostgreSQL this is, as its own `--version` tells.

use std::fmt;

/// The version of a server's binaries: `16.4`, `18beta1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerVersion {
    major: u32,
    text: String,
}

impl ServerVersion {
    /// Reads the answer of `postgres --version`: `postgres (PostgreSQL) 15.10 (Debian 15.10-0+deb12u1)`.
    pub(crate) fn parse(answer: &str) -> Option<Self> {
        let text = answer.split_once("(PostgreSQL)")?.1.split_whitespace().next()?;
        let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        Some(Self { major: text[..digits].parse().ok()?, text: text.to_owned() })
    }

    /// The major version: the `16` of `16.4`. (Before PostgreSQL 10 a release changed with the second number.)
    #[must_use]
    pub fn major(&self) -> u32 {
        self.major
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_releases_betas_and_vendor_suffixes() {
        let read = |answer| ServerVersion::parse(answer).map(|v| (v.major(), v.to_string()));
        assert_eq!(read("postgres (PostgreSQL) 16.4"), Some((16, "16.4".into())));
        assert_eq!(
            read("postgres (PostgreSQL) 15.10 (Debian 15.10-0+deb12u1)\n"),
            Some((15, "15.10".into()))
        );
        assert_eq!(read("postgres (PostgreSQL) 18beta1"), Some((18, "18beta1".into())));
        assert_eq!(read("postgres (Other) 16.4"), None);
        assert_eq!(read("postgres (PostgreSQL) devel"), None);
    }
}
