//! What a notification says: a strict, bounded parser of payloads that any role of the database may send.
//!
//! The grammar stands in `postgres::notify`, whose statements write it. A forged payload can only evict, or wake
//! waiters, who then ask the database. One that is not in the grammar is ignored, unless its first byte names another
//! format: then a newer node is talking, and not to understand it must not mean to keep what it revokes.

use uuid::Uuid;

use crate::id::{GroupId, SessionId, UserId};
use crate::postgres::notify::{CHANGED_ENTRIES_MAX, DELETED_ENTRIES_MAX, LockTopic, PAYLOAD_BYTES_MAX};
use crate::version::Version;

/// One decoded notification.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Message {
    Changed(Vec<(SessionId, Version)>),
    Deleted(Vec<SessionId>),
    DropUser(UserId),
    DropGroup(GroupId),
    DropAll,
    /// A lock was released.
    Released(LockTopic),
    /// The number that a node sent through its pool.
    Proof(Uuid),
}

/// The payload is not one that this library writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Malformed;

const FORMAT: char = '1';

impl Message {
    pub(crate) fn parse(payload: &str) -> Result<Self, Malformed> {
        if payload.len() > PAYLOAD_BYTES_MAX {
            return Err(Malformed);
        }
        let mut chars = payload.chars();
        match chars.next() {
            Some(FORMAT) => {}
            Some(digit) if digit.is_ascii_digit() => return Ok(Self::DropAll),
            _ => return Err(Malformed),
        }
        let kind = chars.next().ok_or(Malformed)?;
        let rest = chars.as_str();
        match kind {
            's' => list(rest, CHANGED_ENTRIES_MAX, changed).map(Self::Changed),
            'd' => {
                list(rest, DELETED_ENTRIES_MAX, |id| Ok(SessionId::from_uuid(uuid(id)?))).map(Self::Deleted)
            }
            'u' => Ok(Self::DropUser(uuid(rest)?.into())),
            'g' => Ok(Self::DropGroup(uuid(rest)?.into())),
            'l' => Ok(Self::Released(LockTopic(uuid(rest)?))),
            'p' => Ok(Self::Proof(uuid(rest)?)),
            'a' if rest.is_empty() => Ok(Self::DropAll),
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
    use crate::id::Scope;

    #[test]
    fn what_the_statements_write_is_read() {
        let (a, b) = (SessionId::random(), SessionId::random());
        let (x, y) = (a.expose().simple(), b.expose().simple());
        let changed = Message::Changed(vec![(a, Version::new(1)), (b, Version::new(i64::MAX))]);
        assert_eq!(Message::parse(&format!("1s{x}.1,{y}.{}", i64::MAX)), Ok(changed));
        assert_eq!(Message::parse(&format!("1d{x},{y}")), Ok(Message::Deleted(vec![a, b])));
        assert_eq!(
            Message::parse(&Scope::User(a.expose().into()).payload()),
            Ok(Message::DropUser(a.expose().into()))
        );
        assert_eq!(
            Message::parse(&Scope::Group(a.expose().into()).payload()),
            Ok(Message::DropGroup(a.expose().into()))
        );
        assert_eq!(Message::parse(&Scope::All.payload()), Ok(Message::DropAll));
        let wake = LockTopic(a.expose());
        assert_eq!(Message::parse(&wake.payload()), Ok(Message::Released(wake)));
    }

    #[test]
    fn the_longest_payloads_fit_a_notification() {
        let id = Uuid::max().simple().to_string();
        let changed = vec![format!("{id}.{}", i64::MAX); CHANGED_ENTRIES_MAX].join(",");
        let deleted = vec![id; DELETED_ENTRIES_MAX].join(",");
        for payload in [format!("1s{changed}"), format!("1d{deleted}")] {
            assert!(payload.len() <= PAYLOAD_BYTES_MAX);
            assert!(Message::parse(&payload).is_ok());
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
            "1x",
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
            &format!("1l{id},{id}"),
            &format!("1d{}", Uuid::max().hyphenated()),
            &"1".repeat(8_000),
            &format!("1d{}", vec![id.as_str(); 243].join(",")),
        ] {
            assert_eq!(Message::parse(payload), Err(Malformed), "{payload:.60}");
        }
    }

    #[test]
    fn another_format_drops_everything() {
        assert_eq!(Message::parse("2whatever"), Ok(Message::DropAll));
    }

    proptest! {
        #[test]
        fn no_text_panics(payload in "\\PC{0,200}") {
            let _ = Message::parse(&payload);
        }

        #[test]
        fn no_mutation_of_a_real_payload_panics(at in 0_usize..70, byte in 0_u8..128) {
            let mut payload = format!("1s{}.12,{}.3", Uuid::nil().simple(), Uuid::max().simple()).into_bytes();
            let at = at % payload.len();
            payload[at] = byte;
            if let Ok(Message::Changed(list)) = Message::parse(&String::from_utf8(payload).unwrap()) {
                prop_assert!(list.len() <= 2 && list.iter().all(|(_, version)| version.get() >= 0));
            }
        }
    }
}
