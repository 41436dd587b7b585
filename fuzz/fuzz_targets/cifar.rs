//! CIFAR files: any bytes are read completely or refused.
#![no_main]

use adali::data::cifar::{Variant, parse_batch, parse_pickle};
use adali::error::InputError;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for variant in [Variant::Cifar10, Variant::Cifar100] {
        for read in [parse_batch(bytes, "fuzz", variant), parse_pickle(bytes, "fuzz", variant)] {
            match read {
                Ok(samples) => {
                    assert_eq!(samples.bytes().len(), samples.len() * samples.shape.len());
                    assert!(samples.labels.iter().all(|&label| usize::from(label) < variant.classes()));
                }
                Err(error) => assert!(error.is::<InputError>()),
            }
        }
    }
});
