//! `pg-session explain`: what a session token says, and what became of its session.

use std::io::{self, Read};
use std::process::ExitCode;
use std::time::SystemTime;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use pg_session::{KeyId, KeyRing, SessionManager, SessionToken, Signer, SigningKey, Verified};
use serde::Serialize;

use crate::connection::Place;
use crate::failure::{Failure, exit};
use crate::output::{Format, print_fields, print_json, rfc3339, roughly};

/// Bytes that are read from stdin at most: a token and as many keys as a ring has.
const INPUT_BYTES_MAX: u64 = 64 * 1024;

/// Explain a session token, the value of the session cookie: its key, its age, and the state of its session.
///
/// Reads stdin: the token, then the signing keys in base64, each on a line of its own. Neither is then in the history of the
/// shell or in the list of processes. Exit code 1: the token is not authentic, or its session has ended.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// The token, if it is not the first line of stdin. It stays in the history of the shell.
    #[arg(value_parser = NonEmptyStringValueParser::new())]
    token: Option<String>,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    /// Explain the token only, and connect to nothing.
    #[arg(long)]
    offline: bool,
    #[command(flatten)]
    place: Place,
}

/// What `--json` prints; docs/cli.md describes the fields.
#[derive(Serialize)]
struct Explanation {
    authentic: bool,
    reason: Option<String>,
    key: Option<String>,
    is_newest_key: Option<bool>,
    issued_at: Option<String>,
    age_seconds: Option<u64>,
    handle: Option<String>,
    version: Option<i64>,
    state: &'static str,
    current_version: Option<i64>,
    user: Option<String>,
    expires_at: Option<String>,
}

const UNKNOWN: &str = "unknown";
const LIVE: &str = "live";

/// Runs the command. An error is printed to stderr.
pub(crate) async fn run(options: Options) -> ExitCode {
    match explain(&options).await {
        Ok(explanation) if !explanation.authentic || ["ended", "retired"].contains(&explanation.state) => {
            ExitCode::FAILURE
        }
        outcome => exit("explain", outcome.map(|_| ())),
    }
}

async fn explain(options: &Options) -> Result<Explanation, Failure> {
    let (token, ring) = read(options.token.as_deref())?;
    let now = SystemTime::now();
    let verified = Signer::new(ring.clone()).verify(&token);
    let mut explanation = match &verified {
        Ok(verified) => of_token(verified, &ring, now),
        Err(error) => Explanation {
            authentic: false,
            reason: Some(error.to_string().split(';').next().unwrap_or_default().to_owned()),
            key: KeyId::of_token(&token).map(|id| id.to_string()),
            ..nothing()
        },
    };
    if let Ok(verified) = &verified
        && !options.offline
    {
        look_up(options, verified, &mut explanation).await?;
    }
    print(options, &explanation, now, verified.ok().as_ref())?;
    Ok(explanation)
}

fn nothing() -> Explanation {
    Explanation {
        authentic: true,
        reason: None,
        key: None,
        is_newest_key: None,
        issued_at: None,
        age_seconds: None,
        handle: None,
        version: None,
        state: UNKNOWN,
        current_version: None,
        user: None,
        expires_at: None,
    }
}

fn of_token(verified: &Verified, ring: &KeyRing, now: SystemTime) -> Explanation {
    Explanation {
        key: Some(verified.key.to_string()),
        is_newest_key: Some(verified.key == ring.signing()),
        issued_at: Some(rfc3339(verified.issued_at)),
        age_seconds: now.duration_since(verified.issued_at).ok().map(|age| age.as_secs()),
        handle: Some(verified.id.handle().to_string()),
        version: Some(verified.version.get()),
        ..nothing()
    }
}

async fn look_up(
    options: &Options,
    verified: &Verified,
    explanation: &mut Explanation,
) -> Result<(), Failure> {
    let get = async |sessions: &SessionManager| Ok(sessions.get(verified.id).no_touch().await?);
    let found = options.place.with(get).await?;
    explanation.state = "ended";
    if let Some(session) = found {
        explanation.state = if session.is_retired() { "retired" } else { LIVE };
        explanation.current_version = Some(session.version().get());
        explanation.user = session.user_id().map(|id| id.to_string());
        explanation.expires_at = Some(rfc3339(session.expires_at()));
    }
    Ok(())
}

fn print(
    options: &Options,
    explanation: &Explanation,
    now: SystemTime,
    verified: Option<&Verified>,
) -> io::Result<()> {
    let format = Format::new(options.json);
    if format == Format::Json {
        return print_json(explanation);
    }
    let authentic = if explanation.authentic { "yes" } else { "no" };
    let mut fields = vec![("authentic", authentic.to_owned())];
    let mut push = |name, value: Option<String>| fields.extend(value.map(|value| (name, value)));
    push("reason", explanation.reason.clone());
    let newer =
        explanation.is_newest_key.map_or("", |newest| if newest { "" } else { " (a newer key signs now)" });
    push("key", explanation.key.as_ref().map(|key| format!("{key}{newer}")));
    push("issued", verified.map(|verified| format.time(verified.issued_at, now)));
    if format == Format::Table
        && let Some(age) = explanation.age_seconds
    {
        push("age", Some(roughly(std::time::Duration::from_secs(age))));
    }
    push("handle", explanation.handle.clone());
    push("version", explanation.version.map(|version| version.to_string()));
    push("state", Some(explanation.state.to_owned()));
    push("version now", explanation.current_version.map(|version| version.to_string()));
    push("user", explanation.user.clone());
    push("expires", explanation.expires_at.clone());
    if explanation.current_version < explanation.version && explanation.state == LIVE {
        push("remark", Some("the database has lost a version: a failover or a restored backup".to_owned()));
    }
    print_fields(format, &fields)
}

/// The token and the keys.
fn read(token: Option<&str>) -> Result<(String, KeyRing), Failure> {
    let mut input = String::new();
    io::stdin().take(INPUT_BYTES_MAX).read_to_string(&mut input)?;
    let mut lines = input.lines().map(str::trim).filter(|line| !line.is_empty());
    let token = match token {
        Some(token) => token,
        None => lines.next().ok_or_else(|| Failure::new("stdin is empty; its first line is the token"))?,
    };
    // As a browser shows it: name=value. A token holds no `=`.
    let token = token.rsplit('=').next().unwrap_or(token).trim().to_owned();
    let keys = lines.map(SigningKey::from_base64).collect::<Result<Vec<_>, _>>()?;
    if keys.is_empty() {
        let length = SessionToken::CHARS;
        let text = format!(
            "no key to verify the token ({length} characters) with; give the keys on stdin, the newest first"
        );
        return Err(Failure::new(text));
    }
    Ok((token, KeyRing::from_keys(&keys)?))
}
