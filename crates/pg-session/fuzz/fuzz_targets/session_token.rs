//! Fuzzes a session token from a cookie; what has to hold is in the library of this package.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    pg_session_fuzz::session_token(input);
});
