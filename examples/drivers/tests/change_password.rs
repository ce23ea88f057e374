//! Both drivers beside two nodes, on a private PostgreSQL: what a rollback leaves, and what a commit ends.

#![allow(clippy::expect_used, clippy::unwrap_used, reason = "a test may panic")]

use std::error::Error;
use std::time::Duration;

use diesel_async::{AsyncConnection as _, AsyncPgConnection};
use pg_sandbox::Sandbox;
use pg_session::{Config, Migrations, SessionId, SessionManager};
use pg_session_drivers::{with_diesel, with_sqlx};
use sqlx::postgres::PgListener;
use sqlx::{Connection as _, PgConnection};

const USER: i64 = 42;
const STRANGER: i64 = 7;
const WAIT_MAX: Duration = Duration::from_secs(20);

type Answer = Result<i64, Box<dyn Error + Send + Sync>>;

/// An application with two nodes. Its connections find its table in its schema.
struct Application {
    url: String,
    config: Config,
    nodes: [SessionManager; 2],
    operator: PgConnection,
    /// Receives what every node receives.
    listener: PgListener,
    channel: String,
}

impl Application {
    async fn start(sandbox: &Sandbox, schema: &str) -> Self {
        let mut config = Config::default();
        config.schema = schema.to_owned();
        config.migrations = Migrations::Apply;
        let node = async || SessionManager::connect(&sandbox.url(), config.clone()).await.unwrap();
        let nodes = [node().await, node().await];
        let url = format!("{}?options=-csearch_path%3D{schema}", sandbox.url());
        let mut operator = PgConnection::connect(&url).await.unwrap();
        let accounts = format!(
            "CREATE TABLE accounts (id bigint, password text CHECK (length(password) >= 8));
             INSERT INTO accounts VALUES ({USER}, 'the old one')"
        );
        sqlx::raw_sql(&accounts).execute(&mut operator).await.unwrap();
        let channel = "SELECT 'pg_session_' || left(encode(sha256($1::bytea || '\\x00'::bytea), 'hex'), 16)";
        let channel = sqlx::query_scalar(channel).bind(schema.as_bytes());
        let channel: String = channel.fetch_one(&mut operator).await.unwrap();
        let mut listener = PgListener::connect(&url).await.unwrap();
        listener.listen(&channel).await.unwrap();
        Self { url, config, nodes, operator, listener, channel }
    }

    async fn log_in(&self, user: i64) -> SessionId {
        self.nodes[0].create(user).await.unwrap().id()
    }

    async fn password(&mut self) -> String {
        let read = sqlx::query_scalar("SELECT password FROM accounts WHERE id = $1").bind(USER);
        read.fetch_one(&mut self.operator).await.unwrap()
    }

    /// What was notified since the last call, without the ticks of the nodes.
    async fn notified(&mut self) -> Vec<String> {
        let mark = sqlx::query("SELECT pg_notify($1, 'the end')").bind(&self.channel);
        mark.execute(&mut self.operator).await.unwrap();
        let mut payloads = Vec::new();
        loop {
            let received = tokio::time::timeout(WAIT_MAX, self.listener.recv()).await;
            match received.expect("the notification arrives").unwrap().payload() {
                "the end" => return payloads,
                tick if tick.starts_with("1t") => {}
                payload => payloads.push(payload.to_owned()),
            }
        }
    }

    /// `change_password` ends the sessions first. Then too short a password rolls that back.
    async fn only_a_commit_ends_sessions(
        mut self,
        mut change_password: impl AsyncFnMut(&Config, (i64, SessionId), &str) -> Answer,
    ) {
        let [current, second, third] =
            [self.log_in(USER).await, self.log_in(USER).await, self.log_in(USER).await];
        let stranger = self.log_in(STRANGER).await;
        for node in &self.nodes {
            for id in [current, second, third, stranger] {
                assert!(node.get(id).await.unwrap().is_some());
                assert!(is_in_memory(node, id).await);
            }
        }
        self.notified().await;

        let refused = change_password(&self.config, (USER, current), "short").await;
        assert!(refused.unwrap_err().to_string().contains("accounts_password_check"));
        assert_eq!(self.notified().await, Vec::<String>::new(), "after a rollback");
        for node in &self.nodes {
            node.catch_up().await.unwrap();
            for id in [current, second, third, stranger] {
                assert!(is_in_memory(node, id).await, "no node was notified");
            }
        }
        assert_eq!(self.password().await, "the old one");

        let ended = change_password(&self.config, (USER, current), "the new one").await;
        assert_eq!(ended.unwrap(), 2);
        self.nodes[0].catch_up().await.unwrap();
        for id in [second, third] {
            assert!(self.nodes[0].get(id).await.unwrap().is_none(), "this node sees its own commit at once");
        }
        self.nodes[1].catch_up().await.unwrap();
        for id in [second, third] {
            assert!(self.nodes[1].get(id).await.unwrap().is_none());
        }
        for node in &self.nodes {
            assert!(is_in_memory(node, current).await && is_in_memory(node, stranger).await, "others stay");
        }
        let notified = self.notified().await;
        for id in [second, third] {
            let id = id.expose().simple().to_string();
            assert!(notified.iter().any(|payload| payload.starts_with("1d") && payload.contains(&id)));
        }
        assert_eq!(self.password().await, "the new one");
    }
}

async fn is_in_memory(node: &SessionManager, id: SessionId) -> bool {
    node.get(id).await.unwrap().is_some_and(|session| session.is_from_cache())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn password_and_sessions_change_together() {
    let starting = tokio::task::spawn_blocking(Sandbox::start);
    let sandbox = starting.await.unwrap().expect("PostgreSQL starts");
    tokio::join!(through_sqlx(&sandbox), through_diesel(&sandbox));
}

async fn through_sqlx(sandbox: &Sandbox) {
    let application = Application::start(sandbox, "with_sqlx").await;
    let mut connection = PgConnection::connect(&application.url).await.unwrap();
    let change = async |config: &Config, who: (i64, SessionId), password: &str| {
        with_sqlx::change_password(&mut connection, config, who, password).await
    };
    application.only_a_commit_ends_sessions(change).await;
}

async fn through_diesel(sandbox: &Sandbox) {
    let application = Application::start(sandbox, "with_diesel").await;
    let mut connection = AsyncPgConnection::establish(&application.url).await.unwrap();
    let change = async |config: &Config, who: (i64, SessionId), password: &str| {
        with_diesel::change_password(&mut connection, config, who, password).await
    };
    application.only_a_commit_ends_sessions(change).await;
}
