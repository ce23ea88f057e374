//! HTTP as far as these tests need it: JSON there and back, and one cookie.

use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, COOKIE, HeaderMap, SET_COOKIE, USER_AGENT};
use hyper::{Method, Request, StatusCode};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

use crate::support::WAIT_MAX;

/// A client that keeps the demo's cookie, which is the same for all ports.
#[derive(Clone)]
pub struct HttpBrowser {
    client: Client<HttpConnector, Full<Bytes>>,
    pub cookie: Option<String>,
}

pub struct Reply {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl HttpBrowser {
    pub fn new() -> Self {
        Self { client: Client::builder(TokioExecutor::new()).build_http(), cookie: None }
    }

    pub async fn get(&mut self, url: &str) -> Reply {
        self.send(Method::GET, url, "", String::new()).await
    }

    /// What has to be there.
    pub async fn json(&mut self, url: &str) -> Value {
        self.get(url).await.json()
    }

    pub async fn view(&mut self, node: &str) -> Value {
        self.json(&format!("{node}/api/view")).await
    }

    /// An action that has to succeed.
    pub async fn act(&mut self, node: &str, action: &Value) -> Value {
        self.post(&format!("{node}/api/act"), action).await.json()
    }

    pub async fn post(&mut self, url: &str, body: &Value) -> Reply {
        self.send(Method::POST, url, "application/json", body.to_string()).await
    }

    pub async fn send(&mut self, method: Method, url: &str, content: &str, body: String) -> Reply {
        let mut request = Request::builder().method(method).uri(url).header(USER_AGENT, "Test/1.0");
        if !content.is_empty() {
            request = request.header(CONTENT_TYPE, content);
        }
        if let Some(cookie) = &self.cookie {
            request = request.header(COOKIE, cookie);
        }
        let request = request.body(Full::from(body)).expect("a request");
        let answer = tokio::time::timeout(WAIT_MAX, self.client.request(request)).await;
        let (head, body) = answer.expect("an answer in time").expect("an answer").into_parts();
        self.keep(&head.headers);
        let body = body.collect().await.expect("a body").to_bytes();
        let body = String::from_utf8_lossy(&body).into_owned();
        Reply { status: head.status, headers: head.headers, body }
    }

    fn keep(&mut self, headers: &HeaderMap) {
        for header in headers.get_all(SET_COOKIE) {
            let header = header.to_str().expect("text");
            let pair = header.split(';').next().unwrap_or_default();
            self.cookie = (!header.contains("Max-Age=0")).then(|| pair.to_owned());
        }
    }
}

impl Reply {
    pub fn json(&self) -> Value {
        assert_eq!(self.status, StatusCode::OK, "{}", self.body);
        serde_json::from_str(&self.body).expect("JSON")
    }
}
