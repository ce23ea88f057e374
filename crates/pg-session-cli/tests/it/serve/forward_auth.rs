//! Who is signed in: 200 with headers, 401, 403, and 503 without a proof.

use hyper::{Method, StatusCode};
use pg_sandbox::Proxy;
use pg_session::UserId;

use super::server::{Answer, Application, Headers};
use crate::support::{POLL_INTERVAL, WAIT_MAX};

const ATTRIBUTES: [&str; 6] = [
    "--attribute",
    "role=X-Session-Role",
    "--attribute",
    "name=X-Session-Name",
    "--attribute",
    "plan=X-Session-Plan",
];

fn assert_refused(answer: &Answer, status: StatusCode) {
    assert_eq!(answer.status, status, "{answer:?}");
    let identity = answer.headers.keys().find(|name| name.as_str().starts_with("x-session-"));
    assert_eq!(identity, None, "{answer:?}");
    assert_eq!(answer.header("cache-control"), Some("no-store"));
}

#[tokio::test]
async fn signed_in_users_are_named_and_others_refused() {
    let app = Application::start("forward_auth").await;
    let login = app.manager.create(UserId::from(42)).set("role", "admin").set("name", "Zoë");
    let session = login.await.unwrap();
    let visitor = app.manager.create_anonymous().await.unwrap();
    let server = app.serve(&ATTRIBUTES);

    let cookie = app.cookie(&session);
    for cookie in [cookie.clone(), format!("a=b; {cookie}; c=d")] {
        let answer = server.auth(&cookie).await;
        assert_eq!(answer.status, StatusCode::OK, "{answer:?}");
        assert_eq!(answer.header("x-session-user"), Some("42"));
        assert_eq!(answer.header("x-session-handle"), Some(session.id().handle().to_string().as_str()));
        assert_eq!(answer.header("x-session-role"), Some("admin"));
        // A header cannot carry the one, and the session does not have the other: both replace what a client sends.
        assert_eq!(answer.header("x-session-name"), Some(""));
        assert_eq!(answer.header("x-session-plan"), Some(""));
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let shown = format!("{:?}{}", answer.headers, answer.body);
        assert!(!shown.contains(&session.id().expose().to_string()), "{shown}");
    }

    assert_refused(&server.get("/auth").await, StatusCode::UNAUTHORIZED);
    assert_refused(&server.auth(&app.cookie(&visitor)).await, StatusCode::UNAUTHORIZED);
    let mut forged = cookie.clone();
    forged.replace_range(forged.len() - 10.., "AAAAAAAAAA");
    assert_refused(&server.auth(&forged).await, StatusCode::UNAUTHORIZED);
    // A client that says who it is.
    let named = server.send(Method::GET, "/auth", &[("x-session-user", "1")], "").await;
    assert_refused(&named, StatusCode::UNAUTHORIZED);

    app.manager.delete(session.id()).await.unwrap();
    let began = std::time::Instant::now();
    loop {
        let answer = server.auth(&cookie).await;
        if answer.status != StatusCode::OK {
            assert_refused(&answer, StatusCode::UNAUTHORIZED);
            break;
        }
        assert!(began.elapsed() < WAIT_MAX, "a session that has ended is served");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    server.stop();
}

#[tokio::test]
async fn every_way_of_proxies_to_ask_is_answered() {
    let app = Application::start("ways").await;
    let session = app.manager.create(UserId::from(7)).await.unwrap();
    let cookie = app.cookie(&session);
    let server = app.serve(&[]);
    let cases: &[(Method, &str, Headers<'_>, StatusCode)] = &[
        // nginx, Traefik and Caddy ask with GET and name the method; Envoy sends method and path.
        (Method::GET, "/auth", &[("x-original-method", "POST")], StatusCode::OK),
        (Method::GET, "/auth", &[("x-forwarded-method", "POST")], StatusCode::OK),
        (Method::GET, "/auth/", &[], StatusCode::OK),
        (Method::GET, "/auth/?page=2", &[], StatusCode::OK),
        (Method::POST, "/auth/orders/1", &[], StatusCode::OK),
        (Method::DELETE, "/auth/a%20b/c", &[], StatusCode::OK),
        // Another site's page causes a change, which the application cannot see.
        (Method::POST, "/auth/orders", &[("sec-fetch-site", "cross-site")], StatusCode::FORBIDDEN),
        (
            Method::GET,
            "/auth",
            &[("x-forwarded-method", "POST"), ("sec-fetch-site", "cross-site")],
            StatusCode::FORBIDDEN,
        ),
        (
            Method::GET,
            "/auth",
            &[("x-forwarded-method", "GET"), ("x-original-method", "PUT"), ("sec-fetch-site", "cross-site")],
            StatusCode::FORBIDDEN,
        ),
        (
            Method::GET,
            "/auth",
            &[("x-forwarded-method", "GET"), ("sec-fetch-site", "cross-site")],
            StatusCode::OK,
        ),
        // What a proxy sends of a WebSocket: without `Upgrade`.
        (Method::GET, "/auth", &[("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ==")], StatusCode::OK),
        (
            Method::GET,
            "/auth",
            &[("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="), ("origin", "https://evil.example")],
            StatusCode::FORBIDDEN,
        ),
        (
            Method::GET,
            "/auth",
            &[("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="), ("sec-fetch-site", "same-site")],
            StatusCode::FORBIDDEN,
        ),
    ];
    for (method, path, headers, status) in cases {
        let headers = [&[("cookie", cookie.as_str())], *headers].concat();
        let answer = server.send(method.clone(), path, &headers, "").await;
        assert_eq!(answer.status, *status, "{method} {path} {headers:?}: {answer:?}");
        assert_eq!(answer.header("x-session-user").is_some(), *status == StatusCode::OK, "{answer:?}");
    }
    server.stop();
}

/// What a client can send, the proxy passes on.
#[tokio::test]
async fn no_header_of_a_client_replaces_its_cookie() {
    let app = Application::start("lies").await;
    let [ann, bob] = [1, 2].map(UserId::from).map(|user| app.manager.create(user));
    let (ann, bob) = (app.cookie(&ann.await.unwrap()), app.cookie(&bob.await.unwrap()));
    let token = ann.split_once('=').expect("a cookie").1;
    let server = app.serve(&[]);
    let named = |name: &str| format!("{name}={token}");
    let cases: &[&[(&str, &str)]] = &[
        // Cookies that another host of the site, or a page over plain HTTP, can set.
        &[("cookie", &named("session"))],
        &[("cookie", &named("__Secure-session"))],
        &[("cookie", &named("__host-session"))],
        &[("cookie", &named("__Host-session2"))],
        &[("cookie", &named(" __Host-session x"))],
        &[("cookie", &format!("__Host-session={token}x"))],
        &[("cookie", &format!("__Host-session={}", &token[1..]))],
        &[("cookie2", &ann)],
        &[("x-forwarded-cookie", &ann)],
        &[("authorization", &format!("Bearer {token}"))],
        &[("x-session-user", "1"), ("x-session-handle", "00000000000000000000000000000000")],
        &[("x-forwarded-user", "1"), ("remote-user", "1"), ("x-forwarded-for", "127.0.0.1")],
        &[("x-original-url", "/auth"), ("x-forwarded-uri", "/live"), ("x-forwarded-host", "localhost")],
    ];
    for headers in cases {
        let answer = server.send(Method::GET, "/auth", headers, "").await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{headers:?}: {answer:?}");
        assert_refused(&answer, StatusCode::UNAUTHORIZED);
    }
    // Beside a cookie that counts, they change nothing.
    for headers in cases {
        let headers = [&[("cookie", bob.as_str())], *headers].concat();
        let answer = server.send(Method::GET, "/auth", &headers, "").await;
        let user = answer.header("x-session-user");
        assert!(user == Some("2") || answer.status != StatusCode::OK, "{headers:?}: {answer:?}");
        assert_eq!(answer.headers.get_all("x-session-user").iter().count(), usize::from(user.is_some()));
    }
    server.stop();
}

#[tokio::test]
async fn a_proxy_without_the_secret_is_refused() {
    let app = Application::start("secret").await;
    let session = app.manager.create(UserId::from(7)).await.unwrap();
    let cookie = app.cookie(&session);
    let secret = "0123456789abcdef0123456789abcdef";
    let file = std::env::temp_dir().join(format!("pg-session-secret-{}", std::process::id()));
    std::fs::write(&file, format!("{secret}\n")).unwrap();
    let path = file.to_str().expect("a path of text");
    let server = app.serve(&["--listen", "0.0.0.0:0", "--proxy-secret-file", path]);
    std::fs::remove_file(&file).unwrap();

    let wrong = "0123456789abcdef0123456789abcdee";
    for (secrets, status) in [
        (&[secret][..], StatusCode::OK),
        (&[], StatusCode::FORBIDDEN),
        (&[wrong], StatusCode::FORBIDDEN),
        (&[""], StatusCode::FORBIDDEN),
        (&[wrong, secret], StatusCode::FORBIDDEN),
        (&[secret, wrong], StatusCode::FORBIDDEN),
    ] {
        let mut headers = vec![("cookie", cookie.as_str())];
        headers.extend(secrets.iter().map(|secret| ("x-pg-session-secret", *secret)));
        let answer = server.send(Method::GET, "/auth", &headers, "").await;
        assert_eq!(answer.status, status, "{secrets:?}: {answer:?}");
        assert!(!answer.body.contains(secret), "{answer:?}");
    }
    server.stop();
}

// The proxy forwards on another thread while this one waits for the program.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_state_without_proof_is_503_and_never_401() {
    let app = Application::start("unproved").await;
    let [cached, unread] = [1, 2].map(UserId::from).map(|user| app.manager.create(user));
    let (cached, unread) = (cached.await.unwrap(), unread.await.unwrap());
    let wire = Proxy::start(app.world.address()).await.unwrap();
    let server = app.serve_on(&wire.url_for(&app.world.url), &[]);
    assert_eq!(server.auth(&app.cookie(&cached)).await.status, StatusCode::OK);
    assert_eq!(server.get("/trust").await.status, StatusCode::OK);

    wire.refuse();
    wire.cut();
    let began = std::time::Instant::now();
    while server.get("/trust").await.status != StatusCode::SERVICE_UNAVAILABLE {
        assert!(began.elapsed() < WAIT_MAX, "a node without its listener is trusted");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    for session in [&cached, &unread] {
        assert_refused(&server.auth(&app.cookie(session)).await, StatusCode::SERVICE_UNAVAILABLE);
    }
    assert_eq!(server.get("/live").await.status, StatusCode::OK);
    assert_eq!(server.get("/ready").await.status, StatusCode::SERVICE_UNAVAILABLE);

    wire.heal();
    let began = std::time::Instant::now();
    while server.get("/trust").await.status != StatusCode::OK {
        assert!(began.elapsed() < WAIT_MAX, "a healed node is not trusted");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    assert_eq!(server.auth(&app.cookie(&unread)).await.status, StatusCode::OK);
    assert_eq!(server.get("/ready").await.status, StatusCode::OK);
    server.stop();
}
