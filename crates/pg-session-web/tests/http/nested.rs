//! A layer inside of another one.

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
