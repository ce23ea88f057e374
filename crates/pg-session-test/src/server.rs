//! The private PostgreSQL of this process, and the template of its databases.

use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::{LazyLock, mpsc};
use std::thread;

use pg_sandbox::Sandbox;
use pg_session::{Config, Migrations};
use tokio::sync::OnceCell;
use tokio_postgres::{Client, NoTls};

use crate::wait::{eventually, in_time};

/// Connections that the server accepts. A node of the default configuration uses at most five.
const CONNECTIONS_MAX: &str = "500";
/// The database that each test's database is copied from.
const TEMPLATE: &str = "pg_session_template";

static SERVER: LazyLock<Sandbox> = LazyLock::new(|| {
    let server = Sandbox::builder().setting("max_connections", CONNECTIONS_MAX).start();
    server.unwrap_or_else(|error| panic!("no PostgreSQL for the tests: {error}"))
});

/// Makes a database with the tables of pg-session. Returns its connection string.
pub(crate) async fn create_database(name: &str) -> String {
    // Starting a server blocks the thread for a second.
    let server = tokio::task::spawn_blocking(|| LazyLock::force(&SERVER));
    let server = server.await.expect("the server starts or panics");
    make_template(server).await;
    let client = connect(&server.url()).await;
    client
        .batch_execute(&format!("CREATE DATABASE {name} TEMPLATE {TEMPLATE}"))
        .await
        .unwrap_or_else(|error| panic!("cannot make a database for the test: {error}"));
    url_of(server, name)
}

pub(crate) fn drop_database(name: String) {
    // If the thread has ended, the process is ending, and the server with it.
    let _ = DROPPER.send(name);
}

pub(crate) fn addr() -> SocketAddr {
    SERVER.addr()
}

/// The thread that drops databases: a test may end outside of any runtime.
static DROPPER: LazyLock<mpsc::Sender<String>> = LazyLock::new(|| {
    let (sender, names) = mpsc::channel::<String>();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.expect("a runtime");
        for name in names {
            runtime.block_on(async {
                let dropped = connect(&SERVER.url()).await;
                let dropped = dropped.batch_execute(&format!("DROP DATABASE {name} WITH (FORCE)")).await;
                if let Err(error) = dropped {
                    eprintln!("the database {name} of a test was not dropped: {error}");
                }
            });
        }
    });
    sender
});

async fn make_template(server: &Sandbox) {
    static MADE: OnceCell<()> = OnceCell::const_new();
    let make = async || {
        let client = connect(&server.url()).await;
        let tables = Migrations::sql(&Config::default()).expect("the default names are valid");
        // A test that was cancelled may have begun it.
        for statement in
            [format!("DROP DATABASE IF EXISTS {TEMPLATE}"), format!("CREATE DATABASE {TEMPLATE}")]
        {
            client.batch_execute(&statement).await.expect("the server makes a database");
        }
        let template = connect(&url_of(server, TEMPLATE)).await;
        template.batch_execute(&format!("BEGIN; {tables} COMMIT")).await.expect("the migrations run");
        drop(template);
        // A database with connections cannot be copied.
        let connections = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1";
        eventually("the template has no connection", async || {
            client.query_one(connections, &[&TEMPLATE]).await.expect("a count").get::<_, i64>(0) == 0
        })
        .await;
    };
    MADE.get_or_init(make).await;
}

fn url_of(server: &Sandbox, database: &str) -> String {
    let url = server.url();
    let (start, _) = url.rsplit_once('/').expect("the sandbox's URL names its database");
    format!("{start}/{database}")
}

pub(crate) async fn connect(url: &str) -> Client {
    let config = tokio_postgres::Config::from_str(url).expect("the sandbox's URL is valid");
    let connected = in_time("PostgreSQL accepts a connection", config.connect(NoTls)).await;
    let (client, connection) =
        connected.unwrap_or_else(|error| panic!("the private PostgreSQL does not answer: {error}"));
    tokio::spawn(connection);
    client
}
