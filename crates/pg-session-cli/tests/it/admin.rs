//! `list`, `show`, `revoke` and `explain`: what operators see and end, by handles.

use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pg_session::{
    Cause, Config, GroupId, KeyRing, Migrations, Session, SessionManager, Signer, SigningKey, UserId,
};
use serde_json::Value;

use crate::support::{End, WAIT_MAX, World};

/// An application with sessions of two users, and its operator's program.
pub struct Application {
    pub world: World,
    pub node: SessionManager,
    pub schema: String,
}

impl Application {
    pub async fn new(name: &str) -> Self {
        let world = World::new(name).await;
        let schema = format!("admin_{name}");
        let mut config = Config::default();
        config.schema.clone_from(&schema);
        config.migrations = Migrations::Apply;
        config.pool_connections_max = 2;
        let node = SessionManager::connect(&world.url, config).await.expect("the node starts");
        Self { world, node, schema }
    }

    /// Runs the program, without a terminal.
    pub fn run(&self, args: &[&str], input: &str) -> End {
        let place = ["--database-url", &self.world.url, "--schema", &self.schema];
        run(&[args, &place].concat(), input)
    }

    pub fn json(&self, args: &[&str], input: &str) -> Vec<Value> {
        let end = self.run(&[args, &["--json"]].concat(), input);
        assert_eq!((end.code, end.err.as_str()), (Some(0), ""), "{args:?}: {end:?}");
        values(&end)
    }

    pub async fn alive(&self, session: &Session) -> bool {
        self.node.catch_up().await.expect("the database answers");
        self.node.get(session.id()).await.expect("a read").is_some()
    }
}

pub fn run(args: &[&str], input: &str) -> End {
    let mut command = Command::new(env!("CARGO_BIN_EXE_pg-session"));
    command.args(args).env_remove("RUST_LOG").env_remove("CLICOLOR_FORCE");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    // An error means that the program has ended and did not want it.
    let _ = child.stdin.take().expect("stdin is a pipe").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("the program ends");
    let text = |bytes| String::from_utf8(bytes).expect("the output is text");
    End { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

fn values(end: &End) -> Vec<Value> {
    end.out.lines().map(|line| serde_json::from_str(line).expect("a JSON object")).collect()
}

fn handle(session: &Session) -> String {
    session.id().handle().to_string()
}

/// Fields and types of the first table below a heading of docs/cli.md, or of the one whose first column is `attribute`.
pub fn schema(heading: &str, column: &str) -> BTreeMap<String, String> {
    let page = include_str!("../../../../docs/cli.md");
    let section = page.split(&format!("### `{heading}`\n")).nth(1).expect("the page has the heading");
    let section = section.split("\n### ").next().unwrap_or(section);
    let table = section.split(&format!("| {column} | type |")).nth(1).expect("the section has the table");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let cells = rows.map(|row| row.split('|').map(str::trim).collect::<Vec<_>>());
    let fields = cells.map(|cells| (cells[1].trim_matches('`').to_owned(), cells[2].to_owned()));
    let fields: BTreeMap<_, _> = fields.collect();
    assert!(!fields.is_empty(), "{heading} has fields");
    fields
}

/// The object has the fields of the table, and no others.
pub fn assert_matches(schema: &BTreeMap<String, String>, object: &Value) {
    let object = object.as_object().expect("an object");
    for key in object.keys() {
        assert!(schema.contains_key(key), "the page lacks {key}");
    }
    for (field, kind) in schema {
        let Some(value) = object.get(field) else {
            assert!(kind.starts_with("any"), "{field} is missing in {object:?}");
            continue;
        };
        let fits = kind.split(" or ").any(|kind| match kind {
            "null" => value.is_null(),
            "text" => value.is_string(),
            "number" => value.is_number(),
            "boolean" => value.is_boolean(),
            "object" => value.is_object(),
            "list of texts" => value.as_array().is_some_and(|items| items.iter().all(Value::is_string)),
            "list of objects" => value.as_array().is_some_and(|items| items.iter().all(Value::is_object)),
            "time" => value.as_str().is_some_and(|text| humantime::parse_rfc3339(text).is_ok()),
            kind => kind.starts_with("any"),
        });
        assert!(fits, "{field} is no {kind}: {value}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_are_listed_and_shown_by_handle() {
    let app = Application::new("list").await;
    let ann = UserId::named("ann");
    let phone = app.node.create(ann).group(GroupId::from(7)).set("device", "phone").await.unwrap();
    let desk = app.node.create(42).set("secret", "s3cr3t").set("a\u{1b}[2Jb", &1).await.unwrap();

    let listed = app.json(&["list"], "");
    assert_eq!(listed.len(), 2);
    let fields = schema("list --json", "field");
    listed.iter().for_each(|row| assert_matches(&fields, row));
    let of_user = app.json(&["list", "--user", "ann"], "");
    assert_eq!(of_user[0]["handle"], handle(&phone));
    assert_eq!((&of_user[0]["group"], of_user.len()), (&Value::from("7"), 1));
    assert_eq!(app.json(&["list", "--group", "7"], "")[0]["handle"], handle(&phone));
    assert_eq!(app.json(&["list", "--all", "--older-than", "1h"], ""), Vec::<Value>::new());

    let plain = app.run(&["list", "--limit", "1"], "");
    assert_eq!(plain.code, Some(0), "{plain:?}");
    assert!(
        plain.out.starts_with("HANDLE\tUSER\tGROUP\tVERSION\tCREATED\tLAST ACCESS\tEXPIRES\n"),
        "{plain:?}"
    );
    assert_eq!(plain.out.lines().count(), 2);
    assert!(plain.err.contains("more than 1 sessions"), "{plain:?}");

    let shown = app.json(&["show", &handle(&desk)[..8]], "");
    let mut fields = schema("list --json", "field");
    fields.extend(schema("show --json", "field"));
    assert_matches(&fields, &shown[0]);
    let attribute = schema("show --json", "attribute");
    let attributes = shown[0]["attributes"].as_array().expect("a list");
    assert_eq!(attributes.len(), 2);
    attributes.iter().for_each(|row| assert_matches(&attribute, row));
    let values = app.json(&["show", &handle(&desk), "--values"], "");
    assert_eq!(values[0]["attributes"][1]["value"], "s3cr3t");

    let plain = app.run(&["show", &handle(&desk)], "");
    assert!(plain.out.contains("attribute\tsecret\n") && plain.out.contains("user\t42\n"), "{plain:?}");
    assert!(
        plain.out.contains("a\\u{1b}[2Jb") && !plain.out.contains('\u{1b}'),
        "it commands no terminal: {plain:?}"
    );

    let exported = app.run(&["export", "--user", "42"], "");
    assert_eq!((exported.code, self::values(&exported)), (Some(0), values.clone()), "{exported:?}");

    let everything = format!("{listed:?}{shown:?}{values:?}{plain:?}{exported:?}");
    for session in [&phone, &desk] {
        let id = session.id().expose();
        for spelling in [id.to_string(), id.simple().to_string()] {
            assert!(!everything.contains(&spelling), "no session id is printed");
        }
    }
    assert!(!format!("{shown:?}{plain:?}").contains("s3cr3t"), "values are hidden");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_end_only_after_consent() {
    let app = Application::new("revoke").await;
    let group = GroupId::from(3);
    let [a, b, c, d] = [1, 1, 1, 2].map(|user| app.node.create(user).group(group).into_future());
    let (a, b, c, d) = (a.await.unwrap(), b.await.unwrap(), c.await.unwrap(), d.await.unwrap());

    let end = app.run(&["revoke", "--user", "1"], "yes\n");
    assert_eq!(end.code, Some(2), "without a terminal: {end:?}");
    assert!(end.err.contains("--yes") && app.alive(&a).await, "{end:?}");
    for wrong in [
        &["revoke"][..],
        &["revoke", "--user", "1", "--all"],
        &["revoke", "--all", "--handle", "01234567"],
        &["revoke", "--all", "--cause", "expired"],
    ] {
        assert_eq!(app.run(wrong, "").code, Some(2), "{wrong:?}");
    }

    let dry = app.json(&["revoke", "--user", "1", "--except", &handle(&a), "--dry-run"], "");
    let fields = schema("revoke --json", "field");
    assert_matches(&fields, &dry[0]);
    assert_eq!((&dry[0]["matching"], &dry[0]["ended"]), (&Value::from(2), &Value::from(0)));
    assert_eq!(dry[0]["examples"].as_array().map(Vec::len), Some(2));
    assert!(app.alive(&b).await, "a dry run ends nothing");

    // Another user's session would spare none.
    let end = app.run(&["revoke", "--user", "1", "--except", &handle(&d), "--yes"], "");
    assert_eq!(end.code, Some(1), "{end:?}");
    assert!(end.err.contains("another user") && app.alive(&a).await, "{end:?}");

    let done = app.json(&["revoke", "--user", "1", "--except", &handle(&a), "--yes"], "");
    assert_eq!(done[0]["ended"], 2);
    assert!(app.alive(&a).await && !app.alive(&b).await && !app.alive(&c).await && app.alive(&d).await);

    let none = app.json(&["revoke", "--all", "--older-than", "1h", "--yes"], "");
    assert_eq!((&none[0]["matching"], &none[0]["ended"]), (&Value::from(0), &Value::from(0)));
    let done =
        app.json(&["revoke", "--group", "3", "--except", &handle(&a), "--older-than", "0s", "--yes"], "");
    assert_eq!(done[0]["ended"], 1);
    assert!(app.alive(&a).await && !app.alive(&d).await);

    let pin = app.node.pin(&a).await.unwrap();
    let end = app.run(&["revoke", "--handle", &handle(&a)[..10], "--cause", "credential", "--yes"], "");
    assert_eq!((end.code, end.out.as_str()), (Some(0), "ended\t1 session\n"), "{end:?}");
    let cause = tokio::time::timeout(WAIT_MAX, pin.ended()).await.expect("the node learns of it");
    assert_eq!(cause, Cause::Credential, "sockets close with the reason");
    assert!(!app.alive(&a).await);
    let end = app.run(&["revoke", "--handle", &handle(&a), "--yes"], "");
    assert_eq!(end.code, Some(1), "{end:?}");
    assert!(end.err.contains("no live session"), "{end:?}");
    let end = app.run(&["show", &a.id().expose().to_string()], "");
    assert!(end.code == Some(2) && end.err.contains("never a session id"), "{end:?}");

    let five = app.node.create(5).await.unwrap();
    let end = app.run(&["revoke", "--all", "--yes"], "");
    assert!(!app.alive(&five).await);
    assert_eq!(end.out, "ended\t1 session\n", "{end:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sessions_of_a_label_are_listed_and_end() {
    let app = Application::new("label").await;
    let [a, b, c, d] = [(1, "tenant:7"), (2, "tenant:7"), (1, "tenant:70"), (3, "tenant:7")]
        .map(|(user, label)| app.node.create(user).label(label).into_future());
    let (a, b, c, d) = (a.await.unwrap(), b.await.unwrap(), c.await.unwrap(), d.await.unwrap());
    let listed = app.json(&["list", "--label", "tenant:7"], "");
    let mut handles: Vec<_> = listed.iter().map(|row| row["handle"].as_str().expect("a handle")).collect();
    handles.sort_unstable();
    let mut expected = [&a, &b, &d].map(handle);
    expected.sort_unstable();
    assert_eq!(handles, expected);
    for wrong in [
        &["revoke", "--label", "tenant:7", "--user", "1", "--yes"][..],
        &["revoke", "--label", "tenant:7", "--all", "--yes"],
        &["revoke", "--label", "tenant:7", "--handle", "01234567", "--yes"],
    ] {
        assert_eq!(app.run(wrong, "").code, Some(2), "{wrong:?}");
    }
    let done = app.json(&["revoke", "--label", "tenant:7", "--except", &handle(&a), "--yes"], "");
    assert_eq!((&done[0]["matching"], &done[0]["ended"]), (&Value::from(2), &Value::from(2)));
    assert!(app.alive(&a).await && !app.alive(&b).await && app.alive(&c).await && !app.alive(&d).await);
    let done = app.json(&["revoke", "--label", "tenant:7", "--yes"], "");
    assert_eq!(done[0]["ended"], 1);
    assert!(!app.alive(&a).await && app.alive(&c).await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_explained_without_being_shown() {
    let app = Application::new("explain").await;
    let mut session = app.node.create(42).await.unwrap();
    let (old, new) = (SigningKey::generate().unwrap(), SigningKey::generate().unwrap());
    let token = Signer::new(KeyRing::new(&old)).issue(session.id(), session.version());
    let keys = format!("{}\n{}\n", &*new.expose_base64(), &*old.expose_base64());
    let input = format!("__Host-session={}\n{keys}", token.expose());

    let live = app.json(&["explain"], &input);
    let fields = schema("explain --json", "field");
    assert_matches(&fields, &live[0]);
    assert_eq!(live[0]["state"], "live");
    assert_eq!((&live[0]["key"], &live[0]["user"]), (&Value::from(old.id().to_string()), &Value::from("42")));
    assert_eq!(live[0]["is_newest_key"], false);
    let plain = app.run(&["explain"], &input);
    assert!(
        plain.out.contains("authentic\tyes\n") && plain.out.contains("a newer key signs now"),
        "{plain:?}"
    );
    assert!(!plain.out.contains(token.expose()) && !plain.out.contains(&session.id().expose().to_string()));

    app.node.rotate(&mut session).await.unwrap();
    let retired = app.run(&["explain", "--json"], &input);
    assert_eq!(
        (retired.code, &values(&retired)[0]["state"]),
        (Some(1), &Value::from("retired")),
        "{retired:?}"
    );
    app.node.delete(session.id()).await.unwrap();
    let ended = app.run(&["explain", "--json"], &input);
    assert_eq!((ended.code, &values(&ended)[0]["state"]), (Some(1), &Value::from("ended")), "{ended:?}");

    let without_key = format!("{}\n{}\n", token.expose(), &*new.expose_base64());
    let end = run(&["explain", "--offline", "--json"], &without_key);
    assert_eq!((end.code, end.err.as_str()), (Some(1), ""), "{end:?}");
    let value = &values(&end)[0];
    assert_matches(&fields, value);
    assert_eq!(
        (&value["authentic"], &value["key"]),
        (&Value::from(false), &Value::from(old.id().to_string()))
    );
    assert_eq!(value["handle"], Value::Null, "a token that is not authentic says nothing");
    let end = run(&["explain", "--offline", token.expose()], &keys);
    assert_eq!(end.code, Some(0), "{end:?}");
    let end = run(&["explain", "--offline"], "");
    assert!(end.code == Some(1) && end.err.contains("first line is the token"), "{end:?}");
}

/// The three commands at the top of docs/cli.md. One of three nodes has lost its listener.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_phone_is_gone_on_every_node_with_a_receipt() {
    let page = include_str!("../../../../docs/cli.md");
    let commands = page.split("```text").nth(1).and_then(|rest| rest.split("```").next());
    let commands: Vec<Vec<&str>> = commands
        .expect("they come first")
        .trim()
        .lines()
        .map(|line| line.split(' ').skip(1).collect())
        .collect();
    let app = Application::new("phone").await;
    let mut config = app.node.config().clone();
    // The program waits for one window.
    config.trust_window = Duration::from_secs(5);
    assert!(app.node.shutdown(WAIT_MAX).await.is_complete());
    let proxy = pg_sandbox::Proxy::start(app.world.address()).await.expect("a proxy");
    let url = &app.world.url;
    let cut_off = SessionManager::builder(config.clone()).url(url).expect("a URL");
    let cut_off =
        cut_off.listen_on_url(&proxy.url_for(url)).expect("a URL").connect().await.expect("it starts");
    let [one, other] = [config.clone(), config].map(|config| SessionManager::connect(url, config));
    let (one, other) = (one.await.expect("the node starts"), other.await.expect("the node starts"));
    let phone = one.create(42).set("device", "phone").await.unwrap();
    for node in [&one, &other, &cut_off] {
        assert!(node.get(phone.id()).await.unwrap().is_some());
    }
    proxy.refuse();
    proxy.cut();

    let [nodes, list, revoke] = &commands[..] else { panic!("three commands: {commands:?}") };
    // The node says so when the window has passed since its last proof.
    let fields = schema("nodes --json", "field");
    let began = Instant::now();
    loop {
        let found = values(&app.run(&[&nodes[..], &["--json"]].concat(), ""));
        found.iter().for_each(|node| assert_matches(&fields, node));
        if found.iter().any(|node| node["listener_lost_at"].is_string()) {
            assert_eq!(found.len(), 3, "{found:?}");
            break;
        }
        assert!(began.elapsed() < WAIT_MAX, "no node says that its listener is lost: {found:?}");
    }
    let plain = app.run(nodes, "");
    assert!(plain.out.contains("listener lost 20"), "{plain:?}");
    assert!(plain.err.contains("has lost its listener"), "it says what to do: {plain:?}");
    assert_eq!(plain.code, Some(1), "a node without an answer is a finding");
    let found = app.json(list, "");
    let handle = found[0]["handle"].as_str().expect("a handle");
    let revoke: Vec<&str> =
        revoke.iter().map(|&word| if word == "3fa9c1d2" { &handle[..8] } else { word }).collect();
    let done = app.json(&[&revoke[..], &["--yes"]].concat(), "");
    assert_matches(&schema("revoke --json", "field"), &done[0]);
    assert_matches(&schema("revoke --json", "receipt"), &done[0]["receipt"]);
    let receipt = |field: &str| done[0]["receipt"][field].as_u64().expect("a number");
    assert_eq!(done[0]["ended"], 1, "{done:?}");
    // On a busy machine, a node may lose trust instead of answering.
    assert!(receipt("acknowledged") + receipt("lapsed") >= 2 && receipt("lapsed") >= 1, "{done:?}");
    for node in [&one, &other, &cut_off] {
        assert!(node.get(phone.id()).await.unwrap().is_none(), "no node serves it");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_measures_and_leaves_no_session() {
    let app = Application::new("plan").await;
    let session = app.node.create(1).await.unwrap();
    let args = ["plan", "--nodes", "60", "--updates", "1", "--logins", "0", "--json"];
    let end = app.run(&args, "");
    assert_eq!(end.code, Some(0), "{end:?}");
    let plan = &values(&end)[0];
    assert_matches(&schema("plan --json", "field"), plan);
    let limits = plan["limits"].as_array().expect("a list");
    let fields = schema("plan --json", "limit");
    limits.iter().for_each(|limit| assert_matches(&fields, limit));
    assert!(plan["round_trip_us"].as_f64() > Some(0.0) && plan["row_us"].as_f64() > Some(0.0), "{plan}");
    assert_eq!(plan["first_limit"], "connections", "60 nodes with 9 connections each: {plan}");
    let left = app.json(&["list"], "");
    assert_eq!((left.len(), &left[0]["handle"]), (1, &Value::from(handle(&session))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_program_leaves_the_nodes_settings_alone() {
    let app = Application::new("settings").await;
    let mut config = Config::default();
    config.schema.clone_from(&app.schema);
    config.idle_timeout = Duration::from_secs(3_600);
    let node = SessionManager::connect(&app.world.url, config).await.expect("the node starts");
    let session = node.create(1).await.unwrap();
    let idle = format!(
        "SET pg_session.direct_writes = 'on';
        UPDATE {}.sessions SET last_accessed_at = last_accessed_at - interval '2 hours'",
        app.schema
    );
    app.world.client.batch_execute(&idle).await.unwrap();
    assert_eq!(
        app.json(&["list"], ""),
        Vec::<Value>::new(),
        "idle by the nodes' settings, not by the defaults"
    );
    assert_eq!(app.run(&["show", &handle(&session)], "").code, Some(1));
    // The test's server is fast, not safe.
    let findings = app.json(&["doctor"], "");
    let fields = schema("doctor --json", "field");
    findings.iter().for_each(|finding| assert_matches(&fields, finding));
    assert_eq!(findings[0]["page"], "docs/operations.md#doctor");
    for command in ["doctor", "migrate"] {
        assert_eq!(app.run(&[command], "").code, Some(0), "{command}");
    }
    let text = format!(
        "SELECT count(*) FROM {}.session_settings WHERE idle_timeout = $1::text::interval",
        app.schema
    );
    assert_eq!(app.world.count(&text, "1 hour").await, 1);
}

#[test]
fn the_manual_and_the_completions_name_each_command() {
    let help = run(&["--help"], "");
    let commands: Vec<&str> = help
        .out
        .lines()
        .skip_while(|line| *line != "Commands:")
        .skip(1)
        .map_while(|line| line.strip_prefix("  ")?.split_whitespace().next())
        .filter(|name| *name != "help")
        .collect();
    assert!(commands.len() > 8, "{help:?}");
    let (page, bash) = (run(&["man"], ""), run(&["completions", "bash"], ""));
    for command in commands {
        assert!(page.out.contains(&format!("pg\\-session\\-{command}")), "{command}: {page:?}");
        assert!(bash.out.contains(command), "{command}");
        let own = run(&["man", command], "");
        assert!(own.code == Some(0) && own.out.contains(".SH OPTIONS"), "{own:?}");
    }
    assert!(run(&["man", "revoke"], "").out.contains("older\\-than"));
    assert_eq!(run(&["man", "nonsense"], "").code, Some(1));
    for shell in ["fish", "zsh"] {
        assert_eq!(run(&["completions", shell], "").code, Some(0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_that_is_stored_about_a_user_is_erased() {
    let app = Application::new("erase").await;
    let mut config = app.node.config().clone();
    // The program waits for one window.
    config.trust_window = Duration::from_secs(1);
    assert!(app.node.shutdown(WAIT_MAX).await.is_complete());
    let node = SessionManager::connect(&app.world.url, config).await.expect("the node starts");
    let off = app.run(&["audit"], "");
    assert!(off.code == Some(0) && off.err.contains("audit --on 90d"), "{off:?}");
    assert_eq!(
        app.run(&["audit", "--on", "90d"], "").err,
        "The audit log is on. Entries stay for 90 days.\n"
    );
    let earlier = node.create(42).await.unwrap();
    let other = node.create(7).await.unwrap();
    let mut receipts = Vec::new();
    for session in [&earlier, &other] {
        let handle = handle(session);
        let done = app.json(&["revoke", "--handle", &handle, "--by", "ann", "--everywhere", "--yes"], "");
        assert_eq!(done[0]["ended"], 1, "{done:?}");
        receipts.push(done[0]["receipt"].clone());
    }
    let session = node.create(42).set("secret", "s3cr3t").label("tenant:7").await.unwrap();
    let lease = node.locks().session_lock(session.id(), "cart").await.unwrap();

    let listed = app.json(&["audit", "--user", "42"], "");
    let fields = schema("audit --json", "field");
    listed.iter().for_each(|entry| assert_matches(&fields, entry));
    let entry = &listed[0];
    assert_eq!((listed.len(), &entry["handle"]), (1, &Value::from(handle(&earlier))));
    assert_eq!((&entry["cause"], &entry["actor"]), (&Value::from("admin"), &Value::from("ann")));
    assert!(entry["receipt"]["acknowledged"].as_u64() >= Some(1), "{entry}");
    assert_eq!(entry["receipt"], receipts[0], "the log has what the command has printed");
    let plain = app.run(&["audit", "--limit", "1"], "");
    assert!(plain.out.starts_with("ENDED\tHANDLE\tUSER\tCAUSE\tBY\tROLE\tCLIENT\tRECEIPT\n"), "{plain:?}");
    assert_eq!(plain.out.lines().count(), 2, "{plain:?}");

    let end = app.run(&["erase", "--user", "42"], "yes\n");
    assert!(end.code == Some(2) && end.err.contains("--yes"), "without a terminal: {end:?}");
    assert!(node.get(session.id()).await.unwrap().is_some());
    let done = app.json(&["erase", "--user", "42", "--yes"], "");
    assert_matches(&schema("erase --json", "field"), &done[0]);
    assert_eq!((&done[0]["sessions"], &done[0]["audit_entries"]), (&Value::from(1), &Value::from(2)));
    assert!(node.get(session.id()).await.unwrap().is_none());
    drop(lease);
    let rows = ["sessions", "session_attributes", "session_labels", "session_locks"]
        .map(|table| format!("SELECT count(*) FROM {}.{table} WHERE $1::text IS NOT NULL", app.schema));
    for text in rows {
        assert_eq!(app.world.count(&text, "").await, 0, "{text}");
    }
    let left = app.json(&["audit"], "");
    assert_eq!((left.len(), &left[0]["handle"]), (1, &Value::from(handle(&other))));
    assert!(app.run(&["audit", "--off"], "").err.contains("off"));
}
