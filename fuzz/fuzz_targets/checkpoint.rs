//! Safetensors files: any bytes are read, or refused as a user error.
#![no_main]

use adali::error::InputError;
use adali::tensors::TensorFile;
use adali::train::Config;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    match TensorFile::open(bytes, "fuzz") {
        Ok(file) => {
            for name in file.names() {
                let (info, data) = file.tensor(&name).expect("the header covers the data");
                assert!(info.shape.iter().product::<usize>() * info.dtype.bitsize() == 8 * data.len());
                let _ = (file.floats(&name, &info.shape), file.integers(&name, &info.shape));
            }
            if let Some(config) = file.descriptions().get("config") {
                let _ = Config::parse(config, "fuzz");
            }
        }
        Err(error) => assert!(error.is::<InputError>()),
    }
});
