//! The story as requests: quick, and without a browser.

use std::net::TcpListener;
use std::time::Instant;

use hyper::{Method, StatusCode};
use nix::sys::signal::Signal;
use serde_json::{Value, json};

use super::Site;
use super::http::HttpBrowser;
use crate::support::{POLL_INTERVAL, Program, WAIT_MAX};

/// Asks again and again until `holds`.
async fn eventually(what: &str, mut ask: impl AsyncFnMut() -> Value, holds: impl Fn(&Value) -> bool) {
    let began = Instant::now();
    loop {
        let answer = ask().await;
        if holds(&answer) {
            return;
        }
        assert!(began.elapsed() < WAIT_MAX, "never happened: {what}; last: {answer}");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

fn log_in(name: &str) -> Value {
    json!({ "do": "login", "name": name })
}

#[tokio::test]
async fn axum_and_actix_serve_one_session() {
    let site = Site::start();
    let mut ann = HttpBrowser::new();
    ann.act(&site.a, &json!({ "do": "add", "item": "apples" })).await;
    let view = ann.act(&site.a, &log_in(" Ann ")).await;
    assert_eq!(
        view,
        json!({ "user": "Ann", "cart": { "apples": 1 }, "billing": false }),
        "the cart came along"
    );
    for node in site.nodes() {
        assert_eq!(ann.view(node).await, view, "{node}");
    }
    let view = ann.act(&site.c, &json!({ "do": "add", "item": "bread" })).await;
    assert_eq!(view["cart"], json!({ "apples": 1, "bread": 1 }));
    assert_eq!(ann.view(&site.a).await, view, "written on C, read on A at once");
    let view = ann.act(&site.b, &json!({ "do": "remove", "item": "apples" })).await;
    assert_eq!(view["cart"], json!({ "bread": 1 }));

    let signed_in = ann.clone();
    ann.act(&site.b, &json!({ "do": "logout" })).await;
    assert_eq!(ann.cookie, None, "the browser forgets it");
    for node in [&site.a, &site.c] {
        let mut thief = signed_in.clone();
        eventually(
            "the old cookie is worth nothing",
            async || thief.view(node).await,
            |view| view["user"].is_null(),
        )
        .await;
    }
    site.end();
}

#[tokio::test]
async fn billing_is_behind_a_step_up_on_every_node() {
    let site = Site::start();
    let mut ann = HttpBrowser::new();
    ann.act(&site.a, &log_in("Ann")).await;
    for node in site.nodes() {
        let refused = ann.get(&format!("{node}/api/billing")).await;
        assert_eq!(refused.status, StatusCode::FORBIDDEN, "{node}");
        assert_eq!(refused.headers["session-step-up"], "billing");
    }
    let view = ann.act(&site.c, &json!({ "do": "step-up" })).await;
    assert_eq!(view["billing"], true);
    for node in site.nodes() {
        let invoice = ann.get(&format!("{node}/api/billing")).await;
        assert_eq!(invoice.body, "0 things, on the card of Ann that ends in 4242", "{node}");
    }
    ann.act(&site.b, &json!({ "do": "step-down" })).await;
    assert_eq!(ann.get(&format!("{}/api/billing", site.c)).await.status, StatusCode::FORBIDDEN);
    site.end();
}

#[tokio::test]
async fn logout_of_others_and_of_one_device_reaches_all_nodes() {
    let site = Site::start();
    let (mut here, mut there, mut third) = (HttpBrowser::new(), HttpBrowser::new(), HttpBrowser::new());
    here.act(&site.a, &log_in("Ann")).await;
    there.act(&site.b, &log_in("Ann")).await;
    third.act(&site.c, &log_in("Ann")).await;
    let devices = here.json(&format!("{}/api/devices", site.a)).await;
    let devices = devices.as_array().expect("a list");
    assert_eq!(devices.len(), 3);
    assert!(devices.iter().all(|device| device["address"] == "127.0.0.1" && device["browser"] == "Test/1.0"));
    let other = devices.iter().find(|device| device["current"] == false).expect("another device");
    here.act(&site.b, &json!({ "do": "logout-device", "device": other["id"] })).await;
    let left = here.json(&format!("{}/api/devices", site.c)).await;
    assert_eq!(left.as_array().map(Vec::len), Some(2));

    here.act(&site.c, &json!({ "do": "logout-others" })).await;
    // C acknowledged the logout. A and B learn of it on their own, so each of them is waited for.
    for shopper in [&mut there, &mut third] {
        for node in [&site.a, &site.b] {
            eventually(
                "the others are out",
                async || shopper.view(node).await,
                |view| view["user"].is_null(),
            )
            .await;
        }
    }
    assert_eq!(here.view(&site.b).await["user"], "Ann");
    assert_eq!(there.json(&format!("{}/api/devices", site.b)).await, json!([]), "a visitor has no devices");
    site.end();
}

#[tokio::test]
async fn every_node_shows_every_page_what_it_receives() {
    let site = Site::start();
    let mut ann = HttpBrowser::new();
    ann.act(&site.a, &log_in("Ann")).await;
    let known = ann.json(&format!("{}/api/site", site.b)).await;
    assert_eq!(known["name"], "B");
    assert_eq!(known["nodes"][2], json!({ "name": "C", "edge": "actix", "url": site.c }));
    for (node, name) in site.nodes().into_iter().zip(["A", "B", "C"]) {
        ann.view(node).await;
        let url = format!("{node}/api/status");
        assert_eq!(ann.get(&url).await.headers["access-control-allow-origin"], "*");
        eventually(
            "it receives",
            async || ann.json(&url).await,
            |status| {
                let ago = |what: &str| status[what].as_u64().is_some_and(|ms| ms < 60_000);
                status["name"] == name
                    && status["trusted"] == true
                    && ago("barrier_ms_ago")
                    && ago("change_ms_ago")
            },
        )
        .await;
    }

    let status = format!("{}/api/status", site.b);
    let misses = |status: &Value| status["misses"].as_u64().expect("a number");
    ann.act(&site.b, &json!({ "do": "cut-wire" })).await;
    eventually(
        "B notices",
        async || ann.json(&status).await,
        |status| status["trusted"] == false && status["wire_is_cut"] == true,
    )
    .await;
    let before = misses(&ann.json(&status).await);
    assert_eq!(ann.view(&site.b).await["user"], "Ann", "from PostgreSQL");
    assert!(misses(&ann.json(&status).await) > before);
    ann.act(&site.b, &json!({ "do": "mend-wire" })).await;
    eventually("B listens again", async || ann.json(&status).await, |status| status["trusted"] == true).await;
    site.end();
}

#[tokio::test]
async fn cross_site_and_malformed_requests_are_refused() {
    let site = Site::start();
    let mut ann = HttpBrowser::new();
    for node in [&site.a, &site.c] {
        let url = format!("{node}/api/act");
        // A form of another site can send this much without asking.
        let planted = ann.send(Method::POST, &url, "text/plain", log_in("Eve").to_string()).await;
        assert!(planted.status.is_client_error(), "{node}: {}", planted.status);
        for nonsense in
            [log_in("   "), log_in(&"x".repeat(41)), json!({ "do": "add", "item": "gold" }), json!({})]
        {
            let refused = ann.post(&url, &nonsense).await;
            assert!(refused.status.is_client_error(), "{node}, {nonsense}: {}", refused.status);
        }
        assert_eq!(ann.cookie, None, "that made no session");
    }
    site.end();
}

#[test]
fn a_demo_that_is_killed_leaves_no_node() {
    let mut site = Site::start();
    site.demo.signal(Signal::SIGKILL);
    assert_eq!(site.demo.finish().code, None);
    site.assert_nothing_is_left();
}

#[test]
fn a_port_that_is_taken_is_named_and_so_is_the_way_out() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("a port").port();
    let end = Program::start(&["demo", "--web", "--port", &port.to_string()]).finish();
    assert_eq!(end.code, Some(1), "{end:?}");
    assert!(end.out.contains(&format!("port {port}: ")), "{end:?}");
    assert!(end.out.contains("choose the first of three free ones with --port"), "{end:?}");
}
