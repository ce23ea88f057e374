//! Requests that other sites cause.

use hyper::header::{HeaderName, ORIGIN};
use pg_session_web::CookiePolicy;

use super::browser::{Browser, Reply};
use super::world::Site;

const UNSAFE: [&str; 5] = ["POST", "PUT", "PATCH", "DELETE", "PROPFIND"];

/// As a page of another site sends it.
fn mark(browser: &mut Browser, site: Option<&str>, origin: Option<&str>) {
    for (name, value) in [(HeaderName::from_static("sec-fetch-site"), site), (ORIGIN, origin)] {
        browser.headers.remove(&name);
        if let Some(value) = value {
            browser.headers.insert(name, value.parse().expect("a header"));
        }
    }
}

fn is_refused(reply: &Reply) -> bool {
    if reply.status != 403 {
        assert_eq!(reply.status, 200, "{}", reply.body);
        return false;
    }
    assert!(reply.body.starts_with("Another site has sent this request"), "{}", reply.body);
    assert!(reply.cookies().is_empty());
    true
}

pub async fn another_sites_form_changes_nothing(site: &Site) {
    let mut victim = site.browser();
    victim.page("/login/42").await;
    victim.page("/set/cart/apples").await;
    // A browser keeps a Lax cookie back, but not from a page of the same site.
    let mut form = Browser::new(victim.addr());
    let mut sibling = victim.tab();
    for method in UNSAFE {
        for (site, origin) in [
            (Some("cross-site"), None),
            (Some("cross-site"), Some("https://localhost")),
            (Some("same-site"), Some("https://other.localhost")),
            (None, Some("https://evil.example")),
            (None, Some("null")),
        ] {
            for browser in [&mut form, &mut sibling] {
                mark(browser, site, origin);
                for path in ["/set/cart/poison", "/logout", "/login/6", "/elevate", "/nested/set/cart/poison"]
                {
                    let reply = browser.request(method, path).await;
                    assert!(is_refused(&reply), "{method} {path} {site:?} {origin:?}");
                }
            }
        }
        for (site, origin) in [
            (Some("same-origin"), Some("https://localhost")),
            (Some("none"), None),
            (None, Some("https://localhost")),
            (None, None),
        ] {
            let mut own = victim.tab();
            mark(&mut own, site, origin);
            assert!(!is_refused(&own.request(method, "/user").await), "{method} {site:?} {origin:?}");
        }
    }
    assert_eq!((victim.page("/user").await, victim.page("/get/cart").await), ("42".into(), "apples".into()));
    assert_eq!(site.rows().await, 1, "no session was begun");
    // A link from another site opens a page, and a preflight is for the application to answer.
    mark(&mut victim, Some("cross-site"), None);
    assert_eq!(victim.page("/user").await, "42");
    for method in ["HEAD", "OPTIONS"] {
        assert!(!is_refused(&victim.request(method, "/user").await), "{method}");
    }
    // A WebSocket of another site does not open.
    victim.headers.insert("upgrade", "websocket".parse().expect("a header"));
    assert!(is_refused(&victim.get("/user").await));
}

pub async fn cross_site_requests_are_accepted_where_it_was_asked_for(site: &Site) {
    let own = site.sessions();
    let trusted = own.clone().trusted_origins(["https://app.example"]).expect("an origin");
    let json = own.clone().on_refusal(|refusal| refusal.body = format!("{{\"status\":{}}}", refusal.status));
    for (sessions, path, accepted) in [
        (own.clone().accept_cross_site_at(["/callback", "/user"]), "/user", true),
        (own.clone().accept_cross_site_at(["/callback"]), "/user", false),
        // An empty setting is no path.
        (own.clone().accept_cross_site_at(["", "user"]), "/user", false),
        (trusted, "/user", true),
        (own.clone().insecure_accept_cross_site(), "/user", true),
        (own.clone().bearer_tokens(), "/user", true),
    ] {
        let mut browser = site.browser_with(sessions);
        mark(&mut browser, Some("cross-site"), Some("https://app.example"));
        assert_eq!(is_refused(&browser.request("POST", path).await), !accepted);
    }
    let mut browser = site.browser_with(json);
    mark(&mut browser, Some("cross-site"), None);
    let reply = browser.request("POST", "/user").await;
    assert_eq!((reply.status.as_u16(), reply.body.as_str()), (403, "{\"status\":403}"));
}

/// The browser keeps the victim's cookie back. A session that began here would take its place.
pub async fn an_accepted_cross_site_request_replaces_no_session(site: &Site) {
    let accepting = site.sessions().insecure_accept_cross_site();
    let mut form = site.browser_with(accepting.clone());
    mark(&mut form, Some("cross-site"), None);
    let reply = form.request("POST", "/set/cart/poison").await;
    assert_eq!((reply.status.as_u16(), reply.cookies().len(), site.rows().await), (200, 0, 0));
    assert_eq!(form.request("POST", "/csrf").await.status, 403);
    let reply = form.request("POST", "/login/42").await;
    assert_eq!((reply.status.as_u16(), reply.cookies().len()), (200, 1), "a callback may sign in");
    assert_eq!(form.page("/user").await, "42");
    let reply = form.request("POST", "/set/cart/apples").await;
    assert_eq!((reply.status.as_u16(), reply.cookies().len()), (200, 1), "nothing was kept back");

    let cookie = CookiePolicy::default().same_site_strict();
    let mut link = site.browser_with(accepting.cookie(cookie));
    mark(&mut link, Some("cross-site"), None);
    assert!(link.get("/set/cart/apples").await.cookies().is_empty(), "Strict is kept back from links, too");
    mark(&mut link, Some("none"), None);
    assert_eq!(link.get("/set/cart/apples").await.cookies().len(), 1);
}

pub async fn a_form_token_belongs_to_one_session_and_id(site: &Site) {
    let mut browser = site.browser();
    let token = browser.page("/csrf").await;
    assert_eq!(site.rows().await, 1, "a visitor gets a session");
    assert_eq!(browser.page("/csrf").await, token, "the same until a rotation");
    let check = async |browser: &mut Browser, token: &str| {
        let reply = browser.request("POST", &format!("/csrf-check/{token}")).await;
        assert!(
            reply.status == 200 || reply.body.starts_with("The form is not of this session"),
            "{}",
            reply.body
        );
        reply.status.as_u16()
    };
    assert_eq!(check(&mut browser, &token).await, 200);
    let id = site.signer.verify(browser.token().expect("a session")).expect("authentic").id.expose();
    assert!(!token.contains(&id.simple().to_string()));
    browser.page("/set/cart/apples").await;
    assert_eq!(check(&mut browser, &token).await, 200, "a change is no rotation");
    for path in ["/login/42", "/elevate"] {
        let before = browser.page("/csrf").await;
        browser.page(path).await;
        assert_eq!(check(&mut browser, &before).await, 403, "{path}");
        let after = browser.page("/csrf").await;
        assert_eq!(check(&mut browser, &after).await, 200, "{path}");
    }
    let own = browser.page("/csrf").await;
    let mut other = site.browser();
    other.page("/login/43").await;
    for wrong in [own.as_str(), "x", &own[1..], browser.token().expect("signed in")] {
        assert_eq!(check(&mut other, wrong).await, 403, "{wrong}");
    }
    assert_eq!(check(&mut site.browser(), &own).await, 403, "a visitor");
    let mut bearer = site.browser_with(site.sessions().bearer_tokens());
    assert_eq!(check(&mut bearer, "x").await, 200, "exempt");
}
