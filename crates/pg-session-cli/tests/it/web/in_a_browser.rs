//! The story as a person clicks it.

use std::path::Path;
use std::{env, fs};

use super::Site;
use super::chromium::{Browser, Driver};

async fn log_in(browser: &mut Browser, node: &str, name: &str) {
    browser.open(node).await;
    browser.type_into("#name", name).await;
    browser.click("#login button").await;
    sees_user(browser, name).await;
}

async fn sees_user(browser: &mut Browser, name: &str) {
    browser
        .wait_for(&format!(
            "document.body.dataset.user === '{name}' && document.querySelector('#logout').checkVisibility()"
        ))
        .await;
}

async fn is_asked_to_log_in(browser: &mut Browser) {
    browser
        .wait_for("document.body.dataset.user === '' && document.querySelector('#name').checkVisibility()")
        .await;
}

#[tokio::test]
async fn login_on_a_is_known_on_b_and_c_and_logout_on_b_reaches_a() {
    let (site, driver) = (Site::start(), Driver::start());
    let mut browser = driver.browser().await;
    browser.open(&site.a).await;
    is_asked_to_log_in(&mut browser).await;
    log_in(&mut browser, &site.a, "Ann").await;
    for node in [&site.b, &site.c] {
        browser.open(node).await;
        sees_user(&mut browser, "Ann").await;
    }
    browser.click("#add-coffee").await;
    browser.wait_for("document.querySelector('#n-coffee').value === '1'").await;
    browser.open(&site.a).await;
    browser.wait_for("document.querySelector('#n-coffee').value === '1'").await;

    browser.click("#enter").await;
    browser.click("#step-up").await;
    browser
        .wait_for("document.querySelector('#invoice').textContent.startsWith('1 thing, on the card of Ann')")
        .await;

    browser.open(&site.b).await;
    browser.click("#logout").await;
    is_asked_to_log_in(&mut browser).await;
    browser.open(&site.a).await;
    is_asked_to_log_in(&mut browser).await;
    browser.close().await;
    drop(driver);
    site.end();
}

#[tokio::test]
async fn logout_of_other_devices_ends_second_browser_while_open() {
    let (site, driver) = (Site::start(), Driver::start());
    let (mut here, mut there) = (driver.browser().await, driver.browser().await);
    log_in(&mut there, &site.c, "Ann").await;
    log_in(&mut here, &site.a, "Ann").await;
    here.wait_for("document.querySelectorAll('#devices li').length === 2").await;
    here.click("#logout-others").await;
    is_asked_to_log_in(&mut there).await;
    here.wait_for("document.querySelectorAll('#devices li').length === 1").await;
    sees_user(&mut here, "Ann").await;
    here.close().await;
    there.close().await;
    drop(driver);
    site.end();
}

/// On axum and on actix-web.
#[tokio::test]
async fn the_live_feed_closes_with_its_reason_on_logout_everywhere() {
    let (site, driver) = (Site::start(), Driver::start());
    let (mut here, mut there) = (driver.browser().await, driver.browser().await);
    log_in(&mut here, &site.a, "Ann").await;
    log_in(&mut there, &site.c, "Ann").await;
    let says = |text: &str| format!("document.getElementById('feed').textContent.startsWith('{text}')");
    for (browser, node) in [(&mut here, "A"), (&mut there, "C")] {
        browser.wait_for("document.getElementById('feed').checkVisibility()").await;
        browser.wait_for(&says("message ")).await;
        let is_of_node = format!("document.getElementById('feed').textContent.endsWith(' from node {node}')");
        browser.wait_for(&is_of_node).await;
    }
    // Under its new id, the session goes on, and so does the feed, in a new socket.
    let number = "Number(document.getElementById('feed').textContent.match(/^message ([0-9]+) /)?.[1])";
    there.wait_for(&format!("{number} > 5")).await;
    there.click("#enter").await;
    there.click("#step-up").await;
    there.wait_for("document.querySelector('#step-down').checkVisibility()").await;
    there.wait_for(&format!("{number} < 5")).await;
    here.click("#logout-everywhere").await;
    for browser in [&mut here, &mut there] {
        browser.wait_for(&says("Closed: everywhere (4401)")).await;
        is_asked_to_log_in(browser).await;
        browser.wait_for(&says("Closed: everywhere (4401)")).await;
    }
    log_in(&mut there, &site.c, "Ann").await;
    there.wait_for(&says("message ")).await;
    here.close().await;
    there.close().await;
    drop(driver);
    site.end();
}

/// With `SCREENSHOTS` set, what is checked goes into docs/screenshots.
#[tokio::test]
async fn the_page_fits_a_desk_and_a_phone_and_shows_three_nodes_live() {
    let (site, driver) = (Site::start(), Driver::start());
    let (mut browser, mut phone) = (driver.browser().await, driver.browser().await);
    log_in(&mut phone, &site.b, "Ann").await;
    log_in(&mut browser, &site.c, "Ann").await;
    browser.click("#enter").await;
    browser.click("#step-up").await;
    for item in ["#add-apples", "#add-coffee", "#add-coffee"] {
        browser.click(item).await;
    }
    // No click is lost, although the first ones come while the step-up changes the session's id.
    let cart =
        "['apples', 'coffee'].map(item => document.getElementById('n-' + item).value).join() === '1,2'";
    browser.wait_for(cart).await;
    let trusted = "[...document.querySelectorAll('.trust')].map(trust => trust.textContent).join() === 'trusted,trusted,trusted'";
    let live = "['A', 'B', 'C'].every(name => /^[0-9]+ ms ago$/.test(document.getElementById(`${name}-barrier`).textContent)
        && / ago$/.test(document.getElementById(`${name}-change`).textContent)
        && ['hits', 'misses'].every(figure => /^[0-9]+$/.test(document.getElementById(`${name}-${figure}`).textContent)))";
    let fits = "document.documentElement.scrollWidth <= innerWidth";
    browser.screen(1280, 800, "light").await;
    phone.screen(390, 844, "dark").await;
    phone.open(&site.a).await;
    for (name, browser) in [("desktop", &mut browser), ("phone", &mut phone)] {
        sees_user(browser, "Ann").await;
        browser.wait_for(trusted).await;
        browser.wait_for(live).await;
        browser.wait_for(fits).await;
        browser.wait_for("document.querySelectorAll('#devices li').length === 2").await;
        keep(name, &browser.picture().await);
    }
    let hits = "Number(document.getElementById('C-hits').textContent)";
    let before = browser.eval(hits).await;
    browser.wait_for(&format!("{hits} > {before}")).await;
    // As one looks at it who has cut a wire.
    browser.click("#wire").await;
    browser.wait_for("document.querySelector('#node-C').classList.contains('untrusted')").await;
    keep("wire-cut", &browser.picture().await);
    phone.wait_for("document.querySelector('#node-C .trust').textContent === 'asks PostgreSQL'").await;
    sees_user(&mut browser, "Ann").await;
    browser.close().await;
    phone.close().await;
    drop(driver);
    site.end();
}

pub fn keep(name: &str, picture: &[u8]) {
    assert!(picture.starts_with(b"\x89PNG"), "{name} is no picture");
    if env::var_os("SCREENSHOTS").is_some() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/screenshots");
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join(format!("{name}.png")), picture).expect("a file");
    }
}
