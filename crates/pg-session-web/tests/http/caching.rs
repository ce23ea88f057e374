//! What caches are told.

use super::world::Site;

pub async fn a_response_that_was_shaped_by_the_session_varies(site: &Site) {
    let mut browser = site.browser();
    assert!(browser.get("/").await.vary().is_empty(), "not looked at");
    assert_eq!(browser.get("/logout").await.vary(), ["cookie"], "there was none, and that is told");
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
    assert!(reply.cookies().is_empty() && reply.cache_control().is_empty(), "nothing to tell");
}

pub async fn a_public_response_carries_no_cookie_and_begins_no_session(site: &Site) {
    let mut browser = site.browser();
    let reply = browser.get("/public/cart/apples").await;
    assert!(reply.cookies().is_empty());
    assert_eq!(reply.cache_control(), ["public, max-age=60"]);
    assert_eq!(site.rows().await, 0, "nobody could ever use it");

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
