//! The hosts of a configuration: in which order they are tried, and for how long.
//!
//! A host that accepts a connection and never answers would use up all of the time. So each host has its share of what
//! is left, and each of its addresses a share of that. The host that answered last comes first. Hosts that failed since
//! come last, so that an outage of one costs its share once.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio_postgres::Config;
use tokio_postgres::config::{Host as Name, LoadBalanceHosts};
use uuid::Uuid;

use crate::error::Error;
use crate::error_kind::ErrorKind;

/// Addresses of one host's name that are tried.
pub(crate) const ADDRESSES_MAX: usize = 16;
/// Failed hosts that are remembered. A provider may name others each time.
const FAILED_MAX: usize = 64;

const DEFAULT_PORT: u16 = 5432;

/// One entry of the list of hosts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Host {
    pub(crate) name: Option<Name>,
    /// `hostaddr`: no name is resolved.
    pub(crate) address: Option<IpAddr>,
    pub(crate) port: u16,
    /// Its place in the list, from 1: what messages call it.
    pub(crate) number: usize,
}

/// The hosts in the order of the configuration.
///
/// # Errors
/// [`ErrorKind::Config`] if there is none, or the lists do not fit together.
pub(crate) fn list(config: &Config) -> Result<Vec<Host>, Error> {
    let (names, addresses, ports) = (config.get_hosts(), config.get_hostaddrs(), config.get_ports());
    let count = names.len().max(addresses.len());
    let fits = |length: usize| length == 0 || length == count;
    if count == 0 {
        return Err(Error::new(ErrorKind::Config, "the configuration names no host; set one"));
    }
    if !fits(names.len()) || !fits(addresses.len()) {
        return Err(Error::new(
            ErrorKind::Config,
            "the configuration has another number of `host` than of `hostaddr`; name one address for each host",
        ));
    }
    if ports.len() > 1 && !fits(ports.len()) {
        return Err(Error::new(
            ErrorKind::Config,
            "the configuration has another number of ports than of hosts; name one port for all, or one for each",
        ));
    }
    let hosts = (0..count).map(|i| Host {
        name: names.get(i).cloned(),
        address: addresses.get(i).copied(),
        port: ports.get(i).or(ports.first()).copied().unwrap_or(DEFAULT_PORT),
        number: i + 1,
    });
    Ok(hosts.collect())
}

impl Host {
    /// Whether both mean the same host, wherever they are in their lists.
    fn is(&self, other: &Self) -> bool {
        (&self.name, self.address, self.port) == (&other.name, other.address, other.port)
    }

    /// The name that has to be resolved before connecting.
    pub(crate) fn unresolved(&self) -> Option<&str> {
        match (&self.name, self.address) {
            (Some(Name::Tcp(name)), None) => Some(name),
            _ => None,
        }
    }

    /// The configuration for this host alone, at this address if its name was resolved.
    pub(crate) fn alone(&self, config: &Config, address: Option<IpAddr>) -> Config {
        let mut one = without_hosts(config);
        match &self.name {
            Some(Name::Tcp(name)) => {
                one.host(name);
            }
            #[cfg(unix)]
            Some(Name::Unix(path)) => {
                one.host_path(path);
            }
            None => {}
        }
        if let Some(address) = self.address.or(address) {
            one.hostaddr(address);
        }
        one.port(self.port);
        one
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.name, self.address) {
            (Some(Name::Tcp(name)), _) => write!(f, "{name}:{}", self.port),
            #[cfg(unix)]
            (Some(Name::Unix(folder)), _) => write!(f, "{}:{}", folder.display(), self.port),
            (None, Some(address)) => write!(f, "{}", SocketAddr::new(address, self.port)),
            // `list` makes none such.
            (None, None) => write!(f, ":{}", self.port),
        }
    }
}

/// The driver's configuration cannot be changed to other hosts, so a new one takes over its settings.
fn without_hosts(config: &Config) -> Config {
    let mut copy = Config::new();
    if let Some(user) = config.get_user() {
        copy.user(user);
    }
    if let Some(password) = config.get_password() {
        copy.password(password);
    }
    if let Some(name) = config.get_dbname() {
        copy.dbname(name);
    }
    if let Some(options) = config.get_options() {
        copy.options(options);
    }
    if let Some(name) = config.get_application_name() {
        copy.application_name(name);
    }
    if let Some(limit) = config.get_connect_timeout() {
        copy.connect_timeout(*limit);
    }
    if let Some(limit) = config.get_tcp_user_timeout() {
        copy.tcp_user_timeout(*limit);
    }
    copy.ssl_mode(config.get_ssl_mode())
        .ssl_negotiation(config.get_ssl_negotiation())
        .channel_binding(config.get_channel_binding())
        .target_session_attrs(config.get_target_session_attrs())
        .load_balance_hosts(config.get_load_balance_hosts())
        .keepalives(config.get_keepalives())
        .keepalives_idle(config.get_keepalives_idle());
    if let Some(interval) = config.get_keepalives_interval() {
        copy.keepalives_interval(interval);
    }
    if let Some(retries) = config.get_keepalives_retries() {
        copy.keepalives_retries(retries);
    }
    copy
}

/// What earlier attempts have shown.
#[derive(Default)]
pub(crate) struct Health {
    /// The host, and the address of its name, that answered last.
    good: Option<(Host, Option<IpAddr>)>,
    /// Hosts that failed, and did not answer since.
    failed: Vec<Host>,
}

impl Health {
    /// The hosts in the order in which they are tried. With `load_balance_hosts=random` the order is random, but for
    /// failed hosts.
    pub(crate) fn order(&self, mut hosts: Vec<Host>, balance: LoadBalanceHosts) -> Vec<Host> {
        let is_random = balance == LoadBalanceHosts::Random;
        if is_random {
            hosts.sort_by_cached_key(|_| Uuid::new_v4());
        }
        hosts.sort_by_key(|host| {
            let is_good = self.good.as_ref().is_some_and(|(good, _)| good.is(host));
            (self.failed.iter().any(|failed| failed.is(host)), is_random || !is_good)
        });
        hosts
    }

    /// The addresses of a host in the order in which they are tried: the one that answered last comes first.
    pub(crate) fn order_addresses(&self, host: &Host, addresses: &mut [IpAddr]) {
        if let Some((good, Some(last))) = &self.good
            && good.is(host)
        {
            addresses.sort_by_key(|address| address != last);
        }
    }

    pub(crate) fn answered(&mut self, host: &Host, address: Option<IpAddr>) {
        self.failed.retain(|failed| !failed.is(host));
        self.good = Some((host.clone(), address));
    }

    pub(crate) fn failed(&mut self, host: &Host) {
        self.failed.retain(|failed| !failed.is(host));
        if self.failed.len() >= FAILED_MAX {
            self.failed.remove(0);
        }
        self.failed.push(host.clone());
    }
}

/// The share of one of `count` hosts, or addresses, in the time that is left.
pub(crate) fn share(left: Duration, count: usize) -> Duration {
    left / u32::try_from(count.max(1)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hosts(text: &str) -> Vec<Host> {
        list(&text.parse().unwrap()).unwrap()
    }

    fn numbers(hosts: &[Host]) -> Vec<usize> {
        hosts.iter().map(|host| host.number).collect()
    }

    #[test]
    fn one_hosts_configuration_has_all_settings() {
        let text = "user=u password=p dbname=d options='-c geqo=off' application_name=a sslmode=require \
                    sslnegotiation=direct port=6000 connect_timeout=3 tcp_user_timeout=4 keepalives=0 keepalives_idle=5 \
                    keepalives_interval=6 keepalives_retries=7 target_session_attrs=read-write channel_binding=require \
                    load_balance_hosts=random";
        for host in ["host=h", "hostaddr=127.0.0.1", "host=h hostaddr=127.0.0.1", "host=/run/postgresql"] {
            let config: Config = format!("{host} {text}").parse().unwrap();
            let all = list(&config).unwrap();
            assert_eq!(all.len(), 1);
            assert_eq!(format!("{:?}", all[0].alone(&config, None)), format!("{config:?}"));
            assert_eq!(all[0].alone(&config, None).get_password(), Some("p".as_bytes()));
        }
    }

    #[test]
    fn each_host_has_its_port() {
        let two = hosts("host=a,b port=1,2");
        assert_eq!((two[0].port, two[1].port), (1, 2));
        assert_eq!(hosts("host=a,b port=7")[1].port, 7);
        assert_eq!(hosts("host=a")[0].port, DEFAULT_PORT);
        for wrong in ["host=a,b port=1,2,3", "host=a,b hostaddr=127.0.0.1", "user=u"] {
            assert_eq!(list(&wrong.parse().unwrap()).unwrap_err().kind(), ErrorKind::Config, "{wrong}");
        }
    }

    #[test]
    fn the_last_good_host_comes_first_and_failed_ones_last() {
        let all = hosts("host=a,b,c");
        let mut health = Health::default();
        let order = |health: &Health| numbers(&health.order(all.clone(), LoadBalanceHosts::Disable));
        assert_eq!(order(&health), [1, 2, 3]);
        health.failed(&all[0]);
        assert_eq!(order(&health), [2, 3, 1]);
        health.answered(&all[2], None);
        assert_eq!(order(&health), [3, 2, 1]);
        health.failed(&all[2]);
        health.failed(&all[1]);
        assert_eq!(order(&health), [3, 1, 2], "of failed ones, the last good host comes first");
        health.answered(&all[0], None);
        assert_eq!(order(&health), [1, 2, 3]);
    }

    #[test]
    fn a_random_order_leaves_failed_hosts_last() {
        let all = hosts("host=a,b,c");
        let mut health = Health::default();
        health.answered(&all[0], None);
        health.failed(&all[1]);
        let mut first = [0; 4];
        for _ in 0..200 {
            let order = health.order(all.clone(), LoadBalanceHosts::Random);
            assert_eq!(order[2].number, 2);
            first[order[0].number] += 1;
        }
        assert!(first[1] > 20 && first[3] > 20, "{first:?}");
    }

    #[test]
    fn the_last_good_address_comes_first() {
        let all = hosts("host=a,b");
        let [one, two]: [IpAddr; 2] = ["10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap()];
        let mut health = Health::default();
        health.answered(&all[0], Some(two));
        let mut addresses = [one, two];
        health.order_addresses(&all[1], &mut addresses);
        assert_eq!(addresses, [one, two]);
        health.order_addresses(&all[0], &mut addresses);
        assert_eq!(addresses, [two, one]);
    }

    #[test]
    fn what_a_quick_host_leaves_goes_to_the_others() {
        let second = Duration::from_secs(1);
        assert_eq!(share(second * 6, 3), second * 2);
        assert_eq!(share(second * 6, 1), second * 6);
    }

    #[test]
    fn remembered_failures_are_bounded() {
        let mut health = Health::default();
        for port in 0..200_u16 {
            health.failed(&Host { name: None, address: None, port, number: 1 });
        }
        assert_eq!(health.failed.len(), FAILED_MAX);
    }
}
