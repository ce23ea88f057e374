//! The combined update: many sessions' changes, one statement, one commit. It notifies inside the transaction, or by a
//! procedure that commits first; see [`update_call`].
//!
//! An order is applied only while the session's version and `updated_at` are those that the order was made from. The
//! time is compared because a restored database gives a version number again, to other content. PostgreSQL evaluates
//! that again on the row that it finally locks. Every change of an attribute bumps its session's version in the same
//! statement. So a session that passes has the attributes that the order was made from. No check can fail, and no
//! removal can overlook a key that another node inserted meanwhile. The text of the row's attributes, made by the
//! node, takes nothing back. Nothing has to be read. An order that does not pass is `Moved`; the writer reads the
//! session, judges, and makes the order again. A rotation bumps the version of what it leaves behind, too.
//!
//! There is no separate locking step, because it is slower. PostgreSQL detects a deadlock of two such
//! statements, and one of them is tried again.

use std::time::SystemTime;

use tokio_postgres::types::ToSql;
use uuid::Uuid;

use super::failure::Failure;
use super::{Database, Dialects, SqlForms, unexpected, update_call, update_inside};
use crate::clock::DbTime;
use crate::id::{GroupId, SessionId};
use crate::notification::{ServerId, changed_payloads};
use crate::session::IdleLimit;
use crate::session::attribute::OverflowAttribute;
use crate::session::attributes::{Attributes, Writes};
use crate::session::request::{Applied, Expiry, RowChange, UpdateRequest};

/// An update, and what it writes.
type Change<'a> = (&'a UpdateRequest, Writes<'a>);

/// The orders that were carried out, by number, and by which server.
pub(super) type CarriedOut = (Vec<(i64, Applied)>, Option<ServerId>);

/// Whether it changes only inline attributes. Most updates do, and their statement is the cheaper one.
fn is_inline((request, writes): &Change<'_>) -> bool {
    request.row.is_empty() && writes.set.is_empty() && writes.removed.is_empty()
}

/// The texts of the updates.
#[derive(Debug)]
pub(super) struct Texts {
    inside: Statements,
    after_commit: Statements,
}

#[derive(Debug)]
struct Statements {
    one: SqlForms,
    inline: SqlForms,
    full: SqlForms,
}

/// When an update notifies the other nodes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum NotifyOrder {
    /// In the transaction of the update.
    Inside,
    /// In a transaction of its own, behind the commit of the update.
    AfterCommit,
}

impl Texts {
    pub(super) fn new(dialects: &Dialects<'_>) -> Self {
        Self {
            inside: Statements {
                one: dialects.sql(update_inside::one_sql),
                inline: dialects.sql(update_inside::sql),
                full: dialects.sql(update_inside::full_sql),
            },
            after_commit: Statements {
                one: dialects.sql(update_call::one_sql),
                inline: dialects.sql(update_call::sql),
                full: dialects.sql(update_call::full_sql),
            },
        }
    }

    fn of(&self, order: NotifyOrder) -> &Statements {
        match order {
            NotifyOrder::Inside => &self.inside,
            NotifyOrder::AfterCommit => &self.after_commit,
        }
    }
}

/// The updates as columns: what UNNEST takes.
#[derive(Default)]
pub(super) struct Columns<'a> {
    pub(super) ids: Vec<Uuid>,
    bases: Vec<i64>,
    base_times: Vec<SystemTime>,
    inline: Vec<Option<&'a str>>,
    has_overflow: Vec<bool>,
    expires_at: Vec<Option<SystemTime>>,
    expires_in: Vec<Option<i64>>,
    idle_limited: Vec<Option<bool>>,
    regroup: Vec<bool>,
    group_ids: Vec<Option<Uuid>>,
    items: Items<'a>,
    removed_of: Vec<Uuid>,
    removed_keys: Vec<&'a str>,
    payloads: Vec<String>,
}

/// Attributes with rows of their own as columns, each with the id of its session.
#[derive(Default)]
pub(super) struct Items<'a> {
    pub(super) of: Vec<Uuid>,
    pub(super) keys: Vec<&'a str>,
    pub(super) texts: Vec<&'a str>,
    pub(super) expires_at: Vec<Option<SystemTime>>,
}

impl<'a> Items<'a> {
    pub(super) fn push(&mut self, of: SessionId, attribute: &'a OverflowAttribute) {
        let OverflowAttribute { key, text, expires_at, .. } = attribute;
        self.of.push(of.expose());
        self.keys.push(key);
        self.texts.push(text);
        self.expires_at.push((*expires_at != DbTime::NEVER).then(|| (*expires_at).into()));
    }
}

impl<'a> Columns<'a> {
    /// What every update has.
    pub(super) fn of(changes: &[Change<'a>]) -> Self {
        debug_assert!(
            changes.windows(2).all(|pair| pair[0].0.id() < pair[1].0.id()),
            "one change per session, one lock order"
        );
        let notified = changes.iter().filter(|(request, _)| request.notify);
        let notified: Vec<_> =
            notified.map(|(request, _)| (request.id(), request.base().version.next())).collect();
        Self {
            ids: changes.iter().map(|(request, _)| request.id().expose()).collect(),
            bases: changes.iter().map(|(request, _)| request.base().version.get()).collect(),
            base_times: changes.iter().map(|(request, _)| request.base().updated_at.into()).collect(),
            inline: changes.iter().map(|(_, writes)| writes.inline).collect(),
            payloads: changed_payloads(&notified),
            ..Self::default()
        }
    }

    /// And all the rest.
    fn in_full(changes: &[Change<'a>]) -> Self {
        let mut columns = Self::of(changes);
        for (request, Writes { set, removed, .. }) in changes {
            let id = request.id();
            let RowChange { expiry, idle_limit, group_id } = request.row;
            columns.has_overflow.push(!set.is_empty());
            set.iter().for_each(|attribute| columns.items.push(id, attribute));
            let (expires_at, expires_in) = columns_of(expiry);
            columns.expires_at.push(expires_at);
            columns.expires_in.push(expires_in);
            columns.idle_limited.push(idle_limit.map(|limit| limit == IdleLimit::Enforced));
            columns.regroup.push(group_id.is_some());
            columns.group_ids.push(group_id.flatten().map(GroupId::as_uuid));
            for key in removed {
                columns.removed_of.push(id.expose());
                columns.removed_keys.push(key);
            }
        }
        columns
    }
}

/// An absolute time, or microseconds from now.
pub(super) fn columns_of(expiry: Option<Expiry>) -> (Option<SystemTime>, Option<i64>) {
    match expiry {
        Some(Expiry::At(time)) => (Some(time.into()), None),
        Some(Expiry::In(duration)) => (None, Some(i64::try_from(duration.as_micros()).unwrap_or(i64::MAX))),
        None => (None, None),
    }
}

impl Database {
    /// Carries out those updates, at most one for each session, whose base is what the database holds. `after` has the
    /// attributes that each leads to. Reports on each, in their order: `None` for one that was not carried out. With the
    /// server, if any was.
    ///
    /// If the statement fails, none of them was carried out, or its outcome is unknown; the failure says which.
    pub(crate) async fn update(
        &self,
        requests: &[&UpdateRequest],
        after: &[Attributes],
        order: NotifyOrder,
    ) -> Result<(Vec<Option<Applied>>, Option<ServerId>), Failure> {
        let sent = self.policy.clock.now();
        let changes = requests.iter().zip(after).map(|(&request, after)| (request, request.writes(after)));
        let changes: Vec<Change<'_>> = changes.collect();
        let (all, server) = match (changes.iter().all(is_inline), &changes[..]) {
            (false, _) => self.update_in_full(&Columns::in_full(&changes), order).await?,
            (true, [(request, writes)]) => self.update_one(request, writes.inline, order).await?,
            (true, _) => {
                let Columns { ids, bases, base_times, inline, payloads, .. } = &Columns::of(&changes);
                let sql = &self.texts.updates.of(order).inline;
                self.carried_out(sql, order, &[ids, bases, base_times, inline, payloads]).await?
            }
        };
        let mut outcomes: Vec<Option<Applied>> = requests.iter().map(|_| None).collect();
        for (n, applied) in all {
            let outcome = usize::try_from(n - 1).ok().and_then(|index| outcomes.get_mut(index));
            *outcome.ok_or_else(|| unexpected("a row for no update"))? = Some(applied);
            // Read while the statement ran, like any other reading of the database's clock.
            self.observe_clock(sent, applied.updated_at);
        }
        Ok((outcomes, server))
    }

    async fn update_one(
        &self,
        request: &UpdateRequest,
        inline: Option<&str>,
        order: NotifyOrder,
    ) -> Result<CarriedOut, Failure> {
        let (id, base) = (request.id(), request.base());
        let payload = request.notify.then(|| changed_payloads(&[(id, base.version.next())]).pop()).flatten();
        let base_at = SystemTime::from(base.updated_at);
        let params: [&(dyn ToSql + Sync); 5] =
            [&id.expose(), &base.version.get(), &base_at, &inline, &payload];
        let sql = &self.texts.updates.of(order).one;
        match order {
            NotifyOrder::AfterCommit => {
                let call = self.call(sql, &params);
                let rows = call.each(|row| update_call::applied_one(&row).map_err(unexpected)).await?;
                let server = rows.first().map(|&(_, server)| server);
                let applied = rows.into_iter().filter_map(|(applied, _)| Some((1, applied?)));
                Ok((applied.collect(), server))
            }
            NotifyOrder::Inside => self.carried_out(sql, order, &params).await,
        }
    }

    /// Sends an update, and reads which updates were carried out, by number, and what came of them.
    async fn carried_out(
        &self,
        sql: &SqlForms,
        order: NotifyOrder,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<CarriedOut, Failure> {
        match order {
            NotifyOrder::AfterCommit => {
                let rows = self.call(sql, params).each(|row| update_call::applied(&row)).await?;
                let server = rows.first().map(|&(_, server)| server);
                Ok((rows.into_iter().flat_map(|(applied, _)| applied).collect(), server))
            }
            NotifyOrder::Inside => {
                let mut server = None;
                let call = self.call(sql, params).each(|row| {
                    server = Some(ServerId(row.try_get(4).map_err(unexpected)?));
                    update_inside::applied(&row).map_err(unexpected)
                });
                let all = call.await?;
                Ok((all, server))
            }
        }
    }

    async fn update_in_full(&self, columns: &Columns<'_>, order: NotifyOrder) -> Result<CarriedOut, Failure> {
        let Columns { items, .. } = columns;
        let params: [&(dyn ToSql + Sync); 17] = [
            &columns.ids,
            &columns.bases,
            &columns.base_times,
            &columns.inline,
            &columns.has_overflow,
            &columns.expires_at,
            &columns.expires_in,
            &columns.idle_limited,
            &columns.regroup,
            &columns.group_ids,
            &items.of,
            &items.keys,
            &items.texts,
            &items.expires_at,
            &columns.removed_of,
            &columns.removed_keys,
            &columns.payloads,
        ];
        self.carried_out(&self.texts.updates.of(order).full, order, &params).await
    }
}
