//! The servers behind the addresses of the pool and of the listener: which of them accept writes, and what protects the listener.
//!
//! Both take the primary of several hosts. Here, each host is asked, so that a second primary and a missing one are seen. A host
//! that does not answer is no finding: it may be down, and another one is up. A listener that reaches none is one.

use std::collections::BTreeMap;

use pg_listen::Connector;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_postgres::config::TargetSessionAttrs;

use super::server::IS_PLAIN_AND_REMOTE;
use super::{CONNECT_MAX, Check, Finding};
use crate::error::chain;
use crate::postgres::connect_options::ConnectOptions;
use crate::postgres::source::read_files;

/// Hosts that are asked.
const HOSTS_MAX: usize = 32;

/// Whose address it is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Way {
    Pool,
    Listener,
}

/// What a server says of itself.
#[derive(Clone, Debug)]
struct Server {
    way: Way,
    host: String,
    is_standby: bool,
    /// Of the WAL that it writes. It grows with each promotion.
    timeline: i32,
    /// In microseconds: two addresses with the same one are one server.
    started_at: i64,
    is_plain_and_remote: bool,
}

/// What asking a host leads to.
enum Answer {
    Known(Server),
    /// It lets the client in, and does not say what it is.
    Unknown(Way),
    /// The host, and why it does not let the client in.
    Silent(Way, String, String),
}

/// Asks the hosts of the pool, and those of a listener that has an address of its own.
pub(crate) async fn examine(pool: Option<ConnectOptions>, listener: Option<ConnectOptions>) -> Vec<Finding> {
    let mut asking = JoinSet::new();
    for (way, options) in [(Way::Pool, pool), (Way::Listener, listener)] {
        let Some(options) = options else { continue };
        // Settings that cannot be used are the error of the connection.
        let Ok(mut settings) = read_files(options).await else { continue };
        settings.config.target_session_attrs(TargetSessionAttrs::Any).application_name("pg-session doctor");
        let Ok(hosts) = pg_listen::Server::from(settings).hosts() else { continue };
        for (host, server) in hosts.into_iter().take(HOSTS_MAX) {
            asking.spawn(async move {
                let asked = timeout(CONNECT_MAX, ask(way, host.clone(), server)).await;
                let late =
                    |_| Answer::Silent(way, host, format!("no answer within {} s", CONNECT_MAX.as_secs()));
                asked.unwrap_or_else(late)
            });
        }
    }
    let answers = asking.join_all().await;
    let unreached = unreached_listener(&answers);
    let known = |answer| if let Answer::Known(server) = answer { Some(server) } else { None };
    let mut servers: Vec<Server> = answers.into_iter().filter_map(known).collect();
    servers.sort_by(|a, b| (a.way as u8, &a.host).cmp(&(b.way as u8, &b.host)));
    let mut findings = findings(&servers);
    findings.extend(unreached);
    findings
}

async fn ask(way: Way, host: String, server: pg_listen::Server) -> Answer {
    match Connector::new(server).connect().await {
        Ok((client, connection)) => {
            describe(way, host, client, connection).await.map_or(Answer::Unknown(way), Answer::Known)
        }
        Err(error) => Answer::Silent(way, host, chain(&error)),
    }
}

/// No host of the listener lets it in. An unreachable pool is the error of its connection.
fn unreached_listener(answers: &[Answer]) -> Option<Finding> {
    let mut causes = Vec::new();
    for answer in answers {
        match answer {
            Answer::Known(Server { way: Way::Listener, .. }) | Answer::Unknown(Way::Listener) => return None,
            Answer::Silent(Way::Listener, host, cause) => causes.push(format!("{host}: {cause}")),
            Answer::Known(_) | Answer::Unknown(_) | Answer::Silent(..) => {}
        }
    }
    causes.sort();
    (!causes.is_empty()).then(|| {
        let message = format!("the listener reaches no server: {}", causes.join("; ")).replace('\n', " ");
        let fix = "Correct the address of the listener, --listen-url or `listen_on_url`: host, port, user, password and database."
            .to_owned();
        Check::fault("start", String::new()).finding(message, fix)
    })
}

async fn describe(
    way: Way,
    host: String,
    client: tokio_postgres::Client,
    connection: pg_listen::ConnectionTask,
) -> Option<Server> {
    let connection = tokio::spawn(connection);
    let text = format!(
        "SELECT pg_catalog.pg_is_in_recovery(),
                CASE WHEN pg_catalog.pg_is_in_recovery() THEN 0 ELSE ('x' || pg_catalog.substr(pg_catalog.pg_walfile_name(
                    pg_catalog.pg_current_wal_lsn()), 1, 8))::pg_catalog.bit(32)::pg_catalog.int4 END,
                (pg_catalog.date_part('epoch', pg_catalog.pg_postmaster_start_time()) * 1000000)::pg_catalog.int8,
                {IS_PLAIN_AND_REMOTE}"
    );
    let rows = client.query_typed(&text, &[]).await.ok()?;
    drop(client);
    // It ends with its client. An error is that of a connection that is not needed any more.
    let _ = connection.await;
    let row = rows.first()?;
    Some(Server {
        way,
        host,
        is_standby: row.try_get(0).ok()?,
        timeline: row.try_get(1).ok()?,
        started_at: row.try_get(2).ok()?,
        is_plain_and_remote: row.try_get(3).ok()?,
    })
}

fn findings(servers: &[Server]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let primaries: BTreeMap<i64, &Server> = servers
        .iter()
        .rev()
        .filter(|server| !server.is_standby)
        .map(|server| (server.started_at, server))
        .collect();
    if primaries.len() > 1 {
        let named =
            primaries.values().map(|server| format!("{} on timeline {}", server.host, server.timeline));
        let message = format!("several servers accept writes: {}", named.collect::<Vec<_>>().join(", "));
        let fix = "After a failover, stop the old primary: it is on the lower timeline. Otherwise, give pool and listener \
                   the addresses of one cluster."
            .to_owned();
        findings.push(Check::fault("two-primaries", String::new()).finding(message, fix));
    }
    for (way, name) in [(Way::Pool, "pool"), (Way::Listener, "listener")] {
        let found: Vec<&Server> = servers.iter().filter(|server| server.way == way).collect();
        if !found.is_empty() && found.iter().all(|server| server.is_standby) {
            let hosts: Vec<&str> = found.iter().map(|server| &*server.host).collect();
            let message = format!("the address of the {name} leads to standbys only: {}", hosts.join(", "));
            let fix =
                "Give the address of the primary. If there is none, promote a standby: SELECT pg_catalog.pg_promote();"
                    .to_owned();
            findings.push(Check::fault("standby", String::new()).finding(message, fix));
        }
    }
    // The pool's connection is looked at by the check of its server.
    if let Some(server) =
        servers.iter().find(|server| server.way == Way::Listener && server.is_plain_and_remote)
    {
        let message = format!(
            "the connection of the listener to {} is not encrypted, and the server is on another machine",
            server.host
        );
        let fix = "Set sslmode=verify-full in the listener's connection string.".to_owned();
        findings.push(Check::warning("tls", String::new()).finding(message, fix));
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn server(way: Way, host: &str, started_at: i64, timeline: i32) -> Server {
        Server {
            way,
            host: host.to_owned(),
            is_standby: timeline == 0,
            timeline,
            started_at,
            is_plain_and_remote: false,
        }
    }

    fn checks(servers: &[Server]) -> Vec<(&'static str, String)> {
        findings(servers).into_iter().map(|finding| (finding.check, finding.message)).collect()
    }

    #[test]
    fn names_of_one_server_and_its_standbys_are_no_finding() {
        let servers = [
            server(Way::Pool, "a", 1, 3),
            server(Way::Pool, "b", 2, 0),
            server(Way::Listener, "a.example", 1, 3),
        ];
        assert_eq!(checks(&servers), []);
        assert_eq!(checks(&[]), []);
    }

    #[test]
    fn two_primaries_are_named_with_their_timelines() {
        let servers = [server(Way::Pool, "a", 1, 1), server(Way::Pool, "b", 2, 2)];
        let message = "several servers accept writes: a on timeline 1, b on timeline 2".to_owned();
        assert_eq!(checks(&servers), [("two-primaries", message)]);
    }

    #[test]
    fn a_listener_that_no_host_lets_in_is_a_finding() {
        let silent = |way, host: &str| Answer::Silent(way, host.to_owned(), "refused".to_owned());
        let message = |answers: &[Answer]| unreached_listener(answers).map(|finding| finding.message);
        assert_eq!(
            message(&[silent(Way::Listener, "b"), silent(Way::Pool, "c"), silent(Way::Listener, "a")])
                .as_deref(),
            Some("the listener reaches no server: a: refused; b: refused")
        );
        assert_eq!(message(&[silent(Way::Listener, "a"), Answer::Unknown(Way::Listener)]), None);
        assert_eq!(
            message(&[silent(Way::Listener, "a"), Answer::Known(server(Way::Listener, "b", 1, 1))]),
            None
        );
        assert_eq!(message(&[silent(Way::Pool, "a")]), None);
    }

    #[test]
    fn a_listener_on_plain_text_from_another_machine_is_a_finding() {
        let plain = Server { is_plain_and_remote: true, ..server(Way::Listener, "a", 1, 1) };
        assert_eq!(checks(std::slice::from_ref(&plain))[0].0, "tls");
        assert_eq!(checks(&[Server { way: Way::Pool, ..plain }]), []);
    }
}
