//! Signing in and out: fixation, rotation with requests in parallel, devices.

use std::collections::BTreeSet;
use std::time::Duration;

use hyper::header::USER_AGENT;
use pg_session::SigningKey;
use pg_session_web::SessionConfig;

use super::world::{Site, eventually, in_time};

pub async fn a_planted_id_is_never_adopted(site: &Site) {
    let mut browser = site.browser();
    // Signed with our own key even, for a session that does not exist: as if an attacker had the key's help.
    let mut other = site.browser();
    other.page("/set/cart/apples").await;
    let planted = other.token().expect("a session").to_owned();
    other.page("/logout").await;
    for planted in [planted.as_str(), "67e55044-10b1-426f-9247-bb680e5fe0c8", "1"] {
        browser.plant(planted);
        assert_eq!(browser.page("/set/cart/pears").await, "set");
        let own = browser.token().expect("a session of its own").to_owned();
        assert_ne!(own, planted);
        let id = |token: &str| site.signer.verify(token).map(|verified| verified.id);
        assert_ne!(id(&own), id(planted), "a fresh id");
        browser.plant(planted);
        assert_eq!(browser.page("/get/cart").await, "none", "nothing came under the planted one");
    }
}

pub async fn a_planted_session_of_a_visitor_does_not_become_the_victims(site: &Site) {
    let mut attacker = site.browser();
    attacker.page("/set/cart/apples").await;
    let planted = attacker.token().expect("a session").to_owned();
    let mut victim = attacker.tab();
    victim.page("/login/42").await;
    victim.page("/set/secret/1234").await;
    assert_ne!(victim.token(), Some(planted.as_str()));
    assert_eq!(victim.page("/user").await, "42");
    // In the grace: the attacker sees what was his, and nothing else.
    assert_eq!(attacker.page("/user").await, "nobody");
    assert_eq!(attacker.page("/get/secret").await, "none");
    assert_eq!(attacker.get("/set/cart/poison").await.status, 409);
    for path in ["/logout-everywhere", "/logout-others", "/devices", "/elevate"] {
        assert!(attacker.get(path).await.status.is_client_error(), "{path}");
    }
    assert_eq!(victim.page("/user").await, "42");
    assert_eq!(victim.page("/get/cart").await, "none", "the attacker's cart did not come along");
}

pub async fn what_a_visitor_had_is_kept_only_where_it_was_asked_for(site: &Site) {
    let mut browser = site.browser_with(site.sessions().keep_at_login(["cart"]));
    browser.page("/set/cart/apples").await;
    browser.page("/set/role/admin").await;
    browser.page("/login/42").await;
    assert_eq!(browser.page("/get/cart").await, "apples");
    assert_eq!(browser.page("/get/role").await, "none");
    browser.page("/set/role/member").await;
    browser.page("/login/42").await;
    assert_eq!(browser.page("/get/role").await, "member", "the same user again");
    browser.page("/login/43").await;
    assert_eq!(browser.page("/get/cart").await, "none", "another user");
    assert_eq!(browser.page("/get/role").await, "none", "another user");
    assert_eq!(browser.page("/user").await, "43");
}

/// Other tabs' requests with the old id: two are in flight when the login commits, another comes afterwards. A key was just
/// rotated, so each of them would like to hand out a new token.
pub async fn parallel_requests_with_retired_id_see_old_state(site: &Site) {
    let mut browser = site.browser();
    browser.page("/set/cart/apples").await;
    let new = SigningKey::generate().expect("a key");
    site.signer.replace(site.signer.ring().with_signing(&new).expect("room"));
    let (mut reader, mut writer, mut late) = (browser.tab(), browser.tab(), browser.tab());
    let reading = tokio::spawn(async move { reader.get("/slow-get/cart").await });
    let writing = tokio::spawn(async move { writer.get("/slow/cart/pears").await });
    site.gate.reached().await;
    site.gate.reached().await;
    browser.page("/login/42").await;
    site.gate.open();
    site.gate.open();

    let reply = in_time("it returns", reading).await.expect("a reply");
    assert_eq!((reply.status.as_u16(), reply.body.as_str()), (200, "apples"));
    assert!(reply.cookies().is_empty(), "it would replace the new one");
    let reply = in_time("it returns", writing).await.expect("a reply");
    assert_eq!(reply.status, 409, "its change is not saved, and the response says so");
    assert!(reply.cookies().is_empty(), "it would replace the new one");
    let reply = late.get("/get/cart").await;
    assert_eq!((reply.status.as_u16(), reply.body.as_str()), (200, "apples"));
    assert!(reply.cookies().is_empty());
    assert_eq!(browser.page("/user").await, "42");
    assert_eq!(browser.page("/get/cart").await, "none");
}

pub async fn retired_id_is_served_for_configured_grace_only(site: &Site) {
    let mut browser = site.browser_with_grace(Duration::from_secs(3)).await;
    browser.page("/set/cart/apples").await;
    let mut old = browser.tab();
    browser.page("/login/42").await;
    assert_eq!(old.page("/get/cart").await, "apples", "for the grace");
    eventually("the grace ends", async || old.page("/get/cart").await == "none").await;
    assert!(old.get("/get/cart").await.cookies().is_empty(), "the browser holds the new one");
    assert_eq!(browser.page("/user").await, "42");

    let mut browser = site.browser_with_grace(Duration::ZERO).await;
    browser.page("/set/cart/apples").await;
    let mut old = browser.tab();
    browser.page("/login/42").await;
    assert_eq!(old.page("/get/cart").await, "none", "at once");
    assert_eq!(browser.page("/user").await, "42");
}

pub async fn two_logins_at_once_both_end_signed_in(site: &Site) {
    let mut browser = site.browser();
    browser.page("/set/cart/apples").await;
    let (mut a, mut b) = (browser.tab(), browser.tab());
    let (one, two) = (
        tokio::spawn(async move { (a.page("/login/42").await, a) }),
        tokio::spawn(async move { (b.page("/login/42").await, b) }),
    );
    let (one, two) = (in_time("a login", one).await.unwrap(), in_time("a login", two).await.unwrap());
    for (_, mut tab) in [one, two] {
        assert_eq!(tab.page("/user").await, "42", "whichever response the browser took last");
    }
}

/// ```text
/// tab 1: login ── rotates the old id ── 200
/// tab 2:     login ── waits for the row ── finds it rotated ── goes on with the session of tab 1 ── 200
/// ```
pub async fn parallel_logins_with_one_old_id_share_one_session(site: &Site) {
    let mut phone = site.browser();
    phone.page("/login/42").await;
    let mut browser = site.browser();
    browser.page("/set/cart/apples").await;
    let other = SessionConfig::new(site.other_node().await, site.signer.clone());
    let elsewhere = site.serve(other);
    let tabs = [browser.tab(), browser.tab_at(elsewhere), browser.tab(), browser.tab_at(elsewhere)];
    let logins = tabs.map(|mut tab| tokio::spawn(async move { (tab.page("/login/42").await, tab) }));
    let mut ids = BTreeSet::new();
    for login in logins {
        let (_, mut tab) = in_time("a login", login).await.unwrap();
        ids.insert(here(&tab.page("/devices").await));
    }
    // Within the grace, also after the answer.
    let mut late = browser.tab();
    late.page("/login/42").await;
    ids.insert(here(&late.page("/devices").await));
    assert_eq!(ids.len(), 1, "one session");
    assert_eq!(phone.page("/devices").await.lines().count(), 2, "the phone and the browser");
}

/// The id of the device that asks.
fn here(devices: &str) -> String {
    let here = devices.lines().find(|line| line.contains(" here ")).expect("this one");
    here.split(' ').next().expect("an id").to_owned()
}

pub async fn an_old_id_leads_to_no_other_session(site: &Site) {
    let mut browser = site.browser();
    browser.page("/set/cart/apples").await;
    let mut another_user = browser.tab();
    let mut without_privilege = browser.tab();
    browser.page("/login/42").await;
    another_user.page("/login/43").await;
    assert_eq!(another_user.page("/user").await, "43");
    assert_eq!(another_user.page("/devices").await.lines().count(), 1);
    browser.page("/elevate").await;
    without_privilege.page("/login/42").await;
    assert_eq!(without_privilege.get("/pay").await.status, 403, "a login gives no privilege");
    assert_ne!(here(&browser.page("/devices").await), here(&without_privilege.page("/devices").await));
    assert_eq!((browser.page("/user").await.as_str(), browser.page("/pay").await.as_str()), ("42", "paid"));

    // Without a grace, nothing leads from the old id to the new one.
    let mut browser = site.browser();
    browser.page("/set/cart/apples").await;
    let mut late = browser.tab();
    browser.page("/login-without-grace/44").await;
    late.page("/login/44").await;
    assert_ne!(here(&browser.page("/devices").await), here(&late.page("/devices").await));
    // A login with an old id of a session that has ended begins another one.
    let mut ended = site.browser();
    ended.page("/set/cart/apples").await;
    let mut late = ended.tab();
    ended.page("/login/45").await;
    ended.page("/logout").await;
    late.page("/login/45").await;
    assert_eq!((late.page("/user").await.as_str(), ended.page("/user").await.as_str()), ("45", "nobody"));
}

pub async fn devices_are_listed_and_ended_by_their_own_user_only(site: &Site) {
    let mut laptop = site.browser();
    laptop.page("/set/cart/apples").await;
    let before = site.milliseconds().await;
    laptop.page("/login/42").await;
    let after = site.milliseconds().await;
    let mut phone = site.browser_with(site.sessions().trust_address_header("X-Real-IP").truncate_addresses());
    phone.headers.insert(USER_AGENT, "Phone/2.0".parse().unwrap());
    phone.headers.insert("x-real-ip", "203.0.113.9".parse().unwrap());
    phone.page("/login/42").await;
    let mut stranger = site.browser();
    stranger.page("/login/43").await;

    let list = laptop.page("/devices").await;
    let lines: Vec<Vec<&str>> = list.lines().map(|line| line.split(' ').collect()).collect();
    assert_eq!(lines.len(), 2, "{list}");
    let here = lines.iter().find(|line| line[1] == "here").expect("this one");
    let there = lines.iter().find(|line| line[1] == "there").expect("the other one");
    assert_eq!(here[4..], ["127.0.0.1", "Test/1.0"]);
    assert_eq!(there[4..], ["203.0.113.0", "Phone/2.0"]);
    let time = |line: &[&str], column: usize| line[column].parse::<u128>().expect("milliseconds");
    assert!(
        (before..=after).contains(&time(here, 2)),
        "{before} {here:?} {after}: signed in, not first seen"
    );
    assert!((after..).contains(&time(there, 2)), "{after} {there:?}");
    for line in &lines {
        assert!(time(line, 3) >= time(line, 2), "used after it was made: {line:?}");
    }
    let token = phone.token().expect("signed in");
    let id = site.signer.verify(token).expect("authentic").id.expose();
    assert!(
        !list.contains(&id.simple().to_string()[..12]) && !list.contains(token),
        "no capability on a page"
    );

    assert_eq!(stranger.page(&format!("/end/{}", there[0])).await, "false", "of another user");
    assert_eq!(phone.page("/user").await, "42");
    assert_eq!(laptop.page(&format!("/end/{}", there[0])).await, "true");
    assert_eq!(phone.page("/user").await, "nobody");
    assert_eq!(laptop.page(&format!("/end/{}", there[0])).await, "false", "already");
    assert_eq!(laptop.page(&format!("/end/{}", here[0])).await, "true");
    assert_eq!(laptop.token(), None, "its own is a logout");
    assert_eq!(laptop.get("/devices").await.status, 401);
    assert_eq!(stranger.page("/user").await, "43");
}

pub async fn a_client_behind_proxies_is_recorded_with_its_own_address(site: &Site) {
    let sessions = || site.sessions().trust_address_header("x-forwarded-for");
    let addresses = |sessions, lines: &'static [&'static str]| async move {
        let mut browser = site.browser_with(sessions);
        for line in lines {
            browser.headers.append("x-forwarded-for", line.parse().unwrap());
        }
        browser.page("/login/42").await;
        let list = browser.page("/devices").await;
        browser.page("/logout").await;
        list.split(' ').nth(4).expect("an address").to_owned()
    };
    let two = sessions().trusted_proxies(2).expect("two");
    let lines = &["6.6.6.6, \"[2001:db8::1]:443\"", "10.0.0.2:80,"];
    assert_eq!(addresses(two, lines).await, "2001:db8::1");
    let networks = || sessions().trusted_networks(["127.0.0.0/8", "10.0.0.0/8"]).expect("networks");
    assert_eq!(addresses(networks(), &["6.6.6.6, 203.0.113.9:80, 10.0.0.2"]).await, "203.0.113.9");
    assert_eq!(addresses(networks(), &["6.6.6.6, unknown"]).await, "?");
    let elsewhere = sessions().trusted_networks(["10.0.0.0/8"]).expect("a network");
    assert_eq!(addresses(elsewhere, &["6.6.6.6"]).await, "127.0.0.1", "not through a proxy");
}

pub async fn logout_everywhere_and_elsewhere_reaches_other_browsers(site: &Site) {
    let mut browsers = [site.browser(), site.browser(), site.browser()];
    for browser in &mut browsers {
        browser.page("/login/42").await;
    }
    let [a, b, c] = &mut browsers;
    assert_eq!(a.page("/logout-others").await, "2");
    assert_eq!(a.page("/user").await, "42");
    assert_eq!(b.page("/user").await, "nobody");
    assert_eq!(c.page("/user").await, "nobody");
    b.page("/login/42").await;
    assert_eq!(b.page("/logout-everywhere").await, "2");
    assert_eq!(b.token(), None);
    assert_eq!(b.page("/user").await, "nobody");
    assert_eq!(a.page("/user").await, "nobody");
    assert_eq!(site.rows().await, 0);
}

/// An attacker stole the cookie before the user logged in again, or stepped up. The grace is still on.
pub async fn the_others_of_a_theft_are_the_old_ids_too(site: &Site) {
    let mut browser = site.browser();
    browser.page("/login/42").await;
    browser.page("/elevate").await;
    let mut thief = browser.tab();
    for path in ["/login/42", "/elevate"] {
        let mut second = browser.tab();
        browser.page(path).await;
        for old in [&mut thief, &mut second] {
            assert_eq!(
                (old.page("/user").await, old.page("/pay").await),
                ("42".into(), "paid".into()),
                "{path}"
            );
        }
        assert_eq!(browser.page("/logout-others").await, "0", "no other session");
        for old in [&mut thief, &mut second] {
            assert_eq!(old.page("/user").await, "nobody", "{path}");
            assert_eq!(old.get("/pay").await.status, 403, "{path}");
        }
        assert_eq!(browser.page("/user").await, "42", "{path}");
        thief = browser.tab();
    }
    // Also what was left from before there was a user.
    let mut visitor = site.browser();
    visitor.page("/set/cart/apples").await;
    let mut old = visitor.tab();
    visitor.page("/login/43").await;
    assert_eq!(old.page("/get/cart").await, "apples");
    visitor.page("/logout-others").await;
    assert_eq!(old.page("/get/cart").await, "none");
}

pub async fn without_grace_the_old_id_ends_with_the_login(site: &Site) {
    let mut browser = site.browser();
    browser.page("/login/42").await;
    browser.page("/elevate").await;
    for path in ["/login-without-grace/42", "/elevate-without-grace"] {
        let mut thief = browser.tab();
        assert_eq!(thief.page("/pay").await, "paid");
        browser.page(path).await;
        assert_eq!(thief.page("/user").await, "nobody", "{path}");
        assert_eq!(thief.get("/pay").await.status, 403, "{path}");
        assert_eq!((browser.page("/user").await, browser.page("/pay").await), ("42".into(), "paid".into()));
    }
}

pub async fn a_login_with_a_cap_ends_the_users_other_sessions(site: &Site) {
    let mut browsers = [site.browser(), site.browser(), site.browser()];
    for browser in &mut browsers {
        browser.page("/login/42").await;
    }
    let mut another = site.browser();
    another.page("/login/43").await;
    let [a, b, c] = &mut browsers;
    // As a visitor, then as the user who is signed in already.
    let mut visitor = site.browser();
    visitor.page("/login-cap/42/3").await;
    assert_eq!(a.page("/user").await, "nobody", "the least recently used one");
    assert_eq!((b.page("/user").await, c.page("/user").await), ("42".into(), "42".into()));
    b.page("/login-cap/42/1").await;
    assert_eq!(b.page("/user").await, "42", "its own place");
    for ended in [c, &mut visitor] {
        assert_eq!(ended.page("/user").await, "nobody");
    }
    assert_eq!(b.page("/devices").await.lines().count(), 1);
    assert_eq!(another.page("/user").await, "43");
    assert_eq!(another.get("/login-cap/43/0").await.status, 500, "no cap");
}

/// Through a step-up and a login without a label. Another user does not inherit it.
pub async fn a_label_of_a_login_goes_with_its_user(site: &Site) {
    let mut browser = site.browser();
    let labelled = async |label| site.node.label(label).list().await.expect("it is answered").len();
    browser.page("/set/cart/apples").await;
    browser.page("/login-label/42/first").await;
    browser.page("/elevate").await;
    browser.page("/login/42").await;
    assert_eq!(labelled("first").await, 1);
    browser.page("/login-label/42/second").await;
    assert_eq!((labelled("first").await, labelled("second").await), (0, 1));
    browser.page("/login/43").await;
    assert_eq!(labelled("second").await, 0);
    let mut other = site.browser();
    other.page("/login-label/43/third").await;
    assert_eq!(site.node.label("third").delete().await.expect("it is answered"), 1);
    assert_eq!(
        (browser.page("/user").await, other.page("/user").await),
        ("43".to_owned(), "nobody".to_owned())
    );
}
