//! The doctor asks each host of the pool and of the listener: a second primary, standbys only, a listener in plain text.

use std::net::{IpAddr, UdpSocket};
use std::time::Duration;

use pg_sandbox::Sandbox;
use pg_session::{Config, Finding, Migrations, SessionManager};

use crate::support::{World, eventually};

/// The checks that find something, without those of a test's server, which is fast and not safe.
async fn checks(url: &str, listen_on: Option<&str>) -> Vec<Finding> {
    let mut config = Config::default();
    config.query_timeout = Duration::from_secs(5);
    let builder = SessionManager::builder(config).url(url).expect("the URL is valid");
    let builder = match listen_on {
        Some(url) => builder.listen_on_url(url).expect("the URL is valid"),
        None => builder,
    };
    let mut findings = builder.diagnose().await.expect("the settings are valid");
    // These depend on the settings and the load of the machine that tests.
    findings.retain(|finding| !["fsync", "synchronous-commit", "flush"].contains(&finding.check));
    findings
}

fn names(findings: &[Finding]) -> Vec<&'static str> {
    findings.iter().map(|finding| finding.check).collect()
}

async fn primary(sandbox: &Sandbox) -> World {
    let world = World { schema: "public".to_owned(), ..World::on(sandbox) };
    let mut config = Config::default();
    config.migrations = Migrations::Apply;
    let owner = SessionManager::connect(&sandbox.url(), config).await.expect("the tables are made");
    assert!(owner.shutdown(Duration::from_secs(5)).await.is_complete());
    world
}

/// ```text
/// a   primary ────────────────────────────────────────── runs on: timeline 1 ── stopped
/// b   standby ── alone in the connection string ── promoted: timeline 2 ───────────────
/// ```
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_finds_a_second_primary_and_standbys_without_one() {
    let a = Sandbox::start().expect("PostgreSQL starts");
    primary(&a).await;
    let b = a.standby().start().expect("a standby starts");
    b.wait_until_applied(&a).expect("the standby follows");
    let both = a.url().replace(&a.addr().to_string(), &format!("{},{}", a.addr(), b.addr()));
    assert_eq!(checks(&both, None).await, [], "a primary and its standby");

    let alone = checks(&b.url(), Some(&b.url())).await;
    assert_eq!(names(&alone), ["standby", "standby", "connection"], "{alone:?}");
    assert!(alone[0].message.contains("the pool leads to standbys only: 127.0.0.1:"), "{alone:?}");
    assert!(alone[1].message.contains("the listener leads to standbys only: 127.0.0.1:"), "{alone:?}");
    let listener = checks(&a.url(), Some(&b.url())).await;
    assert_eq!(listener[0].check, "standby", "{listener:?}");

    // What the fix says.
    assert!(alone[0].fix.ends_with("SELECT pg_catalog.pg_promote();"));
    let promoted = World::on(&b).operator().await.execute("SELECT pg_catalog.pg_promote()", &[]).await;
    promoted.expect("the standby is promoted");
    eventually("b accepts writes", async || checks(&b.url(), None).await.is_empty()).await;
    let two = checks(&both, None).await;
    assert_eq!(names(&two), ["two-primaries"], "{two:?}");
    let expected = format!("{} on timeline 1, {} on timeline 2", a.addr(), b.addr());
    let reverse = format!("{} on timeline 2, {} on timeline 1", b.addr(), a.addr());
    assert!(two[0].message.contains(&expected) || two[0].message.contains(&reverse), "{two:?}");

    assert!(two[0].fix.contains("stop the old primary"));
    a.stop().expect("the old primary stops");
    assert_eq!(checks(&both, None).await, [], "the new primary alone");
}

/// The address of this machine in its network, if it has one. Nothing is sent.
fn own_address() -> Option<IpAddr> {
    let socket = UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback()).then_some(address)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_doctor_finds_connections_in_plain_text() {
    let Some(address) = own_address() else {
        eprintln!("skipped: this machine is in no network");
        return;
    };
    let certificate = rcgen::generate_simple_self_signed(vec![address.to_string()]).expect("a certificate");
    let sandbox = Sandbox::builder()
        .setting("ssl", "on")
        .file("server.crt", certificate.cert.pem())
        .file("server.key", certificate.signing_key.serialize_pem())
        // This machine alone gets in.
        .file(
            "pg_hba.conf",
            format!(
                "local all all trust\nhost all all 127.0.0.1/32 trust\nhost all all {address}/32 trust\n"
            ),
        )
        .start()
        .expect("PostgreSQL starts");
    let world = primary(&sandbox).await;
    let listen = format!("ALTER SYSTEM SET listen_addresses = '127.0.0.1,{address}'");
    world.operator().await.batch_execute(&listen).await.expect("a setting");
    sandbox.restart().expect("PostgreSQL starts again");
    let far = |sslmode: &str| {
        let port = sandbox.addr().port();
        let url = sandbox.url().replace(&sandbox.addr().to_string(), &format!("{address}:{port}"));
        format!("{url}{}sslmode={sslmode}", if url.contains('?') { '&' } else { '?' })
    };
    let encrypted = far("require");
    assert_eq!(checks(&encrypted, Some(&encrypted)).await, []);
    let plain = checks(&far("disable"), Some(&encrypted)).await;
    assert_eq!(names(&plain), ["tls"], "{plain:?}");
    assert!(plain[0].message.contains("of the pool"), "{plain:?}");
    // Beside a pool that asks for no more, the listener may be in plain text.
    let listener = checks(&far("prefer"), Some(&far("disable"))).await;
    assert_eq!(names(&listener), ["tls"], "{listener:?}");
    assert!(listener[0].message.contains("of the listener"), "{listener:?}");
}
