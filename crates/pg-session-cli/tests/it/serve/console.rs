//! The console: who gets in, what other sites can do, and how an operator uses it in a browser.

use std::time::Instant;

use hyper::{Method, StatusCode};
use pg_sandbox::Proxy;
use pg_session::{SessionManager, UserId};

use super::api::TOKEN;
use super::server::{Answer, Application, Headers, Server};
use crate::support::{POLL_INTERVAL, WAIT_MAX};
use crate::web::chromium::Driver;
use crate::web::in_a_browser::keep;

const ADMIN: [(&str, &str); 1] = [("PG_SESSION_ADMIN_TOKEN", TOKEN)];
const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
const REVOKE: &str = "/console/revocations";
/// The key `Enter` in the WebDriver protocol.
const ENTER: char = '\u{e007}';

/// Signs in; returns the cookie.
async fn sign_in(server: &Server) -> String {
    let answer = server.send(Method::POST, "/console/sign-in", &[FORM], &format!("token={TOKEN}")).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{answer:?}");
    let cookie = answer.header("set-cookie").expect("a cookie");
    for part in ["HttpOnly", "SameSite=Strict", "Path=/console"] {
        assert!(cookie.contains(part), "{cookie}");
    }
    assert!(!cookie.contains(TOKEN), "{cookie}");
    cookie.split(';').next().unwrap_or_default().to_owned()
}

async fn open(server: &Server, cookie: &str, path: &str) -> Answer {
    server.send(Method::GET, path, &[("cookie", cookie)], "").await
}

/// The token that the forms of a page have.
fn form_token(page: &Answer) -> String {
    let (_, rest) = page.body.split_once("name=\"form_token\" value=\"").expect("a form");
    rest.split('"').next().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn the_console_opens_with_the_token_on_known_hosts_only() {
    let app = Application::start("console").await;
    let server = app.serve_with(&["--console", "--console-host", "ops.example"], &ADMIN);
    for (path, sign_in) in [
        ("/console", "/console/sign-in"),
        ("/console/cluster", "/console/sign-in"),
        ("/console/sessions?user=1", "/console/sign-in?to=/sessions%3Fuser%3D1"),
        ("/console/health", "/console/sign-in?to=/health"),
    ] {
        let answer = server.get(path).await;
        assert_eq!(
            (answer.status, answer.header("location")),
            (StatusCode::SEE_OTHER, Some(sign_in)),
            "{path}"
        );
    }
    assert_eq!(server.get("/console/stream?page=cluster").await.status, StatusCode::UNAUTHORIZED);
    for body in ["", "token=", "token=wrong", "other=1"] {
        let answer = server.send(Method::POST, "/console/sign-in", &[FORM], body).await;
        assert_eq!((answer.status, answer.header("set-cookie")), (StatusCode::UNAUTHORIZED, None), "{body}");
    }
    let cookie = sign_in(&server).await;
    for path in
        ["/console/cluster", "/console/sessions", "/console/events", "/console/locks", "/console/health"]
    {
        let page = open(&server, &cookie, path).await;
        assert_eq!(page.status, StatusCode::OK, "{path}: {page:?}");
        let policy = page.header("content-security-policy").expect("a policy");
        assert!(policy.starts_with("default-src 'none'; script-src 'self';"), "{policy}");
        assert!(!policy.contains("unsafe") && policy.contains("frame-ancestors 'none'"), "{policy}");
        assert!(
            !page.body.contains("<script>")
                && !page.body.contains(" style=")
                && !page.body.contains(" onclick=")
        );
        assert_eq!(page.header("cache-control"), Some("no-store"));
        assert!(!page.body.contains(TOKEN));
        for (host, status) in [
            ("ops.example", StatusCode::OK),
            ("localhost:1", StatusCode::OK),
            ("evil.example", StatusCode::MISDIRECTED_REQUEST),
        ] {
            let headers = [("cookie", cookie.as_str()), ("host", host)];
            assert_eq!(server.send(Method::GET, path, &headers, "").await.status, status, "{host}{path}");
        }
    }
    let forged = cookie.replace('=', "=x");
    assert_eq!(open(&server, &forged, "/console/cluster").await.status, StatusCode::SEE_OTHER);
    let out = server.send(Method::POST, "/console/sign-out", &[("cookie", &cookie)], "").await;
    assert_eq!(out.status, StatusCode::SEE_OTHER);
    assert_eq!(open(&server, &cookie, "/console/cluster").await.status, StatusCode::SEE_OTHER);
    server.stop();
}

#[tokio::test]
async fn a_sign_in_leads_to_the_page_that_was_asked_for() {
    let app = Application::start("console_link").await;
    let server = app.serve_with(&["--console"], &ADMIN);
    let form = server.get("/console/sign-in?to=/sessions%3Fuser%3D42").await;
    assert!(form.body.contains(r#"name="to" value="/sessions?user=42""#), "{form:?}");
    let foreign = server.get("/console/sign-in?to=//evil.example").await;
    assert!(foreign.status == StatusCode::OK && !foreign.body.contains("evil"), "{foreign:?}");
    for (to, page) in [
        ("%2Fsessions%3Fuser%3D42", "/console/sessions?user=42"),
        ("%2Flocks", "/console/locks"),
        ("%2F%2Fevil.example", "/console/cluster"),
        ("https%3A%2F%2Fevil.example", "/console/cluster"),
        ("%2Flocks%0D%0Aset-cookie%3A%20a%3Db", "/console/cluster"),
        ("", "/console/cluster"),
    ] {
        let body = format!("token={TOKEN}&to={to}");
        let answer = server.send(Method::POST, "/console/sign-in", &[FORM], &body).await;
        assert_eq!((answer.status, answer.header("location")), (StatusCode::SEE_OTHER, Some(page)), "{to}");
    }
    let wrong = server.send(Method::POST, "/console/sign-in", &[FORM], "token=wrong&to=%2Flocks").await;
    assert_eq!(wrong.status, StatusCode::UNAUTHORIZED);
    assert!(wrong.body.contains(r#"name="to" value="/locks""#), "it is kept: {wrong:?}");
    server.stop();
}

#[tokio::test]
async fn bad_input_at_the_console_is_400_with_a_sentence() {
    let app = Application::start("console_input").await;
    let server = app.serve_with(&["--console"], &ADMIN);
    let cookie = sign_in(&server).await;
    for (path, status, sentence) in [
        ("/console/sessions?handle=zz", StatusCode::BAD_REQUEST, "a handle is 8 to 32 digits"),
        ("/console/sessions?user=42&group=1", StatusCode::BAD_REQUEST, "Fill in one field only"),
        ("/console/sessions/zz", StatusCode::BAD_REQUEST, "a handle is 8 to 32 digits"),
        ("/console/sessions/0123abcd", StatusCode::NOT_FOUND, "No live session has this handle."),
        ("/console/nope", StatusCode::NOT_FOUND, "the console has no page here"),
    ] {
        let page = open(&server, &cookie, path).await;
        assert_eq!(page.status, status, "{path}: {page:?}");
        assert!(page.body.contains(sentence), "{path}: {page:?}");
    }
    // A browser asks for no other icon.
    let page = open(&server, &cookie, "/console/cluster").await;
    assert!(page.body.contains(r#"<link rel="icon" href="/console/icon.svg">"#), "{page:?}");
    let icon = server.get("/console/icon.svg").await;
    assert_eq!((icon.status, icon.header("content-type")), (StatusCode::OK, Some("image/svg+xml")));
    server.stop();
}

#[tokio::test]
async fn only_the_consoles_own_forms_end_sessions() {
    let app = Application::start("console_forms").await;
    let [one, two] = [1, 2].map(|user| app.manager.create(UserId::from(user)).label("tenant:7"));
    let (one, two) = (one.await.unwrap(), two.await.unwrap());
    let reader = app.serve_with(&["--console"], &ADMIN);
    let cookie = sign_in(&reader).await;
    let page = open(&reader, &cookie, "/console/sessions?user=1").await;
    assert!(page.body.contains(&one.id().handle().to_string()) && !page.body.contains("Choose a cause"));
    assert!(!page.body.contains("form_token"), "{}", page.body);
    let order = "form_token=unknown&user=1&cause=admin";
    let refused = reader.send(Method::POST, REVOKE, &[FORM, ("cookie", &cookie)], order).await;
    assert_eq!(refused.status, StatusCode::FORBIDDEN, "{refused:?}");
    reader.stop();

    let server = app.serve_with(&["--console", "--allow-changes"], &ADMIN);
    let cookie = sign_in(&server).await;
    let token = form_token(&open(&server, &cookie, "/console/sessions?user=1").await);
    let order = format!("form_token={token}&user=1&cause=admin");
    let other = sign_in(&server).await;
    let own = [FORM, ("cookie", cookie.as_str())];
    let cases: [(&str, Headers<'_>, &str, StatusCode); 8] = [
        ("no sign-in", &[FORM], &order, StatusCode::UNAUTHORIZED),
        ("another site", &[own[0], own[1], ("sec-fetch-site", "cross-site")], &order, StatusCode::FORBIDDEN),
        ("a sibling", &[own[0], own[1], ("sec-fetch-site", "same-site")], &order, StatusCode::FORBIDDEN),
        (
            "another origin",
            &[own[0], own[1], ("origin", "http://evil.example")],
            &order,
            StatusCode::FORBIDDEN,
        ),
        (
            "another host",
            &[own[0], own[1], ("host", "evil.example")],
            &order,
            StatusCode::MISDIRECTED_REQUEST,
        ),
        ("another sign-in's form", &[FORM, ("cookie", &other)], &order, StatusCode::FORBIDDEN),
        ("no cause", &own, &format!("form_token={token}&user=1&cause="), StatusCode::BAD_REQUEST),
        (
            "two targets",
            &own,
            &format!("form_token={token}&user=1&all=all&cause=admin"),
            StatusCode::BAD_REQUEST,
        ),
    ];
    for (what, headers, body, status) in cases {
        let answer = server.send(Method::POST, REVOKE, headers, body).await;
        assert_eq!(answer.status, status, "{what}: {answer:?}");
    }
    for session in [&one, &two] {
        assert!(app.manager.get(session.id()).bypass_cache().await.unwrap().is_some(), "nothing has ended");
    }
    let ended =
        server.send(Method::POST, REVOKE, &[own[0], own[1], ("sec-fetch-site", "same-origin")], &order).await;
    assert_eq!(ended.status, StatusCode::OK);
    assert!(ended.body.contains("1 session ended: user 1, cause admin."), "{}", ended.body);
    assert!(app.manager.get(one.id()).bypass_cache().await.unwrap().is_none());
    assert!(app.manager.get(two.id()).bypass_cache().await.unwrap().is_some());
    let began = Instant::now();
    let observed = "<td>sessions of user 1 ended</td><td>admin</td>";
    while !open(&server, &cookie, "/console/events").await.body.contains(observed) {
        assert!(began.elapsed() < WAIT_MAX, "the end is not observed");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    let events = open(&server, &cookie, "/console/events").await;
    assert!(
        events.body.contains("<td>console</td><td>-</td><td>user 1</td><td>admin</td>"),
        "{}",
        events.body
    );

    let page = open(&server, &cookie, "/console/sessions?label=tenant%3A7").await;
    let (one, two) = (one.id().handle().to_string(), two.id());
    assert!(page.body.contains(&two.handle().to_string()) && !page.body.contains(&one), "{}", page.body);
    assert!(page.body.contains("End all of this label"), "{}", page.body);
    let order = format!("form_token={token}&label=tenant%3A7&cause=backchannel");
    let ended = server.send(Method::POST, REVOKE, &own, &order).await;
    assert!(ended.body.contains("1 session ended: label tenant:7, cause backchannel."), "{}", ended.body);
    assert!(app.manager.get(two).bypass_cache().await.unwrap().is_none());
    server.stop();
}

#[tokio::test]
async fn an_operator_ends_a_session_in_a_browser_by_keyboard() {
    let app = Application::start("console_browser").await;
    let hostile = "<img src=x onerror=\"document.title='hacked'\">";
    let session = app.manager.create(UserId::from(42)).set(hostile, "secret-value").await.unwrap();
    let lease = app.manager.locks().try_lock("nightly-report").label(hostile).await.unwrap();
    let server = app.serve_with(&["--console", "--allow-changes"], &ADMIN);
    let driver = Driver::start();
    let mut browser = driver.browser().await;
    browser.open(&format!("{}/console", server.url)).await;
    browser.type_into("#token", &format!("{TOKEN}{ENTER}")).await;
    // The one script runs, and its stream arrives.
    browser.wait_for("document.querySelector('#state')?.textContent === 'live'").await;
    browser.wait_for("document.querySelector('#trust').textContent.startsWith('Answers from memory')").await;
    browser.wait_for("document.querySelector('#nodes').textContent === '2 nodes'").await;

    browser.open(&format!("{}/console/locks", server.url)).await;
    browser.wait_for("document.querySelector('#state')?.textContent === 'live'").await;
    browser.wait_for("document.querySelector('#live').textContent.includes('<img src=x')").await;
    drop(lease);
    browser.wait_for("document.querySelector('#count').textContent.startsWith('0 locks')").await;

    browser.open(&format!("{}/console/sessions", server.url)).await;
    browser.type_into("#user", &format!("42{ENTER}")).await;
    browser.wait_for("document.querySelector('#count')?.textContent.startsWith('1 session')").await;
    for (width, height, scheme) in [(360, 740, "dark"), (360, 740, "light"), (1_280, 800, "light")] {
        browser.screen(width, height, scheme).await;
        let dark = scheme == "dark";
        browser
            .wait_for(&format!(
                "(getComputedStyle(document.body).backgroundColor === 'rgb(20, 23, 26)') === {dark} \
                 && document.documentElement.scrollWidth <= document.documentElement.clientWidth"
            ))
            .await;
        if dark {
            keep("console-phone", &browser.picture().await);
        }
    }
    browser.type_into("tbody a", &ENTER.to_string()).await;
    browser.wait_for("document.querySelector('h1').textContent.startsWith('Session ')").await;
    let page = browser.eval("document.body.innerText").await;
    let page = page.as_str().expect("text");
    assert!(page.contains("<img src=x") && !page.contains("secret-value"), "{page}");
    assert_eq!(browser.eval("document.title").await, "Session · pg-session");
    let id = session.id().expose().to_string();
    assert_eq!(browser.eval(&format!("document.documentElement.outerHTML.includes('{id}')")).await, false);

    // Without a cause, the browser sends nothing.
    browser.type_into(".end button", &ENTER.to_string()).await;
    assert_eq!(browser.eval("document.querySelector('.end').checkValidity()").await, false);
    browser.type_into("#cause-handle", "admin").await;
    browser.type_into(".end button", &ENTER.to_string()).await;
    browser.wait_for("document.querySelector('#ended')?.textContent.startsWith('1 session ended')").await;
    assert!(app.manager.get(session.id()).bypass_cache().await.unwrap().is_none());
    browser.close().await;
    server.stop();
}

/// Three nodes run, and one has lost its listener. The phones of two users are lost. Two operators end their sessions, with a
/// receipt: one by mouse, who types only what is to be typed, and one by keyboard.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_incident_ends_with_a_receipt_by_mouse_and_by_keyboard() {
    let app = Application::start("incident").await;
    let wire = Proxy::start(app.world.address()).await.unwrap();
    let builder = SessionManager::builder(app.manager.config().clone()).url(&app.world.url).unwrap();
    let third = builder.listen_on_url(&wire.url_for(&app.world.url)).unwrap().connect().await.unwrap();
    let [mouse, keyboard] = [42, 43].map(UserId::from);
    let mut phones = Vec::new();
    for user in [mouse, keyboard] {
        app.manager.create(user).set("device", "laptop").await.unwrap();
        phones.push(app.manager.create(user).set("device", "phone").await.unwrap());
    }
    let handles: Vec<String> = phones.iter().map(|phone| phone.id().handle().to_string()).collect();
    let server = app.serve_with(&["--console", "--allow-changes"], &ADMIN);
    wire.refuse();
    wire.cut();
    let began = Instant::now();
    while third.status().trusted_for.is_some() {
        assert!(began.elapsed() < WAIT_MAX, "the third node is trusted without its listener");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    let driver = Driver::start();
    let lost = "[...document.querySelectorAll('#live td .bad')].some(cell => cell.textContent.startsWith('listener lost'))";
    let receipt = "document.querySelector('#gone')?.textContent.startsWith('No node can serve them any more: 2 nodes \
                   answered within') && document.querySelector('#gone').textContent.includes('1 did not answer')";

    let mut browser = driver.browser().await;
    browser.screen(1_280, 800, "light").await;
    browser.open(&format!("{}/console", server.url)).await;
    browser.type_into("#token", TOKEN).await;
    browser.click(".sign-in button").await;
    browser.wait_for("document.querySelector('#nodes')?.textContent === '3 nodes'").await;
    browser.wait_for(lost).await;
    keep("console", &browser.picture().await);
    browser.click("nav a[href$=sessions]").await;
    browser.type_into("#user", "42").await;
    browser.click("form[role=search] button").await;
    browser.click(&format!("tbody a[href$=\"{}\"]", handles[0])).await;
    browser.click("a[href$=\"values=true\"]").await;
    browser.wait_for("document.querySelector('tbody').textContent.includes('phone')").await;
    browser.choose("#cause-handle", "credential").await;
    browser.click(".end button").await;
    browser.wait_for(receipt).await;
    keep("console-receipt", &browser.picture().await);
    browser.click("header form button").await;
    browser.close().await;

    let mut browser = driver.browser().await;
    browser.open(&format!("{}/console", server.url)).await;
    browser.tab_to("#token").await;
    browser.press(&format!("{TOKEN}{ENTER}")).await;
    browser.wait_for("document.querySelector('#nodes')?.textContent === '3 nodes'").await;
    browser.wait_for(lost).await;
    browser.tab_to("nav a[href$=sessions]").await;
    browser.press(&ENTER.to_string()).await;
    browser.tab_to("#user").await;
    browser.press(&format!("43{ENTER}")).await;
    browser.tab_to(&format!("tbody a[href$=\"{}\"]", handles[1])).await;
    browser.press(&ENTER.to_string()).await;
    browser.tab_to("#cause-handle").await;
    browser.press("cre").await;
    browser.wait_for("document.querySelector('#cause-handle').value === 'credential'").await;
    browser.tab_to(".end button").await;
    browser.press(&ENTER.to_string()).await;
    browser.wait_for(receipt).await;
    browser.close().await;

    for (user, phone) in [mouse, keyboard].into_iter().zip(&phones) {
        let left = app.manager.user(user).list().await.unwrap();
        assert_eq!(left.sessions.len(), 1, "the laptop stays signed in");
        for node in [&app.manager, &third] {
            assert!(node.get(phone.id()).await.unwrap().is_none());
        }
    }
    server.stop();
}
