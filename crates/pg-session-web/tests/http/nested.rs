//! A layer inside of another one.

use hyper::header::HOST;

use super::browser::Browser;
use super::world::Site;

/// Each layer by itself would begin, save and answer: two cookies, a conflict, or a login that the outer one undoes.
pub async fn nested_layers_share_one_session(site: &Site) {
    let mut browser = site.browser();
    let reply = browser.get("/nested/set/cart/apples").await;
    assert_eq!((reply.status.as_u16(), reply.cookies().len()), (200, 1));
    assert_eq!(site.rows().await, 1);
    assert_eq!(browser.page("/get/cart").await, "apples");
    for path in ["/nested/login/42", "/nested/set/cart/pears", "/nested/count", "/nested/elevate"] {
        let reply = browser.get(path).await;
        assert_eq!((reply.status.as_u16(), reply.cookies().len()), (200, 1), "{path}: {}", reply.body);
        assert_eq!(browser.page("/user").await, "42", "{path}");
    }
    assert_eq!(browser.page("/nested/get/cart").await, "pears");
    assert!(browser.page("/get/between").await.ends_with("/get/cart"), "what was set in between is saved");
    let reply = browser.get("/nested/logout").await;
    assert_eq!((reply.body.as_str(), reply.cookies().len(), reply.vary().len()), ("true", 1, 1));
    assert_eq!(browser.page("/user").await, "nobody");
}

/// The layer is inside of the nested router, whose requests have a shorter path. A browser knows only the whole one.
pub async fn a_nested_cookie_is_set_and_removed_alike(site: &Site) {
    let cookie = async |browser: &mut Browser, path: &str| {
        let [cookie]: [String; 1] = browser.get(path).await.cookies().try_into().expect("one cookie");
        cookie
    };
    let scope = |cookie: &str| {
        let parts =
            cookie.split("; ").filter(|part| part.starts_with("Path=") || part.starts_with("Domain="));
        parts.collect::<Vec<_>>().join("; ")
    };
    let (mut browser, mut attacker) = (site.browser(), site.browser());
    let own = cookie(&mut browser, "/alone/login/42").await;
    let planted = cookie(&mut attacker, "/alone/login/43").await;
    assert_eq!(scope(&own), "Path=/; Domain=shop.localhost");

    let pairs = [&planted, &own].map(|cookie| cookie.split(';').next().expect("a pair").to_owned());
    browser.headers.insert(HOST, "shop.localhost".parse().expect("a host"));
    let reply = browser.send("GET", "/alone/user?page=2", &[pairs.join("; ")]).await;
    assert_eq!(reply.body, "nobody", "two live sessions");
    let mut removals: Vec<String> = reply.cookies().iter().map(|cookie| scope(cookie)).collect();
    removals.sort_unstable();
    let path = |path: &str| [format!("Path={path}"), format!("Path={path}; Domain=shop.localhost")];
    let mut others = [path("/alone"), path("/alone/"), path("/alone/user")].concat();
    others.push("Path=/".to_owned());
    others.sort_unstable();
    assert_eq!(removals, others, "of every place that a browser sends along, but not ours");

    let removal = cookie(&mut browser, "/alone/logout").await;
    assert_eq!(scope(&removal), scope(&own));
}
