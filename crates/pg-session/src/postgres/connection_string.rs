//! Connection strings, read as libpq reads them: a URL, or `key = value` pairs. The result is a list of settings.
//!
//! <https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING>
//!
//! **No error repeats a value or any other part of the string.** If a password has a character that is not allowed,
//! each part of the string may belong to it. The names of options are repeated.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;

use crate::error::{Error, ErrorKind};

/// Settings by libpq's names. As in libpq, the last of equal names counts, and an empty value counts as none.
pub(crate) type Settings = BTreeMap<String, String>;

const ENCODE_PASSWORD: &str = "if the password contains one of `/ @ : ? # & %`, write that character percent-encoded, for example %2F for /";

/// # Errors
/// [`ErrorKind::Config`] if the text has neither form.
pub(crate) fn parse(text: &str) -> Result<Settings, Error> {
    let mut settings = Settings::new();
    // As in libpq 17. A file or a variable often ends with a line break.
    let text = text.trim();
    match text.strip_prefix("postgres://").or_else(|| text.strip_prefix("postgresql://")) {
        Some(rest) => parse_url(rest, &mut settings)?,
        None => match text.split_once("://") {
            // A value may contain it.
            Some((scheme, _)) if !scheme.contains('=') => return Err(wrong_scheme(scheme)),
            _ => parse_pairs(text, &mut settings)?,
        },
    }
    settings.retain(|_, value| !value.is_empty());
    Ok(settings)
}

/// What the errors of [`fault`] begin with.
pub(super) const SUBJECT: &str = "the connection string";

/// An error about the connection string. The text follows the subject.
pub(crate) fn fault(text: impl std::fmt::Display) -> Error {
    Error::new(ErrorKind::Config, format!("{SUBJECT} {text}"))
}

fn wrong_scheme(scheme: &str) -> Error {
    // As it is copied from a file: quotes, an invisible mark at the beginning, or `jdbc:`.
    if scheme.ends_with("postgres") || scheme.ends_with("postgresql") {
        return fault(
            "has text before the scheme `postgres`, as a quote or an invisible character; remove it",
        );
    }
    fault("has a scheme other than `postgres`; write postgres://user:password@host:5432/database")
}

/// What follows the scheme: `[user[:password]@][host[:port],…][/database][?name=value&…]`.
fn parse_url(rest: &str, settings: &mut Settings) -> Result<(), Error> {
    // As in libpq, an `@` before the first `/` ends the credentials: a password may contain `?`.
    let authority_end = rest.find('/').unwrap_or(rest.len());
    let mut rest = rest;
    if let Some(at) = rest[..authority_end].find('@') {
        let (user, password) = rest[..at].split_once(':').unwrap_or((&rest[..at], ""));
        settings.insert("user".to_owned(), decode(user, "user")?);
        settings.insert("password".to_owned(), decode(password, "password")?);
        rest = &rest[at + 1..];
    }
    let hosts_end = rest.find(['/', '?']).unwrap_or(rest.len());
    parse_hosts(&rest[..hosts_end], settings)?;
    rest = &rest[hosts_end..];
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (rest, None),
    };
    if let Some(database) = path.strip_prefix('/') {
        // Each of them may be part of a name. Together they begin an option, whose value may be a password.
        if database.contains('=') && database.contains(['&', ';']) {
            return Err(fault(
                "has options in the name of the database; write ? before the first one and & between them, or percent-encode \
                 the name",
            ));
        }
        settings.insert("dbname".to_owned(), decode(database, "dbname")?);
    }
    for pair in query.unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
        let Some((name, value)) = pair.split_once('=') else {
            return Err(fault(
                "has an option without `=` after the `?`; write name=value, with & between them",
            ));
        };
        let name = decode(name, "name of an option")?;
        // An `@` here: what is before it may be a password.
        check_name(&name, if value.contains('@') { Unknown::PasswordPart } else { Unknown::Name })?;
        let value = decode(value, &name)?;
        set(settings, name, value);
    }
    Ok(())
}

/// `ssl=true` is JDBC's word for `sslmode=require`; libpq takes it, too.
fn set(settings: &mut Settings, name: String, value: String) {
    match (name.as_str(), value.as_str()) {
        ("ssl", "true") => settings.insert("sslmode".to_owned(), "require".to_owned()),
        _ => settings.insert(name, value),
    };
}

fn parse_hosts(text: &str, settings: &mut Settings) -> Result<(), Error> {
    if text.is_empty() {
        return Ok(());
    }
    let (mut hosts, mut ports) = (Vec::new(), Vec::new());
    for part in text.split(',') {
        let (host, port) = match part.strip_prefix('[') {
            Some(bracketed) => {
                let Some((host, after)) = bracketed.split_once(']') else {
                    return Err(fault("has a `[` without `]`; write an IPv6 address as [address]:5432"));
                };
                match after.strip_prefix(':') {
                    Some(port) => (host, port),
                    None if after.is_empty() => (host, ""),
                    None => return Err(fault("has text after an IPv6 address; write it as [address]:5432")),
                }
            }
            None => part.split_once(':').unwrap_or((part, "")),
        };
        if host.contains('@') {
            return Err(fault(format_args!("has more than one `@` before the host; {ENCODE_PASSWORD}")));
        }
        if !port.is_empty() && port.parse::<u16>().is_err() {
            let hint =
                if port.contains(':') { "write an IPv6 address as [address]:5432" } else { ENCODE_PASSWORD };
            return Err(fault(format_args!("has a port that is no number between 1 and 65535; {hint}")));
        }
        hosts.push(decode(host, "host")?);
        ports.push(port);
    }
    settings.insert("host".to_owned(), hosts.join(","));
    if ports.iter().any(|port| !port.is_empty()) {
        settings.insert("port".to_owned(), ports.join(","));
    }
    Ok(())
}

/// # Errors
/// The driver cannot reach such a host.
pub(super) fn check_host(host: &str) -> Result<(), Error> {
    // An abstract Unix socket, which the driver cannot name.
    if host.starts_with('@') {
        return Err(fault(
            "has a host that begins with `@`; name the directory of a Unix socket, as /run/postgresql",
        ));
    }
    // A name of DNS may have letters of any alphabet. `:` and `%` are of IPv6 addresses.
    let is_wrong = |c: char| c.is_ascii() && !c.is_ascii_alphanumeric() && !"-._:%".contains(c);
    // It may be the rest of the string, and a look-up would send it to name servers.
    if !host.starts_with('/') && host.contains(is_wrong) {
        return Err(fault(
            "has a host with a character that no host has; correct it, and put spaces between settings, or & in a URL",
        ));
    }
    Ok(())
}

fn decode(text: &str, part: &str) -> Result<String, Error> {
    let is_encoded = |at: usize| {
        text.get(at + 1..at + 3)
            .is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()) && digits != "00")
    };
    if text.match_indices('%').any(|(at, _)| !is_encoded(at)) {
        return Err(fault(format_args!(
            "has a `%` in its {part} that two hexadecimal digits (not 00) do not follow; write % as %25"
        )));
    }
    match percent_decode_str(text).decode_utf8() {
        Ok(decoded) => Ok(decoded.into_owned()),
        Err(_) => Err(fault(format_args!("has a {part} that is not UTF-8; percent-encode it as UTF-8"))),
    }
}

/// `name = value` pairs; a value in single quotes may contain spaces, and `\` quotes the next character.
fn parse_pairs(text: &str, settings: &mut Settings) -> Result<(), Error> {
    let mut rest = text.trim_start();
    let mut is_after_password = false;
    while !rest.is_empty() {
        let name_end = rest.find(|c: char| c == '=' || c.is_whitespace()).unwrap_or(rest.len());
        let (name, after) = rest.split_at(name_end);
        let Some(after) = after.trim_start().strip_prefix('=') else {
            return Err(if is_after_password {
                fault(
                    "has a word without `=` behind the password; put a password with spaces in single quotes",
                )
            } else {
                fault(
                    "has a word without `=`; write postgres://user:password@host:5432/database, or host=… user=…",
                )
            });
        };
        check_name(name, if is_after_password { Unknown::PasswordPart } else { Unknown::Name })?;
        let (value, is_quoted, after) = pair_value(after.trim_start(), name)?;
        is_after_password = name == "password" && !is_quoted;
        set(settings, name.to_owned(), value);
        rest = after.trim_start();
    }
    Ok(())
}

/// The value that `text` begins with, whether it is quoted, and what follows it.
fn pair_value<'a>(text: &'a str, name: &str) -> Result<(String, bool, &'a str), Error> {
    let is_quoted = text.starts_with('\'');
    let mut value = String::new();
    let mut chars = text.char_indices().skip(usize::from(is_quoted));
    while let Some((at, char)) = chars.next() {
        match char {
            '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
            '\'' if is_quoted => return Ok((value, true, &text[at + 1..])),
            space if !is_quoted && space.is_whitespace() => return Ok((value, false, &text[at..])),
            other => value.push(other),
        }
    }
    if is_quoted {
        return Err(fault(format_args!(
            "has no closing quote after `{name}`; close it, and write ' inside a value as \\'"
        )));
    }
    Ok((value, false, ""))
}

/// What an unknown name may be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Unknown {
    Name,
    /// The rest of a password that has a character which it may not have there.
    PasswordPart,
}

/// Which settings exist, and what to do about those of other tools.
fn check_name(name: &str, unknown: Unknown) -> Result<(), Error> {
    if SUPPORTED.contains(&name) {
        return Ok(());
    }
    if let Some((_, advice)) = UNSUPPORTED.iter().find(|(unsupported, _)| *unsupported == name) {
        return Err(fault(format_args!("has the option `{name}`, which is not supported; {advice}")));
    }
    if let Some(similar) = SUPPORTED.iter().find(|supported| is_similar(name, supported)) {
        return Err(fault(format_args!("has the unknown option `{name}`; did you mean `{similar}`?")));
    }
    let is_plain = name.len() <= NAME_BYTES_MAX
        && name.starts_with(|c: char| c.is_ascii_alphabetic())
        && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b));
    Err(match unknown {
        Unknown::Name if is_plain => {
            fault(format_args!("has the unknown option `{name}`; remove it or correct its name"))
        }
        Unknown::Name => fault(format_args!("has an unknown option; remove it, or {ENCODE_PASSWORD}")),
        Unknown::PasswordPart => fault(format_args!(
            "has what is no option behind the password; quote a password that contains spaces, and {ENCODE_PASSWORD}"
        )),
    })
}

/// Whether `name` is `supported` with one mistake: a letter too many, too few or wrong, or two exchanged.
fn is_similar(name: &str, supported: &str) -> bool {
    let (name, supported) = (name.to_ascii_lowercase().into_bytes(), supported.as_bytes());
    let same = name.iter().zip(supported).take_while(|(a, b)| a == b).count();
    let (name, supported) = (&name[same..], &supported[same..]);
    let exchanged = match (name, supported) {
        ([a, b, rest @ ..], [c, d, other @ ..]) => a == d && b == c && rest == other,
        _ => false,
    };
    let after = |text: &[u8]| text.get(1..).unwrap_or_default().to_vec();
    same >= SIMILAR_BYTES_MIN
        && (exchanged
            || after(name) == supported
            || name == after(supported)
            || after(name) == after(supported))
}

/// Similar names begin with as many equal letters: a short rest of a password is not repeated.
const SIMILAR_BYTES_MIN: usize = 3;

/// A longer name is not repeated in an error.
const NAME_BYTES_MAX: usize = 40;

const SUPPORTED: &[&str] = &[
    "application_name",
    "channel_binding",
    "client_encoding",
    "connect_timeout",
    "dbname",
    "fallback_application_name",
    "gssdelegation",
    "gssencmode",
    "gsslib",
    "host",
    "hostaddr",
    "keepalives",
    "keepalives_count",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "krbsrvname",
    "load_balance_hosts",
    "max_protocol_version",
    "min_protocol_version",
    "options",
    "passfile",
    "password",
    "port",
    "ssl",
    "ssl_max_protocol_version",
    "ssl_min_protocol_version",
    "sslcert",
    "sslcertmode",
    "sslcompression",
    "sslcrl",
    "sslkey",
    "sslmode",
    "sslnegotiation",
    "sslrootcert",
    "sslsni",
    "target_session_attrs",
    "tcp_user_timeout",
    "user",
];

const POOL_SIZE: &str = "remove it and set `pool_connections_max`";
const TIMEOUT: &str = "remove it and set `query_timeout`";
const STATEMENTS: &str =
    "remove it and set `statement_mode` to \"unnamed\" if the pooler does not track prepared statements";
const SCHEMA: &str = "remove it and set `schema`";
const REMOVE: &str = "remove it";

/// Settings of libpq that we do not have, and those of other tools that share connection strings with us.
const UNSUPPORTED: &[(&str, &str)] = &[
    // libpq
    ("authtype", REMOVE),
    ("oauth_client_id", "use `password`"),
    ("oauth_client_secret", "use `password`"),
    ("oauth_issuer", "use `password`"),
    ("oauth_scope", "use `password`"),
    ("replication", REMOVE),
    ("require_auth", "remove it; `channel_binding=require` proves the server's identity"),
    ("requiressl", "use `sslmode=require`"),
    ("requirepeer", "remove it; protect the directory of the socket"),
    ("scram_client_key", "use `password`"),
    ("scram_server_key", "use `password`"),
    ("service", "write its settings into the connection string"),
    ("servicefile", "write its settings into the connection string"),
    ("sslcrldir", "put the lists into one PEM file and name it in `sslcrl`"),
    ("sslkeylogfile", REMOVE),
    (
        "sslpassword",
        "decrypt the key (`openssl pkey -in key.pem -out plain.pem`) and name that file in `sslkey`",
    ),
    // Prisma
    (
        "pgbouncer",
        "remove it, set `statement_mode` to \"unnamed\" if the pooler does not track prepared statements, and give the \
         listener PostgreSQL's own address with `listen_on_url`",
    ),
    ("schema", SCHEMA),
    ("connection_limit", POOL_SIZE),
    ("pool_timeout", TIMEOUT),
    ("socket_timeout", TIMEOUT),
    ("sslaccept", "remove it and use `sslmode`: verify-full verifies, require encrypts without verifying"),
    ("sslidentity", "name PEM files in `sslcert` and `sslkey`"),
    ("statement_cache_size", STATEMENTS),
    ("directUrl", "remove it and give the listener this address with `listen_on_url`"),
    // JDBC and Npgsql
    ("sslfactory", "use `sslmode` and `sslrootcert`"),
    ("currentSchema", SCHEMA),
    ("prepareThreshold", STATEMENTS),
    ("socketTimeout", TIMEOUT),
    ("loginTimeout", "use `connect_timeout`"),
    ("connectTimeout", "use `connect_timeout`"),
    ("ApplicationName", "use `application_name`"),
    ("targetServerType", "use `target_session_attrs=read-write`"),
    ("Username", "use `user`"),
    ("Database", "use `dbname`"),
    ("Server", "use `host`"),
    // node-postgres, SQLAlchemy, asyncpg, pgx, sqlx, Django, Rails
    ("uselibpqcompat", "remove it; `sslmode` means here what it means to libpq"),
    ("database", "use `dbname`"),
    ("username", "use `user`"),
    ("encoding", "use `client_encoding`, or remove it"),
    ("search_path", SCHEMA),
    ("statement_timeout", TIMEOUT),
    ("query_timeout", TIMEOUT),
    ("command_timeout", TIMEOUT),
    ("timeout", "use `connect_timeout`"),
    ("max", POOL_SIZE),
    ("pool", POOL_SIZE),
    ("pool_size", POOL_SIZE),
    ("max_connections", POOL_SIZE),
    ("pool_max_conns", POOL_SIZE),
    ("pool_min_conns", REMOVE),
    ("prepared_statements", STATEMENTS),
    ("prepared_statement_cache_size", STATEMENTS),
    ("statement-cache-capacity", STATEMENTS),
    ("statement_cache_capacity", STATEMENTS),
    ("default_query_exec_mode", STATEMENTS),
    ("binary_parameters", REMOVE),
    ("conn_max_age", REMOVE),
    ("supa", REMOVE),
    ("workaround", REMOVE),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(text: &str) -> Vec<(String, String)> {
        parse(text).unwrap_or_else(|error| panic!("{text}: {error}")).into_iter().collect()
    }

    fn pairs(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn both_forms_are_read_as_libpq_reads_them() {
        for (text, expected) in [
            ("postgres://h", &[("host", "h")][..]),
            ("postgresql://h:1/d", &[("dbname", "d"), ("host", "h"), ("port", "1")]),
            ("postgres://u@h", &[("host", "h"), ("user", "u")]),
            (
                "postgres://u:p?q#r@h/d",
                &[("dbname", "d"), ("host", "h"), ("password", "p?q#r"), ("user", "u")],
            ),
            ("postgres://u:@h", &[("host", "h"), ("user", "u")]),
            ("postgres://u:a:b@h", &[("host", "h"), ("password", "a:b"), ("user", "u")]),
            ("postgres://u:%40%2f%C3%A4@h", &[("host", "h"), ("password", "@/ä"), ("user", "u")]),
            (
                "postgres://[::1]:7,[fe80::1%25eth0]/d",
                &[("dbname", "d"), ("host", "::1,fe80::1%eth0"), ("port", "7,")],
            ),
            ("postgres://a:1,b,c:3/d", &[("dbname", "d"), ("host", "a,b,c"), ("port", "1,,3")]),
            ("postgres://%2Frun%2Fpg/d", &[("dbname", "d"), ("host", "/run/pg")]),
            ("postgres:///d?host=/run/pg&port=6", &[("dbname", "d"), ("host", "/run/pg"), ("port", "6")]),
            ("postgres://h?application_name=a%20b&sslmode=", &[("application_name", "a b"), ("host", "h")]),
            ("postgres://h/?ssl=true", &[("host", "h"), ("sslmode", "require")]),
            ("postgres://h/d?host=other", &[("dbname", "d"), ("host", "other")]),
            (
                "host=h  user = 'o\\'brien' password='a b\\\\'",
                &[("host", "h"), ("password", "a b\\"), ("user", "o'brien")],
            ),
            ("host=h password=a\\ b dbname=''", &[("host", "h"), ("password", "a b")]),
            ("host=a host=b password=", &[("host", "b")]),
            ("postgres://h/d\n", &[("dbname", "d"), ("host", "h")]),
            (
                " \r\n postgres://u:p%20@h:1 \n",
                &[("host", "h"), ("password", "p "), ("port", "1"), ("user", "u")],
            ),
            ("\thost=h\nport=1\r\n", &[("host", "h"), ("port", "1")]),
            ("host=h password=a://b", &[("host", "h"), ("password", "a://b")]),
            ("postgres://h/a%26b=c", &[("dbname", "a&b=c"), ("host", "h")]),
            ("", &[]),
        ] {
            assert_eq!(settings(text), pairs(expected), "{text}");
        }
    }

    #[test]
    fn an_unknown_option_is_named_unless_it_may_be_a_password() {
        for (text, expected) in [
            ("host=h sslmod=x", "`sslmod`; did you mean `sslmode`?"),
            ("host=h password=p sslmdoe=x", "did you mean `sslmode`?"),
            ("host=h password=p pgbouncer=true", "`pgbouncer`, which is not supported"),
            ("host=h password=p hunter2=x", "behind the password"),
            ("host=h password='p' foo=x", "the unknown option `foo`"),
            ("postgres://u:p@h/d?foo=x", "the unknown option `foo`"),
            ("postgres://u:1/p?foo=x@h/d", "behind the password"),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{text}: {error}");
        }
    }

    #[test]
    fn a_name_is_supported_or_has_advice_but_not_both() {
        for (name, advice) in UNSUPPORTED {
            assert!(!SUPPORTED.contains(name), "{name}");
            assert!(!advice.is_empty(), "{name}");
        }
    }
}
