//! A development key: what it serves, and what it refuses.

use pg_session_web::SessionConfig;

use super::world::Site;

pub async fn a_development_key_serves_only_localhost(site: &Site) {
    let sessions = || SessionConfig::development(site.node.clone()).expect("random numbers");
    let mut browser = site.browser_with(sessions());
    browser.page("/set/cart/apples").await;
    assert_eq!(browser.page("/get/cart").await, "apples");
    assert_eq!(browser.tab_at(site.serve(sessions())).page("/get/cart").await, "none", "another key");

    let rows = site.rows().await;
    for (name, value) in
        [("x-forwarded-for", "203.0.113.9"), ("x-real-ip", "203.0.113.9"), ("host", "shop.example")]
    {
        let mut elsewhere = browser.tab();
        elsewhere.headers.insert(name, value.parse().expect("a value"));
        for path in ["/get/cart", "/set/cart/pears", "/login/42"] {
            let reply = elsewhere.get(path).await;
            assert_eq!((reply.status.as_u16(), reply.cookies().len()), (500, 0), "{name} {path}");
            assert!(reply.body.contains("Set SESSION_KEY to the output of `openssl"), "{}", reply.body);
        }
    }
    assert_eq!((site.rows().await, browser.page("/get/cart").await.as_str()), (rows, "apples"));
}
