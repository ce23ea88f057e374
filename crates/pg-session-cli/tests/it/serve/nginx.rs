//! A real nginx in front of a Python application that has no code for sessions. The configuration is that of `docs/serve.md`.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;

use hyper::StatusCode;
use pg_session::UserId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::behind_proxy::{Process, SECRET, python, received, snippet};
use super::server::Application;
use crate::support::{POLL_INTERVAL, WAIT_MAX};

struct Nginx {
    _process: Process,
    folder: PathBuf,
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // After an error, files stay in the folder for temporary files.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Nginx {
    fn start(locations: &str) -> Option<Self> {
        let folder = std::env::temp_dir().join(format!("pg-session-nginx-{}", std::process::id()));
        fs::create_dir(&folder).expect("a folder");
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .iter()
            .map(|kind| format!("{kind}_temp_path {}/{kind};\n", folder.display()))
            .collect();
        let folder_name = folder.display();
        let configuration = format!(
            "daemon off; master_process off; pid {folder_name}/pid; error_log {folder_name}/errors;\nevents {{}}\n\
             http {{\naccess_log off;\n{temporary}server {{\nlisten unix:{folder_name}/socket;\n{locations}\n}}\n}}\n"
        );
        let path = folder.join("nginx.conf");
        fs::write(&path, configuration).expect("a configuration");
        let process = Process::start(Command::new("nginx").arg("-p").arg(&folder).arg("-c").arg(&path));
        if process.is_none() {
            fs::remove_dir_all(&folder).expect("the folder is removed");
        }
        Some(Self { _process: process?, folder })
    }

    async fn connect(&self) -> UnixStream {
        let began = Instant::now();
        loop {
            match UnixStream::connect(self.folder.join("socket")).await {
                Ok(stream) => return stream,
                Err(error) => assert!(began.elapsed() < WAIT_MAX, "nginx does not listen: {error}"),
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Status and body.
    async fn get(&self, headers: &[(&str, &str)]) -> (StatusCode, String) {
        let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let request =
            format!("GET /orders HTTP/1.1\r\nhost: shop.example\r\nconnection: close\r\n{lines}\r\n");
        let mut stream = self.connect().await;
        stream.write_all(request.as_bytes()).await.expect("nginx reads");
        let mut answer = String::new();
        let read = tokio::time::timeout(WAIT_MAX, stream.read_to_string(&mut answer)).await;
        read.expect("an answer in time").expect("an answer of text");
        let status = answer.get(9..12).and_then(|code| code.parse().ok()).expect("a status line");
        let (_, body) = answer.split_once("\r\n\r\n").expect("a head");
        (status, body.to_owned())
    }
}

#[tokio::test]
async fn nginx_guards_an_application_without_session_code() {
    let app = Application::start("nginx").await;
    let session = app.manager.create(UserId::from(42)).set("role", "admin").await.unwrap();
    let cookie = app.cookie(&session);
    let file = std::env::temp_dir().join(format!("pg-session-nginx-secret-{}", std::process::id()));
    fs::write(&file, SECRET).unwrap();
    let path = file.to_str().expect("a path of text");
    let server = app.serve(&["--attribute", "role=X-Session-Role", "--proxy-secret-file", path]);
    fs::remove_file(&file).unwrap();
    let Some((_python, port)) = python() else { return };
    let Some(nginx) = Nginx::start(&snippet("# nginx", &server.url, port)) else { return };

    let lies = [
        ("x-session-user", "1"),
        ("X-SESSION-USER", "2"),
        ("x_session_user", "3"),
        ("x-session-handle", "x"),
        ("x-session-role", "root"),
    ];
    let (status, body) = nginx.get(&[&[("cookie", cookie.as_str())][..], &lies].concat()).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(received(&body, "x-session-user"), ["42"]);
    assert_eq!(received(&body, "x_session_user"), Vec::<String>::new());
    assert_eq!(received(&body, "x-session-role"), ["admin"]);
    assert_eq!(received(&body, "x-session-handle"), [session.id().handle().to_string()]);
    assert!(!body.contains(SECRET), "{body}");

    assert_eq!(nginx.get(&[]).await.0, StatusCode::UNAUTHORIZED);
    let secret = [("x-pg-session-secret", SECRET), ("x-session-user", "1")];
    assert_eq!(nginx.get(&secret).await.0, StatusCode::UNAUTHORIZED);
    let foreign = [("cookie", cookie.as_str()), ("x-pg-session-secret", "another secret")];
    assert_eq!(nginx.get(&foreign).await.0, StatusCode::OK, "nginx replaces it");

    // Another host of the site opens a WebSocket.
    let socket = [
        ("cookie", cookie.as_str()),
        ("upgrade", "websocket"),
        ("sec-websocket-version", "13"),
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("origin", "http://evil.shop.example"),
    ];
    assert_eq!(nginx.get(&socket).await.0, StatusCode::FORBIDDEN);

    app.manager.delete(session.id()).await.unwrap();
    let began = Instant::now();
    while nginx.get(&[("cookie", &cookie)]).await.0 != StatusCode::UNAUTHORIZED {
        assert!(began.elapsed() < WAIT_MAX, "a session that has ended is served");
        tokio::time::sleep(POLL_INTERVAL).await;
    }
    // Without an answer of the program, no request passes.
    server.stop();
    assert_eq!(nginx.get(&[("cookie", &cookie)]).await.0, StatusCode::SERVICE_UNAVAILABLE);
}
