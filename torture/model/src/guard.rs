//! The guards of the protocol. Each can be taken away, and a test shows what breaks then.

macro_rules! guards {
    ($($(#[$comment:meta])+ $guard:ident,)+) => {
        /// A check or an order of steps that the library relies on. The comment names where it is in
        /// `crates/pg-session/src`.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Guard {
            $($(#[$comment])+ $guard,)+
        }

        impl Guard {
            /// All of them: `tests/guards.rs` has to take each away.
            pub const ALL: &[Self] = &[$(Self::$guard),+];
        }
    };
}

guards! {
    /// `cache/mod.rs`, `install`: the stripe must admit the record.
    FillTicket,
    /// `loader.rs`, `start_batch`: the ticket is taken before the query leaves.
    TicketBeforeQuery,
    /// `writer/commit.rs`, `commit`: the ticket is taken before the statement leaves.
    TicketBeforeStatement,
    /// `cache/mod.rs`, `invalidate`: what was invalidated is noted, not only dropped.
    Note,
    /// `cache/fill.rs`, `note`: an invalidation that makes room refuses for the whole stripe.
    Forgotten,
    /// `cache/mod.rs`, `remove`: an end is noted as higher than any version.
    Tombstone,
    /// `cache/mod.rs`, `put`: an entry is of its ticket's epoch, not of the present one.
    TicketsEpoch,
    /// `cache/mod.rs`, `install`: nothing is cached that is read or written while disconnected.
    Listening,
    /// `cache/mod.rs`, `install`: a record that may not be kept makes a lower one disappear.
    SeenDropsLower,
    /// `cache/fill.rs`, `see`: a write in flight remembers what was shown meanwhile.
    Writing,
    /// `cache/mod.rs`, `publish`: loads in flight and older are refused from then on.
    PublishNotes,
    /// `writer/commit.rs`, `commit`: published after the commit, not before.
    PublishAfterCommit,
    /// `writer/commit.rs`, `commit`: published before the answer.
    PublishBeforeAnswer,
    /// `writer/update.rs`, `current_or_gone`: an update that found nothing drops what is in memory.
    NotFoundForgets,
    /// `writer/commit.rs`, `rebase`: an update with a conflict is based on the record that was read, with
    /// its attributes.
    Found,
    /// `postgres/update.rs`: applied only to the version that the update was made from.
    Moved,
    /// `writer/delete.rs`: dropped here before the answer.
    ForgetBeforeAnswer,
    /// `writer/bulk.rs`, `sweep_step`: the sessions that the statement names are dropped as well.
    NamedForgets,
    /// `cache/mod.rs`, `mark_absent`: what a load did not find is noted as ended.
    Discard,
    /// `cache/index.rs`, `add`: a record is refused if its owner was dropped after its ticket.
    OwnerDropped,
    /// `cache/mod.rs`, `remove_all`: begins a generation. What is of an earlier one is not served and not kept.
    Generation,
    /// `cache/mod.rs`, `is_current`: a drop that named no session ends the joining of older loads.
    Unnamed,
    /// `cache/mod.rs`, `is_current`: a loss ends the joining of older loads.
    JoinEpoch,
    /// `loader.rs`, `load`: only a trusted node joins a load in flight.
    JoinTrusted,
    /// `loader.rs`, `enqueue`: no notification named the session since the load's ticket.
    JoinCurrent,
    /// `hit.rs`, `hit`: before the end of the trust.
    TrustWindow,
    /// `hit.rs`, `hit`: the end of the trust is read before the cache.
    UntilFirst,
    /// `hit.rs`, `hit`: the clock is read after the cache.
    ClockLast,
    /// `hit.rs`, `hit`: the entry is of this epoch.
    Verified,
    /// `hit.rs`, `hit`: the session has not ended by an upper bound of the database's clock.
    Expiry,
    /// `manager/get.rs`, `load`: a joined load is followed by another if the session has ended meanwhile.
    JoinLive,
    /// `writer/notices.rs`: an update whose outcome is unknown is notified again.
    NotifyAgain,
    /// `writer/notices.rs`, `round`: only a notification that leaves when the row is free settles it.
    RowFree,
    /// `invalidation/mod.rs`, `verify`: a node that falls silent makes the others verify what they have in memory.
    Silence,
    /// `migrations/0001_initial.sql`: an update is answered after its notification.
    NotifyBeforeAnswer,
    /// `writer/update.rs`, `execute`: an update that moves the session to another group notifies with its commit.
    MoveInside,
    /// `pg-listen`: a barrier travels with the notifications; a ping would not.
    Barrier,
    /// `pg-listen`: the barrier's time is read before it is sent.
    AsOfBeforeSending,
    /// `invalidation/mod.rs`: a loss begins a new epoch.
    LossBeginsEpoch,
    /// `invalidation/mod.rs`: a loss ends the trust.
    LossRevokes,
    /// `pg-listen`: LISTEN is sent again after a loss.
    Relisten,
    /// `cache/mod.rs`, `verify`: only the version that the database holds is verified.
    VerifyVersion,
}
