//! The values of samples, as they are kept.

use super::events::counts::EventCounts;
use std::borrow::Cow;

/// Samples of bytes, in one of two forms that mean the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Values {
    /// `[N][frames][height][width][channels]`.
    Bytes(Vec<u8>),
    /// What of event frames is not zero.
    Counts(EventCounts),
}

impl Values {
    /// The number of samples of `len` values.
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

    /// As [`Values::bytes`], without a copy of what is kept so.
    pub fn into_bytes(self, len: usize) -> Vec<u8> {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Counts(counts) => counts.bytes(len),
        }
    }

    /// The values of one sample; panics when there is no such sample.
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

    /// The bytes that they are kept in.
    pub fn kept(&self) -> Cow<'_, [u8]> {
        match self {
            Self::Bytes(bytes) => Cow::Borrowed(bytes),
            Self::Counts(counts) => Cow::Borrowed(bytemuck::cast_slice(counts.entries())),
        }
    }
}

impl From<Vec<u8>> for Values {
    fn from(bytes: Vec<u8>) -> Self {
        Self::Bytes(bytes)
    }
}
