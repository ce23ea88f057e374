//! The promises of signed tokens, seen from outside: known answers, one spelling, no forgery, rotation, no secret shown.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

use super::*;
use crate::id::SessionId;
use crate::version::Version;

const RESET: Purpose = Purpose::new("password-reset");
const NOW: SystemTime = UNIX_EPOCH;

fn key(byte: u8) -> SigningKey {
    SigningKey::from_bytes(&[byte; 32]).unwrap()
}

fn signer() -> Signer {
    Signer::new(KeyRing::new(&key(1)))
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// Computed with the HMAC of Python's standard library, from the description at the top of each file.
#[test]
fn tokens_are_what_another_implementation_computes() {
    let bytes: Vec<u8> = (0..32).collect();
    let key = SigningKey::from_bytes(&bytes).unwrap();
    assert_eq!(key.id().to_string(), "8bcadad0");
    assert_eq!(
        *purpose::derive(&key.root(), "session-token", ""),
        [
            0x40, 0x84, 0x7d, 0x83, 0xd4, 0x36, 0x9b, 0x9c, 0x81, 0x8b, 0xd2, 0x41, 0x8b, 0x16, 0x48, 0xbe,
            0xb9, 0xbc, 0x2e, 0x1a, 0x60, 0x74, 0x0c, 0x9d, 0xc8, 0x0c, 0x79, 0xab, 0x99, 0x8d, 0x31, 0xfc,
        ]
    );
    let signer = Signer::new(KeyRing::new(&key));
    let id: SessionId = "67e55044-10b1-426f-9247-bb680e5fe0c8".parse().unwrap();
    let token = signer.issue_at(id, Version::new(7), at(1_790_000_000));
    assert_eq!(
        token.expose(),
        "EYvK2tBn5VBEELFCb5JHu2gOX-DIAAAAAAAAAAcAAAAAarE7gDwpEvHzGs5Oik-p8vzEs2VwmAXS5BLlUmI5SNupBhK2"
    );
    assert_eq!(
        signer.sign_message(RESET, b"user 42", Duration::MAX, NOW).unwrap(),
        "IYvK2tD__________3VzZXIgNDIptN70nSM7oLMj4pSZJtYnIDX1tVT99onjiTScksaNVw"
    );
}

#[test]
fn what_was_signed_comes_back() {
    let signer = signer();
    for (version, time) in [(1, 0), (2, 1_790_000_000), (i64::MAX - 1, u64::from(u32::MAX) * 2)] {
        let (id, version) = (SessionId::random(), Version::new(version));
        let token = signer.issue_at(id, version, at(time));
        assert_eq!(token.expose().len(), SessionToken::CHARS);
        assert_eq!(
            signer.verify(token.expose()),
            Ok(Verified { id, version, issued_at: at(time), key: signer.ring().signing() })
        );
    }
    for length in [0, 1, 2, 3, 100, Signer::MESSAGE_BYTES_MAX] {
        let message = vec![0xa5; length];
        let text = signer.sign_message(RESET, &message, Duration::from_secs(60), NOW).unwrap();
        assert_eq!(signer.verify_message(RESET, &text, NOW).as_ref(), Ok(&message));
        let bytes = signer.sign_message_bytes(RESET, &message, Duration::from_secs(60), NOW).unwrap();
        assert_eq!(signer.verify_message_bytes(RESET, &bytes, NOW), Ok(message.as_slice()));
    }
}

#[test]
fn a_token_is_stamped_with_the_time_of_now() {
    let before = crate::clock::wall_now() - Duration::from_secs(1);
    let issued_at = signer()
        .verify(signer().issue(SessionId::random(), Version::FIRST).expose())
        .map(|verified| verified.issued_at)
        .unwrap();
    assert!(before <= issued_at && issued_at <= crate::clock::wall_now(), "{issued_at:?}");
}

#[test]
fn a_session_token_fits_a_cookie_many_times_over() {
    assert_eq!(SessionToken::CHARS, 92);
    assert_eq!(VersionedId::CHARS, 32);
}

#[test]
fn messages_beyond_the_bound_are_neither_signed_nor_read() {
    let signer = signer();
    let long = vec![0; Signer::MESSAGE_BYTES_MAX + 1];
    assert_eq!(signer.sign_message(RESET, &long, Duration::MAX, NOW), Err(MessageTooLong));
    let longest = message::SIGNED_BYTES_MAX;
    assert_eq!(
        signer.verify_message(RESET, &"I".repeat(encoding::chars(longest) + 1), NOW),
        Err(TokenError::Malformed)
    );
    assert_eq!(signer.verify_message_bytes(RESET, &vec![0x21; longest + 1], NOW), Err(TokenError::Malformed));
}

/// Texts that a lenient decoder would read as the same bytes.
fn respelled(text: &str) -> Vec<String> {
    let (head, tail) = text.split_at(5);
    let mut others = vec![
        format!("{text}="),
        format!("{text}=="),
        format!(" {text}"),
        format!("{text} "),
        format!("{text}\n"),
        format!("\"{text}\""),
        format!("{head}\r\n{tail}"),
        format!("{head}%{:02X}{}", tail.as_bytes()[0], &tail[1..]),
    ];
    let standard = STANDARD_NO_PAD.encode(URL_SAFE_NO_PAD.decode(text).unwrap());
    others.extend((standard != text).then_some(standard));
    others
}

#[test]
fn no_other_spelling_of_a_valid_token_is_accepted() {
    let signer = signer();
    let mut other_alphabet = 0;
    for number in 1..=64 {
        let (id, version) = (SessionId::random(), Version::new(number));
        let token = signer.issue_at(id, version, at(1_790_000_000)).expose_into();
        for other in respelled(&token) {
            assert_eq!(signer.verify(&other), Err(TokenError::Malformed), "{other:?}");
            other_alphabet += u32::from(other.contains(['+', '/']));
        }
        for other in respelled(&VersionedId::new(id, version).encode()) {
            assert_eq!(other.parse::<VersionedId>(), Err(TokenError::Malformed), "{other:?}");
        }
        let message = signer.sign_message(RESET, b"user 42", Duration::MAX, NOW).unwrap();
        for other in respelled(&message) {
            assert_eq!(signer.verify_message(RESET, &other, NOW), Err(TokenError::Malformed), "{other:?}");
        }
        // In another case it is another text, with another signature.
        for other in [token.to_lowercase(), token.to_uppercase()] {
            assert!(signer.verify(&other).is_err(), "{other:?}");
        }
    }
    assert!(other_alphabet > 32, "most tokens hold a character in which the alphabets differ");
}

#[test]
fn bits_beyond_the_last_byte_of_a_message_are_refused() {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let signer = signer();
    let mut refused = 0;
    for length in 0..6 {
        let text = signer.sign_message(RESET, &vec![b'm'; length], Duration::MAX, NOW).unwrap();
        let spare_bits = text.len() * 6 % 8;
        let (head, last) = text.split_at(text.len() - 1);
        let last = ALPHABET.iter().position(|&char| char == last.as_bytes()[0]).unwrap();
        for bits in 1..1 << spare_bits {
            let other = format!("{head}{}", char::from(ALPHABET[last | bits]));
            assert_eq!(
                signer.verify_message(RESET, &other, NOW),
                Err(TokenError::Malformed),
                "{length} {bits}"
            );
            refused += 1;
        }
    }
    // Of three lengths in a row, one leaves no bits over, one leaves two, one leaves four.
    assert_eq!(refused, 2 * (3 + 15));
}

#[test]
fn a_signature_is_good_for_one_purpose_only() {
    let signer = signer();
    let reset = signer.sign_message(RESET, b"user 42", Duration::MAX, NOW).unwrap();
    for other in
        ["password-rese", "password-reset ", "Password-reset", "", "session-token", "../session-token"]
    {
        let other = Purpose::new(other);
        assert_eq!(signer.verify_message(other, &reset, NOW), Err(TokenError::BadSignature), "{other:?}");
    }
    assert_eq!(signer.verify(&reset), Err(TokenError::Malformed));
    let token = signer.issue(SessionId::random(), Version::FIRST);
    assert_eq!(
        signer.verify_message(Purpose::new("session-token"), token.expose(), NOW),
        Err(TokenError::Malformed)
    );
}

/// An application lets a user choose the bytes of a message. The whole is as long as a session token, and the purpose
/// is named like ours: it still is no session token, whatever its first byte says.
#[test]
fn no_message_can_be_turned_into_a_session_token() {
    let signer = signer();
    for name in ["session-token", "", "key-id"] {
        let signed = signer.sign_message_bytes(Purpose::new(name), &[1; 24], Duration::MAX, NOW).unwrap();
        assert_eq!(signer.verify(&encoding::encode(&signed)), Err(TokenError::Malformed));
        let mut relabelled = signed;
        relabelled[0] = 0x11;
        assert_eq!(signer.verify(&encoding::encode(&relabelled)), Err(TokenError::BadSignature));
    }
}

#[test]
fn a_rotation_in_three_steps_loses_no_one_on_any_node() {
    let (old, new) = (key(1), key(2));
    let rings = [
        KeyRing::new(&old),
        KeyRing::new(&old).with_verifying(&new).unwrap(),
        KeyRing::from_keys([&new, &old]).unwrap(),
    ];
    // While a step is rolled out, a node still has the ring before: each accepts what the other issues.
    for step in rings.windows(2) {
        let (a, b) = (Signer::new(step[0].clone()), Signer::new(step[1].clone()));
        for (issuer, reader) in [(&a, &a), (&a, &b), (&b, &a), (&b, &b)] {
            let token = issuer.issue(SessionId::random(), Version::FIRST);
            assert!(reader.verify(token.expose()).is_ok(), "{issuer:?} {reader:?}");
            let message = issuer.sign_message(RESET, b"user 42", Duration::MAX, NOW).unwrap();
            assert_eq!(reader.verify_message(RESET, &message, NOW).as_deref(), Ok(b"user 42".as_slice()));
        }
    }
    // Everything that the old key signed, from the first step to the last.
    let signer = Signer::new(rings[0].clone());
    let token = signer.issue(SessionId::random(), Version::FIRST);
    for ring in &rings {
        signer.replace(ring.clone());
        assert!(signer.verify(token.expose()).is_ok(), "{signer:?}");
    }
}

#[test]
fn a_removed_key_rejects_at_once_on_every_clone() {
    let (old, new) = (key(1), key(2));
    let signer = Signer::new(KeyRing::new(&old));
    let clone = signer.clone();
    let token = clone.issue(SessionId::random(), Version::FIRST);
    let message = clone.sign_message(RESET, b"user 42", Duration::MAX, NOW).unwrap();
    signer.replace(signer.ring().with_signing(&new).unwrap());
    assert!(clone.verify(token.expose()).is_ok());
    signer.replace(signer.ring().without(old.id()).unwrap());
    for signer in [signer, clone] {
        assert_eq!(signer.verify(token.expose()), Err(TokenError::UnknownKey));
        assert_eq!(signer.verify_message(RESET, &message, NOW), Err(TokenError::UnknownKey));
        assert_eq!(signer.ring().ids().collect::<Vec<_>>(), [new.id()]);
    }
}

/// A replaced ring is used by every call that begins later, on whatever thread: a verifier that knows of the removal
/// must not accept once.
#[test]
fn a_removed_key_rejects_at_once_on_other_threads() {
    let (old, new) = (key(1), key(2));
    for _ in 0..200 {
        let signer = Signer::new(KeyRing::from_keys([&new, &old]).unwrap());
        let token = Signer::new(KeyRing::new(&old)).issue(SessionId::random(), Version::FIRST);
        let removed = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            let verifier = scope.spawn(|| {
                loop {
                    let is_removed = removed.load(std::sync::atomic::Ordering::Acquire);
                    let outcome = signer.verify(token.expose());
                    if is_removed {
                        return outcome;
                    }
                }
            });
            signer.replace(KeyRing::new(&new));
            removed.store(true, std::sync::atomic::Ordering::Release);
            assert_eq!(verifier.join().unwrap(), Err(TokenError::UnknownKey));
        });
    }
}

#[test]
fn nothing_that_is_printed_shows_a_secret() {
    let bytes: Vec<u8> = (100..132).collect();
    let key = SigningKey::from_bytes(&bytes).unwrap();
    let ring = KeyRing::new(&key);
    let signer = Signer::new(ring.clone());
    let id = SessionId::random();
    let token = signer.issue(id, Version::FIRST);
    let verified = signer.verify(token.expose()).unwrap();
    let stranger = Signer::new(KeyRing::new(&self::key(9))).issue(id, Version::FIRST);
    let mut shown = format!("{key:?} {key:#?} {ring:?} {signer:?} {signer:#?} {token:?} {verified:?}");
    for wrong in ["!", &token.expose()[1..], stranger.expose()] {
        let rejected = signer.verify(wrong).unwrap_err();
        shown.push_str(&format!("{rejected:?} {rejected}"));
    }
    shown.push_str(
        &SigningKey::from_base64("c2VjcmV0!").map_or_else(|error| error.to_string(), |_| String::new()),
    );

    let session_key = *purpose::derive(&key.root(), "session-token", "");
    let secrets = [
        key.expose_base64()[..8].to_owned(),
        format!("{:?}", &bytes[..3]).trim_matches(['[', ']']).to_owned(),
        format!("{:02x}{:02x}{:02x}", bytes[0], bytes[1], bytes[2]),
        format!("{:?}", &session_key[..3]).trim_matches(['[', ']']).to_owned(),
        encoding::encode(&session_key)[..8].to_owned(),
        token.expose()[8..16].to_owned(),
        token.expose()[60..68].to_owned(),
        id.expose().to_string()[..8].to_owned(),
        "c2VjcmV0".to_owned(),
        "secret".to_owned(),
    ];
    for secret in secrets {
        assert!(!shown.contains(&secret), "{secret} in {shown}");
    }
    assert!(shown.contains(&key.id().to_string()), "{shown}");
}

#[test]
fn messages_of_errors_are_lower_case_without_full_stop() {
    let rejected =
        [TokenError::Malformed, TokenError::UnknownKey, TokenError::BadSignature, TokenError::Expired];
    let keys = [
        KeyError::TooShort,
        KeyError::TooLong,
        KeyError::NotBase64,
        KeyError::NoRandomness,
        KeyError::Empty,
        KeyError::TooMany,
        KeyError::Duplicate,
        KeyError::Signing,
    ];
    let texts = rejected.iter().map(ToString::to_string).chain(keys.iter().map(ToString::to_string));
    for text in texts.chain([MessageTooLong.to_string()]) {
        assert!(text.starts_with(char::is_lowercase) && !text.ends_with('.'), "{text}");
    }
    // The numbers in them are those of the constants.
    assert!(KeyError::TooMany.to_string().contains(&KeyRing::KEYS_MAX.to_string()));
    assert!(KeyError::TooShort.to_string().contains(&SigningKey::BYTES_MIN.to_string()));
    assert!(KeyError::TooLong.to_string().contains(&SigningKey::BYTES_MAX.to_string()));
}

#[test]
fn a_token_names_its_key_unverified() {
    let key = SigningKey::generate().unwrap();
    let token = Signer::new(KeyRing::new(&key)).issue(SessionId::random(), Version::new(1));
    assert_eq!(KeyId::of_token(token.expose()), Some(key.id()));
    assert_eq!(KeyId::of_token(&token.expose()[1..]), None);
    assert_eq!(KeyId::of_token(&"A".repeat(SessionToken::CHARS)), None, "another format");
}
