//! Event frames as bytes, from what of them is not zero.

use crate::data::Values;
use anyhow::Result;
use std::sync::Arc;

/// The bytes of samples of `len` values, however they are kept.
pub fn integrate_events(values: Values, len: usize) -> Result<Arc<Vec<u8>>> {
    values.into_bytes(len)
}
