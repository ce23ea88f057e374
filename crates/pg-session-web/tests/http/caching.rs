//! Cache headers.

use pg_session::SigningKey;
use pg_session_web::{CacheScope, is_cache_header};

use super::app::CACHE_HEADERS;
use super::browser::Reply;
use super::world::Site;

fn scope(reply: &Reply) -> CacheScope {
    CacheScope::from_cache_control(
        reply.headers.iter().map(|(name, value)| (name.as_str(), value.as_bytes())),
    )
}

/// The response's headers for caches, as the handler wrote them.
fn unchanged(reply: &Reply, headers: &[(&str, &str)]) -> bool {
    let found = reply.headers.iter();
    let found = found.filter(|(name, value)| is_cache_header(name.as_str(), value.as_bytes())).count();
    let written = headers.iter().filter(|(name, value)| is_cache_header(name, value.as_bytes()));
    found == written.clone().count() && written.clone().all(|(name, value)| reply.all(name) == [*value])
}

/// Whatever a handler says, nothing that stores the response goes with a token.
pub async fn no_cache_may_store_a_token(site: &Site) {
    // What is done, and whether the client can do without the token.
    for (path, optional) in
        [("login/42", false), ("set/cart/pears", true), ("elevate", false), ("logout", false)]
    {
        for (number, headers) in CACHE_HEADERS.iter().enumerate() {
            let mut browser = site.browser();
            browser.page("/login/41").await;
            let reply = browser.get(&format!("/cached/{number}/{path}")).await;
            let case = format!("{path} {headers:?}");
            let shared =
                CacheScope::from_cache_control(headers.iter().map(|&(name, value)| (name, value.as_bytes())))
                    == CacheScope::Shared;
            assert_eq!(reply.cookies().is_empty(), optional && shared, "{case}");
            if reply.cookies().is_empty() {
                assert!(unchanged(&reply, headers), "{case}: {:?}", reply.headers);
            } else {
                assert_eq!(
                    (scope(&reply), reply.cache_control()),
                    (CacheScope::Never, vec!["no-store".to_owned()]),
                    "{case}"
                );
                assert!(unchanged(&reply, &[("cache-control", "no-store")]), "{case}: {:?}", reply.headers);
            }
        }
    }
}

pub async fn a_read_after_a_key_rotation_keeps_its_cache_headers(site: &Site) {
    let mut browser = site.browser();
    browser.page("/login/42").await;
    let new = SigningKey::generate().expect("a key");
    site.signer.replace(site.signer.ring().with_signing(&new).expect("room"));
    for (number, headers) in CACHE_HEADERS.iter().enumerate().skip(2) {
        let reply = browser.get(&format!("/cached/{number}/get/cart")).await;
        assert!(reply.cookies().is_empty() && unchanged(&reply, headers), "{headers:?}: {:?}", reply.headers);
    }
    assert_eq!(browser.get("/get/cart").await.cookies().len(), 1, "it is sent where it costs nothing");
    assert!(browser.get("/get/cart").await.cookies().is_empty(), "once");
}

pub async fn signed_in_pages_are_no_store_unless_handler_overrides(site: &Site) {
    let mut browser = site.browser();
    browser.page("/set/cart/apples").await;
    assert!(browser.get("/get/cart").await.cache_control().is_empty(), "a visitor's page");
    browser.page("/login/42").await;
    assert_eq!(browser.get("/get/cart").await.cache_control(), ["private, no-cache"]);
    assert!(browser.get("/").await.cache_control().is_empty(), "it did not read the session");
    for (number, headers) in CACHE_HEADERS.iter().enumerate().skip(1) {
        let reply = browser.get(&format!("/cached/{number}/get/cart")).await;
        assert!(unchanged(&reply, headers), "{headers:?}: {:?}", reply.headers);
    }
    let reply = browser.get("/no-transform/get/cart").await;
    assert_eq!(reply.cache_control(), ["no-transform", "private, no-cache"], "that says nothing of caches");
    let mut strict = browser.tab_at(site.serve(site.sessions().never_store_signed_in_pages()));
    assert_eq!(strict.get("/get/cart").await.cache_control(), ["no-store"]);
}

pub async fn a_response_that_was_shaped_by_the_session_varies(site: &Site) {
    let mut browser = site.browser();
    assert!(browser.get("/").await.vary().is_empty(), "not looked at");
    assert_eq!(
        browser.get("/logout").await.vary(),
        ["cookie"],
        "there was no session, and the response depends on that"
    );
    for path in ["/get/cart", "/set/cart/apples", "/get/cart", "/logout"] {
        assert_eq!(browser.get(path).await.vary(), ["cookie"], "{path}");
    }
}

pub async fn every_cookie_goes_with_no_store(site: &Site) {
    let mut browser = site.browser();
    // A new session, a newer version, a new id, a privilege, a logout.
    for path in ["/set/cart/apples", "/set/cart/pears", "/login/42", "/elevate", "/logout"] {
        let reply = browser.get(path).await;
        assert_eq!(reply.cookies().len(), 1, "{path}");
        assert_eq!(reply.cache_control(), ["no-store"], "{path}");
    }
    let reply = browser.get("/get/cart").await;
    assert!(reply.cookies().is_empty() && reply.cache_control().is_empty(), "signed out, nothing to tell");
}

pub async fn a_public_response_carries_no_cookie_and_begins_no_session(site: &Site) {
    let mut browser = site.browser();
    let reply = browser.get("/public/cart/apples").await;
    assert!(reply.cookies().is_empty());
    assert_eq!(reply.cache_control(), ["public, max-age=60"]);
    assert_eq!(site.rows().await, 0, "no request could ever use it");

    browser.page("/set/cart/apples").await;
    let reply = browser.get("/public/cart/pears").await;
    assert!(reply.cookies().is_empty());
    assert_eq!(reply.cache_control(), ["public, max-age=60"]);
    assert_eq!(browser.page("/get/cart").await, "pears", "saved all the same");
}

pub async fn a_login_makes_a_public_response_private(site: &Site) {
    let mut browser = site.browser();
    let reply = browser.get("/public-login/42").await;
    assert_eq!(reply.cookies().len(), 1, "without it the login would be lost");
    assert_eq!(reply.cache_control(), ["no-store"], "the mark is gone, so that no cache keeps the cookie");
    assert_eq!(browser.page("/user").await, "42");
}
