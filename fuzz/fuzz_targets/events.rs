//! Recordings: any bytes are read, or refused as a user error. `ADALI_FUZZ_FORMAT` names one format; otherwise all are tried.
#![no_main]

use adali::data::events::format::Format;
use adali::data::events::options::{ReadOptions, Sensor};
use adali::error::exit_code;
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static FORMATS: LazyLock<Vec<Format>> = LazyLock::new(|| match std::env::var("ADALI_FUZZ_FORMAT") {
    Ok(name) => {
        let format = Format::ALL.into_iter().find(|format| format.name() == name);
        vec![format.expect("ADALI_FUZZ_FORMAT is a format")]
    }
    Err(_) => Format::ALL.to_vec(),
});

fuzz_target!(|bytes: &[u8]| {
    for &format in FORMATS.iter() {
        let mut asked = ReadOptions::default();
        let read = read(format, bytes, &asked);
        // Options resolve what the file leaves open.
        match format {
            Format::Aedat2 => asked.sensor = Some(Sensor::Davis240),
            Format::Csv | Format::Npz => asked.columns = Some("t_s,x,y,p".parse().expect("columns")),
            _ => continue,
        }
        if read.is_err() {
            let _ = self::read(format, bytes, &asked);
        }
    }
});

fn read(format: Format, bytes: &[u8], options: &ReadOptions) -> Result<(), ()> {
    let read = || {
        let mut reader = format.open_bytes(bytes.to_vec(), "fuzz", options)?;
        let mut events = Vec::new();
        loop {
            reader.read(&mut events)?;
            if events.is_empty() {
                reader.notes();
                return Ok(());
            }
        }
    };
    read().map_err(|error| assert_eq!(exit_code(&error), 2, "{error:?}"))
}
