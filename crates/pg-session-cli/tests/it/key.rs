//! `pg-session key`: makes signing keys.

use pg_session::SigningKey;

use crate::support::Program;

#[test]
fn each_key_is_new_and_can_sign() {
    let keys = [(); 2].map(|()| {
        let end = Program::start(&["key"]).finish();
        assert_eq!((end.code, end.err.as_str()), (Some(0), ""), "{end:?}");
        assert!(end.out.ends_with('\n') && end.out.trim().len() == 44, "{end:?}");
        SigningKey::from_base64(&end.out).expect("a key").id()
    });
    assert_ne!(keys[0], keys[1]);
}
