//! What the log says to who runs the application.

use hyper::header::HeaderName;

use crate::captured_logs::{self, CapturedLogs};
use crate::edge;
use crate::http::world::Site;

const SETTING: &str = "insecure_without_tls";

/// Begins sessions for clients that send no cookie; what the log says of it.
async fn visits(site: &Site, proto: Option<&str>, keeps_cookies: bool, secure: bool) -> String {
    let logged = CapturedLogs::default();
    let _listening = logged.listen();
    let sessions = site.sessions();
    let cookie = pg_session_web::CookiePolicy::default();
    let addr = site.serve(if secure { sessions } else { sessions.cookie(cookie.insecure_without_tls()) });
    let mut browser = crate::http::browser::Browser::new(addr);
    if let Some(proto) = proto {
        browser.headers.insert(HeaderName::from_static("x-forwarded-proto"), proto.parse().unwrap());
    }
    for _ in 0..10 {
        browser.page("/set/cart/apples").await;
        if !keeps_cookies {
            browser.jar.clear();
        }
    }
    logged.text()
}

/// On one thread, so that this test's subscriber receives every event.
#[tokio::test]
async fn a_secure_cookie_that_never_comes_back_is_warned_about_once() {
    captured_logs::init();
    let site = Site::new(edge::serve).await;
    assert_eq!(visits(&site, None, false, true).await.matches(SETTING).count(), 1);
    assert_eq!(visits(&site, Some("http"), false, true).await.matches(SETTING).count(), 1);
    for (proto, keeps_cookies, secure) in
        [(Some("https"), false, true), (None, true, true), (None, false, false)]
    {
        let log = visits(&site, proto, keeps_cookies, secure).await;
        assert!(!log.contains(SETTING), "{proto:?} {keeps_cookies} {secure}");
    }
}

#[tokio::test]
async fn a_cookie_that_browsers_drop_is_warned_about() {
    captured_logs::init();
    let site = Site::new(edge::serve).await;
    let cookie = pg_session_web::CookiePolicy::default();
    let dropped = [
        cookie.clone().insecure_without_tls().insecure_cross_site(),
        cookie.clone().insecure_cross_site().insecure_without_tls(),
    ];
    let kept = [
        cookie.clone().insecure_cross_site(),
        cookie.clone().insecure_without_tls(),
        cookie.insecure_cross_site().insecure_without_tls().same_site_strict(),
    ];
    for (policies, expected) in [(&dropped[..], true), (&kept[..], false)] {
        for policy in policies {
            let logged = CapturedLogs::default();
            let _listening = logged.listen();
            let _sessions = site.sessions().cookie(policy.clone());
            assert_eq!(logged.text().contains("leave out `insecure_cross_site`"), expected, "{policy:?}");
        }
    }
}

#[tokio::test]
async fn a_missing_layer_is_reported() {
    captured_logs::init();
    let logged = CapturedLogs::default();
    let _listening = logged.listen();
    crate::http::outcomes::a_missing_layer_is_reported(edge::serve_without_layer()).await;
    assert!(logged.text().contains("no session layer is around this handler"), "{}", logged.text());
}
