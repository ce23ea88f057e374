//! Whether the library's objects, and the code behind them, belong to roles that this role trusts.
//!
//! A role that may CREATE in the schema can make an object with one of our names before the first start. It owns what
//! it made, so its code would run as the application. Such code is functions of a view, triggers, rules, policies,
//! default and generated values, constraints, and expressions of indexes. So nothing is read before the catalog has
//! named the owners. Only an owner can replace a table, so one that was looked at stays what it is.
//!
//! **Trusted** are superusers, this role, the roles it is a member of, and the owners of schema and database.

use deadpool_postgres::ClientWrapper;

use super::failure::{Failure, Verdict};
use super::names::{Names, literal};
use super::statement::query_row;
use super::unexpected;
use crate::error::{Error, ErrorKind};

/// The names that the migrations give to tables, then those of their indexes, without the prefix.
const TABLES: [&str; 8] = [
    "sessions",
    "session_audit",
    "session_attributes",
    "session_labels",
    "session_locks",
    "session_nodes",
    "session_settings",
    "session_migrations",
];
const INDEXES: [&str; 18] = [
    "session_audit_pkey",
    "session_audit_ended_at_idx",
    "session_audit_user_id_idx",
    "session_audit_revocation_idx",
    "sessions_pkey",
    "sessions_user_id_idx",
    "sessions_group_id_idx",
    "sessions_expires_at_idx",
    "sessions_rotated_to_idx",
    "session_attributes_pkey",
    "session_attributes_expires_at_idx",
    "session_labels_pkey",
    "session_labels_label_idx",
    "session_locks_pkey",
    "session_locks_session_id_idx",
    "session_nodes_pkey",
    "session_settings_pkey",
    "session_migrations_pkey",
];
pub(super) const DOMAINS: [&str; 2] = ["session_expiry", "session_packed"];

/// The catalogs whose objects have an owner and can hold code, with the columns of the owners.
const OWNED: [(&str, &str); 5] = [
    ("pg_class", "relowner"),
    ("pg_proc", "proowner"),
    ("pg_type", "typowner"),
    ("pg_operator", "oprowner"),
    ("pg_opclass", "opcowner"),
];

/// The catalogs whose objects belong to a relation, with the columns that name it.
const PARTS: [(&str, &str); 5] = [
    ("pg_attrdef", "adrelid"),
    ("pg_constraint", "conrelid"),
    ("pg_rewrite", "ev_class"),
    ("pg_trigger", "tgrelid"),
    ("pg_policy", "polrelid"),
];

/// Whether the migrations' record exists.
///
/// # Errors
/// A failure of the kind [`ErrorKind::Schema`] that names an object of another role, its owner and what to do.
pub(super) async fn has_record(connection: &ClientWrapper, names: &Names) -> Result<bool, Failure> {
    let text = format!(
        "{} SELECT EXISTS (SELECT FROM relation r WHERE r.relname = {}), f.fault, f.fix
         FROM (SELECT) o LEFT JOIN (SELECT f.* FROM fault f ORDER BY f.rank, f.fault LIMIT 1) f ON true",
        faults(names, &[]),
        literal(&format!("{}session_migrations", names.plain_prefix()))
    );
    let row = query_row(connection, &text, &[]).await?;
    if let Some(fault) = row.try_get::<_, Option<&str>>(1).map_err(unexpected)? {
        let fix: &str = row.try_get(2).map_err(unexpected)?;
        let error = Error::new(ErrorKind::Schema, format!("{fault}; {fix}"));
        return Err(Failure { error, verdict: Verdict::Refused });
    }
    row.try_get(0).map_err(unexpected)
}

/// A statement that fails for the reasons of [`has_record`]. Inside the transaction that makes the tables, it finds what another
/// role has made since.
pub(super) fn check(names: &Names) -> String {
    format!(
        "DO $pg_session$
DECLARE
    planted record;
BEGIN
    FOR planted IN {} SELECT f.fault, f.fix FROM fault f ORDER BY f.rank, f.fault LOOP
        RAISE EXCEPTION USING ERRCODE = 'PS008', MESSAGE = pg_catalog.concat(planted.fault, '; ', planted.fix);
    END LOOP;
END
$pg_session$",
        faults(names, &[])
    )
}

/// The foreign objects, as rows `(message, fix)`. `routines` are those of the migrations that no node calls, with the types of
/// their arguments.
pub(super) fn findings(names: &Names, routines: &[(String, &str)]) -> String {
    format!(
        "{} SELECT f.fault, COALESCE(f.statement, f.fix) FROM fault f WHERE f.rank < 3 ORDER BY f.rank, f.fault",
        faults(names, routines)
    )
}

/// A WITH clause of `relation`, our tables and indexes, and `fault (rank, fault, fix)`.
///
/// `used` are the objects themselves and those that they depend on; PostgreSQL records these, but for its own. The table of a
/// foreign key is among them: its triggers run as the role that deletes a session.
///
/// `keeper` is the owner of our tables, if it is trusted. What the migrations have made can be given back to it: `statement`. A
/// function that runs as its owner cannot, before its code is known. The migrations make their record first, so it says nothing
/// about the other tables.
fn faults(names: &Names, more_routines: &[(String, &str)]) -> String {
    let schema = literal(&names.plain_schema());
    let prefixed = |list: &[&str]| {
        let list = list.iter().map(|name| literal(&format!("{}{name}", names.plain_prefix())));
        format!("ARRAY[{}]::pg_catalog.name[]", list.collect::<Vec<_>>().join(", "))
    };
    let tables = prefixed(&TABLES);
    let record = literal(&format!("{}session_migrations", names.plain_prefix()));
    // Each table has a type of its name.
    let types = prefixed(&[&TABLES[..], &DOMAINS[..]].concat());
    let relations = prefixed(&[&TABLES[..], &INDEXES[..]].concat());
    let routines = names.plain_routines().into_iter().chain(more_routines.iter().cloned());
    let routines = routines.map(|(name, arguments)| format!("({}, {})", literal(&name), literal(arguments)));
    let routines = routines.collect::<Vec<_>>().join(", ");
    let parts = PARTS.map(|(catalog, column)| {
        format!(
            "SELECT {}, p.oid FROM pg_catalog.{catalog} p JOIN relation r ON r.oid = p.{column}",
            class(catalog)
        )
    });
    let parts = parts.join(" UNION ALL ");
    let owned = OWNED.map(|(catalog, column)| {
        format!(
            "SELECT u.classid, u.objid, c.{column} AS owner FROM used u
             JOIN pg_catalog.{catalog} c ON u.classid = {} AND c.oid = u.objid",
            class(catalog)
        )
    });
    let owned = owned.join(" UNION ALL ");
    let (pg_class, pg_type, pg_proc, pg_constraint) =
        (class("pg_class"), class("pg_type"), class("pg_proc"), class("pg_constraint"));
    format!(
        "WITH RECURSIVE home AS (
             SELECT n.oid, n.nspname, n.nspowner FROM pg_catalog.pg_namespace n WHERE n.nspname = {schema}
         ), granted AS (
             SELECT r.oid AS role FROM pg_catalog.pg_roles r WHERE r.rolname = CURRENT_USER
             UNION
             SELECT m.roleid FROM pg_catalog.pg_auth_members m JOIN granted g ON g.role = m.member
         ), trusted AS (
             SELECT g.role FROM granted g
             UNION SELECT h.nspowner FROM home h
             UNION SELECT d.datdba FROM pg_catalog.pg_database d WHERE d.datname = pg_catalog.current_database()
             UNION SELECT r.oid FROM pg_catalog.pg_roles r WHERE r.rolsuper
         ), relation AS (
             SELECT c.oid, c.relname, c.relkind FROM pg_catalog.pg_class c JOIN home h ON h.oid = c.relnamespace
             WHERE c.relname = ANY ({relations})
         ), kind AS (
             SELECT t.oid, t.typtype FROM pg_catalog.pg_type t JOIN home h ON h.oid = t.typnamespace WHERE t.typname = ANY ({types})
         ), routine AS (
             SELECT p.oid, p.prosecdef FROM pg_catalog.pg_proc p JOIN home h ON h.oid = p.pronamespace
             JOIN (VALUES {routines}) AS n (name, arguments)
                 ON p.proname = n.name AND pg_catalog.oidvectortypes(p.proargtypes) = n.arguments
         ), keeper AS (
             SELECT pg_catalog.pg_get_userbyid(c.relowner) AS name
             FROM relation r JOIN pg_catalog.pg_class c ON c.oid = r.oid JOIN trusted t ON t.role = c.relowner
             WHERE r.relkind = 'r' AND r.relname = ANY ({tables}) AND r.relname <> {record}
             ORDER BY pg_catalog.length(r.relname::pg_catalog.text), r.relname LIMIT 1
         ), part AS (
             SELECT {pg_class} AS classid, r.oid AS objid FROM relation r
             UNION ALL SELECT {pg_class}, i.indexrelid FROM pg_catalog.pg_index i JOIN relation r ON r.oid = i.indrelid
             UNION ALL SELECT {pg_type}, k.oid FROM kind k
             UNION ALL SELECT {pg_constraint}, c.oid FROM pg_catalog.pg_constraint c JOIN kind k ON k.oid = c.contypid
             UNION ALL SELECT {pg_proc}, p.oid FROM routine p
             UNION ALL {parts}
         ), used AS (
             SELECT p.classid, p.objid FROM part p
             UNION
             SELECT d.refclassid, d.refobjid FROM part p
             JOIN pg_catalog.pg_depend d ON d.classid = p.classid AND d.objid = p.objid
             UNION
             SELECT {pg_class}, f.conrelid FROM pg_catalog.pg_constraint f JOIN relation r ON r.oid = f.confrelid
             UNION
             SELECT {pg_class}, i.inhrelid FROM pg_catalog.pg_inherits i JOIN relation r ON r.oid = i.inhparent
         ), owned AS ({owned}
         ), fault AS (
             SELECT CASE WHEN o.objid IN (SELECT r.oid FROM relation r) THEN 0
                         WHEN o.objid IN (SELECT k.oid FROM kind k) THEN 1 ELSE 2 END AS rank,
                    pg_catalog.format('%s %s belongs to the role %I, whose code would run as %I', i.type, i.identity,
                           pg_catalog.pg_get_userbyid(o.owner), CURRENT_USER) AS fault,
                    pg_catalog.format('%s or, if you trust %I, run: ALTER SCHEMA %I OWNER TO %2$I;',
                           CASE WHEN b.statement IS NULL THEN 'drop it,' ELSE pg_catalog.concat('run: ', b.statement) END, pg_catalog.pg_get_userbyid(o.owner), h.nspname) AS fix,
                    b.statement
             FROM owned o CROSS JOIN home h CROSS JOIN LATERAL pg_catalog.pg_identify_object(o.classid, o.objid, 0) i
             LEFT JOIN keeper k ON true
             CROSS JOIN LATERAL (
                 SELECT CASE WHEN k.name IS NULL THEN NULL
                     WHEN o.classid = {pg_class} AND o.objid IN (SELECT r.oid FROM relation r
                                                                 WHERE r.relkind = 'r' AND r.relname = ANY ({tables}))
                         THEN pg_catalog.format('ALTER TABLE %s OWNER TO %I;', i.identity, k.name)
                     WHEN o.classid = {pg_proc} AND o.objid IN (SELECT p.oid FROM routine p WHERE NOT p.prosecdef)
                         THEN pg_catalog.format('ALTER ROUTINE %s OWNER TO %I;', i.identity, k.name)
                     WHEN o.classid = {pg_type} AND o.objid IN (SELECT y.oid FROM kind y WHERE y.typtype = 'd')
                         THEN pg_catalog.format('ALTER DOMAIN %s OWNER TO %I;', i.identity, k.name)
                     END AS statement) b
             WHERE NOT EXISTS (SELECT FROM trusted t WHERE t.role = o.owner)
               -- They have the owner of their table, which has a row.
               AND NOT (o.classid = {pg_class} AND EXISTS (SELECT FROM pg_catalog.pg_index x JOIN relation r ON r.oid = x.indrelid
                                                           WHERE x.indexrelid = o.objid))
               AND NOT (o.classid = {pg_type} AND EXISTS (SELECT FROM pg_catalog.pg_type y JOIN relation r ON r.oid = y.typrelid
                                                          WHERE y.oid = o.objid))
             UNION ALL
             SELECT 3, pg_catalog.format('%s %s has the name of a table of the library', i.type, i.identity),
                    'rename it, or set schema or table_prefix in the configuration', NULL
             FROM relation r CROSS JOIN LATERAL pg_catalog.pg_identify_object({pg_class}, r.oid, 0) i
             WHERE r.relkind <> 'r' AND r.relname = ANY ({tables})
         )"
    )
}

/// The oid of a catalog.
fn class(catalog: &str) -> String {
    format!("'pg_catalog.{catalog}'::pg_catalog.regclass::pg_catalog.oid")
}
