//! Guards: who reaches a page that needs a login, and where the others are sent.

use std::time::Duration;

use hyper::header::{ACCEPT, HeaderName};
use pg_sandbox::Sandbox;

use super::browser::{Browser, Reply};
use super::world::Site;

const FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// A browser that asks for pages.
fn navigating(mut browser: Browser) -> Browser {
    browser.headers.insert(FETCH_MODE, "navigate".parse().unwrap());
    browser
}

fn location(reply: &Reply) -> String {
    assert_eq!((reply.status.as_u16(), reply.cookies().len()), (303, 0), "{}", reply.body);
    reply.all("location").concat()
}

pub async fn a_visitor_is_sent_to_the_login_page_and_back(site: &Site) {
    let mut browser = navigating(site.browser_with(site.sessions().login_page("/login").expect("a path")));
    assert_eq!(
        location(&browser.get("/account?page=2&q=a%20b").await),
        "/login?next=/account%3Fpage%3D2%26q%3Da%2520b"
    );
    assert_eq!(location(&browser.request("HEAD", "/account").await), "/login?next=/account");
    // A path that a browser, or a script that resolves it, would take for another host is not kept.
    assert_eq!(location(&browser.get("//account").await), "/login");
    for path in ["/inside/./a", "/inside/..//evil.example", "/inside/%2e%2e//evil.example"] {
        assert_eq!(location(&browser.get(path).await), "/inside/login", "{path}");
    }
    browser.page("/login/42").await;
    assert_eq!(browser.page("/account").await, "42");
    browser.page("/logout").await;
    assert_eq!(location(&browser.get("/account").await), "/login?next=/account");
}

pub async fn scripts_and_forms_get_401_and_a_sentence(site: &Site) {
    let mut browser = site.browser_with(site.sessions().login_page("/login").expect("a path"));
    for (mode, accept, method, status) in [
        (Some("navigate"), None, "POST", 401),
        (Some("cors"), Some("text/html"), "GET", 401),
        (Some("same-origin"), None, "GET", 401),
        (None, Some("application/json"), "GET", 401),
        (None, None, "GET", 401),
        (None, Some("text/html,application/xhtml+xml"), "GET", 303),
    ] {
        browser.headers.remove(FETCH_MODE);
        browser.headers.remove(ACCEPT);
        mode.map(|mode| browser.headers.insert(FETCH_MODE, mode.parse().unwrap()));
        accept.map(|accept| browser.headers.insert(ACCEPT, accept.parse().unwrap()));
        for path in ["/account", "/inside/account"] {
            let reply = browser.request(method, path).await;
            assert_eq!(reply.status, status, "{mode:?} {accept:?} {method} {path}");
            if status == 401 {
                assert_eq!(reply.body, "Not signed in. Log in first.\n");
            }
        }
    }
    let mut without_page = navigating(site.browser());
    assert_eq!(without_page.get("/account").await.status, 401, "no login page is set");
}

/// `/inside` and everything below it is in the layer.
pub async fn a_guarded_router_lets_only_users_in(site: &Site) {
    let mut browser = navigating(site.browser());
    assert_eq!(
        location(&browser.get("/inside/get/cart?a=b").await),
        "/inside/login?next=/inside/get/cart%3Fa%3Db"
    );
    assert_eq!(browser.request("POST", "/inside/set/cart/apples").await.status, 401);
    assert_eq!(site.rows().await, 0, "the handler was not reached");
    for page in ["/inside/login", "/inside/login?next=/a", "/inside/login/"] {
        assert_eq!(browser.get(page).await.status, 404, "the login page itself passes: {page}");
    }
    for page in ["/inside/login//", "/inside/login/a", "/inside/login.", "/inside/Login"] {
        assert_eq!(browser.get(page).await.status, 303, "{page}");
    }
    browser.page("/login/42").await;
    assert_eq!(browser.page("/inside/user").await, "42");
    browser.page("/logout-everywhere").await;
    assert_eq!(location(&browser.get("/inside/user").await), "/inside/login?next=/inside/user");
}

pub async fn an_optional_user_may_be_a_visitor(site: &Site) {
    let mut browser = site.browser();
    assert_eq!(browser.page("/maybe").await, "nobody");
    browser.page("/set/cart/apples").await;
    assert_eq!(browser.page("/maybe").await, "nobody", "a session without a user");
    browser.page("/login/42").await;
    assert_eq!(browser.page("/maybe").await, "42");
}

pub async fn a_user_is_no_visitor_when_the_database_is_away(site: &Site) {
    let sandbox = Sandbox::start().expect("a server of its own");
    let site = Site::on(&sandbox, site.edge()).await;
    let mut browser = navigating(site.browser_with(site.sessions().login_page("/login").expect("a path")));
    browser.page("/login/42").await;
    drop(sandbox);
    for path in ["/maybe", "/account", "/inside/user"] {
        // From memory for as long as the node is trusted, then not at all.
        let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
        let reply = loop {
            let reply = browser.get(path).await;
            assert!(tokio::time::Instant::now() < deadline, "{path} is still answered");
            if reply.status != 200 {
                break reply;
            }
            assert_eq!(reply.body, "42", "{path}");
        };
        assert_eq!((reply.status.as_u16(), reply.cookies().len()), (503, 0), "{path}: {}", reply.body);
        assert!(reply.body.contains("Try again soon"), "{path}: {}", reply.body);
    }
}

pub async fn a_step_up_keeps_the_page(site: &Site) {
    let sessions =
        site.sessions().login_page("/login").expect("a path").step_up_page("/sudo").expect("a path");
    let mut browser = navigating(site.browser_with(sessions));
    assert_eq!(location(&browser.get("/pay?bill=7").await), "/login?next=/pay%3Fbill%3D7", "first a login");
    browser.page("/login/42").await;
    assert_eq!(location(&browser.get("/pay?bill=7").await), "/sudo?privilege=billing&next=/pay%3Fbill%3D7");
    assert_eq!(browser.request("POST", "/pay").await.status, 403);
    browser.page("/elevate").await;
    assert_eq!(browser.page("/pay").await, "paid");
}

pub async fn every_refusal_is_the_applications_to_word(site: &Site) {
    let sessions = site.sessions().on_refusal(|refusal| {
        refusal.content_type = "application/json".to_owned();
        refusal.body = format!("{{\"status\":{}}}", refusal.status);
    });
    let mut browser = site.browser_with(sessions);
    for (path, status) in [
        ("/account", 401),
        ("/inside/user", 401),
        ("/devices", 401),
        ("/pay", 403),
        ("/csrf-check/wrong", 403),
        ("/set/pg-session%2Fdevice/x", 500),
    ] {
        let reply = browser.get(path).await;
        assert_eq!(
            (reply.status.as_u16(), reply.body.clone()),
            (status, format!("{{\"status\":{status}}}")),
            "{path}"
        );
        assert_eq!(reply.headers["content-type"], "application/json", "{path}");
        assert_eq!(reply.all("content-type").len(), 1, "{path}");
    }
    let reply = browser.get("/pay").await;
    assert_eq!(reply.all("session-step-up"), ["billing"], "other headers stay");
    // What a handler refuses by itself is not touched.
    assert_eq!(browser.get("/no/such/page").await.body, "no such page");
}
