//! One million tokens that were changed in every way we thought of: none is accepted.

use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use pg_session::{KeyRing, Purpose, Signer, SigningKey, Version, VersionedId};

const FORGERIES: u64 = 1_000_000;
/// Tests run in debug mode; the machines that run them have two cores at least.
const THREADS: u64 = 2;
const SIGNATURE_BYTES: usize = 32;
const RESET: Purpose = Purpose::new("password-reset");
const NOW: SystemTime = UNIX_EPOCH;
const MESSAGE: &[u8] = b"user 42 may set a new password";

#[test]
fn of_one_million_changed_tokens_none_is_accepted() {
    let signed = &Signed::new();
    let tried: u64 = thread::scope(|scope| {
        let threads: Vec<_> =
            (0..THREADS).map(|seed| scope.spawn(move || signed.forge(seed, FORGERIES / THREADS))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).sum()
    });
    assert_eq!(tried, FORGERIES);
}

/// A signer of two keys, and what each of them signed.
struct Signed {
    signer: Signer,
    /// Valid, and of equal length each: two session tokens, and two messages.
    tokens: [String; 2],
    messages: [String; 2],
}

impl Signed {
    fn new() -> Self {
        let keys = [1, 2].map(|byte| SigningKey::from_bytes(&[byte; 32]).unwrap());
        let (a, b) = (Signer::new(KeyRing::new(&keys[0])), Signer::new(KeyRing::new(&keys[1])));
        let ids = ["67e55044-10b1-426f-9247-bb680e5fe0c8", "00000000-0000-4000-8000-000000000000"]
            .map(|id| id.parse().unwrap());
        let seven = "Z-VQRBCxQm-SR7toDl_gyAAAAAAAAAAH".parse::<VersionedId>().unwrap().version;
        let signed = Self {
            signer: Signer::new(KeyRing::from_keys(&keys).unwrap()),
            tokens: [
                a.issue_at(ids[0], seven, at(1_790_000_000)).expose_into(),
                b.issue_at(ids[1], Version::FIRST, at(1_800_000_000)).expose_into(),
            ],
            messages: [&a, &b].map(|signer| signer.sign_message(RESET, MESSAGE, Duration::MAX, NOW).unwrap()),
        };
        for token in &signed.tokens {
            assert!(signed.signer.verify(token).is_ok());
        }
        for message in &signed.messages {
            assert!(signed.signer.verify_message(RESET, message, NOW).is_ok());
        }
        signed
    }

    /// Three session tokens for each message. Returns how many forgeries were tried and rejected.
    fn forge(&self, seed: u64, count: u64) -> u64 {
        let mut random = Random(seed);
        let mut rejected = 0;
        while rejected < count {
            let message = random.below(4) == 0;
            let valid = if message { &self.messages } else { &self.tokens };
            let forged = changed(&mut random, valid);
            if valid.contains(&forged) {
                continue;
            }
            let accepted = if message {
                self.signer.verify_message(RESET, &forged, NOW).is_ok()
            } else {
                self.signer.verify(&forged).is_ok()
            };
            assert!(!accepted, "seed {seed}, after {rejected}: {forged:?} was accepted");
            rejected += 1;
        }
        rejected
    }
}

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

/// One of the valid texts, changed; now and then it comes out as it was.
fn changed(random: &mut Random, valid: &[String; 2]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    const ODD: [char; 8] = ['=', ' ', '\0', '+', '/', 'é', '\n', '.'];
    let which = random.below(2);
    let text = &valid[which];
    let mut chars = text.clone().into_bytes();
    let (at, other) = (random.below(chars.len()), random.below(chars.len()));
    match random.below(10) {
        // Decoded, one to four bits flipped, encoded: always canonical.
        0..3 => {
            let mut bytes = URL_SAFE_NO_PAD.decode(text).unwrap();
            for _ in 0..=random.below(4) {
                let at = random.below(bytes.len());
                bytes[at] ^= 1 << random.below(8);
            }
            return URL_SAFE_NO_PAD.encode(bytes);
        }
        // A signature made up.
        3 => {
            let mut bytes = URL_SAFE_NO_PAD.decode(text).unwrap();
            let signature = bytes.len() - SIGNATURE_BYTES;
            bytes[signature..].fill_with(|| random.byte());
            return URL_SAFE_NO_PAD.encode(bytes);
        }
        // Ends with the other one's end, wherever they are joined.
        4 => return format!("{}{}", &text[..at], &valid[1 - which][at..]),
        5 => chars[at] = ALPHABET[random.below(64)],
        // A bit of a character: often outside the alphabet.
        6 => chars[at] ^= 1 << random.below(7),
        7 => chars.swap(at, other),
        8 => chars.truncate(at),
        _ => {
            let mut longer = text.clone();
            for _ in 0..=random.below(4) {
                let more = if random.below(2) == 0 {
                    char::from(ALPHABET[random.below(64)])
                } else {
                    ODD[random.below(ODD.len())]
                };
                longer.push(more);
            }
            return longer;
        }
    }
    // ASCII, and bit 7 was left alone.
    String::from_utf8(chars).unwrap()
}

/// SplitMix64 (Steele, Lea, Flood 2014): a few instructions, and the same on every machine.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn byte(&mut self) -> u8 {
        self.next().to_be_bytes()[0]
    }

    /// The bias of a remainder is nothing for numbers as small as these.
    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() >> 32).unwrap() % end
    }
}
