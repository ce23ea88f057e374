//! `pg-session revoke`: ends sessions, after it has shown which.

use std::io::{self, IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use pg_session::{Cause, Everywhere, Revocation, Session, SessionId, SessionManager, UserId};
use pg_session_admin::shared::Receipt;
use serde::Serialize;

use super::receipt::{actor, fields};
use super::row::{HEAD, SessionRow, cells};
use super::select::{Age, Scope, Selected, by_handle};
use crate::connection::Place;
use crate::failure::{Failure, exit};
use crate::output::{Format, counted, print_fields, print_json, print_rows, remark};
use crate::signals::{Caught, Signals};

/// Sessions that are shown before the question.
const EXAMPLES_MAX: usize = 10;

/// For a look at what is alive after a signal.
const LOOK_WAIT: Duration = Duration::from_secs(2);

/// Reasons that an operator can give.
const CAUSES: [Cause; 6] =
    [Cause::Admin, Cause::Logout, Cause::Everywhere, Cause::Credential, Cause::Backchannel, Cause::Unknown];

/// End sessions. Shows what it would end, and asks.
#[derive(Args, Debug)]
#[command(group(clap::ArgGroup::new("which").required(true).args(["user", "group", "label", "all", "handle"])))]
pub(crate) struct Options {
    #[command(flatten)]
    scope: Scope,
    /// The session with this handle, or with its first 8 digits or more.
    #[arg(long, value_name = "HANDLE", conflicts_with_all = ["user", "group", "label", "all", "except", "older_than"], value_parser = NonEmptyStringValueParser::new())]
    handle: Option<String>,
    /// Spare the session with this handle.
    #[arg(long, value_name = "HANDLE", value_parser = NonEmptyStringValueParser::new())]
    except: Option<String>,
    #[command(flatten)]
    age: Age,
    /// Return when no node can serve the sessions any more. It takes the trust window, by default 6 s.
    #[arg(long, conflicts_with = "dry_run")]
    everywhere: bool,
    /// Why they end: sockets and streams of the sessions close with this reason.
    #[arg(long, default_value = "admin", value_parser = CAUSES.map(Cause::name))]
    cause: String,
    /// Who ends them, for the audit log. Without it: the user of the operating system.
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    by: Option<String>,
    /// Show what would end, and end nothing.
    #[arg(long)]
    dry_run: bool,
    /// Do not ask. Needed without a terminal.
    #[arg(long)]
    yes: bool,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// What is to end.
#[derive(Clone)]
enum Target {
    One(Box<Session>),
    /// The sessions of a user, of a group, of a label, or all.
    Whole(Selected),
    /// The user's sessions but this one.
    Others(UserId, SessionId),
    /// These, which were chosen by their age.
    These(Vec<SessionId>),
}

impl Target {
    /// How many of the sessions are alive. `None` if it is not known.
    async fn alive(&self, sessions: &SessionManager) -> Option<u64> {
        let count = async {
            match self {
                Self::One(session) => {
                    let found = sessions.get(session.id()).bypass_cache().no_touch().await.ok()?;
                    Some(u64::from(found.is_some()))
                }
                Self::Whole(selected) => selected.count(sessions).await.ok(),
                Self::Others(user, _) => {
                    sessions.user(*user).count().await.ok().map(|all| all.saturating_sub(1))
                }
                Self::These(_) => None,
            }
        };
        tokio::time::timeout(LOOK_WAIT, count).await.ok().flatten()
    }

    /// What has become of the sessions when a signal came while they were ended.
    async fn interrupted(&self, sessions: &SessionManager, signal: Caught, options: &Options) -> Failure {
        let mut text = match self.alive(sessions).await {
            Some(0) => "interrupted; the sessions are ended".to_owned(),
            _ => "interrupted; some or all of the sessions may be ended: look with --dry-run".to_owned(),
        };
        if options.everywhere {
            text.push_str(", and no receipt was written. ");
            // Of an ended session, no one can find the handle again.
            text.push_str(if options.handle.is_some() {
                "An ended session is gone on every node after the trust window, by default 6 s"
            } else {
                "For a receipt, run the same command again: it also waits for ends that are already committed. The audit log \
                 gets none"
            });
        }
        Failure::interrupted(signal, text)
    }
}

/// What `--json` prints; docs/cli.md describes the fields.
#[derive(Serialize)]
struct Outcome {
    dry_run: bool,
    cause: &'static str,
    matching: u64,
    ended: u64,
    examples: Vec<SessionRow>,
    receipt: Option<Receipt>,
}

/// Sessions that match, some of them to be shown.
struct Preview {
    target: Target,
    matching: u64,
    examples: Vec<Session>,
}

/// Runs the command. An error is printed to stderr.
pub(crate) async fn run(options: Options) -> ExitCode {
    exit("revoke", revoke(&options).await)
}

async fn revoke(options: &Options) -> Result<(), Failure> {
    if !options.dry_run && !options.yes && !io::stdin().is_terminal() {
        let text = "there is no terminal to ask on; add --yes, or --dry-run to see what would end";
        return Err(Failure::usage(text));
    }
    options.place.with_signals(async |sessions, signals| carry_out(options, sessions, signals).await).await
}

/// Shows the sessions, and asks. Whether any are to end.
async fn consent(options: &Options, sessions: &SessionManager) -> Result<(Preview, bool), Failure> {
    let found = preview(options, sessions).await?;
    let Preview { matching, ref examples, .. } = found;
    let format = Format::new(options.json);
    if format != Format::Json && !examples.is_empty() && (options.dry_run || !options.yes) {
        let now = sessions.database_time();
        let rows: Vec<_> = examples.iter().map(|session| cells(session, format, now)).collect();
        print_rows(format, &HEAD, &rows)?;
        let shown = rows.len() as u64;
        if shown < matching {
            remark(&format!("… and {} more", matching - shown));
        }
    }
    let goes_on = !options.dry_run && matching > 0;
    if goes_on && !options.yes && !asks_for_consent(&format!("End {}", counted(matching, "session"))).await? {
        return Err(Failure::new("nothing was ended"));
    }
    Ok((found, goes_on))
}

async fn carry_out(
    options: &Options,
    sessions: &SessionManager,
    signals: &mut Signals,
) -> Result<(), Failure> {
    let (Preview { target, matching, examples }, goes_on) = tokio::select! {
        found = consent(options, sessions) => found?,
        signal = signals.next() => return Err(Failure::interrupted(signal, "interrupted; nothing was ended")),
    };
    let cause = CAUSES.into_iter().find(|cause| cause.name() == options.cause).unwrap_or(Cause::Admin);
    if options.everywhere && io::stderr().is_terminal() {
        remark("waiting for all nodes …");
    }
    let how = How { cause, actor: actor(options.by.as_deref()).await, everywhere: options.everywhere };
    let left = target.clone();
    let work = async {
        let (ended, everywhere) = if goes_on { end(sessions, target, &how).await? } else { (0, None) };
        // Another client may have ended the sessions before: then, too, no node can serve them.
        let everywhere = match everywhere {
            None if options.everywhere => Some(sessions.everywhere().await?),
            everywhere => everywhere,
        };
        Ok::<_, Failure>((ended, everywhere))
    };
    // From here on, Ctrl-C may come after the commit.
    let (ended, everywhere) = tokio::select! {
        done = work => done?,
        signal = signals.next() => return Err(left.interrupted(sessions, signal, options).await),
    };
    let receipt = everywhere.as_ref().map(Receipt::from);
    if receipt.is_some() && ended == 0 {
        remark(
            "No session was alive. The receipt is for earlier ends, and is not in the audit log: keep it.",
        );
    }
    let format = Format::new(options.json);
    if format == Format::Json {
        let examples = examples.iter().map(SessionRow::new).collect();
        return Ok(print_json(&Outcome {
            dry_run: options.dry_run,
            cause: cause.name(),
            matching,
            ended,
            examples,
            receipt,
        })?);
    }
    let (name, count) = if options.dry_run { ("would end", matching) } else { ("ended", ended) };
    let mut lines = vec![(name, counted(count, "session"))];
    lines.extend(receipt.into_iter().flat_map(fields));
    Ok(print_fields(format, &lines)?)
}

async fn preview(options: &Options, sessions: &SessionManager) -> Result<Preview, Failure> {
    let Some(selected) = options.scope.selected() else {
        let handle = options.handle.as_deref().unwrap_or_default();
        let session = by_handle(sessions, handle).await?;
        let examples = vec![session.clone()];
        return Ok(Preview { target: Target::One(Box::new(session)), matching: 1, examples });
    };
    let spared = match &options.except {
        Some(handle) => Some(spared(sessions, &selected, handle).await?),
        None => None,
    };
    let by_age = options.age.older_than.is_some();
    // A user's others end in one statement. Other sessions are named one by one, as are those that are old.
    let one_by_one = by_age || spared.is_some() && !matches!(selected, Selected::User(_));
    let (mut examples, mut these) = (Vec::new(), Vec::new());
    let visit = |session: Session| {
        let id = session.id();
        if Some(id) != spared {
            if one_by_one {
                these.push(id);
            }
            if examples.len() < EXAMPLES_MAX {
                examples.push(session);
            }
        }
        one_by_one || examples.len() < EXAMPLES_MAX
    };
    selected.each(sessions, &options.age, visit).await?;
    if one_by_one {
        return Ok(Preview { matching: these.len() as u64, target: Target::These(these), examples });
    }
    let count = selected.count(sessions).await?;
    let (target, matching) = match (selected, spared) {
        (Selected::User(user), Some(id)) => (Target::Others(user, id), count.saturating_sub(1)),
        (selected, _) => (Target::Whole(selected), count),
    };
    Ok(Preview { target, matching, examples })
}

/// The session that stays. It must be one of those that are selected, or all would end.
async fn spared(sessions: &SessionManager, selected: &Selected, handle: &str) -> Result<SessionId, Failure> {
    let session = by_handle(sessions, handle).await?;
    let is_selected = match selected {
        Selected::User(user) => session.user_id() == Some(*user),
        Selected::Group(group) => session.group_id() == Some(*group),
        // A session does not carry its labels. Of those that end, none has this id if it is not one of them.
        Selected::Label(_) | Selected::All => true,
    };
    if !is_selected {
        return Err(Failure::new(format!(
            "--except {handle} is the session of another user or group; nothing was ended"
        )));
    }
    if session.is_retired() {
        let text =
            format!("--except {handle} names a retired id; give the session's handle; nothing was ended");
        return Err(Failure::new(text));
    }
    Ok(session.id())
}

/// Whether the answer to the question is yes.
///
/// # Cancel safety
/// Dropping the future leaves a thread that reads the next line. The program must not read stdin afterwards.
pub(super) async fn asks_for_consent(what: &str) -> io::Result<bool> {
    let mut err = io::stderr();
    write!(err, "{what}? Type yes: ")?;
    err.flush()?;
    let (sender, answer) = tokio::sync::oneshot::channel();
    // The runtime would wait at its end for a blocking task of its own.
    std::thread::spawn(move || {
        let mut line = String::new();
        // An error means that a signal came first, and that no reader of the answer is left.
        let _ = sender.send(io::stdin().read_line(&mut line).map(|_| line));
    });
    let line = answer.await.map_err(io::Error::other)??;
    Ok(line.trim() == "yes")
}

/// How the sessions end.
struct How {
    cause: Cause,
    actor: String,
    everywhere: bool,
}

impl How {
    async fn carry_out(&self, change: Revocation<'_, u64>) -> Result<(u64, Option<Everywhere>), Failure> {
        let change = change.cause(self.cause).by(&self.actor);
        if self.everywhere {
            let (ended, everywhere) = change.with_everywhere().await?;
            return Ok((ended, Some(everywhere)));
        }
        Ok((change.await?, None))
    }
}

/// How many were alive, and the last receipt.
async fn end(
    sessions: &SessionManager,
    target: Target,
    how: &How,
) -> Result<(u64, Option<Everywhere>), Failure> {
    let change = match target {
        Target::One(session) => sessions.delete_many([session.id()]),
        Target::Whole(Selected::User(user)) => sessions.user(user).delete(),
        Target::Whole(Selected::Group(group)) => sessions.group(group).delete(),
        Target::Whole(Selected::Label(label)) => {
            return how.carry_out(sessions.label(&label).delete()).await;
        }
        Target::Whole(Selected::All) => sessions.delete_all_sessions(),
        Target::Others(user, spared) => sessions.user(user).delete_except(spared),
        Target::These(ids) => {
            let (mut ended, mut everywhere) = (0, None);
            for ids in ids.chunks(SessionManager::DELETE_MAX) {
                let (some, receipt) = how.carry_out(sessions.delete_many(ids.iter().copied())).await?;
                (ended, everywhere) = (ended + some, receipt);
            }
            return Ok((ended, everywhere));
        }
    };
    how.carry_out(change).await
}
