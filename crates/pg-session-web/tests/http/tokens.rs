//! What travels: the cookie's flags, tokens that are not ours, headers instead of cookies, versions.

use std::time::Duration;

use hyper::header::AUTHORIZATION;
use pg_sandbox::Sandbox;
use pg_session::{SessionManager, SigningKey};
use pg_session_web::{CookiePolicy, SessionConfig};

use super::browser::COOKIE_NAME;
use super::world::{Site, config};

pub async fn the_cookie_has_all_flags(site: &Site) {
    let mut browser = site.browser();
    let cookies = browser.get("/set/cart/apples").await.cookies();
    let [cookie] = cookies.as_slice() else { panic!("one cookie: {cookies:?}") };
    assert!(cookie.len() <= 4096, "{} bytes", cookie.len());
    let (pair, attributes) = cookie.split_once("; ").expect("attributes");
    assert_eq!(pair, format!("{COOKIE_NAME}={}", browser.token().expect("kept")));
    let mut attributes: Vec<&str> = attributes.split("; ").collect();
    attributes.sort_unstable();
    let (age, flags) = attributes.split_at(2);
    assert_eq!(flags, ["Path=/", "SameSite=Lax", "Secure"]);
    assert_eq!(age[0], "HttpOnly");
    let seconds: u64 = age[1].strip_prefix("Max-Age=").expect("an age").parse().expect("seconds");
    let lifetime = 4 * 3_600;
    assert!((lifetime - 60..=lifetime + 60).contains(&seconds), "{seconds}");
}

/// The database's clock is an hour behind the node's, and a session lives half an hour.
pub async fn a_node_clock_that_is_ahead_does_not_shorten_the_cookie(site: &Site) {
    let mut config = config(&site.schema);
    let lifetime = Duration::from_secs(1_800);
    (config.absolute_timeout, config.idle_timeout) = (lifetime, lifetime);
    config.last_access_flush_interval = Duration::from_secs(60);
    let builder = SessionManager::builder(config).url(&site.url).expect("a URL");
    let behind = "(pg_catalog.clock_timestamp() - interval '1 hour')";
    let node = builder.database_clock(behind).connect().await.expect("the node starts");
    let mut browser = site.browser_with(SessionConfig::new(node, site.signer.clone()));
    let cookie = browser.get("/login/42").await.cookies().remove(0);
    let (_, age) = cookie.split_once("Max-Age=").expect("an age");
    let seconds: u64 = age.split(';').next().expect("a number").parse().expect("seconds");
    assert!((1_740..=1_800).contains(&seconds), "{seconds}");
    assert_eq!(browser.page("/user").await, "42");
}

pub async fn forged_and_truncated_tokens_cost_no_query(site: &Site) {
    let mut browser = site.browser();
    browser.page("/login/42").await;
    let good = browser.token().expect("signed in").to_owned();
    let id = site.signer.verify(&good).expect("authentic").id.expose();
    let other = if good.ends_with('A') { "B" } else { "A" };
    let wrong = [
        String::new(),
        "x".to_owned(),
        good[..good.len() - 1].to_owned(),
        format!("{good}A"),
        format!("{}{other}", &good[..good.len() - 1]),
        good.to_uppercase(),
        id.to_string(),
        id.simple().to_string(),
        "A".repeat(4000),
        format!("\"{good}\""),
    ];
    let before = site.statements();
    for token in wrong {
        browser.plant(&token);
        let reply = browser.get("/user").await;
        assert_eq!((reply.status.as_u16(), reply.body.as_str()), (200, "nobody"), "{token}");
        assert!(reply.cookies().is_empty(), "{token}");
    }
    assert_eq!(site.statements(), before);
    browser.plant(&good);
    assert_eq!(browser.page("/user").await, "42");
}

/// Whatever is asked for, and by the server's own word: its log has every statement.
pub async fn forged_or_truncated_token_never_reaches_database(site: &Site) {
    let sandbox = Sandbox::builder().setting("log_statement", "all").start().expect("PostgreSQL starts");
    let site = Site::on(&sandbox, site.edge()).await;
    let statements = || sandbox.log().matches(&site.schema).count();
    let mut browser = site.browser();
    browser.page("/login/42").await;
    let old = browser.token().expect("signed in").to_owned();
    let new = SigningKey::generate().expect("a key");
    let ring = site.signer.ring().with_signing(&new).expect("room");
    site.signer.replace(ring.without(site.key.id()).expect("it does not sign"));
    browser.page("/login/42").await;
    let good = browser.token().expect("signed in").to_owned();

    let mut addrs = vec![site.serve(site.sessions()), site.serve(site.sessions().bearer_tokens())];
    let flipped = if good.ends_with('A') { "B" } else { "A" };
    let forged = format!("{}{flipped}", &good[..good.len() - 1]);
    let bare = site.signer.verify(&good).expect("authentic").id.expose().to_string();
    let before = statements();
    for token in [old.as_str(), &forged, &good[..good.len() - 1], &bare] {
        for addr in &addrs {
            let mut browser = browser.tab_at(*addr);
            browser.headers.insert(AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
            for path in EVERYTHING_BUT_NEW_SESSIONS {
                browser.plant(token);
                let reply = browser.get(path).await;
                assert!(reply.status != 500 && reply.body != "42", "{path}: {}", reply.status);
            }
        }
    }
    assert_eq!(statements(), before);
    let mut browser = browser.tab_at(addrs.remove(0));
    browser.plant(&good);
    assert_eq!(browser.page("/logout").await, "true");
    assert!(statements() > before, "or this test reads the wrong log");
}

/// What an anonymous visitor may ask for without beginning a session.
const EVERYTHING_BUT_NEW_SESSIONS: [&str; 13] = [
    "/",
    "/user",
    "/get/cart",
    "/remove/cart",
    "/take/cart",
    "/flash",
    "/lower",
    "/pay",
    "/elevate",
    "/devices",
    "/logout",
    "/logout-others",
    "/logout-everywhere",
];

fn cookie_header(token: &str) -> String {
    format!("{COOKIE_NAME}={token}")
}

/// Cookies that a sibling domain or another path can plant beside ours.
pub async fn a_planted_cookie_does_not_hide_the_valid_one(site: &Site) {
    let mut browser = site.browser();
    browser.page("/login/42").await;
    let good = cookie_header(browser.token().expect("signed in"));
    let mut ended = site.browser();
    ended.page("/login/43").await;
    let ended_cookie = cookie_header(ended.token().expect("signed in"));
    assert_eq!(ended.page("/logout").await, "true");
    let rows = site.rows().await;
    let planted = [
        cookie_header(""),
        cookie_header("x"),
        COOKIE_NAME.to_owned(),
        cookie_header(&"A".repeat(2_000)),
        format!("\u{2000}{}", cookie_header("evil")),
        vec![cookie_header("x"); 100].join("; "),
        ended_cookie,
        good.clone(),
    ];
    for planted in &planted {
        let orders = [
            vec![format!("{good}; {planted}")],
            vec![format!("{planted}; {good}")],
            vec![good.clone(), planted.clone()],
            vec![planted.clone(), good.clone()],
        ];
        for cookies in orders {
            assert_eq!(browser.send("GET", "/user", &cookies).await.body, "42", "{cookies:?}");
        }
    }
    assert_eq!(site.rows().await, rows, "no row was created");
    let cookies = [format!("{}; {good}", planted[0])];
    assert_eq!(browser.send("GET", "/logout", &cookies).await.body, "true");
    assert_eq!(browser.page("/user").await, "nobody", "it ended the session");
}

pub async fn two_live_sessions_count_as_none_until_a_login(site: &Site) {
    let (mut browser, mut attacker) = (site.browser(), site.browser());
    browser.page("/login/42").await;
    attacker.page("/login/43").await;
    let [good, planted] = [&browser, &attacker].map(|one| cookie_header(one.token().expect("signed in")));
    for cookies in [vec![format!("{good}; {planted}")], vec![planted.clone(), good.clone()]] {
        let reply = browser.send("GET", "/user", &cookies).await;
        assert_eq!(reply.body, "nobody");
        // The request says where a planted cookie can come from. Ours, for `/` and no domain, stays.
        let removals = reply.cookies();
        let scopes = ["Path=/; Domain=localhost", "Path=/user", "Path=/user; Domain=localhost"];
        assert_eq!(removals.len(), scopes.len(), "{removals:?}");
        for scope in scopes {
            let removes = |cookie: &String| cookie.contains(&format!("{scope}; Max-Age=0;"));
            assert!(removals.iter().any(removes), "{scope}: {removals:?}");
        }
        assert_eq!(reply.cache_control(), ["no-store"]);
    }
    // The planted cookie stays in the browser, ours is replaced.
    let reply = browser.send("GET", "/login/42", &[format!("{planted}; {good}")]).await;
    let fresh = reply.cookies().remove(0).split(';').next().expect("a pair").to_owned();
    let reply = browser.send("GET", "/user", &[format!("{planted}; {fresh}")]).await;
    assert_eq!(reply.body, "42", "the login recovered");
    assert_eq!(attacker.page("/user").await, "nobody", "the session that was planted ended");
}

/// The client keeps the old id in another place than the new one, as after a change of the cookie's policy.
pub async fn a_retired_id_beside_its_session_is_not_a_second_session(site: &Site) {
    let mut browser = site.browser();
    browser.page("/set/cart/apples").await;
    let old = cookie_header(browser.token().expect("a session"));
    browser.page("/login/42").await;
    let new = cookie_header(browser.token().expect("signed in"));
    for cookies in [[old.clone(), new.clone()], [new, old]] {
        let reply = browser.send("GET", "/user", &cookies).await;
        assert_eq!((reply.body.as_str(), reply.cookies().len()), ("42", 0));
    }
}

pub async fn a_logout_with_too_many_sessions_is_an_error(site: &Site) {
    let mut cookies = Vec::new();
    for user in 0..17 {
        let mut browser = site.browser();
        browser.page(&format!("/login/{user}")).await;
        cookies.push(cookie_header(browser.token().expect("signed in")));
    }
    let mut browser = site.browser();
    let reply = browser.send("GET", "/set/cart/apples", &cookies).await;
    assert_eq!((reply.status.as_u16(), site.rows().await), (409, 17), "no row for each request");
    assert!(reply.cookies().iter().all(|cookie| cookie.contains("Max-Age=0")), "{:?}", reply.cookies());
    assert_eq!(browser.send("GET", "/user", &cookies).await.body, "nobody");
    assert_eq!(browser.send("GET", "/logout", &cookies).await.status, 409, "one lives on");
    assert_eq!(site.rows().await, 1);
    assert_eq!(browser.send("GET", "/logout", &cookies[16..]).await.body, "true");
    assert_eq!(site.rows().await, 0);
}

pub async fn a_logout_ends_every_session_that_was_presented(site: &Site) {
    for first_reads in [false, true] {
        let (mut browser, mut attacker) = (site.browser(), site.browser());
        browser.page("/login/42").await;
        attacker.page("/login/43").await;
        let [good, planted] = [&browser, &attacker].map(|one| cookie_header(one.token().expect("signed in")));
        let cookies = [format!("{planted}; {good}")];
        if first_reads {
            assert_eq!(browser.send("GET", "/user", &cookies).await.body, "nobody");
        }
        let reply = browser.send("GET", "/logout", &cookies).await;
        assert_eq!((reply.body.as_str(), reply.cookies().len()), ("true", 1));
        assert_eq!(browser.page("/user").await, "nobody");
        assert_eq!(attacker.page("/user").await, "nobody");
    }
}

pub async fn a_visitors_change_with_two_sessions_adds_one_row(site: &Site) {
    let (mut browser, mut attacker) = (site.browser(), site.browser());
    browser.page("/login/42").await;
    attacker.page("/login/43").await;
    let [good, planted] = [&browser, &attacker].map(|one| cookie_header(one.token().expect("signed in")));
    let mut ours = good;
    for value in ["apples", "pears", "plums"] {
        let cookies = [format!("{planted}; {ours}")];
        let reply = browser.send("GET", &format!("/set/cart/{value}"), &cookies).await;
        if let Some(cookie) = reply.cookies().first() {
            ours = cookie.split(';').next().expect("a pair").to_owned();
        }
    }
    assert_eq!(site.rows().await, 1, "the new session took the place of both");
    let reply = browser.send("GET", "/get/cart", &[format!("{planted}; {ours}")]).await;
    assert_eq!(reply.body, "plums");
}

pub async fn a_bearer_carries_its_token_in_headers(site: &Site) {
    let mut client = site.browser_with(site.sessions().bearer_tokens());
    let reply = client.get("/login/42").await;
    assert!(reply.cookies().is_empty());
    assert_eq!(reply.cache_control(), ["no-store"]);
    let token = reply.all("session-token").remove(0);
    client.plant(&token);
    assert_eq!(client.page("/user").await, "nobody", "cookies are not looked at");
    client.jar.clear();
    client.headers.insert(AUTHORIZATION, format!("Bearer {token}").parse().unwrap());
    let reply = client.get("/user").await;
    assert_eq!((reply.body.as_str(), reply.vary()), ("42", vec!["authorization".to_owned()]));
    assert!(reply.all("session-token").is_empty(), "nothing new");
    assert_eq!(client.get("/logout").await.all("session-token"), [""]);
    assert_eq!(client.page("/user").await, "nobody");

    let policy = || CookiePolicy::named("shop").expect("a name");
    let orders =
        [site.sessions().bearer_tokens().cookie(policy()), site.sessions().cookie(policy()).bearer_tokens()];
    for (order, sessions) in orders.into_iter().enumerate() {
        let mut client = site.browser_with(sessions);
        let reply = client.get("/login/42").await;
        assert_eq!((reply.cookies().len(), reply.all("session-token").len()), (0, 1), "{order}");
        let cookies = client.get("/flow/begin/google/account").await.cookies();
        assert!(cookies[0].starts_with("__Host-shop.flow.google."), "{order}: {}", cookies[0]);
    }
}

/// The other node does not even listen to the first one's change: the version in the cookie is enough.
pub async fn a_client_sees_its_own_writes_on_the_next_node(site: &Site) {
    let other = site.other_node().await;
    let other = site.serve(SessionConfig::new(other, site.signer.clone()));
    let mut browser = site.browser();
    browser.page("/set/cart/0").await;
    for n in 1..200 {
        assert_eq!(browser.tab_at(other).page("/get/cart").await, (n - 1).to_string());
        browser.page(&format!("/set/cart/{n}")).await;
        assert_eq!(browser.tab_at(other).page("/get/cart").await, n.to_string(), "at once");
    }
}

pub async fn a_client_of_a_restored_database_gets_a_fresh_token(site: &Site) {
    let client = site.client().await;
    let mut browser = site.browser();
    browser.page("/set/cart/1").await;
    client.batch_execute("CREATE TABLE saved AS TABLE sessions").await.expect("a backup");
    browser.page("/set/cart/2").await;
    browser.page("/set/cart/3").await;
    // The statement of the backup's row; a DELETE would end the session by its trigger.
    let restore =
        "SET session_replication_role = replica; DELETE FROM sessions; INSERT INTO sessions TABLE saved;
                   SET session_replication_role = origin";
    client.batch_execute(restore).await.expect("a restore");
    site.node.evict_all().await.expect("the cache is empty");
    let lost = browser.token().expect("it has a session").to_owned();
    assert_eq!(browser.page("/get/cart").await, "1", "the database's state, and no error");
    assert_ne!(browser.token(), Some(&*lost), "with a fresh token");
    assert_eq!(site.node.status().loads.lost_versions, 1);
    let before = site.statements();
    assert_eq!(browser.page("/get/cart").await, "1");
    assert_eq!(site.statements(), before, "the fresh token costs no query");
    assert_eq!(site.node.status().loads.lost_versions, 1);
    assert_eq!(browser.page("/set/cart/4").await, browser.tab().page("/set/cart/4").await);
    assert_eq!(browser.page("/get/cart").await, "4");
}
