//! `pg-session plan`: measures the server, and says which limit a load reaches first.

mod measure;
mod model;

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;

use self::measure::measure;
use self::model::{Limit, Load, Measured, limits};
use crate::connection::Place;
use crate::failure::{Failure, exit};
use crate::output::{Format, print_json, print_rows, remark};

/// Measure the server for some seconds, and say which limit a load reaches first.
///
/// It creates 512 anonymous sessions for the time of the measurement, and up to eight nodes. Run it when the server is quiet,
/// from a machine like those of the nodes. A factor of two is the accuracy to expect.
#[derive(Args, Debug)]
pub(crate) struct Options {
    /// Nodes of the application.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    nodes: u32,
    /// Saves per second, of all nodes together.
    #[arg(long, value_name = "PER SECOND", default_value_t = 100)]
    updates: u32,
    /// Logins and logouts per second, of all nodes together.
    #[arg(long, value_name = "PER SECOND", default_value_t = 10)]
    logins: u32,
    /// Bytes of the attribute that a save writes.
    #[arg(long, value_name = "BYTES", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=8_192))]
    attribute_bytes: u32,
    /// Connections in the pool of each node.
    #[arg(long, value_name = "COUNT", default_value_t = 8)]
    pool: u32,
    /// The server's max_connections.
    #[arg(long, value_name = "COUNT", default_value_t = 100)]
    max_connections: u32,
    /// The server's processor cores.
    #[arg(long, value_name = "COUNT", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=1_024))]
    cores: u32,
    /// Print one JSON object.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    place: Place,
}

/// What `--json` prints; docs/cli.md describes the fields.
#[derive(Serialize)]
struct Plan {
    round_trip_us: f64,
    flush_us: f64,
    row_us: f64,
    listener_us: f64,
    limits: Vec<LimitRow>,
    first_limit: &'static str,
}

#[derive(Serialize)]
struct LimitRow {
    limit: &'static str,
    used: f64,
    load_factor: f64,
    meaning: String,
}

/// Runs the command. An error is printed to stderr.
pub(crate) async fn run(options: Options) -> ExitCode {
    exit("plan", plan(&options).await)
}

async fn plan(options: &Options) -> Result<(), Failure> {
    remark("measuring, for some seconds …");
    let measured = measure(&options.place, options.attribute_bytes).await?;
    let load = Load {
        nodes: f64::from(options.nodes),
        writes: f64::from(options.updates) + f64::from(options.logins),
        pool: f64::from(options.pool),
        max_connections: f64::from(options.max_connections),
        cores: f64::from(options.cores),
    };
    let limits = limits(measured, load);
    let Some(first) = limits.iter().min_by(|a, b| a.load_factor().total_cmp(&b.load_factor())) else {
        return Err(Failure::new("there is no limit"));
    };
    let first_limit = first.name;
    let format = Format::new(options.json);
    if format == Format::Json {
        let limits = limits.iter().map(row).collect();
        let Measured { round_trip, flush, row, listener } = measured;
        return Ok(print_json(&Plan {
            round_trip_us: micros(round_trip),
            flush_us: micros(flush),
            row_us: micros(row),
            listener_us: micros(listener),
            limits,
            first_limit,
        })?);
    }
    let figure = |name: &str, seconds: f64| vec![name.to_owned(), format!("{:.1} µs", micros(seconds))];
    let figures = [
        figure("round trip", measured.round_trip),
        figure("flush of the WAL", measured.flush),
        figure("row of a batch", measured.row),
        figure("listener and notification", measured.listener),
    ];
    print_rows(format, &["MEASURED", "TIME"], &figures)?;
    let rows = limits.iter().map(|limit| {
        vec![
            limit.name.to_owned(),
            format!("{:.0} %", limit.used * 100.0),
            format!("{:.1} ×", limit.load_factor()),
            limit.meaning.clone(),
        ]
    });
    print_rows(format, &["LIMIT", "USED", "REACHED AT", "MEANING"], &rows.collect::<Vec<_>>())?;
    Ok(print_rows(format, &["FIRST LIMIT"], &[vec![first_limit.to_owned()]])?)
}

fn row(limit: &Limit) -> LimitRow {
    LimitRow {
        limit: limit.name,
        used: rounded(limit.used),
        load_factor: rounded(limit.load_factor()),
        meaning: limit.meaning.clone(),
    }
}

fn micros(seconds: f64) -> f64 {
    (seconds * 10_000_000.0).round() / 10.0
}

fn rounded(number: f64) -> f64 {
    (number * 1_000.0).round() / 1_000.0
}
