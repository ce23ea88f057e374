//! The one application that every edge serves. What it does is in the path.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use pg_session_web::{Error, Privilege, Session};
use tokio::sync::Semaphore;

use super::world::in_time;

pub struct Billing;

impl Privilege for Billing {
    const NAME: &'static str = "billing";
}

/// What `load_user` returns.
pub struct Account {
    pub name: String,
}

/// What a handler can say about caches, and whether that allows shared caches to store, or only the client.
pub const CACHE_HEADERS: [&[(&str, &str)]; 12] = [
    &[],
    &[("cache-control", "no-store")],
    &[("cache-control", "private, max-age=60")],
    &[("expires", "Thu, 01 Jan 2099 00:00:00 GMT")],
    &[("cache-control", "public, max-age=60")],
    &[("cache-control", "s-maxage=60")],
    &[("cdn-cache-control", "max-age=60")],
    &[("cache-control", "no-store"), ("cloudflare-cdn-cache-control", "max-age=60")],
    &[("surrogate-control", "max-age=60"), ("surrogate-key", "shop")],
    &[("x-accel-expires", "60")],
    &[("edge-control", "cache-maxage=60m")],
    &[("cache-control", "max-age=60"), ("netlify-cdn-cache-control", "public, durable")],
];

/// What a handler answers.
pub struct Answer {
    pub status: u16,
    pub body: String,
    pub headers: Vec<(&'static str, &'static str)>,
}

/// Where slow handlers wait until the test lets them go.
pub struct Gate {
    waiting: Semaphore,
    open: Semaphore,
}

impl Gate {
    pub const fn new() -> Self {
        Self { waiting: Semaphore::const_new(0), open: Semaphore::const_new(0) }
    }

    async fn pass(&self) {
        self.waiting.add_permits(1);
        in_time("the gate is opened", self.open.acquire()).await.expect("never closed").forget();
    }

    /// Returns when a handler waits.
    pub async fn reached(&self) {
        in_time("a handler waits", self.waiting.acquire()).await.expect("never closed").forget();
    }

    /// Lets one handler go.
    pub fn open(&self) {
        self.open.add_permits(1);
    }
}

/// A request. `/pay` is not here: an edge demands `Elevated<Billing>` for it.
pub async fn act(session: &Session, gate: &Gate, path: &str) -> Result<Answer, Error> {
    let words: Vec<&str> = path.split('/').skip(1).collect();
    let mut answer = Answer { status: 200, body: String::new(), headers: Vec::new() };
    answer.body = match *words {
        [""] => "hello".to_owned(),
        ["get", key] => shown(session.get(key).await?),
        ["set", key, value] => {
            session.set(&key.replace("%2F", "/"), value).await?;
            "set".to_owned()
        }
        ["set-or-skip", key, value] => {
            let set = session.set(key, value).await;
            if set.is_ok() { "set" } else { "skipped" }.to_owned()
        }
        ["remove", key] => {
            session.remove(key).await?;
            "removed".to_owned()
        }
        ["public", key, value] => {
            answer.headers.push(("cache-control", "public, max-age=60"));
            session.set(key, value).await?;
            "set".to_owned()
        }
        // With the headers of this number, what the rest of the path says.
        ["cached", number, ref rest @ ..] => {
            let inner = Box::pin(act(session, gate, &format!("/{}", rest.join("/")))).await?;
            answer.headers = CACHE_HEADERS[number.parse::<usize>().expect("a number")].to_vec();
            inner.body
        }
        ["no-transform", "get", key] => {
            answer.headers.push(("cache-control", "no-transform"));
            shown(session.get(key).await?)
        }
        ["time-out", key, value] => {
            session.set(key, value).await?;
            answer.status = 408;
            "too slow".to_owned()
        }
        ["fail", key, value] => {
            session.set(key, value).await?;
            answer.status = 500;
            "failed".to_owned()
        }
        ["slow", key, value] => {
            session.set(key, value).await?;
            gate.pass().await;
            "set".to_owned()
        }
        ["late-get", key] => {
            gate.pass().await;
            shown(session.get(key).await?)
        }
        ["slow-get", key] => {
            let before = shown(session.get(key).await?);
            gate.pass().await;
            before
        }
        ["count"] => session.modify("n", |n: Option<u64>| n.unwrap_or(0) + 1).await?.to_string(),
        ["keep", key, value] => session.get_or_insert(key, value.to_owned()).await?,
        ["take", key] => shown(session.take(key).await?),
        ["flash", message] => {
            session.flash("notice", message).await?;
            "left".to_owned()
        }
        ["flash"] => shown(session.take_flash("notice").await?),
        _ => account(session, &words, &mut answer).await?,
    };
    Ok(answer)
}

async fn account(session: &Session, words: &[&str], answer: &mut Answer) -> Result<String, Error> {
    Ok(match *words {
        ["user"] => {
            let user = session.user_id().await?;
            user.map_or_else(
                || "nobody".to_owned(),
                |user| user.as_integer().expect("an integer").to_string(),
            )
        }
        ["login", user] if !user.is_empty() => {
            session.login(user.parse::<i64>().expect("an integer")).await?;
            "signed in".to_owned()
        }
        ["login-without-grace", user] => {
            session.login(user.parse::<i64>().expect("an integer")).without_grace().await?;
            "signed in".to_owned()
        }
        ["login-cap", user, cap] => {
            let login = session.login(user.parse::<i64>().expect("an integer"));
            login.cap(cap.parse().expect("a number")).await?;
            "signed in".to_owned()
        }
        ["login-label", user, label] => {
            session.login(user.parse::<i64>().expect("an integer")).label(label).await?;
            "signed in".to_owned()
        }
        ["elevate-without-grace"] => {
            session.elevate(Billing::NAME, Duration::from_secs(600)).without_grace().await?;
            "elevated".to_owned()
        }
        ["flow", "begin", provider, ref address @ ..] => {
            let address = format!("/{}", address.join("/"));
            let flow = session.flow(provider).return_to(&address);
            let flow = if provider == "apple" { flow.form_post() } else { flow };
            let begun = flow.begin().await?;
            format!("{} {} {}", begun.state(), begun.nonce(), begun.code_challenge())
        }
        ["flow", "take", provider, state] => {
            let taken = session.flow(provider).take(state).await?;
            session.login(42).await?;
            format!("{} {} {}", taken.nonce(), taken.code_verifier(), taken.return_to())
        }
        ["csrf"] => session.csrf_token().await?,
        ["csrf-check", token] => {
            session.check_csrf_token(token).await?;
            "checked".to_owned()
        }
        ["poll"] => {
            session.no_touch().await;
            Box::pin(account(session, &["user"], answer)).await?
        }
        ["login-remember", remember, user] => {
            let login = session.login(user.parse::<i64>().expect("an integer"));
            login.remember(remember.parse().expect("a decision")).await?;
            "signed in".to_owned()
        }
        ["login-for", milliseconds, user] => {
            let login = session.login(user.parse::<i64>().expect("an integer"));
            login.expires_in(duration(milliseconds)).await?;
            "signed in".to_owned()
        }
        ["public-login", user] => {
            answer.headers.push(("cache-control", "public"));
            session.login(user.parse::<i64>().expect("an integer")).await?;
            "signed in".to_owned()
        }
        ["logout"] => session.logout().await?.to_string(),
        ["logout-everywhere"] => session.logout_everywhere().await?.to_string(),
        ["logout-others"] => session.logout_others().await?.to_string(),
        ["devices"] => {
            let devices = session.devices().await?;
            let lines = devices.iter().map(|device| {
                let address = device.address.map_or_else(|| "?".to_owned(), |address| address.to_string());
                let agent = device.user_agent.as_deref().unwrap_or("?");
                let here = if device.current { "here" } else { "there" };
                let [created, used] = [device.created_at, device.last_accessed_at].map(milliseconds);
                format!("{} {here} {created} {used} {address} {agent}", device.id)
            });
            lines.collect::<Vec<_>>().join("\n")
        }
        ["end", id] => session.end_device(id.parse().expect("a device's id")).await?.to_string(),
        ["elevate"] => {
            session.elevate(Billing::NAME, Duration::from_secs(600)).await?;
            "elevated".to_owned()
        }
        ["elevate-for", milliseconds] => {
            session.elevate(Billing::NAME, duration(milliseconds)).await?;
            "elevated".to_owned()
        }
        ["lower"] => {
            session.revoke_elevation(Billing::NAME).await?;
            "lowered".to_owned()
        }
        _ => {
            answer.status = 404;
            "no such page".to_owned()
        }
    })
}

fn duration(milliseconds: &str) -> Duration {
    Duration::from_millis(milliseconds.parse().expect("milliseconds"))
}

/// Since 1970.
fn milliseconds(time: SystemTime) -> u128 {
    time.duration_since(UNIX_EPOCH).expect("after 1970").as_millis()
}

fn shown(value: Option<String>) -> String {
    value.unwrap_or_else(|| "none".to_owned())
}
