//! What the fuzz targets of `pg-session-web` do with a header. As in the library of this package, which cannot use that
//! crate: tests of `pg-session` take it in.
//!
//! The tests of `pg-session-tower` run the corpus of these targets.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::LazyLock;

use pg_session::{KeyRing, SessionId, Signer, SigningKey, Version};
use pg_session_web::fuzzing::{address_behind_network, address_behind_proxies, sessions_in_cookie};

/// Its key is that of the corpus: bytes 0 to 31.
#[allow(clippy::expect_used, reason = "32 bytes are a key")]
static SIGNER: LazyLock<Signer> = LazyLock::new(|| {
    let bytes: Vec<u8> = (0..32).collect();
    Signer::new(KeyRing::new(&SigningKey::from_bytes(&bytes).expect("32 bytes are a key")))
});

/// A session that no token of the corpus names.
#[allow(clippy::expect_used, reason = "it is a UUID")]
static OWN: LazyLock<SessionId> =
    LazyLock::new(|| "00000000-0000-4000-8000-00000000000f".parse().expect("it is a UUID"));

/// A `cookie` header. A token in it counts under the cookie's whole name only, and nothing around our own cookie hides it.
/// The cookie is put where the first byte of the input says.
pub fn cookie_header(input: &[u8]) -> bool {
    let found = sessions_in_cookie(input, &SIGNER);
    let named = input.windows(15).any(|part| part == b"__Host-session=");
    assert!(found.is_empty() || named, "a token under no name");
    assert!(!found.contains(&OWN), "a forged token");

    let at = input.first().map_or(0, |&byte| usize::from(byte) % (input.len() + 1));
    let token = SIGNER.issue(*OWN, Version::FIRST);
    let own = format!("; __Host-session={}; ", token.expose());
    let header = [&input[..at], own.as_bytes(), &input[at..]].concat();
    assert!(sessions_in_cookie(&header, &SIGNER).contains(&OWN), "a hidden token");
    !found.is_empty()
}

/// A header in which proxies forward addresses: its first byte chooses which, and lines end as usual. Whatever a client
/// writes, the entries that trusted proxies append decide.
pub fn forwarded_header(input: &[u8]) -> bool {
    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::new(203, 0, 113, 9));
    const PROXY: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
    let Some((&choice, text)) = input.split_first() else { return false };
    let (name, entry) = if choice % 2 == 0 { ("x-forwarded-for", "") } else { ("forwarded", "for=") };
    let lines: Vec<&[u8]> = text.split(|&byte| byte == b'\n').collect();
    let accepted = address_behind_proxies(name, &lines, 1).is_some();

    for hops in 1..=3 {
        let appended = [format!("{entry}{CLIENT}")].into_iter();
        let appended = appended.chain((1..hops).map(|_| format!("{entry}\"{PROXY}:80\"")));
        let appended = appended.collect::<Vec<_>>().join(", ");
        // To the client's last line, and as a line of its own.
        let last = [lines[lines.len() - 1], b", ", appended.as_bytes()].concat();
        let mut joined = lines.clone();
        joined.pop();
        joined.push(&last);
        let mut apart = lines.clone();
        apart.push(appended.as_bytes());
        for lines in [joined, apart] {
            assert_eq!(address_behind_proxies(name, &lines, hops), Some(CLIENT), "{hops} proxies");
            let found = address_behind_network(name, &lines, "10.0.0.0/8", PROXY);
            assert!(matches!(found, Ok(Some(CLIENT))), "{hops} proxies of a network");
            let found = address_behind_network(name, &lines, "192.0.2.0/24", PROXY);
            assert!(matches!(found, Ok(Some(PROXY))), "no proxy of ours");
        }
    }
    accepted
}
