//! What the log says to who runs the application. Without a network: the workers of a server log in threads of their own.

use actix_web::http::header::HOST;
use actix_web::{App, test, web};
use pg_session_actix::prelude::*;

use crate::captured_logs::{self, CapturedLogs};
use crate::edge;
use crate::http::world::Site;

const SETTING: &str = "insecure_without_tls";

async fn counted(session: Session) -> Result<String, SessionError> {
    Ok(session.modify("n", |n: Option<u64>| n.unwrap_or(0) + 1).await?.to_string())
}

/// Begins sessions for clients that send no cookie; what the log says of it.
async fn visits(site: &Site, proto: &str, secure: bool) -> String {
    let logged = CapturedLogs::default();
    let _listening = logged.listen();
    let sessions = site.sessions();
    let cookie = CookiePolicy::default();
    let sessions = if secure { sessions } else { sessions.cookie(cookie.insecure_without_tls()) };
    let app = App::new().wrap(SessionMiddleware::from(sessions)).route("/", web::get().to(counted));
    let app = test::init_service(app).await;
    for _ in 0..10 {
        let visit = test::TestRequest::get().insert_header((HOST, "localhost"));
        let visit = visit.insert_header(("x-forwarded-proto", proto)).to_request();
        assert_eq!(test::call_and_read_body(&app, visit).await, "1");
    }
    logged.text()
}

#[actix_web::test]
async fn a_secure_cookie_that_never_comes_back_is_warned_about_once() {
    captured_logs::init();
    let site = Site::new(edge::serve).await;
    assert_eq!(visits(&site, "http", true).await.matches(SETTING).count(), 1);
    for (proto, secure) in [("https", true), ("http", false)] {
        assert!(!visits(&site, proto, secure).await.contains(SETTING), "{proto} {secure}");
    }
}

/// Actix makes `None` of any error, so the log is the only place that can say it.
#[actix_web::test]
async fn an_optional_user_without_middleware_is_logged() {
    captured_logs::init();
    let logged = CapturedLogs::default();
    let _listening = logged.listen();
    let app = App::new()
        .route("/id", web::get().to(async |user: Option<SignedIn>| user.is_some().to_string()))
        .route("/user", web::get().to(async |user: Option<CurrentUser<()>>| user.is_some().to_string()));
    let app = test::init_service(app).await;
    for (requests, path) in ["/id", "/user"].into_iter().enumerate() {
        let visit = test::TestRequest::get().uri(path).to_request();
        assert_eq!(test::call_and_read_body(&app, visit).await, "false");
        let text = logged.text();
        let found = text.matches("no session layer is around this handler").count();
        assert_eq!(found, requests + 1, "{path}: {text}");
        assert!(text.contains("ERROR"), "{text}");
    }
}

#[actix_web::test]
async fn a_missing_middleware_is_logged() {
    captured_logs::init();
    let logged = CapturedLogs::default();
    let _listening = logged.listen();
    let app = test::init_service(App::new().route("/", web::get().to(counted))).await;
    let reply = test::call_service(&app, test::TestRequest::get().to_request()).await;
    assert_eq!(reply.status(), 500);
    let text = logged.text();
    assert_eq!(text.matches("no session layer is around this handler").count(), 1, "{text}");
}
