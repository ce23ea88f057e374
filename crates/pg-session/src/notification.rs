//! Notifications between nodes: the payloads' grammar, what writes them and what parses them.
//!
//! ```text
//! 1s<id>.<version>,<id>.<version>…   these sessions changed, to these versions
//! 1d<id>,<id>…                       these sessions are gone
//! 1u<id>  1g<id>                     drop every session of this user, of this group
//! 1a                                 drop every session
//! 1c<letter>s<id>,<id>…              why what the next notification names has ended; likewise u<id>, g<id> and a
//! 1l<digest>                         this lock was released
//! 1t<server>.<token>,<token>…        a tick: the last beats of all nodes
//! 1v                                 a node has fallen silent: verify what is in memory
//! 1r<token>                          a request to acknowledge all earlier notifications
//! ```
//!
//! Ids and digests are 32 hexadecimal digits, versions decimal, servers and tokens up to 16 hexadecimal digits.
//! The leading digit is the format's version. A payload stays under PostgreSQL's 8 000 bytes by a fixed number of entries
//! whose longest form is known. Statements that know the ids only when they run build their payloads in SQL; see
//! `postgres::notify`.
//!
//! **The grammar is a contract between versions.** A node ignores a kind that it does not know, so a newer version may add
//! one. If ignoring it would keep a session that has ended, the newer version uses another format: then older nodes drop
//! everything.
//!
//! Any role of the database may send payloads, so the parser is strict and bounded. A forged payload can only evict, wake
//! waiters to ask the database, or make nodes acknowledge it. It cannot prove or acknowledge anything else: tokens are random,
//! and known to others only when their notification is in the queue. One that is not in the grammar is ignored.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::cause::Cause;
use crate::ending::Ending;
use crate::id::{Scope, SessionId};
use crate::version::Version;

/// PostgreSQL refuses payloads of 8 000 bytes and more (documentation of NOTIFY).
const PAYLOAD_BYTES_MAX: usize = 7_999;
const HEADER_BYTES: usize = 2;
/// 32 digits, a full stop, 19 digits, a comma.
const CHANGED_BYTES_MAX: usize = 53;
/// 32 digits and a comma.
const DELETED_BYTES_MAX: usize = 33;
/// 16 digits and a comma.
const TOKEN_BYTES_MAX: usize = 17;
/// Tokens of one tick; more nodes need several.
pub(crate) const TICK_TOKENS_MAX: usize = (PAYLOAD_BYTES_MAX - HEADER_BYTES) / TOKEN_BYTES_MAX - 1;
/// Changed sessions of one notification.
pub(crate) const CHANGED_ENTRIES_MAX: usize = (PAYLOAD_BYTES_MAX - HEADER_BYTES) / CHANGED_BYTES_MAX;
/// Deleted sessions of one notification.
pub(crate) const DELETED_ENTRIES_MAX: usize = (PAYLOAD_BYTES_MAX - HEADER_BYTES) / DELETED_BYTES_MAX;

#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Notification {
    Changed(Vec<(SessionId, Version)>),
    Deleted(Vec<SessionId>),
    Drop(Scope),
    /// Why sessions, or those of a scope, have ended. Another notification of the same commit names them, too.
    Cause(Cause, EndedBy),
    Released(LockTopic),
    /// The last beats of all nodes on a server.
    Tick(ServerId, Vec<Token>),
    /// A node has ended and may have owed a notification: each node is to verify what it has in memory.
    Verify,
    /// Each node is to acknowledge that it has handled this.
    Request(Token),
    /// A newer version sends it.
    Unknown,
}

/// A random number that represents one beat of a node, or one request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Token(pub(crate) i64);

impl Token {
    /// 62 random bits.
    pub(crate) fn random() -> Self {
        Self(Uuid::new_v4().as_u64_pair().1.cast_signed())
    }
}

/// What has ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum EndedBy {
    Sessions(Vec<SessionId>),
    Scope(Scope),
}

/// The lock whose waiters wake: a digest of its identity.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) struct LockTopic(pub(crate) Uuid);

/// One run of a server, one of its databases, and the tables in it. A copy of a server is another one. Restored tables are
/// others.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct ServerId(pub(crate) i64);

impl ServerId {
    /// Whether both are one run of a server and one database. The upper half tells; see `Dialect::server`.
    pub(crate) fn is_same_run(self, other: Self) -> bool {
        self.0 >> 32 == other.0 >> 32
    }
}

/// The payload is not one that this library writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Malformed;

const FORMAT: char = '1';

/// The payloads for these changed sessions, as many as they need.
pub(crate) fn changed_payloads(sessions: &[(SessionId, Version)]) -> Vec<String> {
    let payload = |sessions: &[(SessionId, Version)]| {
        let mut payload = String::with_capacity(HEADER_BYTES + sessions.len() * CHANGED_BYTES_MAX);
        payload.push_str("1s");
        for (n, (id, version)) in sessions.iter().enumerate() {
            payload.push_str(if n > 0 { "," } else { "" });
            payload.push_str(id.expose().simple().encode_lower(&mut Uuid::encode_buffer()));
            payload.push('.');
            payload.push_str(itoa::Buffer::new().format(version.get()));
        }
        payload
    };
    sessions.chunks(CHANGED_ENTRIES_MAX).map(payload).collect()
}

/// The payloads that say why these sessions end, as many as they need.
pub(crate) fn cause_payloads(sessions: &[(SessionId, Ending)]) -> Vec<String> {
    let mut by_cause: BTreeMap<char, Vec<SessionId>> = BTreeMap::new();
    for (id, ending) in sessions {
        by_cause.entry(ending.cause().letter()).or_default().push(*id);
    }
    let payload = |letter: char, ids: &[SessionId]| {
        let ids = ids.iter().map(|id| id.expose().simple().to_string()).collect::<Vec<_>>();
        format!("1c{letter}s{}", ids.join(","))
    };
    by_cause
        .iter()
        .flat_map(|(&letter, ids)| ids.chunks(DELETED_ENTRIES_MAX).map(move |ids| payload(letter, ids)))
        .collect()
}

pub(crate) fn drop_payload(scope: Scope) -> String {
    match scope {
        Scope::User(id) => format!("1u{}", id.as_uuid().simple()),
        Scope::Group(id) => format!("1g{}", id.as_uuid().simple()),
        Scope::All => "1a".to_owned(),
    }
}

pub(crate) fn released_payload(LockTopic(digest): LockTopic) -> String {
    format!("1l{}", digest.simple())
}

impl Notification {
    pub(crate) fn parse(payload: &str) -> Result<Self, Malformed> {
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(Malformed);
        }
        let mut chars = payload.chars();
        match chars.next() {
            Some(FORMAT) => {}
            Some(digit) if digit.is_ascii_digit() => return Ok(Self::Drop(Scope::All)),
            _ => return Err(Malformed),
        }
        let kind = chars.next().ok_or(Malformed)?;
        let rest = chars.as_str();
        match kind {
            's' => list(rest, CHANGED_ENTRIES_MAX, changed).map(Self::Changed),
            'd' => {
                list(rest, DELETED_ENTRIES_MAX, |id| Ok(SessionId::from_uuid(uuid(id)?))).map(Self::Deleted)
            }
            'l' => Ok(Self::Released(LockTopic(uuid(rest)?))),
            'c' => cause(rest),
            't' => tick(rest),
            'r' => Ok(Self::Request(Token(hexadecimal(rest)?))),
            'v' if rest.is_empty() => Ok(Self::Verify),
            'v' => Err(Malformed),
            'u' | 'g' | 'a' => scope(kind, rest).map(Self::Drop),
            newer if newer.is_ascii_lowercase() => Ok(Self::Unknown),
            _ => Err(Malformed),
        }
    }
}

fn list<T>(
    text: &str,
    entries_max: usize,
    entry: impl Fn(&str) -> Result<T, Malformed>,
) -> Result<Vec<T>, Malformed> {
    let mut entries = Vec::new();
    for part in text.split(',') {
        if entries.len() == entries_max {
            return Err(Malformed);
        }
        entries.push(entry(part)?);
    }
    Ok(entries)
}

fn changed(entry: &str) -> Result<(SessionId, Version), Malformed> {
    let (id, version) = entry.split_once('.').ok_or(Malformed)?;
    if version.is_empty() || !version.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(Malformed);
    }
    let version = version.parse().map_err(|_| Malformed)?;
    Ok((SessionId::from_uuid(uuid(id)?), Version::new(version)))
}

fn scope(kind: char, rest: &str) -> Result<Scope, Malformed> {
    match kind {
        'u' => Ok(Scope::User(uuid(rest)?.into())),
        'g' => Ok(Scope::Group(uuid(rest)?.into())),
        'a' if rest.is_empty() => Ok(Scope::All),
        _ => Err(Malformed),
    }
}

fn cause(rest: &str) -> Result<Notification, Malformed> {
    let mut chars = rest.chars();
    let (letter, kind) = chars.next().zip(chars.next()).ok_or(Malformed)?;
    if !letter.is_ascii_lowercase() {
        return Err(Malformed);
    }
    let ended = match kind {
        's' => EndedBy::Sessions(list(chars.as_str(), DELETED_ENTRIES_MAX, |id| {
            Ok(SessionId::from_uuid(uuid(id)?))
        })?),
        _ => EndedBy::Scope(scope(kind, chars.as_str())?),
    };
    Ok(Notification::Cause(Cause::from_letter(letter), ended))
}

fn tick(rest: &str) -> Result<Notification, Malformed> {
    let (server, tokens) = rest.split_once('.').ok_or(Malformed)?;
    let tokens = list(tokens, TICK_TOKENS_MAX, |token| Ok(Token(hexadecimal(token)?)))?;
    Ok(Notification::Tick(ServerId(hexadecimal(server)?), tokens))
}

/// Up to 16 lower-case digits, as `to_hex` writes an `int8`.
fn hexadecimal(digits: &str) -> Result<i64, Malformed> {
    if digits.is_empty() || !digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(Malformed);
    }
    u64::from_str_radix(digits, 16).map(u64::cast_signed).map_err(|_| Malformed)
}

/// 32 lower-case hexadecimal digits; the other spellings that `Uuid` reads are not ours.
fn uuid(text: &str) -> Result<Uuid, Malformed> {
    let plain = text.len() == 32 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    if !plain {
        return Err(Malformed);
    }
    Uuid::try_parse(text).map_err(|_| Malformed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_the_statements_write_is_read() {
        let (a, b) = (SessionId::random(), SessionId::random());
        let (x, y) = (a.expose().simple(), b.expose().simple());
        let list = vec![(a, Version::new(1)), (b, Version::new(i64::MAX))];
        let changed = &changed_payloads(&list)[0];
        assert_eq!(changed, &format!("1s{x}.1,{y}.{}", i64::MAX));
        assert_eq!(Notification::parse(changed), Ok(Notification::Changed(list)));
        assert_eq!(Notification::parse(&format!("1d{x},{y}")), Ok(Notification::Deleted(vec![a, b])));
        for scope in [Scope::User(a.expose().into()), Scope::Group(a.expose().into()), Scope::All] {
            assert_eq!(Notification::parse(&drop_payload(scope)), Ok(Notification::Drop(scope)));
        }
        for (payload, cause, ended) in [
            (format!("1cls{x}"), Cause::Logout, EndedBy::Sessions(vec![a])),
            (format!("1cps{x},{y}"), Cause::Cap, EndedBy::Sessions(vec![a, b])),
            (format!("1ccu{x}"), Cause::Credential, EndedBy::Scope(Scope::User(a.expose().into()))),
            (format!("1cag{x}"), Cause::Admin, EndedBy::Scope(Scope::Group(a.expose().into()))),
            ("1cza".to_owned(), Cause::Unknown, EndedBy::Scope(Scope::All)),
        ] {
            assert_eq!(Notification::parse(&payload), Ok(Notification::Cause(cause, ended)));
        }
        let topic = LockTopic(a.expose());
        assert_eq!(Notification::parse(&released_payload(topic)), Ok(Notification::Released(topic)));
        let tick = format!("1t{:x}.{:x},0,{:x}", -2_i64, i64::MAX, i64::MIN);
        let tokens = [i64::MAX, 0, i64::MIN].map(Token).to_vec();
        assert_eq!(Notification::parse(&tick), Ok(Notification::Tick(ServerId(-2), tokens)));
        assert_eq!(Notification::parse("1v"), Ok(Notification::Verify));
        assert_eq!(Notification::parse(&format!("1r{:x}", -2_i64)), Ok(Notification::Request(Token(-2))));
    }

    #[test]
    fn the_longest_payloads_fit_a_notification() {
        let id = Uuid::max().simple().to_string();
        let changed = vec![format!("{id}.{}", i64::MAX); CHANGED_ENTRIES_MAX].join(",");
        let deleted = vec![id; DELETED_ENTRIES_MAX].join(",");
        let tokens = vec![format!("{:x}", u64::MAX); TICK_TOKENS_MAX].join(",");
        let (changed, causes, deleted) =
            (format!("1s{changed}"), format!("1cls{deleted}"), format!("1d{deleted}"));
        for payload in [changed, causes, deleted, format!("1t{:x}.{tokens}", u64::MAX)] {
            assert!(payload.len() <= PAYLOAD_BYTES_MAX);
            assert!(Notification::parse(&payload).is_ok());
        }
    }

    #[test]
    fn hostile_payloads_are_refused() {
        let id = Uuid::max().simple().to_string();
        for payload in [
            "",
            "1",
            "1s",
            "1d",
            "1u",
            "1l",
            "1a ",
            "1v ",
            "1c",
            "1cs",
            "1csa ",
            "1cAa",
            "1csx",
            "1t",
            "1t7",
            "1t7.",
            "1t.7",
            "1t7.,",
            "1t7.G",
            "1r",
            "1r7.7",
            "1r-7",
            "1X",
            "x",
            "1s,",
            "\u{0}",
            "é",
            "1é",
            "1sé",
            &format!("1s{id}"),
            &format!("1s{id}."),
            &format!("1s{id}.-1"),
            &format!("1s{id}.+1"),
            &format!("1s{id}.1,"),
            &format!("1s{id}.99999999999999999999"),
            &format!("1d{}", id.to_uppercase()),
            &format!("1u{{{id}}}"),
            &format!("1cs{id}"),
            &format!("1css{id},"),
            &format!("1l{id},{id}"),
            &format!("1t7.{id}"),
            "1r10000000000000000",
            &format!("1t7.{}", vec!["7"; TICK_TOKENS_MAX + 1].join(",")),
            &format!("1d{}", Uuid::max().hyphenated()),
            &"1".repeat(8_000),
            &format!("1d{}", vec![id.as_str(); 243].join(",")),
        ] {
            assert_eq!(Notification::parse(payload), Err(Malformed), "{payload:.60}");
        }
    }

    #[test]
    fn an_unknown_kind_of_a_newer_version_is_ignored() {
        for payload in ["1x", "1p00.7", "1zwhatever, in whichever form"] {
            assert_eq!(Notification::parse(payload), Ok(Notification::Unknown), "{payload}");
        }
    }

    #[test]
    fn another_format_drops_everything() {
        assert_eq!(Notification::parse("2whatever"), Ok(Notification::Drop(Scope::All)));
    }

    proptest! {
        #[test]
        fn no_text_panics(payload in "\\PC{0,200}") {
            let _ = Notification::parse(&payload);
        }

        #[test]
        fn no_mutation_of_a_real_payload_panics(at in 0_usize..70, byte in 0_u8..128) {
            let mut payload = format!("1s{}.12,{}.3", Uuid::nil().simple(), Uuid::max().simple()).into_bytes();
            let at = at % payload.len();
            payload[at] = byte;
            if let Ok(Notification::Changed(list)) = Notification::parse(&String::from_utf8(payload).unwrap()) {
                prop_assert!(list.len() <= 2 && list.iter().all(|(_, version)| version.get() >= 0));
            }
        }
    }
}
