//! Event frames as bytes, from what of them is not zero.

use crate::data::Values;

/// The bytes of samples of `len` values, however they are kept.
pub fn integrate_events(values: Values, len: usize) -> Vec<u8> {
    values.into_bytes(len)
}
