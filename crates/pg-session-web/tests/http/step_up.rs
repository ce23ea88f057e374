//! Privileges that have to be earned again.

use super::world::{Site, eventually};

pub async fn a_privilege_is_demanded_given_under_a_new_id_and_ends(site: &Site) {
    let paged = site.sessions().step_up_page("/confirm").expect("a path");
    let paged = site.serve(paged);
    let mut browser = site.browser();
    let reply = browser.get("/pay").await;
    assert_eq!((reply.status.as_u16(), reply.all("session-step-up")), (403, vec!["billing".to_owned()]));
    assert_eq!(reply.body, "A step-up to \"billing\" is needed. Prove who you are, then try again.\n");
    assert_eq!(browser.get("/elevate").await.status, 401, "no user is signed in");
    browser.page("/login/42").await;
    browser.page("/set/cart/apples").await;
    assert_eq!(browser.get("/pay").await.status, 403);
    let reply = browser.tab_at(paged).get("/pay").await;
    assert_eq!(
        (reply.status.as_u16(), reply.all("location")),
        (303, vec!["/confirm?privilege=billing".to_owned()])
    );
    let cookie = format!("{}={}", super::browser::COOKIE_NAME, browser.token().expect("signed in"));
    assert_eq!(browser.tab_at(paged).send("POST", "/pay", &[cookie]).await.status, 403, "not a page");

    let mut before = browser.tab();
    assert_eq!(browser.page("/elevate").await, "elevated");
    assert_ne!(browser.token(), before.token());
    assert_eq!(browser.page("/pay").await, "paid");
    assert_eq!(browser.page("/get/cart").await, "apples");
    assert_eq!(before.get("/pay").await.status, 403, "the old id did not get it");
    browser.page("/lower").await;
    assert_eq!(browser.get("/pay").await.status, 403);

    browser.page("/elevate-for/3000").await;
    assert_eq!(browser.page("/pay").await, "paid");
    eventually("it ends by itself", async || browser.get("/pay").await.status == 403).await;
    assert_eq!(browser.page("/user").await, "42", "and nothing else does");

    browser.page("/elevate").await;
    browser.page("/login/43").await;
    assert_eq!(browser.get("/pay").await.status, 403, "another user");
}
