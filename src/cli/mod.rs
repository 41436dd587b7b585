//! The command line: one file per command.

mod bench;
mod check;
mod compare;
mod data;
mod eval;
mod events;
mod info;
mod inspect;
mod network;
mod options;
mod progress;
mod sample_options;
mod signals;
mod simulate_events;
mod train;
mod train_options;

use crate::error::{Interrupted, exit_code};
use crate::terminal::{self, shell_word};
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
    /// Print only errors, notes and the --json output.
    #[arg(long, short, global = true, display_order = 998)]
    quiet: bool,
    #[command(subcommand)]
    command: Command,
}

const AFTER_HELP: &str = "\
Examples:
  adali train                         the built-in digits, in seconds
  adali train --data fashion-mnist --network conv2 --epochs 3
  adali train --config runs/digits-1/config.toml --seed 1
  adali train --resume runs/digits-1  continue after Ctrl-C or a kill
  adali compare --seeds 5             adali, sigmoid and arctan, five seeds each
  adali events recording.raw          what an event camera has recorded

Exit codes: 0 done, 1 failed, 2 an input cannot be used, 130 interrupted
(progress is saved).";

#[derive(Subcommand)]
enum Command {
    /// Train a network and write a run folder: checkpoint, metrics, plots.
    Train(Box<train::TrainArguments>),
    /// Train one network with several surrogates or configurations and seeds, and compare them: tables, JSON, plots.
    #[command(after_long_help = compare::EXAMPLES, mut_arg("out", compare::out_help), mut_arg("resume", compare::resume_help),
        mut_arg("force", compare::force_help), mut_arg("seed", compare::seed_help))]
    Compare(Box<compare::CompareArguments>),
    /// Check every operation on this machine's device; run it first on a new GPU.
    #[command(after_long_help = check::AFTER_HELP)]
    Check(check::CheckArguments),
    /// Check and time each operation, and compare it with the device's limits.
    #[command(after_long_help = bench::EXAMPLES)]
    Bench(Box<bench::BenchArguments>),
    /// Print the accuracy and loss of a trained network.
    Eval(eval::EvalArguments),
    /// Describe a recording of an event camera: events, time, rate, sensor; draw it.
    #[command(after_long_help = events::EXAMPLES)]
    Events(events::EventsArguments),
    /// Simulate event-camera recordings from images, in N-MNIST's layout.
    #[command(after_long_help = simulate_events::EXAMPLES)]
    SimulateEvents(simulate_events::SimulateArguments),
    /// Write the tensors of one batch (logits, spikes, membranes, gradients) as safetensors.
    Inspect(inspect::InspectArguments),
    /// Show a network layer by layer: parameters, operations, memory; draw it.
    #[command(after_long_help = network::EXAMPLES)]
    Network(network::NetworkArguments),
    /// List the devices and data sets of this machine.
    Info(info::InfoArguments),
}

/// The result of a command.
enum End {
    Done,
    Interrupted,
}

/// Runs the program with its arguments.
pub fn main() -> ExitCode {
    #[cfg(target_os = "linux")]
    crate::host::keep_to_one_arena();
    let arguments = match parse(std::env::args_os()) {
        Ok(arguments) => arguments,
        Err(error) => return refuse(&error),
    };
    QUIET.store(arguments.quiet, Ordering::Relaxed);
    let result = match arguments.command {
        Command::Train(arguments) => train::run(*arguments),
        Command::Compare(arguments) => compare::run(*arguments),
        Command::Bench(arguments) => bench::run(*arguments),
        Command::Check(arguments) => check::run(arguments),
        Command::Eval(arguments) => eval::run(arguments),
        Command::Events(arguments) => events::run(arguments),
        Command::SimulateEvents(arguments) => simulate_events::run(arguments),
        Command::Inspect(arguments) => inspect::run(arguments),
        Command::Network(arguments) => network::run(arguments),
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

/// Parses the arguments; a number below 0 is taken as the value of the option before it.
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

/// The options shown by `-h` for commands with many options; `--help` shows all.
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
        &["surrogates", "plan", "seeds", "cost", "data", "device", "out", "resume", "json", "network", "epochs"],
    ),
    ("bench", &["operations", "shape", "all", "surrogates", "card", "baseline", "json", "svg", "device", "network"]),
    ("eval", &["part", "json", "data", "data_dir", "device"]),
    ("inspect", &["out", "force", "samples", "part", "grads", "data", "data_dir", "device"]),
    ("simulate-events", &["data", "data_dir", "out", "force", "limit", "seed", "json"]),
];

/// Shows an option only in `--help` unless it is `common`.
fn in_short_help(argument: clap::Arg, common: &[&str]) -> clap::Arg {
    let common = argument.is_positional() || common.contains(&argument.get_id().as_str());
    argument.hide_short_help(!common)
}

/// Lets a numeric option take `-1`, `-1e-3` or `-1,2` as its value, so that the refusal names the option.
fn takes_negative(argument: clap::Arg) -> clap::Arg {
    use std::any::TypeId;
    let numbers =
        [TypeId::of::<f32>(), TypeId::of::<f64>(), TypeId::of::<u16>(), TypeId::of::<u32>(), TypeId::of::<u64>()];
    let kind = argument.get_value_parser().type_id();
    let takes = numbers.iter().chain([&TypeId::of::<usize>()]).any(|number| kind == *number);
    if takes && argument.get_action().takes_values() { argument.allow_hyphen_values(true) } else { argument }
}

/// Prints clap's output: help to standard output, errors to standard error.
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

/// Prints a line to standard output; a full disk is an error, not a panic. If the reader has left (`| head -1`) or the
/// terminal was closed, the command still runs to its end, without further output. Control characters
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

/// The command line as given, quoted where a shell needs it.
fn command_line() -> String {
    let words = std::env::args_os().skip(1).map(shell_word);
    std::iter::once("adali".to_string()).chain(words).collect::<Vec<_>>().join(" ")
}

/// The error of a closed terminal.
const EIO: i32 = 5;

/// Whether output of [`say`] is lost.
fn is_unheard() -> bool {
    UNHEARD.load(Ordering::Relaxed)
}

/// Whether `--quiet` was given: no progress and no report, only what `--json` asks for.
static QUIET: AtomicBool = AtomicBool::new(false);

fn is_quiet() -> bool {
    QUIET.load(Ordering::Relaxed)
}

/// Prints one line to standard error, which no program parses. Control characters are escaped.
fn note(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{}", terminal::one_line(&line.to_string()));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::card::NamedCard;
    use crate::surrogate::SurrogateKind;
    use clap::ValueEnum;

    /// Every option with a value states its default; a flag is off by default.
    #[test]
    fn help_names_every_default() {
        let mut cases = 0;
        for command in Arguments::command().get_subcommands() {
            for option in command.get_arguments().filter(|option| option.get_action().takes_values()) {
                let texts = [option.get_help(), option.get_long_help().or(option.get_help())];
                let said = texts.iter().all(|text| text.is_some_and(|text| text.to_string().contains("[default: ")));
                let shown = option.is_required_set() || !option.get_default_values().is_empty();
                assert!(said != shown, "{} {}", command.get_name(), option.get_id());
                cases += 1;
            }
        }
        assert!(cases > 150, "{cases}");
    }

    #[test]
    fn names_are_those_of_the_library() {
        assert_eq!(SurrogateKind::value_variants(), SurrogateKind::all());
        for card in NamedCard::value_variants() {
            assert_eq!(card.to_possible_value().unwrap().get_name(), card.name());
        }
    }

    /// Text that clap would wrap in the middle of a table is unreadable.
    #[test]
    fn help_fits_80_columns() {
        let command = Arguments::command();
        for command in std::iter::once(&command).chain(command.get_subcommands()) {
            let texts = [command.get_after_help(), command.get_after_long_help()];
            for line in texts
                .into_iter()
                .flatten()
                .flat_map(|text| text.to_string().lines().map(String::from).collect::<Vec<_>>())
            {
                assert!(line.chars().count() <= 80, "{}: {line}", command.get_name());
            }
        }
    }
}
