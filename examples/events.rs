//! Reads an event-camera recording and counts its events over time.
//!
//!     cargo run --release --example events -- RECORDING        # default: a recording from the tests

use adali::data::events::open;
use adali::data::events::options::ReadOptions;
use std::path::PathBuf;

/// Microseconds per line.
const PIECE: u64 = 10_000;

fn main() -> anyhow::Result<()> {
    let usual = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/events/nmnist.bin"));
    let path = std::env::args_os().nth(1).map_or(usual, PathBuf::from);
    let mut reader = open(&path, &ReadOptions::default())?;
    let (mut events, mut counts) = (Vec::new(), Vec::<[u64; 2]>::new());
    loop {
        reader.read(&mut events)?;
        if events.is_empty() {
            break;
        }
        for event in &events {
            let piece = (event.time / PIECE) as usize;
            counts.resize(counts.len().max(piece + 1), [0; 2]);
            counts[piece][usize::from(event.on)] += 1;
        }
    }
    println!("from ms      OFF       ON");
    for (piece, [off, on]) in counts.into_iter().enumerate() {
        println!("{:7}  {off:7}  {on:7}", piece as u64 * PIECE / 1000);
    }
    Ok(())
}
