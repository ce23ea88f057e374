//! `pg-session man` and `pg-session completions`: the manual page and what a shell completes, from the options themselves.

use std::process::ExitCode;

use clap::{Args, Command};
use clap_complete::Shell;
use clap_mangen::Man as Page;

use crate::failure::{Failure, exit};
use crate::output::print_text;

/// Print what a shell needs to complete commands and options.
#[derive(Args, Debug)]
pub(crate) struct Completions {
    /// The shell.
    shell: Shell,
}

/// Print the manual page, in roff: pg-session man | man -l -
#[derive(Args, Debug)]
pub(crate) struct Man {
    /// The page of this command. Without it: of the program.
    command: Option<String>,
}

/// Runs `completions`.
pub(crate) fn completions(options: &Completions, mut program: Command) -> ExitCode {
    let mut text = Vec::new();
    clap_complete::generate(options.shell, &mut program, "pg-session", &mut text);
    exit("completions", print(&text))
}

/// Runs `man`.
pub(crate) fn man(options: &Man, program: Command) -> ExitCode {
    exit("man", page(options, program).and_then(|text| print(&text)))
}

fn page(options: &Man, mut program: Command) -> Result<Vec<u8>, Failure> {
    program.build();
    let page = match &options.command {
        None => Page::new(program),
        Some(name) => {
            let command = program.find_subcommand(name).filter(|command| !command.is_hide_set()).cloned();
            let command = command.ok_or_else(|| {
                Failure::new(format!("there is no command {name:?}; see pg-session --help"))
            })?;
            Page::new(command).title(format!("pg-session-{name}"))
        }
    };
    let mut text = Vec::new();
    page.render(&mut text)?;
    Ok(text)
}

fn print(text: &[u8]) -> Result<(), Failure> {
    Ok(print_text(text)?)
}
