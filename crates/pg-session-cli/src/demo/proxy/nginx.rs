//! [`Nginx`]: a private nginx with the configuration that `docs/serve.md` shows.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};

use crate::failure::Failure;

/// How long it may take to listen.
const START_WAIT: Duration = Duration::from_secs(10);
const DOCUMENT: &str = include_str!("../../../../../docs/serve.md");

/// Ends, and its directory goes, when it is dropped.
pub(super) struct Nginx {
    /// Killed first.
    _child: Child,
    _directory: Directory,
    addr: SocketAddr,
}

struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        // After an error, files stay in the directory for temporary files.
        let _ = fs::remove_dir_all(&self.0);
    }
}

impl Nginx {
    /// Asks the program at `serve`, and passes requests on to `application`; below `/alone/` without asking.
    ///
    /// # Errors
    /// If nginx is not installed, or does not listen in time.
    pub(super) async fn start(serve: &str, application: SocketAddr) -> Result<Self, Failure> {
        let documented = DOCUMENT.split("```").find_map(|block| block.strip_prefix("text\n# nginx"));
        let documented = documented.ok_or_else(|| Failure::new("docs/serve.md shows no nginx"))?;
        let (_, locations) = documented.split_once('\n').ok_or_else(|| Failure::new("no locations"))?;
        let locations = locations
            .replace("http://127.0.0.1:7480", serve)
            .replace("http://127.0.0.1:8000", &format!("http://{application}"));
        // Free a moment ago.
        let addr = TcpListener::bind("127.0.0.1:0").await?.local_addr()?;
        let directory =
            Directory(std::env::temp_dir().join(format!("pg-session-demo-{}", std::process::id())));
        fs::create_dir(&directory.0)?;
        let place = directory.0.display();
        let kinds = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
        let temporary: String = kinds.map(|kind| format!("{kind}_temp_path {place}/{kind};\n")).concat();
        let configuration = format!(
            "daemon off; master_process off; pid {place}/pid; error_log {place}/errors;\n\
             events {{}}\n\
             http {{\naccess_log off; keepalive_requests 1000000;\n{temporary}\
             server {{\nlisten {addr};\n{locations}\n\
             location /alone/ {{ proxy_set_header Host $http_host; proxy_pass http://{application}; }}\n}}\n}}\n"
        );
        let path = directory.0.join("nginx.conf");
        fs::write(&path, configuration)?;
        let mut nginx = Command::new("nginx");
        nginx.arg("-p").arg(&directory.0).arg("-c").arg(&path);
        nginx.stdin(Stdio::null()).stdout(Stdio::null()).kill_on_drop(true);
        let child = nginx.spawn().map_err(|error| Failure::new(format!("nginx: {error}; install nginx")))?;
        let nginx = Self { _child: child, _directory: directory, addr };
        let listens = async {
            while TcpStream::connect(addr).await.is_err() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        match tokio::time::timeout(START_WAIT, listens).await {
            Ok(()) => Ok(nginx),
            Err(_) => Err(Failure::new("nginx does not listen; its message is above")),
        }
    }

    pub(super) fn addr(&self) -> SocketAddr {
        self.addr
    }
}
