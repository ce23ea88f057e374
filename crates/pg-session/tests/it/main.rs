//! The library against a real PostgreSQL. One binary, one private server, one schema for each test.

#![allow(unreachable_pub, reason = "a test binary has no API")]

mod support;

mod smoke;
