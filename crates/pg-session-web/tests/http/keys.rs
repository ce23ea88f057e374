//! Keys that are exchanged while all nodes go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use pg_session::SigningKey;

use super::browser::Browser;
use super::world::{Site, eventually, in_time};

pub async fn key_rotation_logs_no_user_out_and_removed_key_rejects(site: &Site) {
    const BROWSERS: i64 = 8;
    let addr = site.serve(site.sessions());
    let done = Arc::new(AtomicBool::new(false));
    let mut browsers = Vec::new();
    for user in 0..BROWSERS {
        let mut browser = Browser::new(addr);
        browser.page(&format!("/login/{user}")).await;
        let first = browser.token().expect("signed in").to_owned();
        let turns = Arc::new(AtomicU64::new(0));
        let going = tokio::spawn(go_on(browser, user, Arc::clone(&turns), Arc::clone(&done)));
        browsers.push((first, turns, going));
    }
    // Each of them makes as many requests.
    let rounds = async |count: u64| {
        for (_, turns, _) in &browsers {
            let until = turns.load(Ordering::Relaxed) + count;
            eventually("the browsers go on", async || turns.load(Ordering::Relaxed) >= until).await;
        }
    };
    rounds(5).await;
    let new = SigningKey::generate().expect("a key");
    let (signer, old) = (&site.signer, site.key.id());
    signer.replace(signer.ring().with_verifying(&new).expect("room"));
    rounds(5).await;
    signer.replace(signer.ring().with_signing(&new).expect("room"));
    // Reading is enough to get a token of the new key.
    rounds(5).await;
    signer.replace(signer.ring().without(old).expect("it does not sign"));
    for (first, _, _) in &browsers {
        let mut old = Browser::new(addr);
        old.plant(first);
        assert_eq!(old.page("/user").await, "nobody", "at once");
    }
    rounds(5).await;
    done.store(true, Ordering::Relaxed);

    for (first, _, going) in browsers {
        in_time("it ends", going).await.expect("it was never logged out");
        let (mut old, before) = (Browser::new(addr), site.statements());
        old.plant(&first);
        assert_eq!(old.page("/user").await, "nobody", "a token of the old key");
        assert_eq!(site.statements(), before, "without a query");
    }
}

async fn go_on(mut browser: Browser, user: i64, turns: Arc<AtomicU64>, done: Arc<AtomicBool>) {
    while !done.load(Ordering::Relaxed) {
        assert_eq!(browser.page("/user").await, user.to_string(), "logged out");
        turns.fetch_add(1, Ordering::Relaxed);
    }
}
