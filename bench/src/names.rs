//! The names of workloads, their cases and their contenders, as the reports show them.

/// Every workload, in the order in which they run. Those that share a table of a million sessions come first.
pub(crate) const WORKLOADS: [&str; 20] = [
    hit::NAME,
    pin::NAME,
    update_rows::NAME,
    read::NAME,
    request::NAME,
    cold::NAME,
    update::NAME,
    update_big::NAME,
    create::NAME,
    mix::NAME,
    axum::NAME,
    nodes::NAME,
    notify::NAME,
    proving::NAME,
    everywhere::NAME,
    open::NAME,
    propagation::NAME,
    touch::NAME,
    memory::NAME,
    start::NAME,
];

/// Contenders of more than one workload.
pub(crate) mod contenders {
    pub(crate) const OURS: &str = "ours";
    pub(crate) const INSIDE: &str = "ours, notify inside the transaction";
    pub(crate) const UNCOMBINED: &str = "ours, combining off";
    pub(crate) const BARE_ONE: &str = "bare statement, 1 connection";
    pub(crate) const BARE_POOL: &str = "bare statement, pool of 32";
    pub(crate) const BARE_BATCHES: &str = "bare batches, 2 connections";
    pub(crate) const BARE_INSERTS: &str = "bare batches, three indices";
    pub(crate) const BARE_INSERTS_ONE_INDEX: &str = "bare batches, one index";
    pub(crate) const UNLIMITED: &str = "ours, without the limit";
    pub(crate) const ONE_INDEX: &str = "ours, without the limit, one index";
    pub(crate) const REDIS: &str = "redis, multiplexed";
    pub(crate) const REDIS_POOL: &str = "redis, pool of 32";
    pub(crate) const REDIS_FSYNC: &str = "redis fsync, multiplexed";
    pub(crate) const REDIS_FSYNC_POOL: &str = "redis fsync, pool of 32";
    pub(crate) const REDIS_FSYNC_PUBLISH: &str = "redis fsync, publish, multiplexed";
    pub(crate) const REDIS_FSYNC_PUBLISH_POOL: &str = "redis fsync, publish, pool of 32";
    pub(crate) const REDIS_PROMISES: &str = "redis fsync, version and publish, multiplexed";
    pub(crate) const REDIS_PROMISES_POOL: &str = "redis fsync, version and publish, pool of 32";
    pub(crate) const TOWER: &str = "tower-sessions sqlx";
    pub(crate) const TOWER_MOKA: &str = "tower-sessions sqlx + moka";
}

pub(crate) mod hit {
    pub(crate) const NAME: &str = "hit";
    pub(crate) const UNIFORM: &str = "uniform";
}

pub(crate) mod update_rows {
    pub(crate) const NAME: &str = "update_rows";
    pub(crate) const CASE: &str = "64 in flight";
    pub(crate) const SMALL: &str = "10 000 rows";
    pub(crate) const MEDIUM: &str = "100 000 rows";
    pub(crate) const LARGE: &str = "1 000 000 rows";
    /// Of a complete run alone.
    pub(crate) const HUGE: &str = "10 000 000 rows";
}

pub(crate) mod pin {
    pub(crate) const NAME: &str = "pin";
    pub(crate) const CASE: &str = "in random order, 1 thread";
    pub(crate) const CHECK: [&str; 3] = ["check, 1k pins", "check, 100k pins", "check, 1m pins"];
    pub(crate) const GET: [&str; 3] = ["get, 1k sessions", "get, 100k sessions", "get, 1m sessions"];
    pub(crate) const CLOCK: &str = "the clock alone";
    /// The floors of so many pins.
    pub(crate) const LINE: [&str; 3] = [
        "one line of memory, then the clock, 1k",
        "one line of memory, then the clock, 100k",
        "one line of memory, then the clock, 1m",
    ];
}

pub(crate) mod read {
    pub(crate) const NAME: &str = "read";
}

pub(crate) mod request {
    pub(crate) const NAME: &str = "request";
    pub(crate) const UNIFORM: &str = "uniform";
}

pub(crate) mod cold {
    pub(crate) const NAME: &str = "cold";
}

pub(crate) mod update {
    pub(crate) const NAME: &str = "update";
}

pub(crate) mod update_big {
    pub(crate) const NAME: &str = "update_big";
    /// The same node with small sessions, in the same rounds.
    pub(crate) const OURS_SMALL: &str = "ours, small sessions";
}

pub(crate) mod create {
    pub(crate) const NAME: &str = "create";
}

pub(crate) mod mix {
    pub(crate) const NAME: &str = "mix";
}

pub(crate) mod axum {
    pub(crate) const NAME: &str = "axum";
    pub(crate) const READS: &str = "reads alone, as fast as it answers, 128 connections";
    pub(crate) const LIMIT: &str = "as fast as it answers, 128 connections";
    pub(crate) const LOAD: &str = "half the load that the slowest can bear";
    pub(crate) const OURS: &str = "axum + ours";
    pub(crate) const SQLX: &str = "axum + tower-sessions sqlx";
    pub(crate) const MOKA: &str = "axum + tower-sessions sqlx + moka";
    pub(crate) const REDIS: &str = "axum + tower-sessions redis";
    pub(crate) const REDIS_FSYNC: &str = "axum + tower-sessions redis fsync";
    pub(crate) const JWT: &str = "axum + JWT HS256";
    pub(crate) const NONE: &str = "axum without sessions";
}

pub(crate) mod nodes {
    pub(crate) const NAME: &str = "nodes";
    pub(crate) const UPDATES: &str = "updates, 64 in flight on each";
    pub(crate) const ONE: &str = "one node";
    pub(crate) const FOUR: &str = "four nodes";
}

pub(crate) mod notify {
    pub(crate) const NAME: &str = "notify";
    pub(crate) const AFTER: &str = "commit, then notify";
    pub(crate) const INSIDE: &str = "notify inside the transaction";
    pub(crate) const NORMAL: [&str; 3] = ["1 node", "4 nodes", "16 nodes"];
    pub(crate) const SLOW: [&str; 3] = ["1 node, slow flush", "4 nodes, slow flush", "16 nodes, slow flush"];
}

pub(crate) mod proving {
    pub(crate) const NAME: &str = "proving";
    pub(crate) const CASE: &str = "one proof of every node";
    pub(crate) const SHARED: [&str; 4] =
        ["shared tick, 4 nodes", "shared tick, 16 nodes", "shared tick, 64 nodes", "shared tick, 256 nodes"];
    /// The protocol before: each node notifies itself, and so all.
    pub(crate) const PRIVATE: [&str; 4] = [
        "private barriers, 4 nodes",
        "private barriers, 16 nodes",
        "private barriers, 64 nodes",
        "private barriers, 256 nodes",
    ];
}

pub(crate) mod everywhere {
    pub(crate) const NAME: &str = "everywhere";
    pub(crate) const CASE: &str = "a logout that waits for every node";
    pub(crate) const NODES: [&str; 4] = ["1 node", "4 nodes", "16 nodes", "64 nodes"];
}

pub(crate) mod open {
    pub(crate) const NAME: &str = "open";
    pub(crate) const NORMAL: &str = "updates by a timetable";
    pub(crate) const SLOW: &str = "updates by a timetable, slow flush";
    /// Updates a second.
    pub(crate) const RATES: [&str; 5] = ["1 000 /s", "2 000 /s", "4 000 /s", "8 000 /s", "16 000 /s"];
}

pub(crate) mod propagation {
    pub(crate) const NAME: &str = "propagation";
    pub(crate) const IDLE: &str = "idle";
    pub(crate) const OURS: &str = "ours, acknowledged to visible";
    pub(crate) const NOTIFY: &str = "bare NOTIFY, sent to received";
}

pub(crate) mod touch {
    pub(crate) const NAME: &str = "touch";
}

pub(crate) mod memory {
    pub(crate) const NAME: &str = "memory";
    pub(crate) const ONE: &str = "100 000 sessions, 1 attribute";
    pub(crate) const FIVE: &str = "100 000 sessions, 5 attributes";
    /// As the allocator counts it.
    pub(crate) const HELD: &str = "ours, held beyond text";
}

pub(crate) mod start {
    pub(crate) const NAME: &str = "start";
}
