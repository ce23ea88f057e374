//! Cookies of sessions that have ended.

use std::time::Duration;

use hyper::header::HeaderName;

use super::browser::Browser;
use super::world::{Site, in_time};

/// A browser that is signed in since before any grace.
async fn signed_in_long_ago(site: &Site) -> Browser {
    let mut browser = site.browser();
    browser.page("/login/42").await;
    let token = site.signer.verify(browser.token().expect("signed in")).expect("authentic");
    let long_ago = site.node.database_time() - Duration::from_secs(600);
    browser.plant(site.signer.issue_at(token.id, token.version, long_ago).expose());
    browser
}

async fn delete(site: &Site, browser: &Browser) {
    let token = site.signer.verify(browser.token().expect("signed in")).expect("authentic");
    assert!(site.node.delete(token.id).await.expect("it is deleted"));
}

pub async fn an_old_cookie_of_an_ended_session_is_removed(site: &Site) {
    let mut browser = signed_in_long_ago(site).await;
    delete(site, &browser).await;
    assert!(browser.get("/").await.cookies().is_empty(), "the session was not read");
    let reply = browser.tab().get("/cached/2/get/cart").await;
    assert!(reply.cookies().is_empty(), "the client may store it");
    let mut script = browser.tab();
    script.headers.insert(HeaderName::from_static("sec-fetch-mode"), "cors".parse().unwrap());
    assert!(script.get("/user").await.cookies().is_empty(), "it may run beside a login");
    let reply = browser.get("/user").await;
    assert_eq!((reply.body.as_str(), reply.cookies().len()), ("nobody", 1));
    assert_eq!((browser.token(), reply.cache_control()), (None, vec!["no-store".to_owned()]));

    let mut recent = site.browser();
    recent.page("/login/42").await;
    delete(site, &recent).await;
    assert!(recent.get("/user").await.cookies().is_empty(), "a grace may not be over");
    let mut alive = signed_in_long_ago(site).await;
    assert_eq!(alive.page("/user").await, "42");
    assert!(alive.token().is_some());
}

/// A request comes with the old session ── the user logs in, or logs out and in ── the request finds the session gone.
pub async fn a_request_beside_a_login_does_not_remove_the_cookie(site: &Site) {
    for logs_out in [false, true] {
        let mut browser = signed_in_long_ago(site).await;
        if !logs_out {
            delete(site, &browser).await;
        }
        let mut slow = browser.tab();
        let reading = tokio::spawn(async move { slow.get("/late-get/cart").await });
        site.gate.reached().await;
        if logs_out {
            assert_eq!(browser.page("/logout").await, "true");
        }
        browser.page("/login/42").await;
        site.gate.open();
        let reply = in_time("it returns", reading).await.expect("a reply");
        assert_eq!((reply.body.as_str(), reply.cookies().len()), ("none", 0), "logs out: {logs_out}");
        assert_eq!(browser.page("/user").await, "42");
    }
}
