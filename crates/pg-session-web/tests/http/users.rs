//! The application's own user, kept in memory with the session.

use std::collections::HashMap;
use std::io;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use pg_session::UserId;
use pg_session_web::SessionConfig;

use super::app::Account;
use super::world::Site;

/// The application's table of users, and how often it was asked.
#[derive(Default)]
struct Accounts {
    names: Mutex<HashMap<UserId, Result<&'static str, ()>>>,
    loads: AtomicU32,
}

impl Accounts {
    fn put(&self, user: i64, name: Result<&'static str, ()>) {
        self.names.lock().expect("no test panics with it").insert(user.into(), name);
    }

    fn load(&self, user: UserId) -> io::Result<Option<Account>> {
        self.loads.fetch_add(1, Ordering::Relaxed);
        match self.names.lock().expect("no test panics with it").get(&user) {
            Some(Ok(name)) => Ok(Some(Account { name: (*name).to_owned() })),
            Some(Err(())) => Err(io::Error::other("the table is locked")),
            None => Ok(None),
        }
    }

    /// Since the last call.
    fn loads(&self) -> u32 {
        self.loads.swap(0, Ordering::Relaxed)
    }
}

fn with(sessions: SessionConfig, accounts: &Arc<Accounts>) -> SessionConfig {
    let accounts = Arc::clone(accounts);
    sessions.load_user(move |user| {
        let loaded = accounts.load(user);
        async { loaded }
    })
}

pub async fn a_user_is_loaded_once_until_the_session_changes(site: &Site) {
    let accounts = Arc::new(Accounts::default());
    accounts.put(42, Ok("ann"));
    let mut browser = site.browser_with(with(site.sessions(), &accounts));
    assert_eq!(browser.page("/maybe-name").await, "nobody");
    assert_eq!(browser.get("/name").await.status, 401);
    browser.page("/login/42").await;
    assert_eq!(accounts.loads(), 0, "no handler asked");
    let statements = site.statements();
    for _ in 0..10 {
        assert_eq!(browser.page("/name").await, "ann");
        assert_eq!(browser.page("/maybe-name").await, "ann");
    }
    assert_eq!((accounts.loads(), site.statements()), (1, statements));
    browser.page("/set/cart/apples").await;
    assert_eq!(
        (browser.page("/name").await.as_str(), accounts.loads()),
        ("ann", 1),
        "the session has changed"
    );

    accounts.put(42, Ok("bob"));
    assert_eq!(browser.page("/name").await, "ann", "from memory");
    site.node.user(42).evict().await.expect("evicted");
    assert_eq!((browser.page("/name").await.as_str(), accounts.loads()), ("bob", 1));
    browser.page("/logout").await;
    assert_eq!(browser.get("/name").await.status, 401);
    assert_eq!(accounts.loads(), 0);
}

pub async fn a_user_who_cannot_be_loaded_is_no_visitor(site: &Site) {
    let accounts = Arc::new(Accounts::default());
    accounts.put(42, Err(()));
    let sessions = with(site.sessions().login_page("/login").expect("a path"), &accounts);
    let mut browser = site.browser_with(sessions);
    browser.page("/login/42").await;
    for path in ["/name", "/maybe-name"] {
        let reply = browser.get(path).await;
        let refusal = (reply.status.as_u16(), reply.body.as_str());
        assert_eq!(refusal, (503, "The user cannot be loaded at the moment. Try again soon.\n"), "{path}");
    }
    accounts.put(42, Ok("ann"));
    assert_eq!(browser.page("/name").await, "ann", "a failure is not kept");

    browser.page("/login/43").await;
    assert_eq!(browser.get("/name").await.status, 401, "the user does not exist any more");
    assert_eq!(browser.page("/maybe-name").await, "nobody");
    let mut without = site.browser();
    without.page("/login/42").await;
    assert_eq!(without.get("/name").await.status, 500, "there is no function");
}
