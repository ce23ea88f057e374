//! The receipt of `everywhere()`: what was revoked, when, and how many nodes have answered, as signed JSON.
//!
//! ```json
//! {"receipt":{"revoked":{"kind":"session","handle":"…"},"finished_at":"2026-11-29T12:00:00.123456Z",
//!  "took":"7ms 120us","acknowledged":3,"lapsed":0},"signature":"…"}
//! ```
//!
//! The signature covers the receipt as this library writes it: spaces and the order of fields do not matter. It has no
//! session id: a receipt may be shown to an auditor.

use std::time::{Duration, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::Everywhere;
use crate::error::{Error, ErrorKind};
use crate::signing::{Purpose, Signer, TokenError};

/// The longest receipt that is read. The longest part is the key of an attribute.
const RECEIPT_BYTES_MAX: usize = 16 * 1024;

const RECEIPT: Purpose = Purpose::new("pg-session/receipt-of-everywhere");

#[derive(Serialize)]
struct Signed<'a> {
    receipt: &'a Everywhere,
    signature: String,
}

#[derive(Deserialize)]
struct Presented {
    receipt: Everywhere,
    signature: String,
}

impl Everywhere {
    /// Signs a receipt: JSON with the fields of this value and a signature that never expires. It contains no session id. Keep
    /// the key in the ring of the [`Signer`] for as long as receipts are to be verified.
    ///
    /// For a receipt without a signature, serialise this value.
    ///
    /// # Errors
    /// [`ErrorKind::InvalidArgument`] if the database's clock is beyond the year 9999.
    pub fn sign(&self, signer: &Signer) -> Result<String, Error> {
        let never = Duration::MAX;
        let invalid = || {
            Error::new(ErrorKind::InvalidArgument, "the receipt has no JSON form; check the database's clock")
        };
        let digest = self.digest().ok_or_else(invalid)?;
        let signature = signer.sign_message(RECEIPT, &digest, never, UNIX_EPOCH).map_err(|_| invalid())?;
        serde_json::to_string(&Signed { receipt: self, signature }).map_err(|_| invalid())
    }

    /// Returns what a receipt says, if a key of the signer's ring has signed it.
    ///
    /// # Errors
    /// [`TokenError::Malformed`] if the text is no receipt, otherwise what is wrong with the signature.
    pub fn verify(signer: &Signer, receipt: &str) -> Result<Self, TokenError> {
        if receipt.len() > RECEIPT_BYTES_MAX {
            return Err(TokenError::Malformed);
        }
        let presented: Presented = serde_json::from_str(receipt).map_err(|_| TokenError::Malformed)?;
        let signed = signer.verify_message(RECEIPT, &presented.signature, UNIX_EPOCH)?;
        let digest = presented.receipt.digest().ok_or(TokenError::Malformed)?;
        if signed == digest { Ok(presented.receipt) } else { Err(TokenError::BadSignature) }
    }

    /// Of the JSON that the library writes. `None` if the time has no text.
    fn digest(&self) -> Option<[u8; 32]> {
        serde_json::to_vec(self).ok().map(|json| Sha256::digest(json).into())
    }
}

#[cfg(test)]
mod tests {
    use super::super::revoked::Revoked;
    use super::*;
    use crate::id::{GroupId, Scope, SessionId, UserId};
    use crate::label::Label;
    use crate::session::request::BulkChange;
    use crate::signing::SigningKey;

    fn signer(byte: u8) -> Signer {
        Signer::from(SigningKey::from_bytes(&[byte; 32]).unwrap())
    }

    fn everywhere(revoked: Revoked) -> Everywhere {
        Everywhere {
            acknowledged: 3,
            lapsed: 1,
            took: Duration::from_nanos(7_120_001),
            finished_at: UNIX_EPOCH + Duration::from_micros(1_795_000_000_123_456),
            revoked,
        }
    }

    #[test]
    fn a_receipt_is_read_as_it_was_signed() {
        let id = SessionId::random();
        let (user, group) = (UserId::from(7_i64), GroupId::from(8_i64));
        let changes = [
            BulkChange::Delete(vec![id]),
            BulkChange::DeleteOthers(user, id),
            BulkChange::RemoveAttribute(user, "a \"key\" \u{1f511}".to_owned()),
            BulkChange::DeleteAll(Scope::User(user)),
            BulkChange::DeleteAll(Scope::Group(group)),
            BulkChange::DeleteLabel(Label::new("tenant:\u{1f511}\"").unwrap()),
            BulkChange::DeleteAll(Scope::All),
            BulkChange::Evict(Scope::User(user)),
            BulkChange::Evict(Scope::Group(group)),
            BulkChange::Evict(Scope::All),
        ];
        let revoked = changes.iter().map(Revoked::from).chain([Revoked::Session { handle: id.handle() }]);
        for revoked in revoked {
            let done = everywhere(revoked);
            let receipt = done.sign(&signer(1)).unwrap();
            assert!(
                !receipt.contains(&id.expose().to_string())
                    && !receipt.contains(&id.expose().simple().to_string())
            );
            assert_eq!(Everywhere::verify(&signer(1), &receipt), Ok(done));
            assert_eq!(Everywhere::verify(&signer(2), &receipt), Err(TokenError::UnknownKey));
            // As another program may have written it.
            let spaced = receipt.replace(",\"", " ,\n \"");
            assert!(Everywhere::verify(&signer(1), &spaced).is_ok());
        }
    }

    #[test]
    fn a_receipt_with_another_content_is_rejected() {
        let receipt = everywhere(Revoked::All).sign(&signer(1)).unwrap();
        let changes = [
            ("\"acknowledged\":3", "\"acknowledged\":4"),
            ("\"lapsed\":1", "\"lapsed\":0"),
            ("\"all\"", "\"all_evicted\""),
            ("7ms", "6ms"),
            ("2026", "2027"),
        ];
        for (from, to) in changes {
            let changed = receipt.replace(from, to);
            assert_ne!(changed, receipt, "{from}");
            assert_eq!(Everywhere::verify(&signer(1), &changed), Err(TokenError::BadSignature), "{from}");
        }
        let other = Signer::sign_message(&signer(1), Purpose::new("other"), b"", Duration::MAX, UNIX_EPOCH);
        let (head, _) = receipt.split_once("\"signature\"").unwrap();
        let foreign = format!("{head}\"signature\":\"{}\"}}", other.unwrap());
        assert_eq!(Everywhere::verify(&signer(1), &foreign), Err(TokenError::BadSignature));
        let long = format!("{receipt}{}", " ".repeat(RECEIPT_BYTES_MAX));
        for text in ["", "{}", "[]", &receipt[1..], &long] {
            assert_eq!(Everywhere::verify(&signer(1), text), Err(TokenError::Malformed));
        }
    }
}
