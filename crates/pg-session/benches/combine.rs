//! Combining: from the changes that a lane holds to the parameters of one statement. Needs no server.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use pg_session::testing::Batch;

fn combine(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("combine");
    for sessions in [1, 32, 512] {
        let batch = Batch::of(sessions);
        assert_eq!(batch.assemble(), sessions);
        group.throughput(Throughput::Elements(sessions as u64));
        group.bench_with_input(BenchmarkId::from_parameter(sessions), &batch, |b, batch| {
            b.iter(|| batch.assemble());
        });
    }
    group.finish();
}

criterion_group!(benches, combine);
criterion_main!(benches);
