//! Reading an attribute of a session at hand: as text, decoded each time, and decoded once for all readers. Needs no
//! server.

#![allow(clippy::expect_used, reason = "a benchmark that cannot begin says why")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use pg_session::testing::session;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
struct Preferences {
    theme: String,
    locale: String,
    columns: Vec<u32>,
}

const TEXT: &str = r#"{"theme":"dark","locale":"en-GB","columns":[3,1,4,1,5,9,2,6]}"#;

fn decode(criterion: &mut Criterion) {
    let session = session(&[
        ("csrf", "\"0f8fad5bd9cb469fa16570867728950e\""),
        ("name", "\"Grace Hopper\""),
        ("preferences", TEXT),
        ("role", "\"admin\""),
    ]);
    let known: Preferences = session.get("preferences").expect("it decodes").expect("it is there");
    assert_eq!((&*known.theme, &*known.locale, known.columns.len()), ("dark", "en-GB", 8));

    let mut group = criterion.benchmark_group("decode");
    group.bench_function("text", |b| b.iter(|| session.get_raw(black_box("preferences"))));
    group.bench_function("each_time", |b| b.iter(|| session.get::<Preferences>(black_box("preferences"))));
    group
        .bench_function("shared", |b| b.iter(|| session.get_shared::<Preferences>(black_box("preferences"))));
    group.bench_function("absent", |b| b.iter(|| session.get_raw(black_box("cart"))));
    group.finish();
}

criterion_group!(benches, decode);
criterion_main!(benches);
