//! IDX files: any bytes are read completely or refused.
#![no_main]

use adali::data::idx::{CLASSES, parse_images, parse_labels};
use adali::error::InputError;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match parse_images(bytes, "fuzz") {
        Ok(images) => assert_eq!(images.pixels.len(), images.count() * images.height * images.width),
        Err(error) => assert!(error.is::<InputError>()),
    }
    match parse_labels(bytes, "fuzz", CLASSES) {
        Ok(labels) => assert!(labels.iter().all(|&label| usize::from(label) < CLASSES)),
        Err(error) => assert!(error.is::<InputError>()),
    }
});
