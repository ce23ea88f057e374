//! Back-channel logout of the example: what ends, what the answer promises, and which tokens are refused.

use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::http::browser::{Browser, Reply};
use crate::http::example::Server;
use crate::http::world::{eventually, in_time, shared_url};
use crate::openid_connect::{Provider, SECRET, arrival, login, now, provide, sign};

const HEADER: &str = r#"{"alg":"HS256","typ":"logout+jwt"}"#;
const EVENT: &str = "http://schemas.openid.net/event/backchannel-logout";

/// Starts the example, as another node if it runs already.
fn shop(provider: SocketAddr) -> (Server, SocketAddr) {
    let settings = [("PROVIDER", provider.to_string()), ("CLIENT_SECRET", SECRET.to_owned())];
    Server::start_with("openid_connect", &shared_url(), &settings)
}

/// The claims of a logout token for ann's session `sid` at the provider.
fn claims(provider: &Provider, jti: &str, sid: &str) -> Value {
    json!({
        "iss": provider.issuer(), "aud": "shop", "iat": now(), "exp": now() + 120, "jti": jti,
        "sub": "ann", "sid": sid, "events": { EVENT: {} },
    })
}

fn signed(claims: &Value) -> String {
    sign(HEADER, &claims.to_string(), SECRET)
}

async fn send(shop: SocketAddr, token: &str) -> Reply {
    Browser::new(shop).form("/backchannel-logout", &format!("logout_token={token}")).await
}

async fn sign_in(provider: &Provider, address: SocketAddr, shop: SocketAddr, sid: &'static str) -> Browser {
    *provider.sid.lock().expect("no test panics with it") = sid;
    let mut browser = Browser::new(shop);
    let back = login(&mut browser, address).begin("/login").await;
    assert_eq!(arrival(&browser.get(&format!("/callback{back}")).await), (303, "/".to_owned()));
    assert_eq!(browser.page("/").await, "Ann");
    browser
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_logout_token_ends_what_it_names_on_every_node() {
    let (provider, address) = provide();
    let (_a, a) = shop(address);
    let (node_b, b) = shop(address);
    let laptop = sign_in(&provider, address, a, "first").await;
    let tablet = sign_in(&provider, address, b, "first").await;
    let phone = sign_in(&provider, address, a, "second").await;
    let mut seen_by_b = [laptop.tab_at(b), tablet.tab_at(b), phone.tab_at(b)];
    for browser in &mut seen_by_b {
        assert_eq!(browser.page("/").await, "Ann", "in the memory of the other node");
    }

    let reply = send(a, &signed(&claims(&provider, "1", "first"))).await;
    assert_eq!((reply.status.as_u16(), reply.cache_control()), (200, vec!["no-store".to_owned()]));
    let mut pages = Vec::new();
    for browser in &mut seen_by_b {
        pages.push(browser.page("/").await);
    }
    assert_eq!(pages, ["a visitor", "a visitor", "Ann"], "when the provider has its answer");
    assert_eq!(laptop.tab().page("/").await, "a visitor");

    // Without `sid`, it ends all sessions of the user. The audience may be a list.
    let mut all = claims(&provider, "2", "");
    all.as_object_mut().expect("claims").remove("sid");
    all["aud"] = json!(["another", "shop"]);
    let all = signed(&all);
    assert_eq!(send(b, &all).await.status, 200);
    assert_eq!(phone.tab().page("/").await, "a visitor");

    // A token ends sessions once: at this node, at another one, and after a restart. The provider may have lost the answer.
    let laptop = sign_in(&provider, address, a, "third").await;
    drop(node_b);
    let (_restarted, restarted) = shop(address);
    for node in [a, restarted] {
        let reply = send(node, &all).await;
        assert_eq!(reply.status, 200, "{}", reply.body);
        assert_eq!(laptop.tab_at(restarted).page("/").await, "Ann", "a login after the logout");
    }
    let mut of_bob = claims(&provider, "2", "");
    of_bob["sub"] = json!("bob");
    of_bob.as_object_mut().expect("claims").remove("sid");
    for (node, token) in [(a, claims(&provider, "2", "third")), (restarted, of_bob)] {
        let reply = send(node, &signed(&token)).await;
        assert_eq!(reply.status, 400, "another token with this jti: {token}");
        assert!(reply.body.contains("Another token"), "{}", reply.body);
    }
    let (one, other) = (signed(&claims(&provider, "3", "none")), signed(&claims(&provider, "3", "third")));
    assert_eq!(send(a, &one).await.status, 200, "no session belongs to it");
    assert_eq!(send(restarted, &other).await.status, 400, "the same jti");
    assert_eq!(laptop.tab_at(restarted).page("/").await, "Ann");
}

/// Login: leaves for the provider ┊ provider: ends its session ┊ login: comes back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_login_that_was_overtaken_by_the_logout_is_refused() {
    let (provider, address) = provide();
    let (_shop, shop) = shop(address);
    *provider.sid.lock().expect("no test panics with it") = "overtaken";
    let mut browser = Browser::new(shop);
    let back = login(&mut browser, address).begin("/login").await;
    assert_eq!(send(shop, &signed(&claims(&provider, "1", "overtaken"))).await.status, 200);
    let reply = browser.get(&format!("/callback{back}")).await;
    assert_eq!(reply.status, 400, "{}", reply.body);
    assert_eq!(browser.page("/").await, "a visitor");
}

/// B: has the session in memory, stops ┊ A: ends it ┊ A must not answer while B could still serve it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_logout_is_answered_when_no_node_serves_the_session() {
    let (provider, address) = provide();
    let (_a, a) = shop(address);
    let (node_b, b) = shop(address);
    let mut laptop = sign_in(&provider, address, b, "first").await;
    node_b.signal("STOP");
    let token = signed(&claims(&provider, "1", "first"));
    let mut logout = Box::pin(send(a, &token));
    let early = tokio::time::timeout(Duration::from_millis(1_500), &mut logout).await;
    assert!(early.is_err(), "answered with {} while a node was stopped", early.expect("early").status);
    node_b.signal("CONT");
    assert_eq!(in_time("the provider is answered", logout).await.status, 200);
    assert_eq!(laptop.page("/").await, "a visitor");
}

/// B: has the session in memory, stops ┊ A: ends it, waits for B ┊ provider: gives up, sends the token again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_logout_that_has_failed_can_be_sent_again() {
    let (provider, address) = provide();
    let (_a, a) = shop(address);
    let (node_b, b) = shop(address);
    let mut laptop = sign_in(&provider, address, b, "first").await;
    node_b.signal("STOP");
    let token = signed(&claims(&provider, "1", "first"));
    let first = tokio::spawn({
        let token = token.clone();
        async move { send(a, &token).await }
    });
    let (client, connection) =
        tokio_postgres::connect(&shared_url(), tokio_postgres::NoTls).await.expect("it connects");
    tokio::spawn(connection);
    let kept = "SELECT FROM provider_logouts WHERE jti = $1";
    let jti = format!("{} 1", provider.issuer());
    eventually("the sessions have ended in the database", async || {
        !client.query(kept, &[&jti]).await.expect("rows").is_empty()
    })
    .await;
    assert!(!first.is_finished(), "a node is stopped");
    first.abort();
    assert!(first.await.is_err_and(|error| error.is_cancelled()));
    let second = tokio::spawn({
        let token = token.clone();
        async move { send(a, &token).await }
    });
    node_b.signal("CONT");
    let reply = in_time("the provider is answered", second).await.expect("no panic");
    assert_eq!(reply.status, 200, "{}", reply.body);
    assert_eq!(laptop.page("/").await, "a visitor");
    assert_eq!(send(a, &token).await.status, 200, "it has succeeded");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_logout_token_that_breaks_a_rule_ends_no_session() {
    let (provider, address) = provide();
    let (_shop, shop) = shop(address);
    let laptop = sign_in(&provider, address, shop, "first").await;
    let with = |name: &str, value: Value| {
        let mut claims = claims(&provider, "never used", "first");
        claims[name] = value;
        signed(&claims)
    };
    let without = |names: &[&str]| {
        let mut claims = claims(&provider, "never used", "first");
        claims.as_object_mut().expect("claims").retain(|name, _| !names.contains(&name.as_str()));
        signed(&claims)
    };
    let plain = claims(&provider, "never used", "first").to_string();
    let encoded = |header: &str| {
        format!("{}.{}.", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(plain.as_bytes()))
    };
    let fine = sign(HEADER, &plain, SECRET);
    let (head, signature) = fine.rsplit_once('.').expect("a signature");
    let (header, _) = head.split_once('.').expect("a header");
    let other_claims = URL_SAFE_NO_PAD.encode(plain.replace("first", "other"));
    let refused = [
        ("another issuer", with("iss", json!("http://evil.example"))),
        ("no issuer", without(&["iss"])),
        ("another audience", with("aud", json!("another client"))),
        ("other audiences", with("aud", json!(["another client", "shop2"]))),
        ("no audience", without(&["aud"])),
        ("an issue too long ago", with("iat", json!(now() - 6 * 60))),
        ("an issue in the future", with("iat", json!(now() + 5 * 60))),
        ("no time of issue", without(&["iat"])),
        ("an end that has passed", with("exp", json!(now() - 1))),
        ("no end", without(&["exp"])),
        ("no jti", without(&["jti"])),
        ("an empty jti", with("jti", json!(""))),
        ("a long jti", with("jti", json!("x".repeat(256)))),
        ("neither sub nor sid", without(&["sub", "sid"])),
        ("no events", without(&["events"])),
        ("other events", with("events", json!({ "http://schemas.example/another": {} }))),
        ("events that are no object", with("events", json!([EVENT]))),
        ("an event that is no object", with("events", json!({ EVENT: "yes" }))),
        ("a nonce", with("nonce", json!("n-0S6_WzA2Mj"))),
        ("an empty nonce", with("nonce", json!(null))),
        ("another key", sign(HEADER, &plain, "another secret")),
        ("an empty key", sign(HEADER, &plain, "")),
        ("no signature", format!("{head}.")),
        ("a part of the signature", format!("{head}.{}", &signature[..21])),
        ("two parts", head.to_owned()),
        ("claims of another token", format!("{header}.{other_claims}.{signature}")),
        ("alg none, unsigned", encoded(r#"{"alg":"none"}"#)),
        ("alg None, unsigned", encoded(r#"{"alg":"None"}"#)),
        ("alg none, signed", sign(r#"{"alg":"none"}"#, &plain, SECRET)),
        ("alg HS256, unsigned", encoded(HEADER)),
        ("alg RS256", sign(r#"{"alg":"RS256"}"#, &plain, SECRET)),
        ("no alg", sign("{}", &plain, SECRET)),
        ("another type", sign(r#"{"alg":"HS256","typ":"at+jwt"}"#, &plain, SECRET)),
        ("an unknown extension", sign(r#"{"alg":"HS256","crit":["b64"],"b64":false}"#, &plain, SECRET)),
        ("claims that are no object", sign(HEADER, "[]", SECRET)),
        ("no token", String::new()),
        ("a long token", "a".repeat(20_000)),
    ];
    for (rule, token) in &refused {
        let reply = send(shop, token).await;
        assert_eq!(reply.status, 400, "{rule}: {}", reply.body);
        assert!(reply.body.starts_with(r#"{"error":"invalid_request""#), "{rule}: {}", reply.body);
        assert_eq!(reply.cache_control(), ["no-store"], "{rule}");
    }
    let mut op = Browser::new(shop);
    assert_eq!(op.form("/backchannel-logout", &format!("token={fine}")).await.status, 400, "another field");
    assert_eq!(op.request("POST", "/backchannel-logout").await.status, 400, "no form");
    assert_eq!(op.get(&format!("/backchannel-logout?logout_token={fine}")).await.status, 405);
    assert_eq!(laptop.tab().page("/").await, "Ann");
    // None of them has used the jti up.
    assert_eq!(send(shop, &fine).await.status, 200);
    assert_eq!(laptop.tab().page("/").await, "a visitor");
}
