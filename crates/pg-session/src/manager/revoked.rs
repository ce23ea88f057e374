//! [`Revoked`]: what a call of `everywhere()` has revoked, without a session id.

use serde::{Deserialize, Deserializer, Serialize};

use crate::handle::Handle;
use crate::id::{GroupId, Scope, UserId};
use crate::session::request::BulkChange;

/// What a call of [`everywhere`](crate::Revocation::everywhere) has revoked.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Revoked {
    /// One session has ended.
    Session {
        /// Its public name.
        #[serde(deserialize_with = "handle")]
        handle: Handle,
    },
    /// The sessions that a call of [`delete_many`](crate::SessionManager::delete_many) named have ended.
    Sessions {
        /// How many it named.
        named: usize,
    },
    /// All sessions of a user have ended.
    User {
        /// The user.
        user: UserId,
    },
    /// All sessions of a user have ended but one.
    UserExcept {
        /// The user.
        user: UserId,
        /// The public name of the other one.
        #[serde(deserialize_with = "handle")]
        kept: Handle,
    },
    /// All sessions of a group have ended.
    Group {
        /// The group.
        group: GroupId,
    },
    /// All sessions that had a label have ended.
    Label {
        /// The label.
        label: String,
    },
    /// All sessions have ended.
    All,
    /// What was ended or changed before a call of [`SessionManager::everywhere`](crate::SessionManager::everywhere).
    Earlier,
    /// All nodes have dropped the sessions of a user from memory.
    UserEvicted {
        /// The user.
        user: UserId,
    },
    /// All nodes have dropped the sessions of a group from memory.
    GroupEvicted {
        /// The group.
        group: GroupId,
    },
    /// All nodes have dropped all sessions from memory.
    AllEvicted,
    /// An attribute was removed from all sessions of a user.
    Attribute {
        /// The user.
        user: UserId,
        /// The key of the attribute.
        key: String,
    },
}

fn handle<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Handle, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

impl From<&BulkChange> for Revoked {
    fn from(change: &BulkChange) -> Self {
        match change {
            BulkChange::Delete(ids) => Self::Sessions { named: ids.len() },
            BulkChange::DeleteOthers(user, kept) => Self::UserExcept { user: *user, kept: kept.handle() },
            BulkChange::RemoveAttribute(user, key) => Self::Attribute { user: *user, key: key.clone() },
            BulkChange::DeleteAll(Scope::User(user)) => Self::User { user: *user },
            BulkChange::DeleteAll(Scope::Group(group)) => Self::Group { group: *group },
            BulkChange::DeleteLabel(label) => Self::Label { label: label.as_str().to_owned() },
            BulkChange::DeleteAll(Scope::All) => Self::All,
            BulkChange::Evict(Scope::User(user)) => Self::UserEvicted { user: *user },
            BulkChange::Evict(Scope::Group(group)) => Self::GroupEvicted { group: *group },
            BulkChange::Evict(Scope::All) => Self::AllEvicted,
        }
    }
}
