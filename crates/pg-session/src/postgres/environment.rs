//! `DATABASE_URL` and libpq's variables, for programs that ask for them.
//!
//! <https://www.postgresql.org/docs/current/libpq-envars.html>

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};

use super::connection_string::{self, Settings};
use crate::error::{Error, ErrorKind};

/// libpq's variables and the settings that they are defaults of.
const VARIABLES: &[(&str, &str)] = &[
    ("PGAPPNAME", "application_name"),
    ("PGCHANNELBINDING", "channel_binding"),
    ("PGCLIENTENCODING", "client_encoding"),
    ("PGCONNECT_TIMEOUT", "connect_timeout"),
    ("PGDATABASE", "dbname"),
    ("PGGSSDELEGATION", "gssdelegation"),
    ("PGGSSENCMODE", "gssencmode"),
    ("PGGSSLIB", "gsslib"),
    ("PGHOST", "host"),
    ("PGHOSTADDR", "hostaddr"),
    ("PGKRBSRVNAME", "krbsrvname"),
    ("PGLOADBALANCEHOSTS", "load_balance_hosts"),
    ("PGMAXPROTOCOLVERSION", "max_protocol_version"),
    ("PGMINPROTOCOLVERSION", "min_protocol_version"),
    ("PGOPTIONS", "options"),
    ("PGPASSFILE", "passfile"),
    ("PGPASSWORD", "password"),
    ("PGPORT", "port"),
    ("PGSSLCERT", "sslcert"),
    ("PGSSLCERTMODE", "sslcertmode"),
    ("PGSSLCOMPRESSION", "sslcompression"),
    ("PGSSLCRL", "sslcrl"),
    ("PGSSLKEY", "sslkey"),
    ("PGSSLMAXPROTOCOLVERSION", "ssl_max_protocol_version"),
    ("PGSSLMINPROTOCOLVERSION", "ssl_min_protocol_version"),
    ("PGSSLMODE", "sslmode"),
    ("PGSSLNEGOTIATION", "sslnegotiation"),
    ("PGSSLROOTCERT", "sslrootcert"),
    ("PGSSLSNI", "sslsni"),
    ("PGTARGETSESSIONATTRS", "target_session_attrs"),
    ("PGUSER", "user"),
];

/// Variables of libpq that would change where or how we connect, and are not supported.
const UNSUPPORTED: &[&str] = &["PGREQUIREAUTH", "PGREQUIREPEER", "PGSERVICE", "PGSERVICEFILE", "PGSSLCRLDIR"];

/// # Errors
/// A variable is not UTF-8 or not supported, or `DATABASE_URL` is no connection string.
pub(super) fn settings(variable: impl Fn(&str) -> Option<OsString>) -> Result<Settings, Error> {
    let variable = |name: &str| match variable(name).map(OsString::into_string) {
        None => Ok(None),
        Some(Ok(value)) => Ok(Some(value).filter(|value| !value.is_empty())),
        Some(Err(_)) => {
            Err(Error::new(ErrorKind::Config, format!("the variable {name} is not UTF-8; write it as UTF-8")))
        }
    };
    let mut settings = match variable("DATABASE_URL")? {
        Some(text) => connection_string::parse(&text).map_err(|error| {
            Error::new(ErrorKind::Config, format!("the variable DATABASE_URL is wrong: {error}"))
        })?,
        None => Settings::new(),
    };
    let mut missing = Vec::new();
    for (name, setting) in VARIABLES {
        match variable(name)? {
            // A host of the string is not reached by an address of the environment.
            Some(_) if *setting == "hostaddr" && settings.contains_key("host") => {}
            Some(value) if !settings.contains_key(*setting) => missing.push(((*setting).to_owned(), value)),
            _ => {}
        }
    }
    settings.extend(missing);
    for name in UNSUPPORTED {
        if variable(name)?.is_some() {
            return Err(Error::new(
                ErrorKind::Config,
                format!(
                    "the variable {name} is not supported; remove it and write its settings into DATABASE_URL"
                ),
            ));
        }
    }
    // libpq's older word for it.
    if variable("PGREQUIRESSL")?.is_some_and(|value| value.starts_with('1')) {
        settings.entry("sslmode".to_owned()).or_insert_with(|| "require".to_owned());
    }
    if !settings.contains_key("host") && !settings.contains_key("hostaddr") {
        return Err(Error::new(
            ErrorKind::Config,
            "no variable names a host; set DATABASE_URL to postgres://user:password@host:5432/database, or set PGHOST",
        ));
    }
    if !settings.contains_key("passfile")
        && !settings.contains_key("password")
        && let Some(home) = variable("HOME")?
    {
        let path = PathBuf::from(home).join(".pgpass");
        // As for libpq, one that this process may not read is as good as none.
        if let (true, Some(path)) = (is_readable(&path), path.to_str()) {
            settings.insert("passfile".to_owned(), path.to_owned());
        }
    }
    Ok(settings)
}

/// An error about a setting of the environment names the variable: without its setting, there is another error or none.
/// `read` returns the error of settings.
pub(super) fn explain(
    variable: impl Fn(&str) -> Option<OsString>,
    settings: &Settings,
    error: Error,
    read: impl Fn(&Settings) -> Option<Error>,
) -> Error {
    let message = error.to_string();
    let is_blamed = |name: &str, setting: &str| {
        let value = variable(name).and_then(|value| value.into_string().ok());
        if value.is_none() || value.as_ref() != settings.get(setting) {
            return false;
        }
        let mut others = settings.clone();
        match setting {
            // Without a host there is always an error.
            "host" => others.insert(setting.to_owned(), "localhost".to_owned()),
            "hostaddr" => others.insert(setting.to_owned(), "127.0.0.1".to_owned()),
            _ => others.remove(setting),
        };
        read(&others).is_none_or(|other| other.to_string() != message)
    };
    let Some((name, _)) = VARIABLES.iter().find(|(name, setting)| is_blamed(name, setting)) else {
        return error;
    };
    let about = message.strip_prefix(connection_string::SUBJECT).unwrap_or(&message);
    let explained = Error::new(error.kind(), format!("the variable {name} {}", about.trim_start()));
    match std::error::Error::source(&error) {
        Some(cause) => explained.with_source(cause.to_string()),
        None => explained,
    }
}

fn is_readable(path: &Path) -> bool {
    path.is_file() && File::open(path).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::postgres::connect_options::ConnectOptions;

    fn find(variables: &[(&str, &str)], name: &str) -> Option<OsString> {
        variables.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).into())
    }

    fn read(variables: &[(&str, &str)]) -> Result<Settings, Error> {
        settings(|name| find(variables, name))
    }

    #[test]
    fn variables_fill_what_the_url_does_not_name() {
        let read = read(&[
            ("DATABASE_URL", "postgres://me@db/app"),
            ("PGUSER", "other"),
            ("PGHOSTADDR", "192.0.2.1"),
            ("PGPASSWORD", "secret"),
            ("PGSSLMODE", "verify-full"),
            ("PGAPPNAME", ""),
        ])
        .unwrap();
        let read: Vec<(&str, &str)> =
            read.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let expected = [
            ("dbname", "app"),
            ("host", "db"),
            ("password", "secret"),
            ("sslmode", "verify-full"),
            ("user", "me"),
        ];
        assert_eq!(read, expected);
    }

    #[test]
    fn the_older_variable_requires_tls_too() {
        let mode = |url: &str, value: &str| {
            let settings = read(&[("DATABASE_URL", url), ("PGREQUIRESSL", value)]).unwrap();
            settings.get("sslmode").cloned()
        };
        assert_eq!(mode("postgres://db", "1").as_deref(), Some("require"));
        assert_eq!(mode("postgres://db", "0"), None);
        assert_eq!(mode("postgres://db?sslmode=verify-full", "1").as_deref(), Some("verify-full"));
    }

    #[test]
    fn a_wrong_value_is_named_with_its_variable() {
        for (variables, expected) in [
            (
                &[("PGHOST", "db"), ("PGPORT", "abc")][..],
                "the variable PGPORT has a `port` that is no number",
            ),
            (
                &[("PGHOST", "db"), ("PGSSLMODE", "Require")],
                "the variable PGSSLMODE has an unknown value of `sslmode`",
            ),
            (&[("PGHOST", "db"), ("PGPORT", "1,2")], "the variable PGPORT has 2 ports for 1 hosts"),
            (&[("PGHOST", "a b"), ("PGPORT", "1")], "the variable PGHOST has a host"),
            (
                &[("DATABASE_URL", "postgres://db"), ("PGTARGETSESSIONATTRS", "standby")],
                "the variable PGTARGETSESSIONATTRS asks for a standby",
            ),
            (
                &[("PGHOST", "db"), ("PGPASSFILE", "/does/not/exist")],
                "the variable PGPASSFILE has a `passfile` that cannot be read",
            ),
            (
                &[("DATABASE_URL", "postgres://db?sslmode=Require"), ("PGPORT", "1")],
                "the connection string has an unknown value of `sslmode`",
            ),
        ] {
            let of = |settings: &Settings| ConnectOptions::from_settings(settings).err();
            let settings = read(variables).unwrap();
            let error = of(&settings).expect(expected);
            let explained = explain(|name| find(variables, name), &settings, error, of);
            assert_eq!(explained.kind(), ErrorKind::Config);
            assert!(explained.to_string().starts_with(expected), "{explained}");
        }
    }

    #[test]
    fn what_is_missing_or_not_supported_is_named() {
        for (variables, expected) in [
            (&[][..], "DATABASE_URL"),
            (&[("PGHOST", "db"), ("PGSERVICE", "prod")], "PGSERVICE"),
            (
                &[("DATABASE_URL", "mysql://u:hunter2@h")],
                "DATABASE_URL is wrong: the connection string has a scheme",
            ),
        ] {
            let error = read(variables).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains(expected), "{error}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }
}
