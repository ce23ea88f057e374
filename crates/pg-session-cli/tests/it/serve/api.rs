//! The admin API: its operations, its description, and what hostile requests get.

use std::collections::BTreeSet;

use hyper::{Method, StatusCode};
use pg_session::{GroupId, UserId};
use serde_json::{Value, json};

use super::server::{Answer, Application, Server};

pub const TOKEN: &str = "the-admin-token-0123456789abcdef";

/// A client that has the token, and checks each answer against the description.
struct Client<'a> {
    server: &'a Server,
    document: Value,
}

impl<'a> Client<'a> {
    async fn new(server: &'a Server) -> Self {
        let mut client = Self { server, document: Value::Null };
        client.document = json_of(&client.raw(Method::GET, "/api/v1/openapi.json", "").await);
        client
    }

    async fn raw(&self, method: Method, path: &str, body: &str) -> Answer {
        let bearer = format!("Bearer {TOKEN}");
        let headers = [("authorization", bearer.as_str()), ("content-type", "application/json")];
        self.server.send(method, path, &headers, body).await
    }

    /// Of the operation that the description has at `path`.
    async fn send(&self, method: Method, path: &str, target: &str, body: &str) -> (StatusCode, Value) {
        let answer = self.raw(method.clone(), target, body).await;
        let base = self.document["servers"][0]["url"].as_str().expect("an address");
        let path = path.strip_prefix(base).expect("a path of the API");
        let operation = &self.document["paths"][path][method.as_str().to_lowercase()];
        let response = &operation["responses"][answer.status.as_str()];
        assert!(response.is_object(), "{method} {target}: {} is not described: {answer:?}", answer.status);
        assert_eq!(answer.header("cache-control"), Some("no-store"));
        let body = json_of(&answer);
        let faults = self.faults(&response["content"]["application/json"]["schema"], &body, "body");
        assert!(faults.is_empty(), "{method} {target}: {faults:?}: {body}");
        (answer.status, body)
    }

    /// An order is carried out only if the description allows it, and the other way round.
    async fn revoke(&self, order: &Value) -> (StatusCode, Value) {
        let answer = self.revoke_unchecked(order).await;
        let schema = &self.document["components"]["schemas"]["Order"];
        let mut faults = self.faults(schema, order, "order");
        let fits = |choice: &&Value| self.faults(choice, order, "order").is_empty();
        let targets = schema["oneOf"].as_array().expect("targets").iter().filter(fits).count();
        faults.extend((targets != 1).then(|| format!("{targets} targets")));
        let is_refused = [400, 415, 422].contains(&answer.0.as_u16());
        assert_eq!(faults.is_empty(), !is_refused, "{order}: {answer:?}: {faults:?}");
        answer
    }

    async fn revoke_unchecked(&self, order: &Value) -> (StatusCode, Value) {
        self.send(Method::POST, "/api/v1/revocations", "/api/v1/revocations", &order.to_string()).await
    }

    /// How a value differs from a schema, as far as the description uses schemas.
    fn faults(&self, schema: &Value, value: &Value, place: &str) -> Vec<String> {
        if let Some(reference) = schema["$ref"].as_str() {
            let schema = self.document.pointer(&reference[1..]).expect("a schema with this name");
            return self.faults(schema, value, place);
        }
        if let Some(choices) = schema["oneOf"].as_array().filter(|_| schema["type"].is_null()) {
            let fits = choices.iter().any(|schema| self.faults(schema, value, place).is_empty());
            return if fits { Vec::new() } else { vec![format!("{place} is none of {choices:?}")] };
        }
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_f64() => "number",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let is_allowed = |allowed: &Value| allowed == kind || allowed == "number" && kind == "integer";
        let mut faults = Vec::new();
        let types = &schema["type"];
        let fits = types.is_null()
            || types.as_array().map_or_else(|| is_allowed(types), |all| all.iter().any(is_allowed));
        if !fits {
            faults.push(format!("{place} is a {kind}"));
        }
        let differs = |name: &str| schema.get(name).is_some_and(|constant| constant != value);
        let is_listed = schema["enum"].as_array().is_none_or(|choices| choices.contains(value));
        if differs("const") || !is_listed {
            faults.push(format!("{place} is {value}"));
        }
        let length_min = schema["minLength"].as_u64().unwrap_or(0);
        if value.as_str().is_some_and(|text| (text.chars().count() as u64) < length_min) {
            faults.push(format!("{place} is too short"));
        }
        for item in value.as_array().into_iter().flatten() {
            faults.extend(self.faults(&schema["items"], item, &format!("{place}[]")));
        }
        for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if value.get(name).is_none() {
                faults.push(format!("{place} has no {name}"));
            }
        }
        for (name, member) in value.as_object().into_iter().flatten() {
            match (schema["properties"].get(name), &schema["additionalProperties"]) {
                (Some(schema), _) => faults.extend(self.faults(schema, member, &format!("{place}.{name}"))),
                (None, Value::Bool(false)) => faults.push(format!("{place}.{name} is not described")),
                (None, schema) => faults.extend(self.faults(schema, member, &format!("{place}.{name}"))),
            }
        }
        faults
    }
}

fn json_of(answer: &Answer) -> Value {
    serde_json::from_str(&answer.body).unwrap_or_else(|error| panic!("{error}: {answer:?}"))
}

/// The form of all errors of the API.
fn has_problem(answer: &Answer) -> bool {
    let body = serde_json::from_str::<Value>(&answer.body).unwrap_or_default();
    answer.header("content-type") == Some("application/json")
        && body["error"].as_str().is_some_and(|sentence| !sentence.is_empty())
}

fn handles(list: &Value) -> BTreeSet<String> {
    let sessions = list["sessions"].as_array().expect("a list");
    sessions.iter().map(|session| session["handle"].as_str().expect("a handle").to_owned()).collect()
}

#[tokio::test]
async fn sessions_are_listed_shown_and_ended_by_handle() {
    let app = Application::start("api").await;
    let team = GroupId::named("team");
    let [a, b] =
        [1, 1].map(|user| app.manager.create(user).group(team).label("tenant:7").set("card", "secret-value"));
    let (a, b) = (a.await.unwrap(), b.await.unwrap());
    let other = app.manager.create(UserId::from(2)).await.unwrap();
    let [a_handle, b_handle, other_handle] =
        [&a, &b, &other].map(|session| session.id().handle().to_string());
    let mut server = app.serve_with(&[], &[("PG_SESSION_ADMIN_TOKEN", TOKEN)]);
    let client = Client::new(&server).await;

    let list = async |query: &str| {
        client.send(Method::GET, "/api/v1/sessions", &format!("/api/v1/sessions?{query}"), "").await
    };
    let both = BTreeSet::from([a_handle.clone(), b_handle.clone()]);
    for query in ["user=1", "group=team", "label=tenant:7"] {
        let (status, body) = list(query).await;
        assert_eq!((status, handles(&body)), (StatusCode::OK, both.clone()), "{query}");
        assert!(
            [&a, &b].iter().all(|session| !body.to_string().contains(&session.id().expose().to_string()))
        );
    }
    for wrong in
        ["", "user=1&group=team", "group=team&label=tenant:7", "label=", "user=", "group=", "users=1"]
    {
        assert_eq!(list(wrong).await.0, StatusCode::BAD_REQUEST, "{wrong}");
    }

    let show = async |target: &str| {
        let path = "/api/v1/sessions/{handle}";
        client.send(Method::GET, path, &format!("/api/v1/sessions/{target}"), "").await
    };
    let (_, hidden) = show(&a_handle[..8]).await;
    assert_eq!((&hidden["handle"], &hidden["attributes"][0]["key"]), (&json!(a_handle), &json!("card")));
    assert!(!hidden.to_string().contains("secret-value"), "{hidden}");
    let (_, shown) = show(&format!("{a_handle}?values=true")).await;
    assert_eq!(shown["attributes"][0]["value"], "secret-value");
    assert_eq!(show("00000000").await.0, StatusCode::NOT_FOUND);
    assert_eq!(
        show(&a.id().expose().to_string()).await.0,
        StatusCode::BAD_REQUEST,
        "a session id is no handle"
    );

    let (_, counted) = client.revoke(&json!({ "user": "1", "cause": "admin", "dry_run": true })).await;
    assert_eq!(counted, json!({ "dry_run": true, "matching": 2, "ended": 0, "everywhere": null }));
    for wrong in [
        json!({ "user": "1" }),
        json!({ "user": "1", "cause": "because" }),
        json!({ "cause": "admin" }),
        json!({ "user": "1", "all": true, "cause": "admin" }),
        json!({ "user": "1", "label": "tenant:7", "cause": "admin" }),
        json!({ "label": "", "cause": "admin" }),
        json!({ "user": "", "cause": "admin" }),
        json!({ "group": "", "cause": "admin" }),
        json!({ "handle": "", "cause": "admin" }),
        json!({ "user": "", "cause": "admin", "dry_run": true }),
        json!({ "user": "1", "cause": "admin", "id": "x" }),
        json!({ "user": 1, "cause": "admin" }),
        json!([]),
    ] {
        let (status, body) = client.revoke(&wrong).await;
        assert!(status.is_client_error(), "{wrong}: {status}");
        let sentence = body["error"].as_str().expect("a sentence");
        assert!(!sentence.contains("target type") && !sentence.starts_with("Failed"), "{wrong}: {sentence}");
    }
    let (_, body) = client.revoke(&json!({ "user": "1" })).await;
    let sentence = body["error"].as_str().expect("a sentence");
    assert!(
        sentence.contains("missing field `cause`") && sentence.contains("send a JSON object"),
        "{sentence}"
    );
    assert_eq!(handles(&list("user=1").await.1), both, "nothing has ended yet");

    let (_, none) = client.revoke(&json!({ "label": "tenant:70", "cause": "admin" })).await;
    assert_eq!(none["ended"], 0);
    let (_, counted) =
        client.revoke(&json!({ "label": "tenant:7", "cause": "admin", "dry_run": true })).await;
    assert_eq!(counted["matching"], 2);
    let (_, one) = client.revoke(&json!({ "handle": a_handle, "cause": "admin" })).await;
    assert_eq!(one, json!({ "dry_run": false, "matching": null, "ended": 1, "everywhere": null }));
    assert_eq!(handles(&list("user=1").await.1), BTreeSet::from([b_handle]));
    assert!(app.manager.get(a.id()).bypass_cache().await.unwrap().is_none());
    let (status, _) = client.revoke(&json!({ "handle": a_handle, "cause": "admin" })).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let order = json!({ "user": "1", "cause": "credential", "everywhere": true });
    let (_, gone) = client.revoke(&order).await;
    assert_eq!((&gone["ended"], &gone["everywhere"]["lapsed"]), (&json!(1), &json!(0)), "{gone}");
    assert_eq!(gone["everywhere"]["acknowledged"], 2, "the application's node and the program");
    let (_, nodes) = client.send(Method::GET, "/api/v1/nodes", "/api/v1/nodes", "").await;
    let nodes = nodes["nodes"].as_array().expect("a list");
    assert!(nodes.len() == 2 && nodes.iter().all(|node| node["answered_after_ms"].is_number()), "{nodes:?}");
    assert_eq!(nodes.iter().filter(|node| node["this_node"] == true).count(), 1);
    assert_eq!(handles(&list("user=2").await.1), BTreeSet::from([other_handle]));
    assert_eq!(client.revoke(&json!({ "all": true, "cause": "admin" })).await.1["ended"], 1);
    let read = async |name: &str| {
        let path = format!("/api/v1/{name}");
        client.send(Method::GET, &path, &path, "").await.1
    };
    let lease = app.manager.locks().try_lock("nightly-report").label("ann").await.unwrap();
    let locks = read("locks").await;
    assert_eq!(
        (&locks["locks"][0]["name"], &locks["locks"][0]["holder"]),
        (&json!("nightly-report"), &json!("ann"))
    );
    drop(lease);
    let events = read("events").await;
    assert_eq!(events["changes"][0]["what"], "all sessions");
    assert!(events["events"].as_array().is_some_and(|all| !all.is_empty()), "{events}");
    // The test's server is fast, not safe.
    let findings = read("findings").await;
    assert!(
        findings["findings"].as_array().is_some_and(|all| all.iter().any(|row| row["check"] == "fsync")),
        "{findings}"
    );
    let (_, state) = client.send(Method::GET, "/api/v1/status", "/api/v1/status", "").await;
    assert_eq!(state["trusted"], true);

    // Each change is a line of the log.
    let out = server.program.read_until(&["\"what\":\"all sessions\""]);
    for line in
        [&format!("\"what\":\"session {a_handle}\"")[..], "\"what\":\"user 1\"", "\"cause\":\"credential\""]
    {
        assert!(out.contains(line), "{line}: {out}");
    }
    server.stop();
}

#[tokio::test]
async fn the_api_is_closed_without_the_token() {
    let app = Application::start("api_closed").await;
    let session = app.manager.create(UserId::from(1)).await.unwrap();
    let order = json!({ "all": true, "cause": "admin" }).to_string();
    let without = app.serve(&[]);
    for path in ["/api/v1/openapi.json", "/api/v1/sessions?user=1", "/console", "/console/sign-in"] {
        assert_eq!(without.get(path).await.status, StatusCode::NOT_FOUND, "{path}");
    }
    without.stop();

    let server = app.serve_with(&[], &[("PG_SESSION_ADMIN_TOKEN", TOKEN)]);
    let wrong = TOKEN.replace("the", "The");
    for bearer in ["", &format!("Bearer {wrong}"), &format!("Basic {TOKEN}"), TOKEN] {
        let headers = [("authorization", bearer), ("content-type", "application/json")];
        for (method, path) in [
            (Method::GET, "/api/v1/openapi.json"),
            (Method::GET, "/api/v1/status"),
            (Method::GET, "/api/v1/sessions?user=1"),
            (Method::GET, "/api/v1/sessions/00000000"),
            (Method::POST, "/api/v1/revocations"),
        ] {
            let answer = server.send(method, path, &headers, &order).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{path}: {answer:?}");
            assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
            assert!(!answer.body.contains(TOKEN), "{answer:?}");
        }
    }
    assert!(app.manager.get(session.id()).bypass_cache().await.unwrap().is_some());
    server.stop();
}

#[tokio::test]
async fn hostile_requests_get_no_500_and_change_nothing() {
    let app = Application::start("api_hostile").await;
    let session = app.manager.create(UserId::from(1)).await.unwrap();
    let server = app.serve_with(&[], &[("PG_SESSION_ADMIN_TOKEN", TOKEN)]);
    let client = Client::new(&server).await;
    let long = "x".repeat(5_000);
    let texts =
        ["", "%00", "%ff", "..%2f", "%27%3b--", "1'--", "-9223372036854775809", "%F0%9F%92%A3", &long];
    for text in texts {
        for target in [
            format!("/api/v1/sessions?user={text}"),
            format!("/api/v1/sessions?group={text}"),
            format!("/api/v1/sessions/{text}"),
            format!("/api/v1/sessions/00000000?values={text}"),
        ] {
            let answer = client.raw(Method::GET, &target, "").await;
            assert!(answer.status.as_u16() < 500, "{target}: {answer:?}");
            assert!(answer.status.is_success() || has_problem(&answer), "{target}: {answer:?}");
        }
    }
    let deep = format!("{}{}", "[".repeat(8_000), "]".repeat(8_000));
    let large = json!({ "user": "x".repeat(20_000), "cause": "admin" }).to_string();
    // As lists, with the members of an order in their order.
    let (all, user) = (
        r#"[null,null,null,null,true,"admin",false,false]"#,
        r#"["1",null,null,null,false,"admin",false,false]"#,
    );
    let bodies = [
        "",
        "{",
        "null",
        "\u{0}",
        r#"{"all":"true","cause":"admin"}"#,
        r#"{"all":1}"#,
        all,
        user,
        &deep,
        &large,
    ];
    for body in bodies {
        let answer = client.raw(Method::POST, "/api/v1/revocations", body).await;
        assert!(answer.status.is_client_error() && has_problem(&answer), "{body:.40}: {answer:?}");
    }
    for method in [Method::PUT, Method::DELETE, Method::PATCH, Method::OPTIONS] {
        let answer =
            client.raw(method.clone(), "/api/v1/revocations", r#"{"all":true,"cause":"admin"}"#).await;
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{method}");
        assert!(has_problem(&answer) && answer.header("allow") == Some("POST"), "{answer:?}");
    }
    let (path, typeless) = ("/api/v1/revocations", r#"{"all":true,"cause":"admin"}"#);
    let bearer = format!("Bearer {TOKEN}");
    let answer = server.send(Method::POST, path, &[("authorization", &bearer)], typeless).await;
    assert!(answer.status == StatusCode::UNSUPPORTED_MEDIA_TYPE && has_problem(&answer), "{answer:?}");
    let answer = client.raw(Method::GET, "/api/v1/unknown", "").await;
    assert!(answer.status == StatusCode::NOT_FOUND && has_problem(&answer), "{answer:?}");
    assert!(app.manager.get(session.id()).bypass_cache().await.unwrap().is_some());
    server.stop();
}
