//! The statements that make drifted objects what the migrations make them. They are the migrations' own.

use crate::postgres::migrate::INITIAL;
use crate::postgres::names::{Names, literal};
use crate::postgres::owners::DOMAINS;

/// What marks the body of a function in the migrations.
const BODY: &str = "$pg_session$";
/// The shape of fresh tables, as the query in `shape` returns it. A test compares both.
pub(super) const EXPECTED: &str = include_str!("shape.txt");
/// For an object that no single statement restores.
pub(super) const COMPARE: &str = "Compare the tables with the output of: pg-session migrate --print";

/// The statement that makes an object, by its line in `shape.txt`: `trigger sessions_follow_delete: sessions`.
pub(super) fn make(names: &Names, line: &str) -> Option<String> {
    let (object, detail) = line.split_once(": ")?;
    let (kind, name) = object.split_once(' ')?;
    let table = |text: &str| text.split(['.', ' ']).next().unwrap_or_default().to_owned();
    let text = match kind {
        "function" => functions(name.split('(').next()?),
        "trigger" => statement(&format!("CREATE TRIGGER {name}")),
        "index" => statement(&format!("CREATE INDEX \"{{prefix}}{name}\"")),
        "constraint" => {
            let constraint = constraint(name)?;
            Some(format!("ALTER TABLE \"{{schema}}\".\"{{prefix}}{}\" ADD {constraint};", table(detail)))
        }
        _ => None,
    }?;
    Some(names.fill(&text))
}

/// The statement that drops an object that the migrations do not make, by its line.
pub(super) fn drop(names: &Names, line: &str) -> Option<String> {
    let (object, detail) = line.split_once(": ")?;
    let (kind, name) = object.split_once(' ')?;
    let qualified = |name: &str| {
        let name = format!("{}{name}", names.plain_prefix()).replace('"', "\"\"");
        format!("{}.\"{name}\"", names.schema())
    };
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let owner = |detail: &str| qualified(detail.split(' ').next().unwrap_or_default());
    Some(match kind {
        "column" => {
            let (table, column) = name.split_once('.')?;
            format!("ALTER TABLE {} DROP COLUMN {};", qualified(table), quoted(column))
        }
        "index" => format!("DROP INDEX {};", qualified(name)),
        "constraint" => {
            let name = quoted(&format!("{}{name}", names.plain_prefix()));
            format!("ALTER TABLE {} DROP CONSTRAINT {name};", owner(detail))
        }
        "trigger" => format!("DROP TRIGGER {} ON {};", quoted(name), owner(detail)),
        "rule" => format!("DROP RULE {} ON {};", quoted(name), owner(detail)),
        "function" => {
            let (name, arguments) = name.split_once('(')?;
            format!("DROP ROUTINE {}({arguments};", qualified(name))
        }
        _ => return None,
    })
}

/// The statement that sets the default of a column, if nothing else of the two lines differs.
pub(super) fn set_default(names: &Names, has: &str, wanted: &str) -> Option<String> {
    let parts = |line: &str| match line.split_once(" default ") {
        Some((column, default)) => (column.to_owned(), Some(default.to_owned())),
        None => (line.to_owned(), None),
    };
    let ((column, _), (same, default)) = (parts(has), parts(wanted));
    let name = column.strip_prefix("column ").filter(|_| column == same)?;
    let (table, column) = name.split(": ").next()?.split_once('.')?;
    let change = default.map_or_else(|| "DROP DEFAULT".to_owned(), |value| format!("SET DEFAULT {value}"));
    let table = format!("\"{{schema}}\".\"{{prefix}}{table}\"");
    Some(names.fill(&format!("ALTER TABLE {table} ALTER COLUMN {column} {change};")))
}

/// The functions of the migrations, with the types of their arguments.
pub(super) fn routines(names: &Names) -> Vec<(String, &'static str)> {
    let functions = EXPECTED.lines().filter_map(|line| line.strip_prefix("function ")?.split_once("): "));
    let routines = functions.filter_map(|(function, _)| function.split_once('('));
    routines.map(|(name, arguments)| (format!("{}{name}", names.plain_prefix()), arguments)).collect()
}

/// The functions of the migrations as texts of SQL, `name(types)`, from their lines in `shape.txt`.
fn known_functions(names: &Names) -> String {
    let functions = EXPECTED.lines().filter_map(|line| line.strip_prefix("function ")?.split_once(": "));
    let known = functions.map(|(function, _)| literal(&format!("{}{function}", names.plain_prefix())));
    known.collect::<Vec<_>>().join(", ")
}

/// An SQL text: the statements that drop all that the migrations make and that is there. The migrations replace nothing. The
/// first drops functions as well: those that name the type of a table.
pub(super) fn drop_all(names: &Names) -> String {
    let tables = names.written().into_iter().chain([names.audit(), names.migrations()]);
    let tables = tables.map(|table| format!("pg_catalog.to_regclass({})", literal(&table)));
    let tables = tables.collect::<Vec<_>>().join(", ");
    let domains = DOMAINS.map(|name| literal(&format!("{}{name}", names.plain_prefix()))).join(", ");
    let (schema, known) = (literal(&names.schema()), known_functions(names));
    format!(
        "pg_catalog.concat_ws(' ',
             (SELECT 'DROP TABLE ' || pg_catalog.string_agg(c.oid::pg_catalog.regclass::pg_catalog.text, ', ') || ' CASCADE;'
              FROM pg_catalog.pg_class c WHERE c.oid = ANY (ARRAY[{tables}]::pg_catalog.oid[])),
             (SELECT 'DROP ROUTINE IF EXISTS ' || pg_catalog.string_agg(p.oid::pg_catalog.regprocedure::pg_catalog.text, ', ') || ' CASCADE;'
              FROM pg_catalog.pg_proc p WHERE p.pronamespace = pg_catalog.to_regnamespace({schema})
                AND pg_catalog.concat(p.proname, '(', pg_catalog.oidvectortypes(p.proargtypes), ')') = ANY (ARRAY[{known}])),
             (SELECT 'DROP DOMAIN ' || pg_catalog.string_agg(t.oid::pg_catalog.regtype::pg_catalog.text, ', ') || ' CASCADE;'
              FROM pg_catalog.pg_type t WHERE t.typnamespace = pg_catalog.to_regnamespace({schema})
                AND t.typtype = 'd' AND t.typname::pg_catalog.text = ANY (ARRAY[{domains}])))"
    )
}

/// Rows `(function, CREATE OR REPLACE statement)`: functions whose code is not that of the migrations. Others with their names
/// are findings by themselves.
pub(super) fn bodies_sql(names: &Names) -> String {
    let rows: Vec<String> = all_functions()
        .map(|(name, text)| {
            // The names may hold quotes, so the template is taken apart.
            let body = text.split(BODY).nth(1).unwrap_or_else(|| quoted_body(text));
            let name = format!("{}{name}", names.plain_prefix());
            let create = names.fill(&replace(text));
            format!("({}, {}, {})", literal(&name), literal(&names.fill(body)), literal(&create))
        })
        .collect();
    format!(
        "WITH expected AS (SELECT e.* FROM (VALUES {}) AS e (name, body, fix))
         SELECT pg_catalog.format('the code of the function %s is not that of the migrations', p.oid::pg_catalog.regprocedure),
                (SELECT pg_catalog.string_agg(e.fix, E'\\n') FROM expected e WHERE e.name = p.proname)
         FROM pg_catalog.pg_proc p
         JOIN pg_catalog.pg_namespace n ON n.oid = p.pronamespace AND n.nspname = {}
         WHERE EXISTS (SELECT FROM expected e WHERE e.name = p.proname)
           AND pg_catalog.concat(p.proname, '(', pg_catalog.oidvectortypes(p.proargtypes), ')') = ANY (ARRAY[{}])
           AND NOT EXISTS (SELECT FROM expected e WHERE e.name = p.proname AND e.body = p.prosrc)",
        rows.join(",\n"),
        literal(&names.plain_schema()),
        known_functions(names)
    )
}

/// All functions of this name: they differ in their arguments.
fn functions(name: &str) -> Option<String> {
    let texts: Vec<String> =
        all_functions().filter(|(known, _)| *known == name).map(|(_, text)| replace(text)).collect();
    (!texts.is_empty()).then(|| texts.join("\n"))
}

fn replace(create: &str) -> String {
    create.replacen("CREATE ", "CREATE OR REPLACE ", 1)
}

/// Names without prefix, and the statements that make them.
fn all_functions() -> impl Iterator<Item = (&'static str, &'static str)> {
    ["CREATE FUNCTION \"{schema}\".\"{prefix}", "CREATE PROCEDURE \"{schema}\".\"{prefix}"]
        .into_iter()
        .flat_map(|begin| {
            INITIAL.match_indices(begin).filter_map(move |(at, _)| {
                let text = &INITIAL[at..];
                let name = text[begin.len()..].split('"').next()?;
                // A body without the mark is a single line.
                let (simple, marked) = (text.find(";\n")?, text.find(BODY));
                let end = match marked.filter(|&marked| marked < simple) {
                    Some(marked) => {
                        marked + BODY.len() + text[marked + BODY.len()..].find(BODY)? + BODY.len() + 1
                    }
                    None => simple + 1,
                };
                Some((name, &text[..end]))
            })
        })
}

/// Of `… AS 'SELECT 1';`.
fn quoted_body(create: &str) -> &str {
    create.split('\'').nth(1).unwrap_or_default()
}

/// The statement of the migrations that begins with these words.
fn statement(begin: &str) -> Option<String> {
    let mut texts = INITIAL.match_indices(begin).map(|(at, _)| &INITIAL[at..]);
    let text = texts.find(|text| text[begin.len()..].starts_with(char::is_whitespace))?;
    Some(text[..=text.find(";\n")?].to_owned())
}

/// `CONSTRAINT "name" …`, to the end of its parentheses.
fn constraint(name: &str) -> Option<String> {
    let text = &INITIAL[INITIAL.find(&format!("CONSTRAINT \"{{prefix}}{name}\""))?..];
    let mut depth = 0_u32;
    for (at, char) in text.char_indices() {
        match char {
            '(' => depth += 1,
            ')' if depth <= 1 => return Some(text[..=at].to_owned()),
            ')' => depth -= 1,
            _ => {}
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn each_index_trigger_function_and_check_has_its_statement() {
        let names = Names::new(&Config::default()).unwrap();
        for line in include_str!("shape.txt").lines() {
            let made = make(&names, line);
            if line.starts_with("column") || line.contains("_pkey") || line.contains("_only_row_") {
                continue;
            }
            let made = made.unwrap_or_else(|| panic!("no statement for: {line}"));
            assert!(made.ends_with(';') && !made.contains("{prefix}"), "{made}");
        }
    }
}
