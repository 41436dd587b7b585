//! Writes a recording in N-MNIST's format: 40 bits per event, big-endian.
//!
//! ```text
//! u8 x, u8 y, 1 bit polarity (1 is ON), 23 bits microseconds
//! ```
//! Format: G. Orchard, "N-MNIST"; row 240 marks an overflow of the clock there, so rows must be below it.

use super::Event;
use anyhow::Result;

/// Rows are below this.
pub const MAX_ROWS: u16 = 240;
/// Times are below this.
const MAX_TIME: u64 = 1 << 23;

/// The bytes of a recording.
///
/// # Errors
/// An [`InputError`](crate::error::InputError) for an event that the format cannot hold.
pub fn encode(events: &[Event]) -> Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(5 * events.len());
    for &Event { time, x, y, on } in events {
        let (Ok(column), true, true) = (u8::try_from(x), y < MAX_ROWS, time < MAX_TIME) else {
            crate::bail_input!(
                "an event at column {x}, row {y}, {time} µs does not fit N-MNIST's format, which ends at column 255, \
                 row {}, {} µs; use a smaller sensor or a shorter recording",
                MAX_ROWS - 1,
                MAX_TIME - 1
            );
        };
        let word = u32::from(on) << 23 | time as u32;
        bytes.extend([column, y as u8]);
        bytes.extend(&word.to_be_bytes()[1..]);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn five_bytes_an_event() {
        let events = [
            Event { time: 0x12_3456, x: 33, y: 7, on: true },
            Event { time: 0x7f_ffff, x: 255, y: 239, on: false },
            Event { time: 1, x: 0, y: 0, on: false },
        ];
        let want = [[33, 7, 0x92, 0x34, 0x56], [255, 239, 0x7f, 0xff, 0xff], [0, 0, 0, 0, 1]].concat();
        assert_eq!(encode(&events).unwrap(), want);
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let good = Event { time: 0, x: 0, y: 0, on: true };
        let refused = [Event { x: 256, ..good }, Event { y: 240, ..good }, Event { time: 1 << 23, ..good }];
        for event in refused {
            let error = encode(&[good, event]).unwrap_err();
            assert!(error.is::<crate::error::InputError>() && error.to_string().contains("µs"), "{error}");
        }
    }
}
