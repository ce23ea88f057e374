//! Logins at a provider: a browser leaves the site and comes back.

use hyper::header::HeaderName;
use pg_session_web::{CookiePolicy, FLOWS_MAX, SessionConfig};

use super::browser::Browser;
use super::world::Site;

/// A begun flow: state, nonce and code challenge.
async fn begin(browser: &mut Browser, provider: &str, address: &str) -> Vec<String> {
    let page = browser.page(&format!("/flow/begin/{provider}/{address}")).await;
    page.split(' ').map(str::to_owned).collect()
}

/// As the provider's redirect or form causes it: the browser keeps the session's cookie back, if it is not `Lax` or not a GET.
async fn take(browser: &mut Browser, method: &str, provider: &str, state: &str) -> (u16, Vec<String>) {
    let reply = browser.request(method, &format!("/flow/take/{provider}/{state}")).await;
    (reply.status.as_u16(), reply.body.trim_end().split(' ').map(str::to_owned).collect())
}

fn flow_cookies(browser: &Browser) -> usize {
    browser.jar.keys().filter(|name| name.starts_with("__Host-session.flow.")).count()
}

/// ```text
/// node 1: take(state) ── row found ──────────── delete: it was there ── 200
/// node 2:      take(state) ── row found ── delete waits ── it was gone ── 400
/// ```
pub async fn a_flow_is_taken_once_on_any_node(site: &Site) {
    let strict = |node| {
        SessionConfig::new(node, site.signer.clone()).cookie(CookiePolicy::default().same_site_strict())
    };
    let (here, there) = (strict(site.node.clone()), strict(site.other_node().await));
    let mut browser = site.browser_with(here);
    let elsewhere = site.serve(there);
    for round in 0..10 {
        let mut tab = browser.tab();
        let reply = tab.get("/flow/begin/google/account").await;
        let cookies = reply.cookies();
        assert_eq!(cookies.len(), 1);
        for part in ["HttpOnly", "Secure", "SameSite=Lax", "Path=/", "Max-Age=600"] {
            assert!(cookies[0].split("; ").any(|found| found == part), "{part}: {}", cookies[0]);
        }
        assert_eq!(reply.cache_control(), ["no-store"]);
        tab.request("GET", "/").await;
        let begun: Vec<&str> = reply.body.split(' ').collect();
        let (mut one, mut two) = (tab.tab(), tab.tab_at(elsewhere));
        for browser in [&mut one, &mut two] {
            browser.headers.insert(HeaderName::from_static("sec-fetch-site"), "cross-site".parse().unwrap());
        }
        let outcomes = tokio::join!(
            take(&mut one, "GET", "google", begun[0]),
            take(&mut two, "GET", "google", begun[0])
        );
        let (winner, taken, loser) = match outcomes {
            ((200, taken), (400, _)) => (&mut one, taken, &mut two),
            ((400, _), (200, taken)) => (&mut two, taken, &mut one),
            other => panic!("round {round}: {other:?}"),
        };
        assert_eq!((taken[0].as_str(), taken[2].as_str()), (begun[1], "/account"));
        assert_eq!(taken[1].len(), 43, "a verifier");
        assert_eq!(winner.page("/user").await, "42");
        assert_eq!(loser.page("/user").await, "nobody", "a refused callback signs no user in");
        assert_eq!((flow_cookies(winner), flow_cookies(loser)), (0, 0));
        loser.jar.clone_from(&tab.jar);
        assert_eq!(take(loser, "GET", "google", begun[0]).await.0, 400, "the cookie was copied");
    }
    assert_eq!(browser.page("/user").await, "nobody");
}

pub async fn two_tabs_have_flows_of_their_own(site: &Site) {
    let mut browser = site.browser();
    let first = begin(&mut browser, "google", "first").await;
    let second = begin(&mut browser, "google", "second").await;
    let hub = begin(&mut browser, "git-hub", "/evil.example").await;
    let mut stranger = site.browser();
    let own = begin(&mut stranger, "google", "own").await;
    let (x, empty) = ("x".to_owned(), "A".repeat(43));
    for (provider, state) in
        [("google", &own[0]), ("google", &hub[0]), ("git-hub", &first[0]), ("google", &x), ("google", &empty)]
    {
        let (status, body) = take(&mut browser, "GET", provider, state).await;
        assert_eq!((status, body[..2].join(" ").as_str()), (400, "The login"), "{provider} {state}");
    }
    let refused = browser.get("/flow/take/google/x").await;
    assert_eq!(
        (refused.cache_control(), refused.vary()),
        (vec!["no-store".to_owned()], vec!["cookie".to_owned()]),
        "another browser gets another answer"
    );
    let mut forger = site.browser();
    for (name, value) in &browser.jar {
        forger.jar.insert(name.clone(), format!("A{}", &value[1..]));
    }
    assert_eq!(take(&mut forger, "GET", "google", &first[0]).await.0, 400, "a forged cookie");
    assert_eq!(browser.page("/user").await, "nobody");

    let (status, taken) = take(&mut browser, "GET", "google", &second[0]).await;
    assert_eq!((status, &taken[0], taken[2].as_str()), (200, &second[1], "/second"));
    let (status, taken) = take(&mut browser, "GET", "google", &first[0]).await;
    assert_eq!((status, &taken[0], taken[2].as_str()), (200, &first[1], "/first"));
    let (status, taken) = take(&mut browser, "GET", "git-hub", &hub[0]).await;
    assert_eq!((status, taken[2].as_str()), (200, "/"), "no address of another site");
    assert_eq!(flow_cookies(&browser), 0);
}

pub async fn a_callback_that_posts_a_form_brings_its_flow(site: &Site) {
    let mut browser = site.browser_with(site.sessions().accept_cross_site_at(["/flow/take/apple"]));
    let reply = browser.request("GET", "/flow/begin/apple/account").await;
    let cookie = &reply.cookies()[0];
    assert!(cookie.contains("SameSite=None") && cookie.contains("Secure"), "{cookie}");
    let state = reply.body.split(' ').next().expect("a state");
    browser.headers.insert(HeaderName::from_static("sec-fetch-site"), "cross-site".parse().unwrap());
    assert_eq!(take(&mut browser, "POST", "google", state).await.0, 403, "another path");
    let (status, taken) = take(&mut browser, "POST", "apple", state).await;
    assert_eq!((status, taken[2].as_str()), (200, "/account"));
    assert_eq!(browser.page("/user").await, "42");
    assert_eq!(take(&mut browser, "POST", "apple", state).await.0, 400, "once");

    let plain = site.sessions().cookie(CookiePolicy::default().insecure_without_tls());
    let reply = site.browser_with(plain).get("/flow/begin/apple/account").await;
    assert_eq!(reply.status, 500, "no browser keeps `SameSite=None` without `Secure`");
}

pub async fn a_browser_has_a_bounded_number_of_flows(site: &Site) {
    let mut browser = site.browser();
    let mut begun = Vec::new();
    for _ in 0..FLOWS_MAX + 3 {
        begun.push(begin(&mut browser, "google", "").await);
        assert!(flow_cookies(&browser) <= FLOWS_MAX);
    }
    let rows = usize::try_from(site.rows().await).expect("a count");
    assert_eq!((rows, flow_cookies(&browser)), (FLOWS_MAX, FLOWS_MAX));
    let newest = begun.pop().expect("many");
    assert_eq!(take(&mut browser, "GET", "google", &newest[0]).await.0, 200);
}

pub async fn a_flow_ends_after_ten_minutes(site: &Site) {
    let mut browser = site.browser();
    let flow = begin(&mut browser, "google", "").await;
    let query = "SELECT count(*) FROM sessions WHERE expires_at BETWEEN now() + interval '9 minutes' \
                 AND now() + interval '10 minutes'";
    let rows: i64 = site.client().await.query_one(query, &[]).await.expect("a count").get(0);
    assert_eq!(rows, 1);
    let end = "UPDATE sessions SET expires_at = now(), version = version + 1";
    site.client().await.execute(end, &[]).await.expect("an update");
    site.node.evict_all().await.expect("evicted");
    assert_eq!(take(&mut browser, "GET", "google", &flow[0]).await.0, 400);
    assert_eq!(browser.page("/user").await, "nobody");
}
