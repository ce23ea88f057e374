//! Whether the tables, indexes, functions and triggers are as the migrations make them, and how many sessions are overdue.

use std::collections::BTreeSet;

use super::repair::{self, COMPARE, EXPECTED};
use super::{Check, Finding};
use crate::error::Error;
use crate::postgres::Database;
use crate::postgres::failure::Failure;
use crate::postgres::names::{Names, literal};

/// Expired sessions that wait for the clean-up without a finding.
const EXPIRED_MAX: u32 = 10_000;

impl Database {
    pub(super) async fn check_shape(&self) -> Result<Vec<Finding>, Error> {
        let sessions = self.names.sessions();
        let is_there =
            format!("SELECT '', '' WHERE pg_catalog.to_regclass({}) IS NOT NULL", literal(&sessions));
        let is_there = self.rows_of(&is_there).await.map_err(Failure::into_read_error)?;
        if is_there.is_empty() {
            // Another check has found that.
            return Ok(Vec::new());
        }
        let drift = Check::fault("drift", sql(&self.names));
        let rows = match self.rows_of(&drift.sql).await {
            Ok(rows) => rows,
            Err(failure) => return self.refused(&drift, failure),
        };
        let found: BTreeSet<String> =
            rows.into_iter().map(|(object, detail)| format!("{object}: {detail}")).collect();
        let expected: BTreeSet<String> = EXPECTED.lines().map(ToOwned::to_owned).collect();
        let mut findings = Vec::new();
        // What is there in another form has two lines. To drop it comes first, unless it can be replaced.
        let object = |line: &str| line.split(": ").next().unwrap_or_default().to_owned();
        let missing_objects: BTreeSet<String> =
            expected.difference(&found).map(|line| object(line)).collect();
        for line in found.difference(&expected) {
            let changed = missing_objects.contains(&object(line));
            if changed && line.starts_with("function") {
                continue;
            }
            let fix = if changed && line.starts_with("column") {
                expected.iter().find_map(|wanted| repair::set_default(&self.names, line, wanted))
            } else {
                repair::drop(&self.names, line)
            };
            let message = format!("the database has, and the migrations do not make: {line}");
            findings.push(drift.finding(message, fix.unwrap_or_else(|| COMPARE.to_owned())));
        }
        for line in expected.difference(&found) {
            let set_default = || found.iter().find_map(|has| repair::set_default(&self.names, has, line));
            let fix = repair::make(&self.names, line).or_else(set_default);
            let fix = fix.unwrap_or_else(|| COMPARE.to_owned());
            findings.push(drift.finding(format!("the migrations make, and the database lacks: {line}"), fix));
        }
        let bodies = Check::fault("drift", repair::bodies_sql(&self.names));
        findings.extend(self.run_check(&bodies).await?);
        let expired = Check::warning("clean-up", format!(
            "SELECT 'more than {EXPIRED_MAX} sessions expired more than a day ago and were not deleted',
                    'Set cleanup_interval on a node, or call cleanup().'
             WHERE (SELECT pg_catalog.count(*) FROM (
                        SELECT FROM {sessions} s
                        WHERE s.expires_at::pg_catalog.timestamptz < pg_catalog.clock_timestamp() - interval '1 day'
                        LIMIT {EXPIRED_MAX} + 1) e) > {EXPIRED_MAX}"
        ));
        findings.extend(self.run_check(&expired).await?);
        Ok(findings)
    }
}

/// Rows `(object, detail)`, without the names of schema and prefix.
fn sql(names: &Names) -> String {
    let tables = [
        names.sessions(),
        names.audit(),
        names.attributes(),
        names.labels(),
        names.locks(),
        names.nodes(),
        names.settings(),
        names.overview(),
        names.migrations(),
    ]
    .map(|table| format!("pg_catalog.to_regclass({})", literal(&table)))
    .join(", ");
    let prefix = literal(&names.plain_prefix());
    let without_prefix =
        |name: &str| format!("pg_catalog.substr({name}::pg_catalog.text, pg_catalog.length({prefix}) + 1)");
    let (table, index, constraint) =
        (without_prefix("c.relname"), without_prefix("i.relname"), without_prefix("o.conname"));
    let called = without_prefix("f.proname");
    let (function, kind) = (without_prefix("p.proname"), without_prefix("y.typname"));
    format!(
        "WITH ours AS (
             SELECT c.oid, c.relname, c.relnamespace FROM pg_catalog.pg_class c
             WHERE c.oid = ANY (ARRAY[{tables}]::pg_catalog.oid[])
         )
         SELECT 'column ' || {table} || '.' || a.attname::pg_catalog.text,
                CASE WHEN y.typnamespace = c.relnamespace THEN {kind}
                     ELSE pg_catalog.format_type(a.atttypid, a.atttypmod) END
                || CASE WHEN a.attnotnull THEN ' not null' ELSE '' END
                || COALESCE(CASE a.attgenerated WHEN '' THEN ' default ' ELSE ' generated ' END
                            -- Without casts: they name a schema, or do not, by the search path.
                            || pg_catalog.split_part(pg_catalog.pg_get_expr(d.adbin, d.adrelid), '::', 1), '')
         FROM ours c JOIN pg_catalog.pg_attribute a ON a.attrelid = c.oid JOIN pg_catalog.pg_type y ON y.oid = a.atttypid
         LEFT JOIN pg_catalog.pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
         WHERE a.attnum > 0 AND NOT a.attisdropped
         UNION ALL
         SELECT 'index ' || {index},
                CASE WHEN x.indisunique THEN 'unique ' ELSE '' END || {table} || ' ('
                || (SELECT pg_catalog.string_agg(pg_catalog.pg_get_indexdef(i.oid, k.n, true), ', ' ORDER BY k.n)
                    FROM pg_catalog.generate_series(1, x.indnkeyatts::pg_catalog.int4) AS k (n)) || ')'
                || COALESCE(' where ' || pg_catalog.pg_get_expr(x.indpred, x.indrelid), '')
         FROM ours c JOIN pg_catalog.pg_index x ON x.indrelid = c.oid JOIN pg_catalog.pg_class i ON i.oid = x.indexrelid
         UNION ALL
         SELECT 'constraint ' || {constraint},
                -- A time is written in the time zone of the role.
                {table} || CASE WHEN o.definition ~ 'timestamp' THEN '' ELSE ' ' || o.definition END
         FROM ours c JOIN (SELECT o.*, pg_catalog.pg_get_constraintdef(o.oid) AS definition
                           FROM pg_catalog.pg_constraint o WHERE o.contype <> 'n') o ON o.conrelid = c.oid
         UNION ALL
         SELECT 'rule ' || w.rulename::pg_catalog.text, {table}
         FROM ours c JOIN pg_catalog.pg_rewrite w ON w.ev_class = c.oid
         WHERE w.rulename OPERATOR(pg_catalog.<>) '_RETURN'
         UNION ALL
         SELECT 'trigger ' || t.tgname::pg_catalog.text,
                {table} || ' ' || t.tgtype::pg_catalog.text || ' ' || {called}
                || COALESCE(' old table ' || t.tgoldtable::pg_catalog.text, '') || COALESCE(' new table ' || t.tgnewtable::pg_catalog.text, '')
                || COALESCE(' of ' || (SELECT pg_catalog.string_agg(a.attname::pg_catalog.text, ',' ORDER BY a.attnum)
                                       FROM pg_catalog.pg_attribute a WHERE a.attrelid = c.oid AND a.attnum = ANY (t.tgattr)), '')
                || CASE WHEN t.tgqual IS NULL THEN ''
                        ELSE ' ' || pg_catalog.substring(pg_catalog.pg_get_triggerdef(t.oid), ' (WHEN .*) EXECUTE ') END
         FROM ours c JOIN pg_catalog.pg_trigger t ON t.tgrelid = c.oid JOIN pg_catalog.pg_proc f ON f.oid = t.tgfoid
         WHERE NOT t.tgisinternal AND t.tgname::pg_catalog.text NOT IN ('sessions_audit_delete', 'sessions_audit_truncate')
         UNION ALL
         SELECT 'function ' || {function} || '(' || pg_catalog.oidvectortypes(p.proargtypes) || ')',
                CASE WHEN p.prosecdef THEN 'security definer' ELSE 'security invoker' END
                || CASE WHEN p.proisstrict THEN ' strict' ELSE '' END || ' ' || p.provolatile::pg_catalog.text
                || COALESCE(' set ' || pg_catalog.array_to_string(p.proconfig, ' '), '')
         FROM pg_catalog.pg_proc p
         WHERE p.pronamespace = (SELECT c.relnamespace FROM ours c LIMIT 1)
           AND pg_catalog.starts_with(p.proname::pg_catalog.text, {prefix} || 'session')"
    )
}
