//! Frames files: any bytes are read completely or refused.
#![no_main]

use adali::data::frames::parse_frames;
use adali::error::InputError;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match parse_frames(bytes, "fuzz") {
        Ok(data) => {
            for part in [&data.train, &data.test] {
                assert_eq!(part.bytes().len(), part.len() * part.shape.len());
                assert!(part.labels.iter().all(|&label| usize::from(label) < data.classes()));
            }
        }
        Err(error) => assert!(error.is::<InputError>()),
    }
});
