//! The library against a real PostgreSQL. One binary, one private server, one schema for each test.

mod support;

mod smoke;
