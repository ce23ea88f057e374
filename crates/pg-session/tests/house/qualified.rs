//! Every function call and every type of a cast in the SQL texts names its schema.
//!
//! PostgreSQL prefers an exact match of argument types over a polymorphic one, in whichever schema of the `search_path` it
//! is. A role that may create in one of them could have its own code run as the application.
//!
//! The grammar itself resolves some names to `pg_catalog`, whatever the path; these may stand alone. The file looks at
//! texts, so it cannot see which operator PostgreSQL takes: an integration test with a hostile role does.

use crate::rules::is_sql;
use crate::source::Source;

/// The files whose SQL runs on the application's database, as its role.
const CRATES: [&str; 2] = ["crates/pg-session/src/", "crates/pg-listen/src/"];
/// Keywords that a parenthesis may follow. Each is the grammar's own; none is looked up in the path.
const KEYWORDS: [&str; 54] = [
    "ALL",
    "AND",
    "ANY",
    "ARRAY",
    "AS",
    "BEGIN",
    "BY",
    "CASE",
    "CHECK",
    "COALESCE",
    "CONFLICT",
    "ELSE",
    "EXCEPT",
    "EXISTS",
    "EXTRACT",
    "FILTER",
    "FROM",
    "GROUP",
    "GREATEST",
    "IF",
    "IN",
    "INTO",
    "IS",
    "JOIN",
    "KEY",
    "LATERAL",
    "LEAST",
    "LIMIT",
    "MATERIALIZED",
    "NOT",
    "NULLIF",
    "OFFSET",
    "ON",
    "OPERATOR",
    "OR",
    "OVER",
    "RETURN",
    "RETURNING",
    "ROW",
    "SELECT",
    "SET",
    "SOME",
    "TABLE",
    "THEN",
    "UNION",
    "UNIQUE",
    "USING",
    "VALUES",
    "WHEN",
    "WHERE",
    "WITH",
    "WITHIN",
    "HAVING",
    "DISTINCT",
];
/// Types that are keywords of the grammar: it resolves them to `pg_catalog`.
const KEYWORD_TYPES: [&str; 16] = [
    "bigint",
    "bit",
    "boolean",
    "char",
    "character",
    "dec",
    "decimal",
    "double",
    "float",
    "int",
    "integer",
    "interval",
    "numeric",
    "real",
    "smallint",
    "varchar",
];
/// Types that are no keywords, and that a literal may have before it.
const OTHER_TYPES: [&str; 14] = [
    "bool",
    "bytea",
    "date",
    "float8",
    "int4",
    "int8",
    "json",
    "jsonb",
    "name",
    "regclass",
    "text",
    "timestamptz",
    "uuid",
    "oid",
];
/// Words of SQL that tell a text which is part of a statement from a message.
const EVIDENCE: [&str; 16] = [
    "SELECT", "FROM", "WHERE", "AND", "CASE", "NULL", "EXISTS", "OVER", "ANY", "ORDER", "GROUP", "UPDATE",
    "INSERT", "DELETE", "WITH", "ROWS",
];

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    /// A name in double quotes, or a placeholder of `format!`.
    Name,
    Text,
    Cast,
    Dot,
    Open,
    Close,
    Other,
}

/// The faults of a Rust file that holds SQL.
pub fn in_rust(source: &Source) -> Vec<String> {
    if !CRATES.iter().any(|folder| source.path.starts_with(folder)) {
        return Vec::new();
    }
    let holds_parts = source.path.contains("/src/postgres/");
    let texts = source.strings.iter().filter(|(_, text)| is_sql(text) || holds_parts && is_part(text));
    let faults = texts.flat_map(|(line, text)| {
        let plain = text.replace("\\\"", "\"").replace("\\n", "\n").replace("\\\n", "\n");
        faults(&plain).into_iter().map(move |fault| format!("{}:{line}: {fault}", source.path))
    });
    faults.collect()
}

fn is_rust_type(word: &str) -> bool {
    word.starts_with(char::is_uppercase) && word.contains(char::is_lowercase)
}

/// The faults of one SQL text.
pub fn faults(text: &str) -> Vec<String> {
    let tokens = tokens(text);
    let at = |index: usize| tokens.get(index);
    let mut faults = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        let before = index.checked_sub(1).and_then(at);
        let Token::Word(word) = token else {
            continue;
        };
        if before == Some(&Token::Dot) {
            continue;
        }
        let is_alias = matches!(before, Some(Token::Name | Token::Close))
            || matches!(before, Some(Token::Word(word)) if word == "AS");
        let is_position = word == "position" && takes_in(&tokens[index + 1..]);
        let is_cast = word.eq_ignore_ascii_case("cast");
        if at(index + 1) == Some(&Token::Open)
            && !is_cast
            && !KEYWORDS.contains(&&**word)
            && !is_alias
            && !is_position
        {
            faults.push(format!("`{word}(`: write `pg_catalog.{word}(`"));
        }
        // A message may name a function of a Rust type. SQL has no words with letters of both cases.
        let is_path = index >= 2 && matches!(&tokens[index - 2], Token::Word(word) if is_rust_type(word));
        if before == Some(&Token::Cast)
            && !is_path
            && at(index + 1) != Some(&Token::Dot)
            && !KEYWORD_TYPES.contains(&&**word)
        {
            faults.push(format!("`::{word}`: write `::pg_catalog.{word}`"));
        }
        if at(index + 1) == Some(&Token::Text) && OTHER_TYPES.contains(&&*word.to_lowercase()) {
            faults.push(format!("`{word} '…'`: write `'…'::pg_catalog.{word}`"));
        }
        if is_cast && at(index + 1) == Some(&Token::Open) {
            faults.push("`CAST`: write `::`".to_owned());
        }
    }
    faults
}

/// Whether these are the parentheses of `position(a IN b)`, which the grammar resolves. `position(a, b)` is a plain call.
fn takes_in(tokens: &[Token]) -> bool {
    let end = tokens.iter().position(|token| *token == Token::Close).unwrap_or(tokens.len());
    tokens[..end].contains(&Token::Word("IN".to_owned()))
}

fn is_part(text: &str) -> bool {
    let words = text.split(|char: char| !char.is_ascii_alphanumeric() && char != '_');
    let call = text.find('(').is_some_and(|at| {
        at > 0
            && text[..at]
                .chars()
                .all(|char| char.is_ascii_lowercase() || char.is_ascii_digit() || "_.".contains(char))
    });
    call || text.contains("::") || words.into_iter().any(|word| EVIDENCE.contains(&word))
}

fn tokens(text: &str) -> Vec<Token> {
    let chars: Vec<char> = text.chars().collect();
    let is_name = |char: &char| char.is_alphanumeric() || *char == '_';
    let until =
        |from: usize, end: char| (from..chars.len()).find(|&at| chars[at] == end).unwrap_or(chars.len());
    let (mut tokens, mut at) = (Vec::new(), 0);
    while at < chars.len() {
        let next = chars.get(at + 1);
        at = match chars[at] {
            '-' if next == Some(&'-') => until(at, '\n'),
            // A doubled quote inside makes two of them, which is as good.
            '\'' => {
                tokens.push(Token::Text);
                until(at + 1, '\'') + 1
            }
            '"' => {
                tokens.push(Token::Name);
                until(at + 1, '"') + 1
            }
            // `{{}}` is a literal's.
            '{' if next != Some(&'{') => {
                tokens.push(Token::Name);
                until(at, '}') + 1
            }
            ':' if next == Some(&':') => {
                tokens.push(Token::Cast);
                at + 2
            }
            '$' => {
                let end = (at + 1..chars.len()).find(|&at| !is_name(&chars[at])).unwrap_or(chars.len());
                tokens.push(Token::Other);
                // A quotation's mark: what is inside is SQL.
                if chars.get(end) == Some(&'$') { end + 1 } else { end }
            }
            char if is_name(&char) => {
                let end = (at..chars.len()).find(|&at| !is_name(&chars[at])).unwrap_or(chars.len());
                tokens.push(Token::Word(chars[at..end].iter().collect()));
                end
            }
            char => {
                match char {
                    '.' => tokens.push(Token::Dot),
                    '(' => tokens.push(Token::Open),
                    ')' => tokens.push(Token::Close),
                    char if char.is_whitespace() => {}
                    _ => tokens.push(Token::Other),
                }
                at + 1
            }
        };
    }
    tokens
}

#[test]
fn an_unqualified_function_or_type_is_found() {
    for bad in [
        "SELECT count(*) FROM {sessions} s",
        "SELECT count (*) FROM {sessions} s",
        "SELECT UPPER(s.name) FROM {sessions} s",
        "SELECT row_number() OVER () FROM {sessions} s",
        "SELECT 1 FROM unnest($1) AS u (id)",
        "SELECT x FROM {a} a WHERE a.id = ANY ($1::uuid[])",
        "SELECT 'a'::text",
        "SELECT uuid '0'",
        "SELECT TIMESTAMPTZ 'now'",
        "SELECT CAST(1 AS pg_catalog.text)",
        "SELECT position(a, b)",
        "SELECT 1 -- pg_catalog.\n, now()",
        "$body$ BEGIN PERFORM f(1); END $body$",
        "CHECK (octet_length(VALUE) < 1)",
    ] {
        assert_eq!(faults(bad).len(), 1, "{bad}: {:?}", faults(bad));
    }
    for good in [
        "SELECT pg_catalog.count(*) FROM {sessions} s WHERE s.id IN (SELECT 1) AND position($3 IN s.a) > 0",
        "SELECT s.x::bigint, $1::pg_catalog.uuid[], interval '1 s', 'count(*)' FROM {t} AS t (id)",
        "INSERT INTO {t} AS l (id) VALUES (1) ON CONFLICT (id) DO UPDATE SET a = COALESCE(l.a, '{{}}')",
        "SELECT {room}($1) FROM ROWS FROM (pg_catalog.unnest($1)) t (id) -- count(*)",
        "CREATE FUNCTION \"{schema}\".\"{prefix}f\"() RETURNS trigger",
    ] {
        assert_eq!(faults(good), [""; 0], "{good}");
    }
}

#[test]
fn parts_of_statements_are_looked_at_and_messages_are_not() {
    let path = "crates/pg-session/src/postgres/x.rs";
    let found = |text: &str| in_rust(&Source::new(path, text)).len();
    assert_eq!(found(r#"format!("unnest({})", arrays)"#), 1);
    assert_eq!(found(r#"format!("({s}.a > {now} AND NOT f(1))")"#), 1);
    assert_eq!(found(r#"format!("${}::{}", 1, name)"#), 0);
    assert_eq!(found(r#"format!("${}::uuid", 1)"#), 1);
    assert_eq!(found(r#"fail("(run the SQL of `Migrations::sql` AND grant the rest)")"#), 0);
    assert_eq!(found(r#"fail("a lock (see its name) cannot be taken")"#), 0);
}
