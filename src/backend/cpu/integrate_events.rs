//! Builds event frames as bytes from their non-zero values.

use crate::data::Values;
use anyhow::Result;
use std::sync::Arc;

/// The bytes of samples of `len` values, in whichever form they are stored.
pub fn integrate_events(values: Values, len: usize) -> Result<Arc<Vec<u8>>> {
    values.into_bytes(len)
}
