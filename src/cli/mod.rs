//! The command line: one file a command.

mod bench;
mod compare;
mod data;
mod defaults;
mod eval;
mod events;
mod info;
mod inspect;
mod options;
mod progress;
mod simulate_events;
mod train;
mod train_options;

use crate::error::exit_code;
use crate::terminal;
use anyhow::{Context, Result};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use std::io::Write;
use std::process::ExitCode;

/// Trains convolutional spiking neural networks with the AdaLi surrogate gradient.
#[derive(Parser)]
#[command(name = "adali", version, about, after_help = AFTER_HELP, max_term_width = 100, allow_negative_numbers = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Examples:
  adali train                                 the built-in digits, to the end, in seconds
  adali train --data fashion-mnist --network conv2 --epochs 3
  adali train --config runs/digits-1/config.toml --seed 1
  adali train --resume runs/digits-1          after Ctrl-C or a kill: same bytes as without
  adali compare --seeds 5                     adali, sigmoid and arctan beside each other
  adali bench                                 times of every operation, and their floors
  adali eval runs/digits-1                    accuracy of what it left
  adali inspect runs/digits-1 --grads         tensors of a batch, for Python
  adali events recording.raw                  what is in a recording of a neuromorphic camera

Exit codes: 0 done, 1 something failed, 2 something given cannot be used, 130 interrupted (state saved).";

#[derive(Subcommand)]
enum Command {
    /// Train a network and leave a run folder: checkpoint, metrics, pictures.
    Train(Box<train::TrainArguments>),
    /// Train the same network with several surrogates or configurations and seeds; tables, JSON and plots of all.
    #[command(after_help = compare::EXAMPLES, mut_arg("out", compare::out_help), mut_arg("resume", compare::resume_help),
        mut_arg("force", compare::force_help), mut_arg("seed", compare::seed_help), mut_arg("quiet", compare::quiet_help))]
    Compare(Box<compare::CompareArguments>),
    /// Time operations, checked first, beside the least that the device could need.
    #[command(after_help = bench::EXAMPLES)]
    Bench(Box<bench::BenchArguments>),
    /// Accuracy and loss of a trained network.
    Eval(eval::EvalArguments),
    /// What is in a recording of a neuromorphic camera: events, time, rate, sensor; a picture.
    #[command(after_help = events::EXAMPLES)]
    Events(events::EventsArguments),
    /// Simulate a neuromorphic camera before moving images: labelled recordings in N-MNIST's layout.
    #[command(after_help = simulate_events::EXAMPLES)]
    SimulateEvents(simulate_events::SimulateArguments),
    /// Write the tensors of a batch (logits, spikes, membranes, gradients) as safetensors.
    Inspect(inspect::InspectArguments),
    /// Devices and data sets that this machine has.
    Info(info::InfoArguments),
}

/// What a command came to.
enum End {
    Done,
    Interrupted,
}

/// Runs the program on its arguments.
pub fn main() -> ExitCode {
    let arguments = match parse(std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(error) => return refuse(&error),
    };
    let result = match arguments.command {
        Command::Train(arguments) => train::run(*arguments),
        Command::Compare(arguments) => compare::run(*arguments),
        Command::Bench(arguments) => bench::run(*arguments),
        Command::Eval(arguments) => eval::run(arguments),
        Command::Events(arguments) => events::run(arguments),
        Command::SimulateEvents(arguments) => simulate_events::run(arguments),
        Command::Inspect(arguments) => inspect::run(arguments),
        Command::Info(arguments) => info::run(arguments),
    };
    match result {
        Ok(End::Done) => ExitCode::SUCCESS,
        Ok(End::Interrupted) => ExitCode::from(130),
        Err(error) => {
            // A closed pipe (`adali info | head -1`) is how its reader says that it has seen enough.
            let closed = error.chain().any(|cause| {
                cause.downcast_ref::<std::io::Error>().is_some_and(|e| e.kind() == std::io::ErrorKind::BrokenPipe)
            });
            if closed {
                return ExitCode::SUCCESS;
            }
            note(format_args!("error: {error:#}"));
            ExitCode::from(exit_code(&error))
        }
    }
}

/// The arguments, where a number below 0 is the value of the option before it.
fn parse(words: impl IntoIterator<Item = std::ffi::OsString>) -> Result<Arguments, clap::Error> {
    let mut command = Arguments::command();
    let names: Vec<String> = command.get_subcommands().map(|command| command.get_name().to_string()).collect();
    for name in names {
        command = command.mut_subcommand(name, |command| command.mut_args(takes_negative));
    }
    Arguments::from_arg_matches_mut(&mut command.try_get_matches_from(words)?)
}

/// Lets an option have `-1` as its value, which it refuses by its own name.
fn takes_negative(argument: clap::Arg) -> clap::Arg {
    let takes = argument.get_action().takes_values() && !argument.is_positional();
    if takes { argument.allow_negative_numbers(true) } else { argument }
}

/// Prints what clap has to say: help to standard output, errors to standard error.
fn refuse(error: &clap::Error) -> ExitCode {
    if !error.use_stderr() {
        let _ = error.print();
        return ExitCode::SUCCESS;
    }
    let _ = write!(std::io::stderr(), "{}", terminal::lines(&error.render().to_string()));
    ExitCode::from(2)
}

/// Prints lines to standard output; a full disk or closed pipe is an error, not a panic. Control characters are escaped.
fn say(text: impl std::fmt::Display) -> Result<()> {
    let mut out = std::io::stdout().lock();
    let text = terminal::lines(&text.to_string());
    writeln!(out, "{text}").and_then(|()| out.flush()).context("cannot write to standard output")
}

/// Prints one line to standard error, where nothing that a program reads is. Control characters are escaped.
fn note(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{}", terminal::one_line(&line.to_string()));
}
