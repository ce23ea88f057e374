//! Which keys a node has, and when each has verified something last. The registry of nodes holds it for operators.

use std::sync::{Mutex, PoisonError};
use std::time::SystemTime;

use super::encoding::unix_seconds;
use super::{KeyId, Signer};

/// A key's id, and when it has verified something last, in seconds since 1970.
pub(crate) type KeyUse = (String, Option<u64>);

/// The uses of the keys of a node's signer.
#[derive(Default)]
pub(crate) struct KeyUses(Mutex<State>);

#[derive(Default)]
struct State {
    signer: Option<Signer>,
    uses: Vec<(KeyId, Option<u64>)>,
}

impl KeyUses {
    /// Reports the keys of this signer from now on.
    pub(crate) fn of(&self, signer: &Signer) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).signer = Some(signer.clone());
    }

    /// The keys, the one that signs first. What a key has verified since the last report counts as verified `now`.
    pub(crate) fn report(&self, now: SystemTime) -> Vec<KeyUse> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(signer) = &state.signer else { return Vec::new() };
        let before = |id| state.uses.iter().find(|(known, _)| *known == id).and_then(|(_, at)| *at);
        let ring = signer.ring();
        let uses = ring.take_uses();
        let uses = uses.map(|(id, used)| (id, if used { Some(unix_seconds(now)) } else { before(id) }));
        state.uses = uses.collect();
        state.uses.iter().map(|(id, at)| (id.to_string(), *at)).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;
    use crate::id::SessionId;
    use crate::{KeyRing, SigningKey, Version};

    #[test]
    fn a_key_is_used_when_it_verifies_what_it_signed() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        let [old, new] = [1, 2].map(|byte| SigningKey::from_bytes(&[byte; 32]).unwrap());
        let signer = Signer::new(KeyRing::new(&old));
        let token = signer.issue(SessionId::random(), Version::FIRST);
        let uses = KeyUses::default();
        assert_eq!(uses.report(at(1)), [], "no signer");
        uses.of(&signer);
        assert_eq!(uses.report(at(2)), [(old.id().to_string(), None)]);
        signer.verify(token.expose()).unwrap();
        assert_eq!(uses.report(at(3)), [(old.id().to_string(), Some(3))]);
        signer.replace(signer.ring().with_signing(&new).unwrap());
        let forged = format!("{}AAAA", &token.expose()[..88]);
        assert!(signer.verify(&forged).is_err());
        let rotated = [(new.id().to_string(), None), (old.id().to_string(), Some(3))];
        assert_eq!(uses.report(at(4)), rotated);
        signer.verify(token.expose()).unwrap();
        assert_eq!(uses.report(at(5))[1].1, Some(5));
    }
}
