//! What the program refuses to start with.

use pg_session::SigningKey;

use crate::support::{End, Program};

fn end(args: &[&str], variables: &[(&str, &str)]) -> End {
    Program::start_with(&[&["serve"], args].concat(), variables).finish()
}

#[test]
fn a_public_address_without_a_secret_is_refused() {
    let key = SigningKey::generate().expect("random numbers").expose_base64();
    let url = ["--database-url", "postgres://app@127.0.0.1:1/app"];
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:80"] {
        let end = end(&[&url[..], &["--listen", address]].concat(), &[("SESSION_KEY", &key)]);
        assert_eq!((end.code, end.out.as_str()), (Some(2), ""), "{end:?}");
        assert!(end.err.contains("--proxy-secret-file") && end.err.contains(address), "{end:?}");
    }
    let short = [("SESSION_KEY", key.as_str()), ("PG_SESSION_PROXY_SECRET", "short")];
    let end = end(&[&url[..], &["--listen", "0.0.0.0:0"]].concat(), &short);
    assert_eq!(end.code, Some(2), "{end:?}");
    assert!(end.err.contains("PG_SESSION_PROXY_SECRET: a secret has 32"), "{end:?}");
}

#[test]
fn a_missing_key_is_named_and_no_secret_shown() {
    let key = SigningKey::generate().expect("random numbers").expose_base64();
    let no_key = end(&["--database-url", "postgres://app@127.0.0.1:1/app"], &[]);
    assert_eq!(no_key.code, Some(2), "{no_key:?}");
    assert!(no_key.err.contains("SESSION_KEY is not set"), "{no_key:?}");
    for wrong in ["", "short", "c2hvcnQ=", &format!("{},x", &*key)] {
        let end = end(&["--database-url", "postgres://app@127.0.0.1:1/app"], &[("SESSION_KEY", wrong)]);
        assert_eq!((end.code, end.out.as_str()), (Some(2), ""), "{end:?}");
        assert!(end.err.contains("SESSION_KEY: ") && !end.err.contains(&*key), "{end:?}");
    }
    let unreachable = end(
        &["--listen", "127.0.0.1:0", "--database-url", "postgres://app:hunter2@127.0.0.1:1/app"],
        &[("SESSION_KEY", &key)],
    );
    assert_eq!(unreachable.code, Some(1), "{unreachable:?}");
    assert!(!unreachable.err.contains("hunter2") && !unreachable.err.contains(&key), "{unreachable:?}");
}
