//! How sample values are stored.

use super::events::counts::EventCounts;
use crate::host::{ensure_room, zeros};
use anyhow::Result;
use std::borrow::Cow;
use std::sync::Arc;

/// Samples of bytes, in one of two equivalent forms. Clones share the data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Values {
    /// `[N][frames][height][width][channels]`.
    Bytes(Arc<Vec<u8>>),
    /// The nonzero cells of event frames.
    Counts(Arc<EventCounts>),
}

impl Values {
    /// The number of samples, each of `len` values.
    pub fn samples(&self, len: usize) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len() / len,
            Self::Counts(counts) => counts.len(),
        }
    }

    /// All values, for samples of `len` values.
    pub fn bytes(&self, len: usize) -> Cow<'_, [u8]> {
        match self {
            Self::Bytes(bytes) => Cow::Borrowed(bytes),
            Self::Counts(counts) => Cow::Owned(counts.bytes(len)),
        }
    }

    /// Like [`Values::bytes`], but does not copy values already stored as bytes.
    ///
    /// # Errors
    /// If there is not enough memory.
    pub fn into_bytes(self, len: usize) -> Result<Arc<Vec<u8>>> {
        match self {
            Self::Bytes(bytes) => Ok(bytes),
            Self::Counts(counts) => {
                ensure_room(counts.len() * len, "the frames of the recordings take")?;
                let mut bytes = zeros(counts.len() * len)?;
                counts.write_all(len, &mut bytes);
                Ok(bytes.into())
            }
        }
    }

    /// Memory used, in bytes.
    pub fn size(&self) -> usize {
        match self {
            Self::Bytes(bytes) => bytes.len(),
            Self::Counts(counts) => size_of_val(counts.entries()) + size_of_val(counts.ends()),
        }
    }

    /// The values of one sample. Panics if there is no such sample.
    pub fn sample(&self, index: usize, len: usize) -> Cow<'_, [u8]> {
        match self {
            Self::Bytes(bytes) => Cow::Borrowed(&bytes[index * len..][..len]),
            Self::Counts(counts) => {
                let mut bytes = vec![0; len];
                counts.write(index, &mut bytes);
                Cow::Owned(bytes)
            }
        }
    }

    /// The stored bytes.
    pub fn kept(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Bytes(bytes) => Cow::Borrowed(bytes),
            Self::Counts(counts) => Cow::Borrowed(bytemuck::cast_slice(counts.entries())),
        }
    }
}

impl From<Vec<u8>> for Values {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes.into())
    }
}

impl From<EventCounts> for Values {
    fn from(counts: EventCounts) -> Self {
        Self::Counts(counts.into())
    }
}
