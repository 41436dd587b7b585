//! Safetensors files, written and read with every offset checked.

use anyhow::Result;
use safetensors::tensor::{Dtype, Metadata, TensorInfo, TensorView};
use std::collections::{BTreeMap, HashMap};

/// A safetensors file whose header was checked against its length.
pub struct TensorFile<'a> {
    /// For errors.
    pub name: &'a str,
    header: Metadata,
    data: &'a [u8],
}

impl<'a> TensorFile<'a> {
    /// As `SafeTensors::deserialize`, which adds offsets from the file without a check and so can overflow.
    pub fn open(bytes: &'a [u8], name: &'a str) -> Result<Self> {
        let Some((len, rest)) = bytes.split_first_chunk() else {
            crate::bail_input!(
                "{name} has {} bytes, but a safetensors file starts with a length of 8; write it again",
                bytes.len()
            );
        };
        let len = u64::from_le_bytes(*len);
        let Some((header, data)) = usize::try_from(len).ok().and_then(|len| rest.split_at_checked(len)) else {
            crate::bail_input!(
                "{name} is truncated or not a safetensors file: it announces a header of {len} bytes, but {} follow; \
                 write it again",
                rest.len()
            );
        };
        let header: Metadata = serde_json::from_slice(header).map_err(|error| {
            crate::input_error!("{name} has no valid safetensors header ({error}); write it with safetensors")
        })?;
        if header.data_len() != data.len() {
            crate::bail_input!(
                "{name} has {} bytes of data, but its header announces {}, so it is damaged; write it again",
                data.len(),
                header.data_len()
            );
        }
        Ok(Self { name, header, data })
    }

    /// A tensor's type and shape, and its bytes.
    pub fn tensor(&self, key: &str) -> Result<(&TensorInfo, &'a [u8])> {
        let name = self.name;
        let missing = || {
            let mut keys = self.names();
            let count = keys.len();
            keys.truncate(8);
            crate::input_error!("{name} has no tensor {key} among its {count} ({}); add it", keys.join(", "))
        };
        let info = self.header.info(key).ok_or_else(missing)?;
        // The header was checked to cover the data without gaps.
        let data = self.data.get(info.data_offsets.0..info.data_offsets.1);
        Ok((info, data.ok_or_else(missing)?))
    }

    /// Whether there is such a tensor.
    pub fn has(&self, key: &str) -> bool {
        self.header.info(key).is_some()
    }

    /// The names of all tensors, in the order of their data.
    pub fn names(&self) -> Vec<String> {
        self.header.offset_keys()
    }

    /// The bytes of a tensor of this type and shape.
    pub fn expect(&self, key: &str, dtype: Dtype, shape: &[usize]) -> Result<&'a [u8]> {
        let (info, data) = self.tensor(key)?;
        if info.shape != shape || info.dtype != dtype {
            crate::bail_input!(
                "{}: {key} is {:?} {:?}, but {dtype:?} {shape:?} is needed",
                self.name,
                info.dtype,
                info.shape
            );
        }
        Ok(data)
    }

    /// A tensor of this shape, every value finite.
    pub fn floats(&self, key: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let (chunks, _) = self.expect(key, Dtype::F32, shape)?.as_chunks();
        let values: Vec<f32> = chunks.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect();
        if let Some(i) = values.iter().position(|v| !v.is_finite()) {
            crate::bail_input!("{}: {key} holds {} at {i}; every value must be finite", self.name, values[i]);
        }
        Ok(values)
    }

    /// A tensor of 64-bit integers of this shape.
    pub fn integers(&self, key: &str, shape: &[usize]) -> Result<Vec<i64>> {
        let (chunks, _) = self.expect(key, Dtype::I64, shape)?.as_chunks();
        Ok(chunks.iter().map(|&bytes| i64::from_le_bytes(bytes)).collect())
    }

    /// What [`Tensors::describe`] wrote.
    pub fn descriptions(&self) -> BTreeMap<String, String> {
        let ours = self.header.metadata().as_ref().and_then(|metadata| metadata.get(METADATA_KEY));
        ours.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }
}

/// All our metadata stand under one key as JSON: a map of several keys would be written in random order.
const METADATA_KEY: &str = "adali";

/// Named tensors and descriptions on their way to a file.
#[derive(Default)]
pub struct Tensors {
    entries: Vec<(String, Vec<usize>, Dtype, Vec<u8>)>,
    descriptions: BTreeMap<String, String>,
}

impl Tensors {
    /// Adds a tensor of f32.
    pub fn push_floats(&mut self, name: impl Into<String>, shape: &[usize], values: &[f32]) {
        self.entries.push((name.into(), shape.to_vec(), Dtype::F32, bytemuck::cast_slice(values).to_vec()));
    }

    /// Adds a tensor of 8-bit numbers.
    pub fn push_bytes(&mut self, name: impl Into<String>, shape: &[usize], values: Vec<u8>) {
        self.entries.push((name.into(), shape.to_vec(), Dtype::U8, values));
    }

    /// Adds a tensor of 64-bit integers.
    pub fn push_integers(&mut self, name: impl Into<String>, shape: &[usize], values: &[i64]) {
        self.entries.push((name.into(), shape.to_vec(), Dtype::I64, bytemuck::cast_slice(values).to_vec()));
    }

    /// Adds a line of metadata.
    pub fn describe(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.descriptions.insert(key.into(), value.into());
    }

    /// The file's bytes: the same for the same content.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let views: Vec<(&str, TensorView)> = self
            .entries
            .iter()
            .map(|(name, shape, dtype, bytes)| Ok((name.as_str(), TensorView::new(*dtype, shape.clone(), bytes)?)))
            .collect::<Result<_>>()?;
        let metadata = HashMap::from([(METADATA_KEY.to_string(), serde_json::to_string(&self.descriptions)?)]);
        Ok(safetensors::serialize(views, Some(metadata))?)
    }
}
