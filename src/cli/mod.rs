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
mod signals;
mod simulate_events;
mod train;
mod train_options;

use crate::error::{Interrupted, exit_code};
use crate::terminal;
use anyhow::{Context, Result};
use clap::{CommandFactory, FromArgMatches, Parser, Subcommand};
use std::io::{ErrorKind, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

/// Trains convolutional spiking neural networks with the AdaLi surrogate gradient.
#[derive(Parser)]
#[command(name = "adali", version, about, after_help = AFTER_HELP, max_term_width = 100)]
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
  adali events recording.raw                  what is in a recording of a neuromorphic camera

Exit codes: 0 done, 1 something failed, 2 something given cannot be used, 130 interrupted (state saved).";

#[derive(Subcommand)]
enum Command {
    /// Train a network and leave a run folder: checkpoint, metrics, pictures.
    Train(Box<train::TrainArguments>),
    /// Train the same network with several surrogates or configurations and seeds; tables, JSON and plots of all.
    #[command(after_long_help = compare::EXAMPLES, mut_arg("out", compare::out_help), mut_arg("resume", compare::resume_help),
        mut_arg("force", compare::force_help), mut_arg("seed", compare::seed_help), mut_arg("quiet", compare::quiet_help))]
    Compare(Box<compare::CompareArguments>),
    /// Time operations, checked first, beside the least that the device could need.
    #[command(after_long_help = bench::EXAMPLES)]
    Bench(Box<bench::BenchArguments>),
    /// Accuracy and loss of a trained network.
    Eval(eval::EvalArguments),
    /// What is in a recording of a neuromorphic camera: events, time, rate, sensor; a picture.
    #[command(after_long_help = events::EXAMPLES)]
    Events(events::EventsArguments),
    /// Simulate a neuromorphic camera before moving images: labelled recordings in N-MNIST's layout.
    #[command(after_long_help = simulate_events::EXAMPLES)]
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
    #[cfg(target_os = "linux")]
    crate::host::keep_to_one_arena();
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
        Err(error) if error.is::<Interrupted>() => {
            note("interrupted");
            ExitCode::from(130)
        }
        Err(error) => {
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
        let common = COMMON.iter().find(|(command, _)| *command == name).map(|(_, options)| *options);
        command = command.mut_subcommand(name, |command| {
            let shown = |argument: clap::Arg| match common {
                Some(common) => in_short_help(argument, common),
                None => argument,
            };
            command.mut_args(|argument| shown(takes_negative(argument)))
        });
    }
    Arguments::from_arg_matches_mut(&mut command.try_get_matches_from(words)?)
}

/// What `-h` shows of the commands with many options; `--help` shows all.
const COMMON: &[(&str, &[&str])] = &[
    (
        "train",
        &[
            "data",
            "device",
            "config",
            "out",
            "resume",
            "seed",
            "quiet",
            "json",
            "network",
            "surrogate",
            "epochs",
            "batch",
            "learning_rate",
        ],
    ),
    (
        "compare",
        &[
            "surrogates",
            "plan",
            "seeds",
            "cost",
            "data",
            "device",
            "out",
            "resume",
            "quiet",
            "json",
            "network",
            "epochs",
        ],
    ),
    (
        "bench",
        &["operations", "shape", "all", "surrogates", "card", "baseline", "json", "svg", "quiet", "device", "network"],
    ),
    ("eval", &["part", "json", "data", "data_dir", "device"]),
    ("inspect", &["out", "force", "samples", "part", "grads", "data", "data_dir", "device"]),
    ("simulate-events", &["data", "data_dir", "out", "force", "limit", "seed", "quiet", "json"]),
];

/// Leaves an option that is not `common` to `--help`.
fn in_short_help(argument: clap::Arg, common: &[&str]) -> clap::Arg {
    let common = argument.is_positional() || common.contains(&argument.get_id().as_str());
    argument.hide_short_help(!common)
}

/// Lets an option that takes numbers have `-1`, `-1e-3` or `-1,2` as its value, which it refuses by its own name.
fn takes_negative(argument: clap::Arg) -> clap::Arg {
    use std::any::TypeId;
    let numbers =
        [TypeId::of::<f32>(), TypeId::of::<f64>(), TypeId::of::<u16>(), TypeId::of::<u32>(), TypeId::of::<u64>()];
    let kind = argument.get_value_parser().type_id();
    let takes = numbers.iter().chain([&TypeId::of::<usize>()]).any(|number| kind == *number);
    if takes && argument.get_action().takes_values() { argument.allow_hyphen_values(true) } else { argument }
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

/// Whether nobody reads standard output any more.
static UNHEARD: AtomicBool = AtomicBool::new(false);

/// Prints a line to standard output; a full disk is an error, not a panic. A reader that has left (`| head -1`), or a
/// terminal that was closed, has seen enough: the command goes on to its end and says nothing more. Control characters
/// are escaped.
fn say(text: impl std::fmt::Display) -> Result<()> {
    static TERMINAL: OnceLock<bool> = OnceLock::new();
    if is_unheard() {
        return Ok(());
    }
    let mut out = std::io::stdout().lock();
    let terminal = *TERMINAL.get_or_init(|| out.is_terminal());
    let text = terminal::lines(&text.to_string());
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(e) if e.kind() == ErrorKind::BrokenPipe || (terminal && e.raw_os_error() == Some(EIO)) => {
            UNHEARD.store(true, Ordering::Relaxed);
            Ok(())
        }
        written => written.context("cannot write to standard output"),
    }
}

/// What a closed terminal answers.
const EIO: i32 = 5;

/// Whether what [`say`] is given is lost.
fn is_unheard() -> bool {
    UNHEARD.load(Ordering::Relaxed)
}

/// Prints one line to standard error, where nothing that a program reads is. Control characters are escaped.
fn note(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{}", terminal::one_line(&line.to_string()));
}
