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
use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use std::io::{ErrorKind, IsTerminal, Write};
use std::process::ExitCode;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

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
    let arguments = Arguments::parse();
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
            tell("interrupted");
            ExitCode::from(130)
        }
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "error: {error:#}");
            ExitCode::from(exit_code(&error))
        }
    }
}

/// Whether nobody reads standard output any more.
static UNHEARD: AtomicBool = AtomicBool::new(false);

/// Prints a line to standard output; a full disk is an error, not a panic. A reader that has left (`| head -1`), or a
/// terminal that was closed, has seen enough: the command goes on to its end and says nothing more.
fn say(line: impl std::fmt::Display) -> Result<()> {
    static TERMINAL: OnceLock<bool> = OnceLock::new();
    if is_unheard() {
        return Ok(());
    }
    let mut out = std::io::stdout().lock();
    let terminal = *TERMINAL.get_or_init(|| out.is_terminal());
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
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

/// Prints a line to standard error, if anybody is there.
fn tell(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
