//! Where a user is signed in: the list that users look at, and end what they do not know.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::time::SystemTime;

use pg_session::SessionId;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::client::Client;
use crate::error::Error;
use crate::session::Session;

/// The attribute in which a login records who called.
pub(crate) const KEY: &str = "pg-session/device";

/// One of the sessions of the user who is signed in.
///
/// As JSON, times are texts like `2026-01-31T08:30:00.123456Z`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Device {
    /// What [`Session::end_device`] takes. It logs no user in.
    pub id: DeviceId,
    /// Whether it is the session that asks.
    pub current: bool,
    /// What the browser called itself at login, at most 256 bytes of visible ASCII.
    pub user_agent: Option<String>,
    /// Where the login came from; only the network, with [`truncate_addresses`](crate::SessionConfig::truncate_addresses).
    pub address: Option<IpAddr>,
    /// When the user signed in there, by the database's clock.
    #[serde(with = "humantime_serde")]
    pub created_at: SystemTime,
    /// The last access that the database knows of.
    #[serde(with = "humantime_serde")]
    pub last_accessed_at: SystemTime,
}

/// Names one of a user's sessions to that user: half of a SHA-256 of its id, from which the id does not come back. Made for pages:
/// `Display` and `FromStr` are 32 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct DeviceId([u8; 16]);

impl Session {
    /// The sessions of the user who is signed in, the most recently used first, at most
    /// [`LIST_MAX`](pg_session::SessionManager::LIST_MAX). Asked of the database.
    ///
    /// # Errors
    /// [`ErrorKind::SignedOut`](crate::ErrorKind::SignedOut), [`ErrorKind::Rotated`](crate::ErrorKind::Rotated), or the database does
    /// not answer.
    pub async fn devices(&self) -> Result<Vec<Device>, Error> {
        let state = self.open().await?;
        let (current, user) = state.signed_in()?;
        let sessions = self.sessions().manager().user(user).list().await?;
        Ok(sessions.iter().map(|session| Device::of(session, current.id())).collect())
    }

    /// Ends one of the user's own sessions. Returns whether it existed: `false` also for a device of another user.
    /// For the current one, this is [`logout`](Session::logout).
    ///
    /// # Errors
    /// As [`logout_everywhere`](Session::logout_everywhere).
    ///
    /// # Cancel safety
    /// As [`logout`](Session::logout).
    pub async fn end_device(&self, device: DeviceId) -> Result<bool, Error> {
        let manager = self.sessions().manager();
        let id = {
            let state = self.open_to_change().await?;
            let (current, user) = state.signed_in()?;
            if DeviceId::of(current.id()) == device {
                None
            } else {
                let sessions = manager.user(user).list().await?;
                let Some(found) = sessions.iter().find(|session| DeviceId::of(session.id()) == device) else {
                    return Ok(false);
                };
                Some(found.id())
            }
        };
        match id {
            Some(id) => Ok(manager.delete(id).await?),
            None => self.logout().await,
        }
    }
}

impl Device {
    fn of(session: &pg_session::Session, current: SessionId) -> Self {
        // This version did not record what is not readable. Then nothing is known, and the session
        // can still be ended.
        let client = session.get::<Client>(KEY).ok().flatten().unwrap_or_default();
        Self {
            id: DeviceId::of(session.id()),
            current: session.id() == current,
            user_agent: client.user_agent,
            address: client.address,
            created_at: session.created_at(),
            last_accessed_at: session.last_accessed_at(),
        }
    }
}

impl DeviceId {
    fn of(id: SessionId) -> Self {
        let digest =
            Sha256::new().chain_update("pg-session/device\0").chain_update(id.expose().as_bytes()).finalize();
        let mut half = [0; 16];
        half.copy_from_slice(&digest[..16]);
        Self(half)
    }
}

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

impl fmt::Debug for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DeviceId({self})")
    }
}

/// A text that is no device's id.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NotADevice;

impl fmt::Display for NotADevice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a device's id has 32 hexadecimal digits; pass it as listed")
    }
}

impl std::error::Error for NotADevice {}

impl FromStr for DeviceId {
    type Err = NotADevice;

    fn from_str(text: &str) -> Result<Self, NotADevice> {
        let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
        let number = if digits { u128::from_str_radix(text, 16).ok() } else { None };
        number.map(|number| Self(number.to_be_bytes())).ok_or(NotADevice)
    }
}

impl From<DeviceId> for String {
    fn from(id: DeviceId) -> Self {
        id.to_string()
    }
}

impl TryFrom<String> for DeviceId {
    type Error = NotADevice;

    fn try_from(text: String) -> Result<Self, NotADevice> {
        text.parse()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_named_without_its_session() {
        let session: SessionId = "67e55044-10b1-426f-9247-bb680e5fe0c8".parse().unwrap();
        let id = DeviceId::of(session);
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!(!id.to_string().contains("67e55044"));
        for wrong in ["", "0", "+0000000000000000000000000000000", &"g".repeat(32), &"0".repeat(33)] {
            assert_eq!(wrong.parse::<DeviceId>(), Err(NotADevice), "{wrong}");
        }
    }

    #[test]
    fn a_device_is_json() {
        let session: SessionId = "67e55044-10b1-426f-9247-bb680e5fe0c8".parse().unwrap();
        let device = Device {
            id: DeviceId::of(session),
            current: true,
            user_agent: Some("Test/1.0".to_owned()),
            address: "203.0.113.9".parse().ok(),
            created_at: SystemTime::UNIX_EPOCH,
            last_accessed_at: SystemTime::UNIX_EPOCH,
        };
        let json = serde_json::to_value(&device).unwrap();
        let expected = serde_json::json!({
            "id": device.id.to_string(),
            "current": true,
            "user_agent": "Test/1.0",
            "address": "203.0.113.9",
            "created_at": "1970-01-01T00:00:00Z",
            "last_accessed_at": "1970-01-01T00:00:00Z",
        });
        assert_eq!(json, expected);
    }
}
