//! Packed event counts: any bytes are read completely or refused.
#![no_main]

use adali::data::events::counts::{EventCounts, MAX_CELLS};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let mut counts = EventCounts::default();
    if counts.unpack(bytes, MAX_CELLS).is_ok() {
        let (mut packed, mut again) = (Vec::new(), EventCounts::default());
        counts.pack(0, &mut packed);
        again.unpack(&packed, MAX_CELLS).unwrap();
        assert!(again == counts && packed.len() <= bytes.len());
    }
});
