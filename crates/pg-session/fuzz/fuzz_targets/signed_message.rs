//! Fuzzes a signed message; what has to hold is in the library of this package.

#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    pg_session_fuzz::signed_message(input);
});
