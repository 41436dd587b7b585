//! Pictures: any bytes are decoded completely or refused.
#![no_main]

use adali::data::images::parse;
use adali::error::InputError;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match parse(bytes, "fuzz") {
        Ok(image) => assert_eq!(image.bytes.len(), image.height * image.width * image.channels),
        Err(error) => assert!(error.is::<InputError>()),
    }
});
