//! docs/benchmarks.md: one screen with four questions, one chart each, what was missed and what the figures do not show.

use std::fmt::Write;

use super::human;
use super::json::Run;
use crate::book::Metric;
use crate::floors;
use crate::names::{axum, everywhere, notify, pin, request, update_rows};

const CAVEATS: &str = include_str!("summary.md");

// Writing to a string cannot fail.

pub(crate) fn page(run: &Run) -> String {
    let mut page = String::from("# Benchmarks\n\n");
    setting(&mut page, run);
    jwt(&mut page, run);
    requests(&mut page, run);
    scale(&mut page, run);
    writes(&mut page, run);
    targets(&mut page, run);
    page.push_str(CAVEATS);
    page
}

fn setting(page: &mut String, run: &Run) {
    let machine = &run.machine;
    let redis =
        machine.versions.get("Redis").map_or("no Redis".to_owned(), |version| format!("Redis {version}"));
    let _ = writeln!(
        page,
        "The [details](history/benchmarks.md) have every figure, its spread and the method. `./dev bench --redis`\n\
         repeats the run and writes both pages.\n\n\
         **Setup.** {}, {} cores, {} GiB. PostgreSQL {}, {redis}, commit {}.\n\
         Servers and clients share the cores. One flush takes {} µs. All stores are durable, unless the\n\
         name says otherwise. Figures are medians of {} rounds{}.\n",
        machine.processor,
        machine.cores,
        machine.memory_gib,
        run.postgres_major(),
        machine.commit,
        human(machine.flush_micros),
        run.rounds,
        if run.quick { " of a quick run" } else { "" },
    );
}

fn jwt(page: &mut String, run: &Run) {
    let nanos = |contender: &str| micros(run, request::NAME, request::UNIFORM, contender);
    let _ = writeln!(
        page,
        "## Is it as fast as a JWT?\n\n\
         ![From the token to the user](charts/requests.svg)\n\n\
         From the text of the token to the user and one attribute: {} µs with 1,000 users, {} µs with\n\
         100,000. A JWT with HS256 takes {} and {} µs. Checking a pin of an open socket takes {} µs.\n",
        nanos("ours, 1k users, 1 thread"),
        nanos("ours, 100k users, 1 thread"),
        nanos("JWT HS256, 1k users, 1 thread"),
        nanos("JWT HS256, 100k users, 1 thread"),
        micros(run, pin::NAME, pin::CASE, pin::CHECK[1]),
    );
}

fn requests(page: &mut String, run: &Run) {
    let rate = |case: &str, contender: &str| figure(run, axum::NAME, case, contender, Metric::PerSecond);
    let share = |case: &str, contender: &str| quotient(rate(case, contender), rate(case, axum::NONE));
    let _ = writeln!(
        page,
        "## What happens to my requests per second?\n\n\
         ![An axum application](charts/axum.svg)\n\n\
         An application that reads its session answers {} times the requests of one without sessions.\n\
         The floor is a signed cookie: a JWT reaches {}. With a durable write in twenty requests it is {}.\n\
         With tower-sessions and a durable Redis it is {}.\n",
        share(axum::READS, axum::OURS),
        share(axum::READS, axum::JWT),
        share(axum::LIMIT, axum::OURS),
        share(axum::LIMIT, axum::REDIS_FSYNC),
    );
}

fn scale(page: &mut String, run: &Run) {
    let updates = |case: &str| figure(run, notify::NAME, case, notify::AFTER, Metric::PerSecond);
    let rows =
        |contender: &str| figure(run, update_rows::NAME, update_rows::CASE, contender, Metric::PerSecond);
    let largest = if rows(update_rows::HUGE).is_some() { update_rows::HUGE } else { update_rows::LARGE };
    let logout = figure(run, everywhere::NAME, everywhere::CASE, everywhere::NODES[3], Metric::Millis);
    let _ = writeln!(
        page,
        "## How does it scale?\n\n\
         ![Updates of 1 to 16 nodes](charts/growth-nodes.svg)\n\n\
         Sixteen nodes on one server write {} times what one node writes. On a disk that is 3 ms slower\n\
         it is {} times. With {} a node writes {} of what it writes with 10 000 rows.\n\
         A logout that waits until none of 64 nodes serves the session takes {} ms. More curves:\n\
         [proofs](charts/growth-listeners.svg), [logouts](charts/growth-everywhere.svg),\n\
         [rows](charts/growth-rows.svg), [open load](charts/growth-load.svg).\n",
        quotient(updates(notify::NORMAL[2]), updates(notify::NORMAL[0])),
        quotient(updates(notify::SLOW[2]), updates(notify::SLOW[0])),
        largest,
        quotient(rows(largest), rows(update_rows::SMALL)),
        shown(logout),
    );
}

fn writes(page: &mut String, run: &Run) {
    let ratio = |name: &str, case: &str| {
        let outcome = run.outcomes.iter().find(|outcome| outcome.name == name && outcome.case == case);
        shown(outcome.map(|outcome| outcome.value))
    };
    let (promises, bare) = ("update_vs_redis_same_promises", "update_vs_redis_fsync");
    let _ = writeln!(
        page,
        "## What does a durable write cost beside Redis?\n\n\
         ![Durable updates](charts/updates-64.svg)\n\n\
         A Redis that makes the same promises checks existence, compares the version and publishes. Ours\n\
         writes {} times as much with 64 in flight, and {} times with 256. Against a bare HSET, the least\n\
         that a store can do, it is {} and {}.\n",
        ratio(promises, "64 in flight"),
        ratio(promises, "256 in flight"),
        ratio(bare, "64 in flight"),
        ratio(bare, "256 in flight"),
    );
}

fn targets(page: &mut String, run: &Run) {
    let outcomes = &run.outcomes;
    let met = outcomes.iter().filter(|outcome| outcome.met).count();
    let _ = writeln!(page, "## Targets\n\n{met} of {} targets are met. These are missed:\n", outcomes.len());
    page.push_str("| target | result | wanted | floor |\n|---|--:|--:|---|\n");
    for outcome in outcomes.iter().filter(|outcome| !outcome.met) {
        let floor = floors::of(outcome, &run.book);
        let _ = writeln!(
            page,
            "| `{}`, {} | {} | {} | {} |",
            outcome.name,
            outcome.case,
            human(outcome.value),
            outcome.target,
            floor.map_or(String::new(), |(what, value)| format!("{}: {what}", human(value))),
        );
    }
    page.push('\n');
}

fn figure(run: &Run, workload: &str, case: &str, contender: &str, metric: Metric) -> Option<f64> {
    run.book.find(workload, case, contender, metric).map(|series| series.spread.median)
}

fn micros(run: &Run, workload: &str, case: &str, contender: &str) -> String {
    shown(figure(run, workload, case, contender, Metric::NanosEach).map(|nanos| nanos / 1e3))
}

fn quotient(above: Option<f64>, below: Option<f64>) -> String {
    shown(above.zip(below).map(|(above, below)| above / below))
}

/// A run may lack a contender.
fn shown(figure: Option<f64>) -> String {
    figure.map_or("(not measured)".to_owned(), human)
}
