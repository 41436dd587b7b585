//! Settings from environment variables.

use std::str::FromStr;

fn number<T: FromStr>(variable: &str) -> Option<T> {
    let text = std::env::var(variable).ok()?;
    let Ok(number) = text.parse() else {
        eprintln!("card: {variable}={text} is not a number");
        std::process::exit(2);
    };
    Some(number)
}

/// `CARD_SEED`: determines the order of blocks, warps, streams and copies.
pub fn seed() -> u64 {
    number("CARD_SEED").unwrap_or(0)
}

/// `CARD_MEMORY`: the device's memory in bytes.
pub fn memory() -> Option<usize> {
    number("CARD_MEMORY")
}

/// `CARD_THREADS`: number of host threads that run blocks; one if accesses are checked.
pub fn threads() -> usize {
    if crate::checker::wanted() {
        return 1;
    }
    let machine = || std::thread::available_parallelism().map_or(1, |threads| threads.get());
    number("CARD_THREADS").unwrap_or_else(machine).max(1)
}

/// `CARD_MMA=cut-off`: matrix products add as tensor cores may, truncating instead of rounding.
pub fn cuts_off() -> bool {
    std::env::var("CARD_MMA").is_ok_and(|mode| mode == "cut-off")
}
