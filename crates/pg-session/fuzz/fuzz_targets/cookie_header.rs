//! Fuzzes a `cookie` header; what has to hold is in `headers`.

#![no_main]

#[allow(dead_code, reason = "each target uses its part")]
#[path = "../src/headers.rs"]
mod headers;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    headers::cookie_header(input);
});
