//! The examples that a project can begin with, run as their readers run them.

use hyper::header::{AUTHORIZATION, HeaderName};

use crate::http::browser::{Browser, Reply};
use crate::http::example::Server;
use crate::http::world::shared_url;

fn arrival(reply: &Reply) -> (u16, String) {
    (reply.status.as_u16(), reply.all("location").concat())
}

/// The value of a hidden field.
fn field(page: &str, name: &str) -> String {
    let (_, rest) = page.split_once(&format!("name=\"{name}\" value=\"")).expect("the field");
    rest.split_once('"').expect("its end").0.to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_pages_sign_a_user_in_and_out() {
    let (_server, addr) = Server::start("axum_pages", &shared_url());
    let mut browser = Browser::new(addr);
    browser.headers.insert(HeaderName::from_static("sec-fetch-mode"), "navigate".parse().expect("a value"));
    assert!(browser.page("/").await.contains("Hello visitor."));
    assert_eq!(arrival(&browser.get("/account").await), (303, "/login?next=/account".to_owned()));
    let form = browser.page("/login?next=/account").await;
    let (token, next) = (field(&form, "token"), field(&form, "next"));
    let fields = |token: &str, password: &str| {
        format!("token={token}&next={next}&name=ann&password={password}&remember=yes")
    };
    assert_eq!(browser.form("/login", &fields("A", "secret")).await.status, 403);
    let reply = browser.form("/login", &fields(&token, "guess")).await;
    assert!(reply.status == 422 && reply.body.contains("Name or password is wrong."), "{}", reply.body);
    assert_eq!(
        arrival(&browser.form("/login", &fields(&token, "secret")).await),
        (303, "/account".to_owned())
    );
    assert!(browser.page("/account").await.contains("This is the account of Ann."));
    assert!(browser.page("/").await.contains("You are signed in."));
    assert!(!browser.page("/").await.contains("You are signed in."), "once");
    assert_eq!(arrival(&browser.request("POST", "/logout").await), (303, "/".to_owned()));
    assert!(browser.page("/").await.contains("Hello visitor."));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_api_signs_a_user_in_and_out_without_cookies() {
    let (_server, addr) = Server::start("axum_spa", &shared_url());
    let mut client = Browser::new(addr);
    assert!(client.page("/").await.contains("session-token"), "the page keeps the token");
    assert_eq!(client.get("/api/me").await.status, 401);
    assert_eq!(client.form("/api/login", "name=ann&password=guess").await.status, 422);
    // Another site's page may call it: it has no token of the user.
    client.headers.insert(HeaderName::from_static("sec-fetch-site"), "cross-site".parse().expect("a value"));
    let reply = client.form("/api/login", "name=ann&password=secret").await;
    assert_eq!((reply.status.as_u16(), reply.cookies().len()), (204, 0));
    let token = reply.all("session-token").concat();
    assert_eq!(client.get("/api/me").await.status, 401, "a client sends the token itself");
    client.headers.insert(AUTHORIZATION, format!("Bearer {token}").parse().expect("a header"));
    assert_eq!(client.page("/api/me").await, "user 1");
    assert_eq!(client.request("POST", "/api/logout").await.all("session-token"), [""]);
    assert_eq!(client.get("/api/me").await.status, 401);
}
