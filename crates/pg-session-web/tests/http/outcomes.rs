//! How requests end when others, or the database, were in the way.

use std::time::Duration;

use pg_sandbox::Sandbox;

use super::browser::{Browser, Reply};
use super::world::{Site, eventually, in_time};

/// Of one browser, where they ask at the same time.
const TABS: usize = 8;

/// A request sets something ── the user logs out ── the request's save comes.
pub async fn slow_request_does_not_revive_logged_out_session(site: &Site) {
    let mut browser = site.browser();
    browser.page("/login/42").await;
    let mut slow = browser.tab();
    let writing = tokio::spawn(async move { (slow.get("/slow/cart/apples").await, slow) });
    site.gate.reached().await;
    assert_eq!(browser.page("/logout").await, "true");
    site.gate.open();
    let (reply, mut slow) = in_time("it returns", writing).await.expect("a reply");
    assert_eq!(reply.status, 409);
    assert!(reply.cookies().is_empty(), "the browser may have logged in again meanwhile");
    assert_eq!(site.rows().await, 0, "nothing came back");
    assert_eq!(slow.page("/user").await, "nobody");
    assert_eq!(slow.page("/get/cart").await, "none");

    let mut browser = site.browser_with(site.sessions().ignore_save_conflicts());
    browser.page("/login/42").await;
    let mut slow = browser.tab();
    let writing = tokio::spawn(async move { slow.get("/slow/cart/apples").await });
    site.gate.reached().await;
    browser.page("/logout").await;
    site.gate.open();
    let reply = in_time("it returns", writing).await.expect("a reply");
    assert_eq!((reply.status.as_u16(), reply.cookies().len()), (200, 0), "as it was set");
    assert_eq!(site.rows().await, 0, "nothing came back");
}

/// A request sets something ── the session reaches its limit ── the request's save comes.
pub async fn a_slow_request_does_not_revive_a_session_that_expired(site: &Site) {
    let mut browser = site.browser();
    browser.page("/login-for/2000/42").await;
    let mut slow = browser.tab();
    let writing = tokio::spawn(async move { (slow.get("/slow/cart/apples").await, slow) });
    site.gate.reached().await;
    let client = site.client().await;
    let ended = "SELECT expires_at <= clock_timestamp() FROM sessions";
    eventually("it ends", async || client.query_one(ended, &[]).await.expect("its row").get(0)).await;
    site.gate.open();
    let (reply, mut slow) = in_time("it returns", writing).await.expect("a reply");
    assert_eq!((reply.status.as_u16(), reply.cookies().len()), (409, 0), "as after a logout");
    assert_eq!(slow.page("/user").await, "nobody");
    assert_eq!(slow.page("/get/cart").await, "none");
    let row = client.query_one(ended, &[]).await.expect("its row");
    assert!(row.get::<_, bool>(0), "nothing prolonged it");
    let saved =
        client.query_one("SELECT attributes, has_overflow FROM sessions", &[]).await.expect("its attributes");
    let (in_the_row, elsewhere): (&str, bool) = (saved.get(0), saved.get(1));
    assert!(in_the_row.contains("pg-session/device"), "small ones stand in the session's row: {in_the_row}");
    assert!(!in_the_row.contains("cart") && !elsewhere, "nothing was written");
}

/// A time limit inside the layer has dropped the handler somewhere between two changes.
pub async fn a_handler_that_timed_out_saves_nothing(site: &Site) {
    let mut browser = site.browser();
    browser.page("/set/cart/pears").await;
    let reply = browser.get("/time-out/cart/apples").await;
    assert_eq!((reply.status.as_u16(), reply.cookies().len()), (408, 0));
    assert_eq!(browser.page("/get/cart").await, "pears");
}

/// The sentence, in a body whose type says that it is text.
fn sentence(reply: &Reply) -> &str {
    assert_eq!(reply.all("content-type"), ["text/plain; charset=utf-8"]);
    reply.body.trim_end()
}

pub async fn a_refusal_says_what_to_do(site: &Site) {
    let mut visitor = site.browser();
    let reply = visitor.get("/devices").await;
    assert_eq!((reply.status.as_u16(), sentence(&reply)), (401, "Not signed in. Log in first."));
    let reply = visitor.get("/pay").await;
    assert_eq!(reply.status, 403);
    assert!(sentence(&reply).contains("billing"), "{}", reply.body);
    let reply = visitor.get("/set/pg-session%2Fdevice/x").await;
    assert_eq!(
        (reply.status.as_u16(), sentence(&reply)),
        (500, "The session failed. The server's log says why.")
    );

    let json = site.sessions().on_refusal(|refusal| {
        refusal.content_type = "application/json".to_owned();
        refusal.body = format!("{{\"status\":{}}}", refusal.status);
    });
    for (sessions, body) in [
        (site.sessions(), "The session has ended, and nothing was saved. Log in again.\n"),
        (json, "{\"status\":409}"),
    ] {
        let mut browser = site.browser_with(sessions);
        browser.page("/login/42").await;
        let mut slow = browser.tab();
        let writing = tokio::spawn(async move { slow.get("/slow/cart/apples").await });
        site.gate.reached().await;
        browser.page("/logout").await;
        site.gate.open();
        let reply = in_time("it returns", writing).await.expect("a reply");
        assert_eq!((reply.status.as_u16(), reply.body.as_str()), (409, body));
        assert_eq!(reply.all("content-type").len(), 1);
        assert_eq!(reply.cache_control(), ["no-store"]);
    }
}

/// A handler that asks for a session, in an application without the layer.
pub async fn a_missing_layer_is_reported(addr: std::net::SocketAddr) {
    let reply = Browser::new(addr).get("/user").await;
    let expected = "No session layer is around this handler. Add it to the routes that use a session.";
    assert_eq!((reply.status.as_u16(), sentence(&reply)), (500, expected));
}

pub async fn a_failed_handler_saves_nothing(site: &Site) {
    let mut browser = site.browser();
    let reply = browser.get("/fail/cart/apples").await;
    assert_eq!((reply.status.as_u16(), reply.cookies().len()), (500, 0));
    assert_eq!(site.rows().await, 0);
    browser.page("/set/cart/pears").await;
    assert_eq!(browser.get("/fail/cart/apples").await.status, 500);
    assert_eq!(browser.page("/get/cart").await, "pears");
}

pub async fn a_conflict_is_reported_if_attributes_are_checked(site: &Site) {
    for (sessions, status, cart) in
        [(site.sessions(), 200, "slow"), (site.sessions().check_attributes(), 409, "quick")]
    {
        let mut browser = site.browser_with(sessions);
        browser.page("/set/cart/first").await;
        let mut slow = browser.tab();
        let writing = tokio::spawn(async move { slow.get("/slow/cart/slow").await });
        site.gate.reached().await;
        browser.page("/set/cart/quick").await;
        site.gate.open();
        let reply = in_time("it returns", writing).await.expect("a reply");
        assert_eq!(reply.status, status);
        assert_eq!(browser.page("/get/cart").await, cart);
    }
}

pub async fn unreachable_database_is_503_never_anonymous(site: &Site) {
    let sandbox = Sandbox::start().expect("a server of its own");
    let site = Site::on(&sandbox, site.edge()).await;
    let mut browser = site.browser();
    browser.page("/login/42").await;
    let mut visitor = site.browser();
    drop(sandbox);
    for path in ["/user", "/set/cart/apples", "/logout"] {
        // From memory for as long as the node is trusted, then not at all.
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        let reply = loop {
            let reply = browser.get(path).await;
            assert!(tokio::time::Instant::now() < deadline, "{path} is still answered");
            if reply.status != 200 {
                break reply;
            }
            assert_eq!(reply.body, "42", "{path}: an anonymous visitor, or a logout that did not happen");
        };
        assert_eq!(reply.status, 503, "{path}");
        assert!(reply.cookies().is_empty() && browser.token().is_some(), "{path}");
    }
    assert_eq!(visitor.page("/").await, "hello", "who has no session does not notice");
    assert_eq!(visitor.page("/get/cart").await, "none");
    assert_eq!(visitor.get("/set/cart/apples").await.status, 503, "not pretended");
}

pub async fn an_attribute_is_taken_once_and_counted_exactly(site: &Site) {
    let mut browser = site.browser();
    browser.page("/set/ticket/one").await;
    let taken = in_tabs(&browser, |_| "/take/ticket".to_owned()).await;
    assert_eq!(taken.iter().filter(|answer| *answer == "one").count(), 1, "{taken:?}");
    let mut counts: Vec<usize> =
        in_tabs(&browser, |_| "/count".to_owned()).await.iter().map(|n| n.parse().unwrap()).collect();
    counts.sort_unstable();
    assert_eq!(counts, (1..=TABS).collect::<Vec<_>>());
    // One that is not stored yet is counted in the session to be.
    let mut visitor = site.browser();
    assert_eq!(visitor.page("/count").await, "1");
    assert_eq!(visitor.page("/count").await, "2");
}

pub async fn of_many_that_insert_at_once_all_get_what_one_has_stored(site: &Site) {
    let mut browser = site.browser();
    browser.page("/set/cart/apples").await;
    let answers = in_tabs(&browser, |tab| format!("/keep/colour/{tab}")).await;
    let stored = browser.page("/get/colour").await;
    assert_eq!(answers, vec![stored.clone(); TABS]);
    assert_eq!(browser.page("/keep/colour/other").await, stored, "there is one");
    // Where there is none yet, the session begins with it.
    let mut visitor = site.browser();
    assert_eq!(visitor.page("/keep/colour/red").await, "red");
    assert_eq!(visitor.page("/keep/colour/blue").await, "red");
}

/// What tabs of one browser are answered that ask at the same time.
async fn in_tabs(browser: &Browser, path: impl Fn(usize) -> String) -> Vec<String> {
    let tabs: Vec<_> = (0..TABS)
        .map(|number| {
            let (mut tab, path) = (browser.tab(), path(number));
            tokio::spawn(async move { tab.page(&path).await })
        })
        .collect();
    let mut answers = Vec::new();
    for tab in tabs {
        answers.push(in_time("a tab ends", tab).await.expect("it is answered"));
    }
    answers
}

pub async fn a_message_is_shown_once(site: &Site) {
    let mut browser = site.browser();
    assert_eq!(browser.page("/flash").await, "none");
    browser.page("/flash/saved").await;
    assert_eq!(browser.page("/flash").await, "saved");
    assert_eq!(browser.page("/flash").await, "none");
    // What the library records, an application cannot write.
    assert_eq!(browser.get("/set/pg-session%2Fdevice/x").await.status, 500);
}

pub async fn an_attribute_of_another_type_is_an_error_of_that_key_only(site: &Site) {
    let mut browser = site.browser();
    browser.page("/login/42").await;
    browser.page("/set/n/text").await;
    assert_eq!(browser.get("/count").await.status, 500, "not a number");
    assert_eq!(browser.page("/get/n").await, "text", "it stays as it is");
    assert_eq!(browser.page("/user").await, "42", "and the session lives");
}
