//! Connection settings from a provider: changed passwords, and a provider that fails, hangs or panics.

use std::fmt::Debug;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pg_sandbox::Sandbox;
use pg_session::{Config, ConnectOptions, ErrorKind, SessionManager};
use tokio::sync::watch;

use crate::captured_logs::CapturedLogs;
use crate::fixtures::in_time;
use crate::support::{World, eventually};
use crate::tls::{Pem, Secured, authority};

const HBA: &str = "local all all trust
host all postgres all trust
host all all all scram-sha-256
";

type ProviderError = Box<dyn std::error::Error + Send + Sync>;

/// A server on which the role `app` logs in with a password.
struct Scene {
    sandbox: Sandbox,
    world: World,
    admin: tokio_postgres::Client,
}

impl Scene {
    async fn new() -> Self {
        let sandbox = Sandbox::builder().file("pg_hba.conf", HBA).start().unwrap();
        let world = World::on(&sandbox);
        let admin = world.client().await;
        // Before PostgreSQL 14, the default is MD5.
        admin.batch_execute("SET password_encryption = 'scram-sha-256'").await.unwrap();
        admin.batch_execute("CREATE ROLE app SUPERUSER LOGIN PASSWORD 'first-secret'").await.unwrap();
        Self { sandbox, world, admin }
    }

    fn config(&self) -> Config {
        let mut config = self.world.config();
        config.query_timeout = Duration::from_secs(5);
        config.provider_timeout = Duration::from_millis(500);
        config.trust_window = Duration::from_secs(1);
        config
    }

    fn options(&self) -> ConnectOptions {
        let port = self.sandbox.addr().port();
        ConnectOptions::parse(&format!("host=127.0.0.1 port={port} user=app dbname=postgres")).unwrap()
    }

    /// Ends all connections of the role.
    async fn cut(&self) {
        let text = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'app'";
        self.admin.execute(text, &[]).await.unwrap();
    }
}

/// Waits until a create fails, and it, the pool and the listener say why.
///
/// At first, other errors appear: of the connection that was cut, or of the listener's silence.
async fn fails_with(node: &SessionManager, cause: &str) {
    eventually(cause, async || {
        let Err(error) = node.create(1).await else { return false };
        let passes = [ErrorKind::Unavailable, ErrorKind::OutcomeUnknown, ErrorKind::Timeout];
        assert!(passes.contains(&error.kind()), "the error can pass: {error:?}");
        hides_secrets(&error);
        let status = node.status();
        hides_secrets(&status);
        let says = |error: Option<String>| error.is_some_and(|error| error.contains(cause));
        let created = error.kind() == ErrorKind::Unavailable && format!("{error:?}").contains(cause);
        created && says(status.connect_error) && says(status.trust_error)
    })
    .await;
}

/// Waits until the pool connects, the listener is trusted, and the errors of both are gone.
///
/// They need not be gone at the first moment: on a busy machine, a beat that is late takes the trust away again.
async fn recovers(node: &SessionManager) {
    eventually("the pool and the listener connect", async || {
        let created = node.create(1).await.is_ok();
        let status = node.status();
        created && status.trusted_for.is_some() && (status.connect_error, status.trust_error) == (None, None)
    })
    .await;
}

fn hides_secrets(shown: &impl Debug) {
    let text = format!("{shown:?}");
    assert!(!text.contains("secret"), "{text}");
}

/// ```text
/// server   new password, connections end
/// node     refused ── refused ── …      ┊ connected
/// provider                old password  ┊ new password
/// ```
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_recovers_with_the_providers_new_password() {
    let scene = Scene::new().await;
    let (password, provided) = watch::channel("first-secret");
    let options = scene.options();
    let builder = SessionManager::builder(scene.config()).connect_with(move || {
        let options = options.clone().password(*provided.borrow());
        async { Ok(options) }
    });
    hides_secrets(&builder);
    let node = in_time("the node starts", builder.connect()).await.unwrap();
    in_time("it is trusted", node.wait_until_trusted()).await.unwrap();

    scene.admin.batch_execute("ALTER ROLE app PASSWORD 'second-secret'").await.unwrap();
    scene.cut().await;
    fails_with(&node, "password authentication failed").await;
    password.send("second-secret").unwrap();
    recovers(&node).await;
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Mood {
    Works,
    Fails,
    Hangs,
    Panics,
}

fn provider(
    options: ConnectOptions,
    mood: watch::Receiver<Mood>,
) -> impl Fn() -> std::pin::Pin<Box<dyn Future<Output = Result<ConnectOptions, ProviderError>> + Send>>
+ Send
+ Sync
+ 'static {
    move || {
        let options = options.clone().password("first-secret");
        let mood = *mood.borrow();
        Box::pin(async move {
            match mood {
                Mood::Works => Ok(options),
                Mood::Fails => Err("the vault is sealed".into()),
                Mood::Hangs => std::future::pending().await,
                Mood::Panics => panic!("the secret is hunter2"),
            }
        })
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_fails_hangs_or_panics_is_asked_again() {
    let scene = Scene::new().await;
    let (mood, given) = watch::channel(Mood::Works);
    let builder = SessionManager::builder(scene.config()).connect_with(provider(scene.options(), given));
    let node = in_time("the node starts", builder.connect()).await.unwrap();
    in_time("it is trusted", node.wait_until_trusted()).await.unwrap();
    for (bad, cause) in [
        (Mood::Fails, "the vault is sealed"),
        (Mood::Hangs, "no answer within 500ms"),
        (Mood::Panics, "the provider of the connection settings panicked"),
    ] {
        mood.send_replace(bad);
        scene.cut().await;
        fails_with(&node, cause).await;
        mood.send_replace(Mood::Works);
        recovers(&node).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_fails_at_start_is_an_error_that_passes() {
    let scene = Scene::new().await;
    for (bad, cause) in [
        (Mood::Fails, "the vault is sealed"),
        (Mood::Hangs, "no answer within 500ms"),
        (Mood::Panics, "panicked"),
    ] {
        let (_mood, given) = watch::channel(bad);
        let mut config = scene.config();
        if bad != Mood::Hangs {
            // A busy machine takes its time to panic, with a backtrace.
            config.provider_timeout = Duration::from_secs(30);
        }
        let builder = SessionManager::builder(config).connect_with(provider(scene.options(), given));
        let error = in_time("the start fails", builder.connect()).await.expect_err(cause);
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert!(format!("{error:?}").contains(cause), "{error:?}");
        hides_secrets(&error);
    }
    let wrong = scene.options().password("other-secret");
    let mut config = scene.config();
    // This provider answers, on a busy machine later.
    config.provider_timeout = Duration::from_secs(30);
    let builder = SessionManager::builder(config).connect_with(move || {
        let wrong = wrong.clone();
        async { Ok(wrong) }
    });
    let error = in_time("the start fails", builder.connect()).await.expect_err("a wrong password");
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(format!("{error:?}").contains("password authentication failed"), "{error:?}");
    hides_secrets(&error);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failing_provider_is_asked_after_a_pause_that_grows() {
    let scene = Scene::new().await;
    let (mood, given) = watch::channel(Mood::Works);
    let asked = Arc::new(AtomicUsize::new(0));
    let (count, ask) = (Arc::clone(&asked), provider(scene.options(), given));
    let listener = scene.options().password("first-secret");
    let builder = SessionManager::builder(scene.config())
        .connect_with(move || {
            count.fetch_add(1, Ordering::SeqCst);
            ask()
        })
        .listen_with(move || {
            let listener = listener.clone();
            async { Ok(listener) }
        });
    let node = in_time("the node starts", builder.connect()).await.unwrap();
    mood.send_replace(Mood::Fails);
    scene.cut().await;
    eventually("the pool fails", async || {
        node.create(1).await.is_err() && node.status().connect_error.is_some()
    })
    .await;
    let before = asked.load(Ordering::SeqCst);
    for _ in 0..500 {
        assert!(node.create(1).await.is_err());
    }
    let after = asked.load(Ordering::SeqCst);
    // Also the listener asks, to be protected as the pool is.
    assert!(after - before < 50, "500 requests asked {} times", after - before);
}

/// The provider always takes longer than a request waits:
///
/// ```text
/// request 1   waits ── gives up
/// attempt     provider ───────────── connected
/// request 2                  waits ─────────── served
/// ```
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_attempt_outlives_the_request_that_began_it() {
    let scene = Scene::new().await;
    let options = scene.options().password("first-secret");
    let (is_slow, slow) = watch::channel(false);
    let (gave_up, give_ups) = watch::channel(0);
    let (listener, listener_slow) = (options.clone(), slow.clone());
    let mut config = scene.config();
    config.pool_connections_max = 1;
    config.query_timeout = Duration::from_millis(300);
    config.provider_timeout = Duration::from_secs(60);
    let builder = SessionManager::builder(config)
        // Without a listener, nothing but this test asks for a connection.
        .listen_with(move || {
            let (listener, mut slow) = (listener.clone(), listener_slow.clone());
            async move {
                slow.wait_for(|slow| !slow).await?;
                Ok(listener)
            }
        })
        .connect_with(move || {
            let (options, mut give_ups, is_slow) = (options.clone(), give_ups.clone(), *slow.borrow());
            async move {
                give_ups.mark_unchanged();
                if is_slow {
                    give_ups.changed().await?;
                }
                Ok(options)
            }
        });
    let node = in_time("the node starts", builder.connect()).await.unwrap();
    in_time("it is trusted", node.wait_until_trusted()).await.unwrap();
    is_slow.send_replace(true);
    scene.cut().await;
    eventually("a later request is served", async || match node.create(1).await {
        Ok(_) => true,
        Err(error) => {
            if error.kind() == ErrorKind::Timeout {
                gave_up.send_modify(|count| *count += 1);
            }
            false
        }
    })
    .await;
    assert!(*gave_up.borrow() > 0, "a request gave up before");
    is_slow.send_replace(false);
    recovers(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificate_files_are_read_for_each_attempt() {
    let secured = Secured::start();
    let world = World::on(&secured.sandbox);
    let roots = Pem::new(&secured.authority.pem());
    let port = secured.sandbox.addr().port();
    let path = roots.0.display();
    let url = format!(
        "host=localhost port={port} user=postgres dbname=postgres sslmode=verify-full sslrootcert={path}"
    );
    let mut config = world.config();
    config.trust_window = Duration::from_secs(1);
    config.query_timeout = Duration::from_secs(5);
    let node = in_time("the node starts", SessionManager::connect(&url, config)).await.unwrap();
    in_time("it is trusted", node.wait_until_trusted()).await.unwrap();

    std::fs::write(&roots.0, authority().pem()).unwrap();
    let admin = world.client().await;
    let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE application_name LIKE 'pg-%' AND pid <> pg_backend_pid()";
    admin.execute(cut, &[]).await.unwrap();
    eventually("both refuse the server", async || {
        let _ = node.create(1).await;
        let status = node.status();
        let refuses = |error: Option<String>| error.is_some_and(|error| error.contains("certificate"));
        refuses(status.connect_error) && refuses(status.trust_error)
    })
    .await;
    std::fs::write(&roots.0, secured.authority.pem()).unwrap();
    recovers(&node).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_file_is_read_for_each_attempt() {
    let scene = Scene::new().await;
    let file = Pem::new("*:*:*:app:first-secret\n");
    std::fs::set_permissions(&file.0, PermissionsExt::from_mode(0o600)).unwrap();
    let port = scene.sandbox.addr().port();
    let path = file.0.display();
    let url = format!("host=127.0.0.1 port={port} user=app dbname=postgres passfile={path}");
    let node = in_time("the node starts", SessionManager::connect(&url, scene.config())).await.unwrap();
    in_time("it is trusted", node.wait_until_trusted()).await.unwrap();
    scene.admin.batch_execute("ALTER ROLE app PASSWORD 'second-secret'").await.unwrap();
    std::fs::write(&file.0, "*:*:*:app:second-secret\n").unwrap();
    scene.cut().await;
    recovers(&node).await;
}

/// As by libpq: the first host's line is not used for the second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_host_has_its_line_of_the_password_file() {
    let scene = Scene::new().await;
    let port = scene.sandbox.addr().port();
    let file = Pem::new(&format!("127.0.0.1:1:*:app:other-secret\n127.0.0.1:{port}:*:app:first-secret\n"));
    std::fs::set_permissions(&file.0, PermissionsExt::from_mode(0o600)).unwrap();
    let path = file.0.display();
    let url = format!("host=127.0.0.1,127.0.0.1 port=1,{port} user=app dbname=postgres passfile={path}");
    let node = in_time("the node starts", SessionManager::connect(&url, scene.config())).await.unwrap();
    in_time("it is trusted", node.wait_until_trusted()).await.unwrap();
}

#[tokio::test]
async fn a_password_file_that_others_can_read_is_not_used() {
    let scene = Scene::new().await;
    let file = Pem::new("*:*:*:app:first-secret\n");
    std::fs::set_permissions(&file.0, PermissionsExt::from_mode(0o640)).unwrap();
    let (port, path) = (scene.sandbox.addr().port(), file.0.display());
    let url = format!("host=127.0.0.1 port={port} user=app dbname=postgres passfile={path}");
    let logs = CapturedLogs::default();
    let capture = logs.listen();
    let options = ConnectOptions::parse(&url).unwrap();
    drop(capture);
    assert!(logs.text().contains("WARN") && logs.text().contains("chmod 0600"), "{}", logs.text());
    let builder = SessionManager::builder(scene.config()).connect_options(options);
    let error = in_time("the start fails", builder.connect()).await.expect_err("no password");
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("asks for a password"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listeners_provider_never_protects_less_than_the_pool() {
    let secured = Secured::start();
    let world = World::on(&secured.sandbox);
    let port = secured.sandbox.addr().port();
    let to = |mode: &str| {
        ConnectOptions::parse(&format!("host=127.0.0.1 port={port} user=postgres sslmode={mode}")).unwrap()
    };
    let (pool, listener) = (to("require"), to("disable"));
    let mut config = world.config();
    config.query_timeout = Duration::from_secs(2);
    config.connect_timeout = Duration::from_secs(2);
    let builder = SessionManager::builder(config)
        .connect_with(move || {
            let pool = pool.clone();
            async { Ok(pool) }
        })
        .listen_with(move || {
            let listener = listener.clone();
            async { Ok(listener) }
        });
    let node = in_time("the node starts", builder.connect()).await.unwrap();
    let status = node.status();
    assert_eq!(status.trusted_for, None);
    assert!(status.trust_error.is_some_and(|error| error.contains("protected less")));
}
