//! The signing key from the environment, and what takes its place during development.

use pg_session::{KeyError, KeyRing, SessionManager, Signer, SigningKey};

use crate::error::Error;
use crate::session_config::SessionConfig;

const VARIABLE: &str = "SESSION_KEY";

impl SessionConfig {
    /// These sessions, signed with the key in the environment variable `SESSION_KEY`: base64 of 32 random bytes, as
    /// `openssl rand -base64 32` or `pg-session key` prints it. Of several keys, separated by commas, the first one signs,
    /// and the others verify what they signed before.
    ///
    /// Without the variable, a build with debug assertions goes on with a [development key](Self::development), so `cargo run`
    /// needs no key. A build without them, as `cargo build --release` makes it, fails.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) for a key that is missing or wrong; the message names the variable.
    pub fn from_env(manager: SessionManager) -> Result<Self, Error> {
        let keys = match std::env::var(VARIABLE) {
            Ok(keys) => keys,
            Err(std::env::VarError::NotUnicode(_)) => return Err(Error::key(KeyError::NotBase64)),
            Err(std::env::VarError::NotPresent) if cfg!(debug_assertions) => {
                return Self::development(manager);
            }
            Err(std::env::VarError::NotPresent) => return Err(Error::no_key()),
        };
        Ok(Self::new(manager, Signer::new(ring(&keys).map_err(Error::key)?)))
    }

    /// These sessions, signed with a random key that only this process knows: **for development**. The sessions end with
    /// the process, and no other node accepts them.
    ///
    /// The key is announced with a warning, on stderr if the program has no log. A request that
    /// does not come from this machine is refused with status 500 and a sentence. It asks for
    /// another host than `localhost`, or comes from another address, or through a proxy that names
    /// one.
    ///
    /// # Errors
    /// [`ErrorKind::Config`](crate::ErrorKind::Config) if the operating system has no random numbers.
    pub fn development(manager: SessionManager) -> Result<Self, Error> {
        let key = SigningKey::generate().map_err(Error::key)?;
        announce();
        Ok(Self::new(manager, Signer::new(KeyRing::new(&key))).for_this_machine_only())
    }
}

/// The keys of the variable, the one that signs first.
fn ring(texts: &str) -> Result<KeyRing, KeyError> {
    let keys: Vec<_> = texts.split(',').map(SigningKey::from_base64).collect::<Result<_, _>>()?;
    KeyRing::from_keys(&keys)
}

fn announce() {
    const ANNOUNCEMENT: &str = "SESSION_KEY is not set: a development key signs the sessions; they end with this process, \
                                and only localhost is served; set SESSION_KEY to the output of `openssl rand -base64 32`";
    if tracing::dispatcher::has_been_set() {
        tracing::warn!("{ANNOUNCEMENT}");
    } else {
        eprintln!("pg-session: {ANNOUNCEMENT}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_the_environment_are_read_in_order() {
        let [old, new] = [SigningKey::generate().unwrap(), SigningKey::generate().unwrap()];
        let texts = format!("{},\n {}\n", new.expose_base64(), old.expose_base64());
        let ring = ring(&texts).unwrap();
        assert_eq!(ring.ids().collect::<Vec<_>>(), [new.id(), old.id()]);
        let doubled = format!("{0},{0}", old.expose_base64());
        for (wrong, reason) in [
            ("", KeyError::TooShort),
            ("secret!", KeyError::NotBase64),
            (&format!("{texts},"), KeyError::TooShort),
            (&doubled, KeyError::Duplicate),
        ] {
            assert_eq!(super::ring(wrong).err(), Some(reason), "{wrong:?}");
        }
    }
}
