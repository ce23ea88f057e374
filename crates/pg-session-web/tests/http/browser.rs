//! A browser, as far as sessions see one: it keeps cookies, and connections.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, COOKIE, HOST, HeaderMap, SET_COOKIE, USER_AGENT, VARY};
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::world::in_time;

/// The default name of the session's cookie.
pub const COOKIE_NAME: &str = "__Host-session";

pub struct Browser {
    addr: SocketAddr,
    pub jar: BTreeMap<String, String>,
    /// Sent with each request.
    pub headers: HeaderMap,
    connection: Option<SendRequest<Full<Bytes>>>,
}

pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Browser {
    pub fn new(addr: SocketAddr) -> Self {
        let mut headers = HeaderMap::new();
        headers.insert(USER_AGENT, "Test/1.0".parse().expect("a header"));
        Self { addr, jar: BTreeMap::new(), headers, connection: None }
    }

    /// The same browser's other tab: it has the same cookies now.
    pub fn tab(&self) -> Self {
        self.tab_at(self.addr)
    }

    /// The same cookies, at another node.
    pub fn tab_at(&self, addr: SocketAddr) -> Self {
        Self { addr, jar: self.jar.clone(), headers: self.headers.clone(), connection: None }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// The session's cookie.
    pub fn token(&self) -> Option<&str> {
        self.jar.get(COOKIE_NAME).map(String::as_str)
    }

    pub fn plant(&mut self, token: &str) {
        self.jar.insert(COOKIE_NAME.to_owned(), token.to_owned());
    }

    /// The body of a page that has to be there.
    pub async fn page(&mut self, path: &str) -> String {
        let reply = self.get(path).await;
        assert_eq!(reply.status, StatusCode::OK, "{path}: {}", reply.body);
        reply.body
    }

    pub async fn post(&mut self, path: &str) -> String {
        let reply = self.request("POST", path).await;
        assert_eq!(reply.status, StatusCode::OK, "{path}: {}", reply.body);
        reply.body
    }

    pub async fn get(&mut self, path: &str) -> Reply {
        self.request("GET", path).await
    }

    pub async fn request(&mut self, method: &str, path: &str) -> Reply {
        self.exchange(method, path, "").await
    }

    /// Posts a form with these fields, as they are encoded.
    pub async fn form(&mut self, path: &str, fields: &str) -> Reply {
        self.exchange("POST", path, fields).await
    }

    async fn exchange(&mut self, method: &str, path: &str, fields: &str) -> Reply {
        let cookies: Vec<String> = self.jar.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let cookies = (!cookies.is_empty()).then(|| cookies.join("; "));
        let reply = self.submit(method, path, cookies.as_slice(), fields).await;
        for cookie in reply.cookies() {
            self.keep(&cookie);
        }
        reply
    }

    /// With these `Cookie` headers instead of what the jar holds, and without keeping any.
    pub async fn send(&mut self, method: &str, path: &str, cookies: &[String]) -> Reply {
        self.submit(method, path, cookies, "").await
    }

    async fn submit(&mut self, method: &str, path: &str, cookies: &[String], fields: &str) -> Reply {
        let mut request = Request::builder().method(method).uri(path);
        if !self.headers.contains_key(HOST) {
            request = request.header(HOST, "localhost");
        }
        for cookie in cookies {
            request = request.header(COOKIE, cookie);
        }
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if !fields.is_empty() {
            request = request.header(CONTENT_TYPE, "application/x-www-form-urlencoded");
        }
        let request = request.body(Full::new(Bytes::from(fields.to_owned()))).expect("a request");
        let response = in_time("the server answers", self.connection().await.send_request(request)).await;
        Reply::read(response.expect("a response")).await
    }

    async fn connection(&mut self) -> &mut SendRequest<Full<Bytes>> {
        let usable = match &mut self.connection {
            Some(connection) => connection.ready().await.is_ok(),
            None => false,
        };
        if !usable {
            let stream = TcpStream::connect(self.addr).await.expect("the server listens");
            stream.set_nodelay(true).expect("a socket");
            let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("HTTP");
            tokio::spawn(connection);
            self.connection = Some(sender);
        }
        self.connection.as_mut().expect("just made")
    }

    fn keep(&mut self, cookie: &str) {
        let (pair, attributes) = cookie.split_once(';').expect("attributes");
        let (name, value) = pair.split_once('=').expect("a pair");
        if attributes.split(';').any(|attribute| attribute.trim() == "Max-Age=0") {
            self.jar.remove(name);
        } else {
            self.jar.insert(name.to_owned(), value.to_owned());
        }
    }
}

impl Reply {
    async fn read(response: Response<hyper::body::Incoming>) -> Self {
        let (head, body) = response.into_parts();
        let body = in_time("the body comes", body.collect()).await.expect("a body").to_bytes();
        Self { status: head.status, headers: head.headers, body: String::from_utf8_lossy(&body).into_owned() }
    }

    pub fn cookies(&self) -> Vec<String> {
        self.all(SET_COOKIE.as_str())
    }

    pub fn cache_control(&self) -> Vec<String> {
        self.all(CACHE_CONTROL.as_str())
    }

    pub fn vary(&self) -> Vec<String> {
        self.all(VARY.as_str())
    }

    pub fn all(&self, name: &str) -> Vec<String> {
        self.headers.get_all(name).iter().map(|value| value.to_str().expect("text").to_owned()).collect()
    }
}
