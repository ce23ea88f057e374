//! The page that says what to do about a finding.

/// Each check, and its page in the documentation.
const PAGES: [(&str, &str); 54] = [
    ("connection", "docs/runbooks.md#failover"),
    ("two-primaries", "docs/runbooks.md#failover"),
    ("standby", "docs/runbooks.md#failover"),
    ("version", "docs/operations.md#doctor"),
    ("pooler", "docs/runbooks.md#pooler-detected"),
    ("isolation", "docs/operations.md#rights"),
    ("replication-role", "docs/operations.md#rights"),
    ("fsync", "docs/operations.md#doctor"),
    ("synchronous-commit", "docs/operations.md#standbys-and-failover"),
    ("contract-right", "docs/operations.md#rights"),
    ("other-table", "docs/operations.md#rights"),
    ("template", "docs/operations.md#doctor"),
    ("planner", "docs/operations.md#doctor"),
    ("standby-wait", "docs/runbooks.md#notify-lock-saturated"),
    ("synchronous-standby", "docs/runbooks.md#notify-lock-saturated"),
    ("role-timeout", "docs/operations.md#failure-modes"),
    ("tls", "docs/operations.md#doctor"),
    ("notification-queue", "docs/runbooks.md#old-transaction"),
    ("old-transaction", "docs/runbooks.md#old-transaction"),
    ("prepared-transaction", "docs/runbooks.md#old-transaction"),
    ("connections", "docs/operations.md#sizing"),
    ("server-log", "docs/operations.md#doctor"),
    ("lock", "docs/runbooks.md#old-transaction"),
    ("notify-lock", "docs/runbooks.md#notify-lock-saturated"),
    ("flush", "docs/runbooks.md#notify-lock-saturated"),
    ("schema-right", "docs/operations.md#rights"),
    ("owner", "docs/operations.md#rights"),
    ("missing-table", "docs/operations.md#rights"),
    ("not-a-table", "docs/operations.md#rights"),
    ("unlogged", "docs/operations.md#doctor"),
    ("row-security", "docs/operations.md#rights"),
    ("table-right", "docs/operations.md#rights"),
    ("function-right", "docs/operations.md#rights"),
    ("public-right", "docs/operations.md#rights"),
    ("visitor-right", "docs/operations.md#rights"),
    ("foreign-key", "docs/operations.md#changes-with-your-own-sql"),
    ("publication", "docs/operations.md#logical-replication"),
    ("invalid-index", "docs/operations.md#doctor"),
    ("disabled-trigger", "docs/operations.md#doctor"),
    ("settings", "docs/operations.md#doctor"),
    ("drift", "docs/operations.md#doctor"),
    ("autovacuum", "docs/runbooks.md#table-full"),
    ("statistics", "docs/runbooks.md#table-full"),
    ("dead-rows", "docs/runbooks.md#table-full"),
    ("hot-updates", "docs/runbooks.md#table-full"),
    ("clean-up", "docs/runbooks.md#table-full"),
    ("wraparound", "docs/runbooks.md#table-full"),
    ("node-settings", "docs/operations.md#doctor"),
    ("lost-listener", "docs/runbooks.md#listener-disconnected"),
    ("node-versions", "docs/operations.md#doctor"),
    ("missing-key", "docs/runbooks.md#leaked-key"),
    ("unused-key", "docs/runbooks.md#leaked-key"),
    ("clock", "docs/operations.md#failure-modes"),
    ("start", "docs/runbooks.md#listener-disconnected"),
];

pub(super) fn page(check: &str) -> &'static str {
    PAGES.iter().find(|(name, _)| *name == check).map_or("docs/doctor.md", |(_, page)| page)
}

/// The names of all checks.
#[cfg(test)]
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    PAGES.iter().map(|(name, _)| *name)
}
