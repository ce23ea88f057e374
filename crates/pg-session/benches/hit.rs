//! A hit: `SessionManager::get` of a session in memory, with all that decides whether it may be served; and `Pin::check`, next to
//! the clock that it reads. A node needs a server, so this starts a private PostgreSQL; nothing that is measured talks to it.

#![allow(clippy::expect_used, reason = "a benchmark that cannot begin says why")]
#![allow(clippy::disallowed_methods, reason = "a benchmark reads the clock; nothing here expires by it")]

use std::hint::black_box;
use std::time::Instant;

use criterion::{Criterion, criterion_group, criterion_main};
use pg_sandbox::Sandbox;
use pg_session::{Config, Migrations, SessionManager, UserId};
use tokio::runtime::Runtime;

const SESSIONS: i64 = 1_000;

fn hit(criterion: &mut Criterion) {
    let sandbox = Sandbox::start().expect("a private PostgreSQL");
    let runtime = Runtime::new().expect("a runtime");
    let (manager, ids) = runtime.block_on(async {
        let mut config = Config::default();
        config.migrations = Migrations::Apply;
        let manager = SessionManager::connect(&sandbox.url(), config).await.expect("a node");
        let mut ids = Vec::new();
        for user in 0..SESSIONS {
            let create = manager.create(UserId::from(user)).set("name", "Grace Hopper");
            ids.push(create.await.expect("a session").id());
        }
        (manager, ids)
    });
    let mut next = ids.iter().cycle().copied();
    let mut id = || next.next().expect("a cycle has no end");

    let mut group = criterion.benchmark_group("hit");
    let found = runtime.block_on(async { manager.get(id()).await }).expect("no error").expect("a session");
    assert!(found.is_from_cache(), "hits are measured");
    group.bench_function("get", |b| {
        // Many in one future: what a task costs to begin is not a hit's.
        b.iter_custom(|iterations| {
            runtime.block_on(async {
                let begun = Instant::now();
                for _ in 0..iterations {
                    black_box(manager.get(id()).await.is_ok());
                }
                begun.elapsed()
            })
        });
    });
    // What a socket does before each message.
    let pin = runtime.block_on(async { manager.pin(&found).await }).expect("the session is in memory");
    assert_eq!(pin.check(), Ok(()));
    group.bench_function("pin_check", |b| b.iter(|| black_box(&pin).check()));
    group.bench_function("clock", |b| b.iter(|| black_box(Instant::now())));
    group.finish();
}

criterion_group!(benches, hit);
criterion_main!(benches);
