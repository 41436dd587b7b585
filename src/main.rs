//! The `adali` program; see [`adali::cli`].

use std::process::ExitCode;

fn main() -> ExitCode {
    adali::cli::main()
}
