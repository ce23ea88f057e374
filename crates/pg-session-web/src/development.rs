//! The signing key from the environment, and what takes its place during development.

use std::net::IpAddr;

use pg_session::{KeyError, KeyRing, SessionManager, Signer, SigningKey};

use crate::error::Error;
use crate::request_head::RequestHead;
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
    /// The key is announced with a warning, on stderr if the program has no log. Every request that does not come from
    /// this machine is refused with status 500 and a sentence: one for another host than `localhost`, from another
    /// machine's address, or through a proxy that names one.
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

/// Whether a request comes from this machine, as far as it tells.
pub(crate) fn is_local(head: &impl RequestHead) -> bool {
    let forwarded = ["x-forwarded-for", "x-real-ip", "forwarded"];
    head.host().is_some_and(is_local_host)
        && head.peer().is_none_or(|peer| peer.to_canonical().is_loopback())
        && forwarded.iter().all(|name| head.headers(name).all(names_this_machine_only))
}

fn is_local_host(host: &str) -> bool {
    let name = host.trim_end_matches('.').to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost") || is_loopback(&name)
}

fn is_loopback(address: &str) -> bool {
    let address = address.trim_matches(['[', ']']);
    address.parse::<IpAddr>().is_ok_and(|address| address.to_canonical().is_loopback())
}

/// Whether each address in a header that proxies write is one of this machine. Anything that is no address is not.
fn names_this_machine_only(value: &[u8]) -> bool {
    let Ok(value) = std::str::from_utf8(value) else { return false };
    value.split([',', ';']).map(|part| part.trim().to_ascii_lowercase()).all(|part| {
        match part.split_once('=') {
            Some(("for", address)) => is_loopback(address.trim_matches('"')),
            Some(_) => true,
            None => is_loopback(&part),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Head {
        host: &'static str,
        peer: Option<&'static str>,
        headers: &'static [(&'static str, &'static str)],
    }

    impl RequestHead for Head {
        fn headers(&self, name: &str) -> impl Iterator<Item = &[u8]> {
            self.headers.iter().filter(move |header| header.0 == name).map(|header| header.1.as_bytes())
        }

        fn peer(&self) -> Option<IpAddr> {
            self.peer.map(|peer| peer.parse().unwrap())
        }

        fn host(&self) -> Option<&str> {
            (!self.host.is_empty()).then_some(self.host)
        }

        fn authority(&self) -> Option<&str> {
            self.host()
        }

        fn method(&self) -> &str {
            "GET"
        }

        fn path(&self) -> &str {
            "/"
        }
    }

    #[test]
    fn only_requests_of_this_machine_are_local() {
        let local = |host, peer, headers| is_local(&Head { host, peer, headers });
        for host in
            ["localhost", "LOCALHOST", "localhost.", "shop.localhost", "127.0.0.1", "127.9.9.9", "[::1]"]
        {
            assert!(local(host, None, &[]), "{host}");
        }
        for host in [
            "",
            "shop.example",
            "localhost.example",
            "notlocalhost",
            "192.168.0.5",
            "0.0.0.0",
            "[::]",
            "[fe80::1]",
        ] {
            assert!(!local(host, None, &[]), "{host}");
        }
        for peer in ["127.0.0.1", "::1", "::ffff:127.0.0.1"] {
            assert!(local("localhost", Some(peer), &[]), "{peer}");
        }
        for peer in ["172.17.0.1", "203.0.113.9", "::ffff:203.0.113.9"] {
            assert!(!local("localhost", Some(peer), &[]), "{peer}");
        }
        for headers in [
            &[("x-forwarded-for", "127.0.0.1, ::1")][..],
            &[("forwarded", "for=\"[::1]\";proto=https, for=127.0.0.1")],
            &[("x-real-ip", "127.0.0.1")],
        ] {
            assert!(local("localhost", None, headers), "{headers:?}");
        }
        for headers in [
            &[("x-forwarded-for", "203.0.113.9")][..],
            &[("x-forwarded-for", "127.0.0.1"), ("x-forwarded-for", "203.0.113.9, 127.0.0.1")],
            &[("x-forwarded-for", "")],
            &[("x-real-ip", "unknown")],
            &[("forwarded", "proto=https; For=\"203.0.113.9\"")],
            &[("forwarded", "for=_hidden")],
        ] {
            assert!(!local("localhost", None, headers), "{headers:?}");
        }
    }

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
