//! "Stay signed in", and requests that do not count as accesses.

use std::time::Duration;

use pg_session::{AssuranceLevel, SessionManager};
use pg_session_web::SessionConfig;

use super::browser::Reply;
use super::world::{Site, config, eventually};

const DAY: i64 = 24 * 3_600;

/// The seconds of the cookie's `Max-Age`.
fn age(reply: &Reply) -> Option<i64> {
    let cookies = reply.cookies();
    let (_, rest) = cookies.first().expect("a cookie").split_once("Max-Age=")?;
    Some(rest.split(';').next().expect("a number").parse().expect("seconds"))
}

/// What the row says: seconds until the absolute limit, and whether there is an idle limit.
async fn limits(site: &Site, user: i64) -> (i64, bool) {
    let query =
        "SELECT extract(epoch FROM expires_at - clock_timestamp())::bigint, idle_limited FROM sessions
                 WHERE rotated_to IS NULL AND user_id = $1";
    let user = pg_session::UserId::from(user).as_uuid();
    let row = site.client().await.query_one(query, &[&user]).await.expect("its row");
    (row.get(0), row.get(1))
}

fn near(seconds: i64, expected: i64) -> bool {
    (expected - 60..=expected).contains(&seconds)
}

pub async fn a_remembered_login_is_not_idle_and_keeps_its_cookie(site: &Site) {
    let mut browser = site.browser();
    let reply = browser.get("/login-remember/true/42").await;
    assert!(near(age(&reply).expect("kept"), 30 * DAY), "{:?}", reply.cookies());
    let (left, idle) = limits(site, 42).await;
    assert!(near(left, 30 * DAY) && !idle, "{left} {idle}");
    // Also under the next version and the next id.
    for path in ["/set/cart/apples", "/elevate"] {
        let reply = browser.get(path).await;
        assert!(near(age(&reply).expect("kept"), 30 * DAY), "{path}: {:?}", reply.cookies());
    }
    // Another user gets nothing of it.
    let lifetime = i64::try_from(site.node.config().absolute_timeout.as_secs()).expect("seconds");
    assert!(near(age(&browser.get("/login/43").await).expect("kept"), lifetime));
    let (left, idle) = limits(site, 43).await;
    assert!(near(left, lifetime) && idle, "{left} {idle}");

    let sessions = site.sessions().remember_for(Duration::from_secs(7 * 24 * 3_600));
    let reply = site.browser_with(sessions).get("/login-remember/true/44").await;
    assert!(near(age(&reply).expect("kept"), 7 * DAY), "{:?}", reply.cookies());
}

pub async fn a_remembered_login_keeps_to_its_assurance_level(site: &Site) {
    let refused =
        site.sessions().assurance(AssuranceLevel::Aal2).expect_err("the manager's limits are longer");
    assert!(refused.to_string().contains("Config::assurance"), "{refused}");
    let config = config(&site.schema).assurance(AssuranceLevel::Aal2);
    let node = SessionManager::connect(&site.url, config).await.expect("the node starts");
    let sessions = SessionConfig::new(node, site.signer.clone()).assurance(AssuranceLevel::Aal2);
    let mut browser = site.browser_with(sessions.expect("the manager keeps to the level"));
    let reply = browser.get("/login-remember/true/45").await;
    assert!(near(age(&reply).expect("kept"), DAY), "{:?}", reply.cookies());
    let (left, idle) = limits(site, 45).await;
    assert!(near(left, DAY) && idle, "{left} {idle}");
}

pub async fn a_login_that_is_not_remembered_ends_with_the_browser(site: &Site) {
    let mut browser = site.browser();
    browser.page("/login-remember/true/42").await;
    let reply = browser.get("/login-remember/false/42").await;
    assert_eq!(age(&reply), None, "{:?}", reply.cookies());
    let lifetime = i64::try_from(site.node.config().absolute_timeout.as_secs()).expect("seconds");
    let (left, idle) = limits(site, 42).await;
    assert!(near(left, lifetime) && idle, "{left} {idle}");
    assert_eq!(age(&browser.get("/set/cart/apples").await), None, "nor under the next version");
    assert_eq!(browser.page("/user").await, "42");
}

pub async fn a_page_that_polls_does_not_keep_an_idle_user_alive(site: &Site) {
    let mut config = config(&site.schema);
    config.idle_timeout = Duration::from_secs(2);
    config.last_access_flush_interval = Duration::from_millis(100);
    let node = SessionManager::connect(&site.url, config).await.expect("the node starts");
    let sessions = SessionConfig::new(node, site.signer.clone());
    let mut by_path = site.browser_with(sessions.clone().no_touch_paths(["/user"]));
    let mut by_request = site.browser_with(sessions.clone());
    let mut behind_guard = site.browser_with(sessions.clone());
    let mut active = site.browser_with(sessions);
    for browser in [&mut by_path, &mut by_request, &mut behind_guard, &mut active] {
        browser.page("/login/42").await;
    }
    eventually("all polling pages become idle", async || {
        assert_eq!(active.page("/user").await, "42", "its requests are accesses");
        let polls = [by_path.page("/user").await, by_request.page("/poll").await];
        polls == ["nobody", "nobody"] && behind_guard.get("/inside/poll").await.status == 401
    })
    .await;
}
