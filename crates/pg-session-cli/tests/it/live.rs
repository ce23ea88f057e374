//! `tail` and `watch`: what happens, as it happens. And `--json`, which each command has that prints data.

use nix::sys::signal::Signal;
use pg_session::GroupId;
use serde_json::Value;

use crate::admin::{Application, assert_matches, run, schema};
use crate::support::Program;

/// Commands that print no data, or a story.
const WITHOUT_JSON: [&str; 4] = ["completions", "demo", "man", "help"];

fn start(app: &Application, args: &[&str]) -> Program {
    Program::start(&[args, &["--database-url", &app.world.url, "--schema", &app.schema]].concat())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ends_are_followed_with_their_causes_and_without_ids() {
    let app = Application::new("tail").await;
    let (mut json, mut plain) = (start(&app, &["tail", "--json"]), start(&app, &["tail"]));
    json.read_until(&["\"event\":\"trusted\""]);
    plain.read_until(&["\tthis node answers from memory\t-\n"]);
    let session = app.node.create(42).await.unwrap();
    app.node.delete(session.id()).await.unwrap();
    app.node.create(7).group(GroupId::from(9)).await.unwrap();
    app.node.group(GroupId::from(9)).delete().await.unwrap();
    app.node.user(7).delete().await.unwrap();
    app.node.delete_all_sessions().await.unwrap();
    plain.read_until(&["all sessions ended"]);
    let out = json.read_until(&["all_ended"]);
    let fields = schema("tail --json", "field");
    let events: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    events.iter().for_each(|event| assert_matches(&fields, event));
    let named = |name: &str| events.iter().find(|event| event["event"] == name).expect(name);
    assert_eq!(named("ended")["handle"], session.id().handle().to_string());
    assert_eq!((&named("user_ended")["user"], &named("group_ended")["group"]), (&"7".into(), &"9".into()));
    // A busy machine may end the trust of the program meanwhile.
    let (trust, ends): (Vec<&Value>, Vec<&Value>) = events.iter().partition(|event| event["cause"].is_null());
    assert!(ends.len() >= 4 && trust[0]["event"] == "trusted", "{events:?}");
    assert!(trust.windows(2).all(|two| two[0]["event"] != two[1]["event"]), "once: {trust:?}");
    for mut program in [json, plain] {
        program.signal(Signal::SIGINT);
        let end = program.finish();
        assert_eq!((end.code, end.err.as_str()), (Some(0), ""), "{end:?}");
        assert!(!end.out.contains(&session.id().expose().to_string()), "no session id is printed");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_shows_the_nodes_again_and_again() {
    let app = Application::new("watch").await;
    let mut watch = start(&app, &["watch", "--every", "500ms", "--json"]);
    watch.read_until(&["\"trusted\""]);
    app.node.user(7).delete().await.unwrap();
    let out = watch.read_until(&["\"user_ended\""]);
    let looks: Vec<Value> = out.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    let (fields, node) = (schema("watch --json", "field"), schema("nodes --json", "field"));
    for look in &looks {
        assert_matches(&fields, look);
        let nodes = look["nodes"].as_array().expect("a list");
        assert_eq!((nodes.len(), &look["error"]), (1, &Value::Null), "itself is not listed: {look}");
        assert_matches(&node, &nodes[0]);
    }
    let ends: Vec<&Value> = looks.iter().filter_map(|look| look["events"].as_array()).flatten().collect();
    assert_eq!(ends.iter().filter(|event| event["event"] == "user_ended").count(), 1, "once: {ends:?}");
    watch.signal(Signal::SIGTERM);
    assert_eq!(watch.finish().code, Some(0));

    let end = start(&app, &["watch", "--looks", "1"]).finish();
    assert_eq!((end.code, end.err.as_str()), (Some(0), ""), "{end:?}");
    assert!(end.out.contains("NODE\tNAME\tVERSION") && !end.out.contains('\u{1b}'), "{end:?}");
    for wrong in [&["--every", "1ms"], &["--looks", "0"]] {
        assert_eq!(start(&app, &[&["watch"][..], wrong].concat()).finish().code, Some(2), "{wrong:?}");
    }
}

#[test]
fn each_command_that_prints_data_has_json() {
    let help = run(&["--help"], "");
    let commands = help.out.lines().skip_while(|line| *line != "Commands:").skip(1);
    let commands = commands.map_while(|line| line.strip_prefix("  ")?.split_whitespace().next());
    let commands: Vec<&str> = commands.filter(|name| !WITHOUT_JSON.contains(name)).collect();
    assert!(commands.len() > 12, "{commands:?}");
    for command in commands {
        let help = run(&[command, "--help"], "");
        assert!(help.out.contains("--json"), "{command}: {help:?}");
    }
    let object = |args: &[&str]| -> Value {
        let end = run(args, "");
        assert_eq!((end.code, end.err.as_str()), (Some(0), ""), "{end:?}");
        serde_json::from_str(&end.out).expect("one object")
    };
    assert_matches(&schema("key --json", "field"), &object(&["key", "--json"]));
    let migrate = object(&["migrate", "--print", "--json"]);
    assert_matches(&schema("migrate --json", "field"), &migrate);
    assert!(migrate["sql"].as_str().is_some_and(|sql| sql.contains("CREATE TABLE")), "{migrate}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn switches_and_exports_answer_in_json() {
    let app = Application::new("switches").await;
    let fields = schema("audit --json", "switch");
    let on = app.json(&["audit", "--on", "90d"], "");
    assert_matches(&fields, &on[0]);
    assert_eq!((&on[0]["on"], &on[0]["keep"]), (&true.into(), &"90 days".into()));
    let off = app.json(&["audit", "--off"], "");
    assert_matches(&fields, &off[0]);
    assert_eq!(off[0]["on"], false);
    assert_eq!(app.json(&["migrate"], "")[0]["schema"], app.schema.as_str());
    app.node.create(42).set("secret", "s3cr3t").await.unwrap();
    assert_eq!(app.json(&["export", "--user", "42"], "")[0]["attributes"][0]["value"], "s3cr3t");
}
