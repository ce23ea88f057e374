//! Signed tokens without a database: the value of a session cookie, a rotation of keys, and a link that expires. At the end
//! it measures what a verification costs; those figures mean something in release mode only.
//!
//! ```text
//! cargo run --release -p pg-session --example signed_tokens
//! ```

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant, SystemTime};

use pg_session::{KeyRing, Purpose, SessionId, SessionToken, Signer, SigningKey, Version};

const RESET: Purpose = Purpose::new("password-reset");

fn main() -> Result<(), Box<dyn Error>> {
    // An application reads its keys from its configuration: `SigningKey::from_base64`.
    let (old, new) = (SigningKey::generate()?, SigningKey::generate()?);
    let signer = Signer::new(KeyRing::new(&old));

    // An application takes both from its `Session`: `session.id()` and `session.version()`.
    let id: SessionId = "67e55044-10b1-426f-9247-bb680e5fe0c8".parse()?;
    let token = signer.issue(id, Version::FIRST);
    let verified = signer.verify(token.expose())?;
    println!(
        "a cookie of {} characters says {:?}, version {}",
        token.expose().len(),
        verified.id,
        verified.version
    );

    println!("one character changed: {}", said(&signer.verify(&forged(&token))));

    // On several nodes: each step on all of them before the next.
    signer.replace(signer.ring().with_verifying(&new)?);
    signer.replace(signer.ring().with_signing(&new)?);
    println!("the new key signs, the old cookie: {}", said(&signer.verify(token.expose())));
    signer.replace(signer.ring().without(old.id())?);
    println!("the old key is removed, the old cookie: {}", said(&signer.verify(token.expose())));

    // An application takes it from the database: `SessionManager::database_time`.
    let now = SystemTime::UNIX_EPOCH;
    let link = signer.sign_message(RESET, b"user 42", Duration::from_secs(15 * 60), now)?;
    let message = signer.verify_message(RESET, &link, now)?;
    println!("a link for 15 minutes says {:?}", String::from_utf8_lossy(&message));
    let other = Purpose::new("unsubscribe");
    println!("the same link for another purpose: {}", said(&signer.verify_message(other, &link, now)));

    let good = signer.issue(id, Version::FIRST);
    let bad = forged(&good);
    println!("verifying a good token: {} ns", nanos(|| signer.verify(good.expose()).is_ok()));
    println!("turning away a wrong signature: {} ns", nanos(|| signer.verify(&bad).is_ok()));
    println!("turning away a removed key: {} ns", nanos(|| signer.verify(token.expose()).is_ok()));
    println!("verifying a message: {} ns", nanos(|| signer.verify_message(RESET, &link, now).is_ok()));
    Ok(())
}

/// The same token with another last character, which is part of the signature.
fn forged(token: &SessionToken) -> String {
    let (head, last) = token.expose().split_at(token.expose().len() - 1);
    format!("{head}{}", if last == "A" { "B" } else { "A" })
}

fn said<T, E: std::fmt::Debug>(outcome: &Result<T, E>) -> String {
    outcome.as_ref().map_or_else(|rejected| format!("{rejected:?}"), |_| "accepted".to_owned())
}

/// The mean of many rounds.
#[allow(clippy::disallowed_methods, reason = "a stopwatch decides nothing about sessions")]
fn nanos(mut round: impl FnMut() -> bool) -> u128 {
    const ROUNDS: u32 = 20_000;
    let start = Instant::now();
    for _ in 0..ROUNDS {
        black_box(round());
    }
    start.elapsed().as_nanos() / u128::from(ROUNDS)
}
