//! Visitors: a visitor that does not use its session costs no query, row or cookie.

use std::time::Duration;

use tokio::time::Instant;

use super::browser::Browser;
use super::world::{Site, in_time};

pub async fn ten_thousand_visitors_leave_no_row_and_ask_no_query(site: &Site) {
    const VISITORS: usize = 10_000;
    let addr = site.serve(site.sessions());
    let before = site.statements();
    let browsers = (0..8).map(|_| {
        tokio::spawn(async move {
            let mut browser = Browser::new(addr);
            for visit in 0..VISITORS / 8 {
                // The last two read the session: it is empty, and stays so.
                let path = ["/", "/", "/get/cart", "/user"][visit % 4];
                let reply = browser.send("GET", path, &[]).await;
                assert_eq!(reply.status, 200);
                assert!(reply.cookies().is_empty(), "{path}");
                assert_eq!(reply.vary().is_empty(), path == "/", "{path}");
            }
        })
    });
    for browser in browsers.collect::<Vec<_>>() {
        in_time("the visits end", browser).await.expect("all are answered");
    }
    assert_eq!(site.statements(), before, "queries");
    assert_eq!(site.rows().await, 0, "rows");
}

pub async fn what_a_visitor_sets_is_there_with_the_next_request(site: &Site) {
    let mut browser = site.browser();
    assert_eq!(browser.page("/set/cart/apples").await, "set");
    assert_eq!(site.rows().await, 1);
    assert_eq!(browser.page("/get/cart").await, "apples");
    assert_eq!(browser.page("/user").await, "nobody");
    assert_eq!(browser.page("/set/cart/pears").await, "set");
    assert_eq!(browser.page("/get/cart").await, "pears");
    assert_eq!(site.rows().await, 1);
    assert_eq!(site.browser().page("/get/cart").await, "none", "another browser");
}

pub async fn an_attribute_over_a_limit_fails_when_it_is_set(site: &Site) {
    let mut browser = site.browser();
    let long = format!("/set-or-skip/{}/apples", "k".repeat(300));
    let reply = browser.get(&long).await;
    assert_eq!((reply.status.as_u16(), reply.body.as_str()), (200, "skipped"), "as a visitor");
    assert_eq!(site.rows().await, 0);
    assert_eq!(browser.page("/set-or-skip/cart/apples").await, "set");
    let reply = browser.get(&long).await;
    assert_eq!((reply.status.as_u16(), reply.body.as_str()), (200, "skipped"), "in a session");
}

pub async fn a_removal_or_a_logout_of_nothing_makes_nothing(site: &Site) {
    let mut browser = site.browser();
    let before = site.statements();
    for path in ["/remove/cart", "/logout", "/take/cart", "/flash", "/lower"] {
        let reply = browser.get(path).await;
        assert_eq!(reply.status, 200, "{path}");
        assert!(reply.cookies().is_empty(), "{path}");
    }
    assert_eq!(site.statements(), before);
    assert_eq!(site.rows().await, 0);
    // The response removes a cookie that is not a token.
    browser.plant("nonsense");
    let reply = browser.get("/logout").await;
    assert_eq!((reply.body.as_str(), reply.cookies().len()), ("false", 1));
    assert_eq!(browser.token(), None);
    assert_eq!(site.statements(), before);
}

/// Seconds until the absolute limit of the only session.
async fn seconds_left(site: &Site) -> i64 {
    let query = "SELECT extract(epoch FROM expires_at - clock_timestamp())::bigint FROM sessions
                 WHERE rotated_to IS NULL";
    site.client().await.query_one(query, &[]).await.expect("its row").get(0)
}

/// Lets some of its life pass.
async fn age(site: &Site, seconds: i64) {
    let update = format!(
        "UPDATE sessions SET expires_at = expires_at - interval '{seconds} seconds', version = version + 1"
    );
    site.client().await.batch_execute(&update).await.expect("it is older");
    site.node.evict_all().await.expect("the cache is empty");
}

fn near(seconds: i64, expected: i64) -> bool {
    (expected - 60..=expected).contains(&seconds)
}

pub async fn an_anonymous_session_is_short_and_a_change_renews_it(site: &Site) {
    const HOUR: i64 = 3_600;
    let mut browser = site.browser();
    browser.page("/set/cart/apples").await;
    for path in ["/set/cart/pears", "/count"] {
        assert!(near(seconds_left(site).await, 4 * HOUR), "{path}");
        age(site, HOUR).await;
        browser.page(path).await;
        assert!(near(seconds_left(site).await, 3 * HOUR), "{path}: not half of it is over");
        age(site, HOUR + 1).await;
        let reply = browser.get(path).await;
        assert!(reply.cookies()[0].contains("; Max-Age=14"), "{path}: {:?}", reply.cookies());
    }
    browser.page("/login/42").await;
    let lifetime = i64::try_from(site.node.config().absolute_timeout.as_secs()).expect("seconds");
    assert!(near(seconds_left(site).await, lifetime), "a user's session");
    age(site, lifetime - 60).await;
    browser.page("/set/cart/plums").await;
    assert!(near(seconds_left(site).await, 60), "a user's session has an end");
    browser.page("/logout").await;

    let minute = Duration::from_secs(60);
    site.browser_with(site.sessions().anonymous_lifetime(minute)).page("/set/cart/apples").await;
    assert!(near(seconds_left(site).await, 60), "as it was set");
}

pub async fn clients_without_cookies_create_a_bounded_number_of_rows(site: &Site) {
    const REQUESTS: usize = 1_000;
    const PER_SECOND: u32 = 20;
    let addr = site.serve(site.sessions().anonymous_per_second(PER_SECOND));
    let began = Instant::now();
    let clients = (0..8).map(|_| {
        tokio::spawn(async move {
            let (mut client, mut created) = (Browser::new(addr), 0);
            for _ in 0..REQUESTS / 8 {
                let reply = client.send("GET", "/set/cart/apples", &[]).await;
                match reply.status.as_u16() {
                    200 => created += 1,
                    status => assert_eq!((status, reply.cookies().len()), (503, 0), "{}", reply.body),
                }
            }
            created
        })
    });
    let mut created = 0;
    for client in clients.collect::<Vec<_>>() {
        created += in_time("the requests end", client).await.expect("all are answered");
    }
    let seconds = began.elapsed().as_secs() + 1;
    assert!(created >= i64::from(PER_SECOND), "{created}");
    let most = i64::from(PER_SECOND) * i64::try_from(seconds + 1).expect("seconds");
    assert!(created <= most, "{created} of {most}");
    assert_eq!(site.rows().await, created, "what was refused left nothing");

    let mut user = Browser::new(site.serve(site.sessions().anonymous_per_second(1)));
    assert_eq!(user.page("/set/cart/apples").await, "set");
    let reply = user.tab_at(addr).send("GET", "/set/cart/apples", &[]).await;
    assert!(reply.status == 200 || reply.body.starts_with("Too many visitors"), "{}", reply.body);
    for path in ["/set/cart/pears", "/login/42", "/logout", "/login/43"] {
        assert_eq!(user.get(path).await.status, 200, "{path}: neither a change nor a login counts");
    }
}
