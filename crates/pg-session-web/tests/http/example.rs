//! The examples of the edges: the same shop, run as its reader runs it.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};

use pg_sandbox::Sandbox;

use super::browser::Browser;
use super::program;

pub async fn the_shop_keeps_a_cart_through_a_login(name: &str) {
    let sandbox = Sandbox::start().expect("PostgreSQL starts");
    let (_shop, addr) = Server::start(name, &sandbox.url());
    let (mut laptop, mut phone) = (Browser::new(addr), Browser::new(addr));
    assert_eq!(laptop.page("/").await, "a visitor has []");
    assert_eq!(laptop.post("/add/apples").await, r#"["apples"]"#);
    assert_eq!(laptop.post("/add/pears").await, r#"["apples", "pears"]"#);
    assert_eq!(laptop.page("/").await, r#"a visitor has ["apples", "pears"]"#);
    assert_eq!(laptop.post("/login/ann").await, "signed in");
    assert_eq!(laptop.page("/").await, r#"ann has ["apples", "pears"]"#);
    assert_eq!(phone.post("/login/ann").await, "signed in");
    assert_eq!(laptop.post("/logout-others").await, "1 logged out");
    assert_eq!(phone.page("/").await, "a visitor has []");
    assert_eq!(laptop.page("/").await, r#"ann has ["apples", "pears"]"#);
}

/// So that it can be pasted and read at one look: without its heading, its comments and its empty lines.
pub fn fits_forty_lines(example: &str) {
    let lines =
        example.lines().map(str::trim_start).filter(|line| !line.is_empty() && !line.starts_with("//"));
    assert!(lines.clone().count() <= 40, "{} lines of code", lines.count());
}

/// An example that serves, until this is dropped.
pub struct Server(Child);

impl Server {
    /// Waits until it serves.
    pub fn start(name: &str, url: &str) -> (Self, SocketAddr) {
        Self::start_with(name, url, &[])
    }

    /// The number of its process.
    #[allow(dead_code, reason = "one of the edges has a test that stops processes")]
    pub fn id(&self) -> u32 {
        self.0.id()
    }

    /// With further variables.
    pub fn start_with(name: &str, url: &str, variables: &[(&str, String)]) -> (Self, SocketAddr) {
        let mut command = Command::new(program::example(name));
        command.env("DATABASE_URL", url).env("SESSION_KEY", "A".repeat(43)).env("ADDRESS", "127.0.0.1:0");
        command.envs(variables.iter().map(|(name, value)| (name, value)));
        let mut server = Self(command.stdout(Stdio::piped()).spawn().expect("the example runs"));
        let mut line = String::new();
        let output = server.0.stdout.take().expect("it is piped");
        BufReader::new(output).read_line(&mut line).expect("it says where it listens");
        let addr = line.trim().strip_prefix("http://").expect("an address").parse().expect("an address");
        (server, addr)
    }

    /// Stops it for a while (`STOP`), or lets it go on (`CONT`).
    pub fn signal(&self, name: &str) {
        let kill = Command::new("kill").args([format!("-{name}"), self.0.id().to_string()]).status();
        assert!(kill.expect("kill exists").success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It serves for ever.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
