//! `demo --web`: the same story over plain HTTP, and in a browser.

pub mod chromium;
mod cross_site;
pub mod http;
pub mod in_a_browser;
mod over_http;

use std::net::TcpStream;
use std::time::Instant;

use nix::sys::signal::Signal;

use crate::support::{self, POLL_INTERVAL, Program, WAIT_MAX};

/// The demo with its three nodes, on free ports.
pub struct Site {
    demo: Program,
    sandbox: String,
    pub a: String,
    pub b: String,
    pub c: String,
}

impl Site {
    pub fn start() -> Self {
        let mut demo = Program::start(&["demo", "--web", "--port", "0"]);
        let sandbox = demo.sandbox_mark();
        let output = demo.read_until(&["C  actix", "http://localhost:"]);
        let urls: Vec<String> =
            output.split_whitespace().filter(|word| word.starts_with("http://")).map(str::to_owned).collect();
        let [a, b, c] = urls.try_into().expect("three addresses");
        Self { demo, sandbox, a, b, c }
    }

    pub fn nodes(&self) -> [&str; 3] {
        [&self.a, &self.b, &self.c]
    }

    /// Ctrl-C, after which nothing is left.
    pub fn end(mut self) {
        self.demo.signal(Signal::SIGINT);
        let end = self.demo.finish();
        assert_eq!(end.code, Some(0), "{end:?}");
        assert_eq!(end.err, "", "{end:?}");
        assert!(end.out.contains("the nodes write what they still hold"), "{end:?}");
        assert!(end.out.contains("PostgreSQL and its directory are gone"), "{end:?}");
        self.assert_nothing_is_left();
    }

    fn assert_nothing_is_left(&self) {
        support::assert_no_sandbox_is_left(&self.sandbox);
        let began = Instant::now();
        for url in self.nodes() {
            let port: u16 = url.trim_start_matches("http://localhost:").parse().expect("a port");
            while TcpStream::connect(("127.0.0.1", port)).is_ok() {
                assert!(began.elapsed() < WAIT_MAX, "a node still listens on {url}");
                std::thread::sleep(POLL_INTERVAL);
            }
        }
    }
}
