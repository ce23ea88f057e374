//! Verifying the token of a cookie: what each request costs before its session is read. Needs no server.

#![allow(clippy::expect_used, reason = "a benchmark that cannot begin says why")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use pg_session::testing::session;
use pg_session::{KeyRing, Signer, SigningKey};

fn verify(criterion: &mut Criterion) {
    let key = || SigningKey::generate().expect("random numbers");
    let (old, new) = (key(), key());
    let signed_before = Signer::new(KeyRing::new(&old));
    let ring = KeyRing::new(&old).with_signing(&new).expect("two keys fit");
    let signer = Signer::new(ring);
    let session = session(&[]);
    let newest = signer.issue(session.id(), session.version());
    let older = signed_before.issue(session.id(), session.version());
    let forged = Signer::new(KeyRing::new(&key())).issue(session.id(), session.version());

    let mut group = criterion.benchmark_group("verify");
    group.bench_function("newest_key", |b| b.iter(|| signer.verify(black_box(newest.expose())).is_ok()));
    group.bench_function("older_key", |b| b.iter(|| signer.verify(black_box(older.expose())).is_ok()));
    group.bench_function("unknown_key", |b| b.iter(|| signer.verify(black_box(forged.expose())).is_err()));
    group.bench_function("issue", |b| b.iter(|| signer.issue(session.id(), session.version())));
    group.finish();
}

criterion_group!(benches, verify);
criterion_main!(benches);
