//! The two builds, in turns.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, ensure};

pub(crate) const ROUNDS: usize = 15;
const OPERATIONS: [&str; 4] = ["hit", "update", "create", "delete"];
/// What an operation may cost more than before.
const RATIO_MAX: f64 = 1.05;

/// Returns whether no operation has become dearer.
pub(crate) fn run(old: &str, new: &str, rounds: usize) -> anyhow::Result<bool> {
    ensure!(rounds > 0, "there must be a round");
    let (mut old, mut new) = (Program::start(old)?, Program::start(new)?);
    println!("{:<8} {:>12} {:>12} {:>7} {:>17}", "", "old", "new", "new/old", "min … max");
    let mut met = true;
    for operation in OPERATIONS {
        let mut figures = Vec::new();
        // The first round is not counted.
        for round in 0..=rounds {
            let pair = if round % 2 == 0 {
                let first = old.take_turn(operation)?;
                (first, new.take_turn(operation)?)
            } else {
                let first = new.take_turn(operation)?;
                (old.take_turn(operation)?, first)
            };
            figures.push(pair);
        }
        let counted = &figures[1..];
        let ratios = sorted(counted.iter().map(|(old, new)| new / old).collect());
        let ratio = ratios[ratios.len() / 2];
        let [before, after] = [
            sorted(counted.iter().map(|pair| pair.0).collect()),
            sorted(counted.iter().map(|pair| pair.1).collect()),
        ]
        .map(|all| all[all.len() / 2]);
        let spread = format!("{:.2} … {:.2}", ratios[0], ratios[ratios.len() - 1]);
        println!("{operation:<8} {before:>9.0} ns {after:>9.0} ns {ratio:>7.3} {spread:>17}");
        met &= ratio <= RATIO_MAX;
    }
    old.stop()?;
    new.stop()?;
    Ok(met)
}

fn sorted(mut figures: Vec<f64>) -> Vec<f64> {
    figures.sort_by(f64::total_cmp);
    figures
}

/// One build.
struct Program {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Program {
    fn start(path: &str) -> anyhow::Result<Self> {
        let mut process = Command::new(path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("could not start {path}"))?;
        let input = process.stdin.take().context("no input")?;
        let output = BufReader::new(process.stdout.take().context("no output")?);
        Ok(Self { process, input, output })
    }

    /// Nanoseconds for one operation.
    fn take_turn(&mut self, operation: &str) -> anyhow::Result<f64> {
        writeln!(self.input, "{operation}")?;
        let mut answer = String::new();
        self.output.read_line(&mut answer)?;
        answer.trim().parse().with_context(|| format!("no figure for {operation}: {answer:?}"))
    }

    /// It looks whether every acknowledged update is stored.
    fn stop(mut self) -> anyhow::Result<()> {
        drop(self.input);
        let status = self.process.wait()?;
        ensure!(status.success(), "a build has failed its last check: {status}");
        Ok(())
    }
}
