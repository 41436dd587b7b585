//! Recordings of every format: any bytes are read or refused. `cargo +nightly fuzz run events tests/events`
#![no_main]

use adali::data::events::format::Format;
use clap::ValueEnum;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for format in Format::value_variants() {
        let Ok(mut reader) = format.open_bytes(bytes.to_vec(), "fuzz", &Default::default()) else { continue };
        let mut events = Vec::new();
        while reader.read(&mut events).is_ok() && !events.is_empty() {}
    }
});
