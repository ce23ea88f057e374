//! Names in the database: validated, quoted, and always qualified by their schema.

use sha2::{Digest, Sha256};

use crate::config::Config;
use crate::error::{Error, ErrorKind};

/// PostgreSQL cuts longer identifiers silently (`NAMEDATALEN - 1`).
const IDENTIFIER_BYTES_MAX: usize = 63;
/// The longest name that a prefix is put before.
const LONGEST_SUFFIX: &str = "session_attributes_expires_at_idx";

/// The quotes of the migrations' texts.
const DOLLAR_QUOTES: [&str; 5] = ["$pg_session$", "$hint$", "$name$", "$revoke$", "$trigger$"];

/// What PostgreSQL's own schemas begin with; it creates no other that does.
const RESERVED: &str = "pg_";

/// The functions and procedures that a node calls, without the prefix, with argument types as PostgreSQL writes them. Another
/// role may have made others with these names.
const ROUTINES: [(&str, &str); 7] = [
    ("session_audit_receipt", "uuid, text"),
    ("session_make_room", "uuid[], bigint[], uuid[], text, boolean, interval"),
    ("session_move_locks", "uuid[], uuid[]"),
    ("session_move_labels", "uuid[], uuid[], boolean[], uuid[], text[]"),
    (
        "session_update_one",
        "uuid, bigint, timestamp with time zone, text, text, text, interval, text, boolean, timestamp with time zone, \
         timestamp with time zone, timestamp with time zone, bigint",
    ),
    (
        "session_update",
        "uuid[], bigint[], timestamp with time zone[], text[], text[], text, interval, text, boolean, bigint[], \
         timestamp with time zone[], timestamp with time zone[], timestamp with time zone[], bigint",
    ),
    (
        "session_update_in_full",
        "uuid[], bigint[], timestamp with time zone[], text[], boolean[], timestamp with time zone[], bigint[], boolean[], \
         boolean[], uuid[], uuid[], text[], text[], timestamp with time zone[], uuid[], text[], text[], text, interval, text, \
         boolean, bigint[], timestamp with time zone[], timestamp with time zone[], timestamp with time zone[], bigint",
    ),
];
/// The functions of the triggers. They have no arguments.
const TRIGGER_FUNCTIONS: [&str; 5] = [
    "sessions_follow",
    "session_reject_write",
    "session_check_row",
    "session_locks_wake",
    "session_audit_ends",
];

/// A query for whom PostgreSQL may have given rights on a new object, without the owner.
const GRANTEES: &str = "SELECT 'PUBLIC' UNION
                   SELECT pg_catalog.quote_ident(r.rolname)
                   FROM pg_catalog.pg_default_acl d CROSS JOIN LATERAL pg_catalog.aclexplode(d.defaclacl) a
                   JOIN pg_catalog.pg_roles r ON r.oid = a.grantee AND r.rolname <> CURRENT_USER";

/// The quoted, qualified names of one manager's tables, and its channel.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    schema: String,
    prefix: String,
    channel: String,
}

impl Names {
    /// # Errors
    /// [`ErrorKind::Config`] for a name that PostgreSQL cannot hold.
    pub(crate) fn new(config: &Config) -> Result<Self, Error> {
        check("schema", &config.schema, IDENTIFIER_BYTES_MAX)?;
        if config.schema.is_empty() {
            return Err(Error::new(ErrorKind::Config, "schema must not be empty; the default is \"public\""));
        }
        if config.schema.starts_with(RESERVED) {
            return Err(Error::new(
                ErrorKind::Config,
                "schema must not begin with \"pg_\", which PostgreSQL keeps for itself; choose another name",
            ));
        }
        check("table_prefix", &config.table_prefix, IDENTIFIER_BYTES_MAX - LONGEST_SUFFIX.len())?;
        let mut digest = Sha256::new();
        digest.update(config.schema.as_bytes());
        digest.update([0]);
        digest.update(config.table_prefix.as_bytes());
        let digest = digest.finalize();
        // A digest, so that no schema or prefix makes the channel too long or equal to another's.
        let channel =
            digest[..8].iter().fold("pg_session_".to_owned(), |name, byte| format!("{name}{byte:02x}"));
        Ok(Self { schema: escape(&config.schema), prefix: escape(&config.table_prefix), channel })
    }

    pub(crate) fn schema(&self) -> String {
        format!("\"{}\"", self.schema)
    }

    /// The schema as the catalog holds it.
    pub(super) fn plain_schema(&self) -> String {
        self.schema.replace("\"\"", "\"")
    }

    /// The prefix as the catalog holds it.
    pub(super) fn plain_prefix(&self) -> String {
        self.prefix.replace("\"\"", "\"")
    }

    pub(crate) fn sessions(&self) -> String {
        self.table("sessions")
    }

    pub(crate) fn attributes(&self) -> String {
        self.table("session_attributes")
    }

    pub(crate) fn labels(&self) -> String {
        self.table("session_labels")
    }

    pub(crate) fn locks(&self) -> String {
        self.table("session_locks")
    }

    pub(crate) fn settings(&self) -> String {
        self.table("session_settings")
    }

    /// The audit log.
    pub(crate) fn audit(&self) -> String {
        self.table("session_audit")
    }

    /// A function of the SQL contract.
    pub(super) fn function(&self, name: &str) -> String {
        self.table(name)
    }

    /// The view for dashboards.
    pub(super) fn overview(&self) -> String {
        self.table("session_overview")
    }

    /// The registry of nodes.
    pub(crate) fn nodes(&self) -> String {
        self.table("session_nodes")
    }

    /// The tables that a node writes.
    pub(super) fn written(&self) -> [String; 6] {
        [self.sessions(), self.attributes(), self.labels(), self.locks(), self.nodes(), self.settings()]
    }

    pub(crate) fn migrations(&self) -> String {
        self.table("session_migrations")
    }

    /// The function that admits users within the session limit.
    pub(crate) fn make_room(&self) -> String {
        self.table("session_make_room")
    }

    /// The function that moves the locks of rotated sessions.
    pub(crate) fn move_locks(&self) -> String {
        self.table("session_move_locks")
    }

    /// The function that moves the labels of rotated sessions.
    pub(crate) fn move_labels(&self) -> String {
        self.table("session_move_labels")
    }

    /// The procedure that updates one session, commits, then notifies.
    pub(crate) fn update_one(&self) -> String {
        self.table("session_update_one")
    }

    /// As [`update_one`](Names::update_one), for the inline attributes of many sessions.
    pub(crate) fn update(&self) -> String {
        self.table("session_update")
    }

    /// As [`update`](Names::update), for any changes.
    pub(crate) fn update_in_full(&self) -> String {
        self.table("session_update_in_full")
    }

    /// The functions and procedures that a node calls, with the types of their arguments: the form of GRANT and `regprocedure`.
    pub(super) fn routines(&self) -> [String; 7] {
        ROUTINES.map(|(name, arguments)| format!("{}({arguments})", self.table(name)))
    }

    /// All functions and procedures, as the catalog holds name and arguments.
    pub(super) fn plain_routines(&self) -> Vec<(String, &'static str)> {
        let triggers = TRIGGER_FUNCTIONS.map(|name| (name, ""));
        let all = ROUTINES.into_iter().chain(triggers);
        all.map(|(name, arguments)| (format!("{}{name}", self.plain_prefix()), arguments)).collect()
    }

    /// The channel that this schema's and prefix's nodes share.
    pub(crate) fn channel(&self) -> &str {
        &self.channel
    }

    /// Puts the names into a migration's text.
    pub(super) fn fill(&self, template: &str) -> String {
        let filled = template.replace("{grantees}", GRANTEES);
        let filled = filled.replace("{routines}", &self.routines().join(",\n                "));
        let filled = filled.replace("{schema}", &self.schema).replace("{prefix}", &self.prefix);
        filled.replace("{channel}", &self.channel)
    }

    fn table(&self, name: &str) -> String {
        format!("\"{}\".\"{}{name}\"", self.schema, self.prefix)
    }
}

fn check(field: &str, name: &str, bytes_max: usize) -> Result<(), Error> {
    if name.contains('\0') {
        return Err(Error::new(ErrorKind::Config, format!("{field} must not contain a NUL byte")));
    }
    if name.len() > bytes_max {
        return Err(Error::new(
            ErrorKind::Config,
            format!(
                "{field} has {} bytes, and PostgreSQL's names leave room for {bytes_max}; shorten it",
                name.len()
            ),
        ));
    }
    // `{` would be taken for a placeholder of the migrations' texts.
    if name.contains(['{', '}']) {
        return Err(Error::new(
            ErrorKind::Config,
            format!("{field} must not contain braces; choose another name"),
        ));
    }
    // These end a body or a text in the migrations.
    if let Some(quote) = DOLLAR_QUOTES.iter().find(|quote| name.contains(**quote)) {
        return Err(Error::new(
            ErrorKind::Config,
            format!("{field} must not contain {quote}; choose another name"),
        ));
    }
    Ok(())
}

/// A text as SQL writes it.
pub(super) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

fn escape(name: &str) -> String {
    name.replace('"', "\"\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(schema: &str, prefix: &str) -> Result<Names, Error> {
        let config =
            Config { schema: schema.to_owned(), table_prefix: prefix.to_owned(), ..Config::default() };
        Names::new(&config)
    }

    #[test]
    fn hostile_names_stay_inside_their_quotes() {
        let names = names(r#""; DROP TABLE users; --"#, r#"a"b"#).unwrap();
        assert_eq!(names.sessions(), r#""""; DROP TABLE users; --"."a""bsessions""#);
    }

    #[test]
    fn names_that_postgresql_would_cut_are_refused() {
        assert!(names(&"s".repeat(63), "").is_ok());
        for (schema, prefix) in
            [("s".repeat(64).as_str(), ""), ("", ""), ("a\0b", ""), ("public", &"p".repeat(31)), ("{x}", "")]
        {
            assert_eq!(names(schema, prefix).unwrap_err().kind(), ErrorKind::Config);
        }
    }

    #[test]
    fn names_that_end_a_text_of_the_migrations_are_refused() {
        let migrations = [
            include_str!("../../migrations/0001_initial.sql"),
            include_str!("../../migrations/0001_contract.sql"),
            include_str!("../../migrations/0001_audit.sql"),
            include_str!("../../migrations/0001_rights.sql"),
            include_str!("../../migrations/definer.sql"),
        ];
        let mut quotes = 0;
        for quote in migrations
            .iter()
            .flat_map(|text| text.split_inclusive('$'))
            .filter_map(|part| part.strip_suffix('$'))
        {
            if quote.is_empty() || !quote.bytes().all(|b| b.is_ascii_lowercase() || b == b'_') {
                continue;
            }
            quotes += 1;
            for (schema, prefix) in
                [(format!("a${quote}$b"), String::new()), ("a".to_owned(), format!("${quote}$"))]
            {
                let error = names(&schema, &prefix).unwrap_err();
                assert_eq!(error.kind(), ErrorKind::Config);
                assert!(error.to_string().contains(quote), "{error}");
            }
        }
        assert!(quotes > 0);
        assert!(names("a$b", "$1").is_ok());
    }

    #[test]
    fn reserved_schema_name_is_refused_before_creation() {
        let error = names("pg_session", "").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("must not begin with \"pg_\""), "{error}");
        assert!(names("PG_session", "").is_ok(), "only this spelling is reserved");
        assert!(names("app", "pg_").is_ok(), "tables may be called so");
    }

    #[test]
    fn each_schema_and_prefix_has_its_own_channel() {
        let channels = [("a", "b"), ("ab", ""), ("a", ""), ("A", "b")]
            .map(|(schema, prefix)| names(schema, prefix).unwrap().channel);
        for (at, channel) in channels.iter().enumerate() {
            assert!(channel.len() <= IDENTIFIER_BYTES_MAX);
            assert!(!channels[..at].contains(channel), "{channels:?}");
        }
    }
}
