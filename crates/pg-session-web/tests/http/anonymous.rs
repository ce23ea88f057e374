//! Visitors: nothing is asked, stored or sent for those who do nothing with their session.

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
    // Somebody who brings along nonsense is told to forget it.
    browser.plant("nonsense");
    let reply = browser.get("/logout").await;
    assert_eq!((reply.body.as_str(), reply.cookies().len()), ("false", 1));
    assert_eq!(browser.token(), None);
    assert_eq!(site.statements(), before);
}
