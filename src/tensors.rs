//! Safetensors files, written and read with every offset checked.

use crate::files::{self, open_regular};
use anyhow::Result;
use safetensors::tensor::{Dtype, Metadata, TensorInfo, TensorView};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Display;
use std::io::Read;
use std::path::Path;

/// No header is longer: that of a network of a thousand layers has less than a tenth of it.
const MAX_HEADER: u64 = 1 << 23;

/// The bytes of a safetensors file of at most `most` bytes, which are read once its header fits its length.
///
/// # Errors
/// An [`InputError`](crate::error::InputError) when it cannot be read or is no such file.
pub fn read_bytes(path: &Path, most: u64) -> Result<Vec<u8>> {
    let (header, length) = read_header(path)?;
    check_length(&header, length, &path.display())?;
    files::read_bytes(path, most)
}

/// What [`Tensors::describe`] wrote into a file, of which the header alone is read.
///
/// # Errors
/// As [`read_bytes`].
pub fn read_descriptions(path: &Path) -> Result<BTreeMap<String, String>> {
    Ok(descriptions(&read_header(path)?.0))
}

/// The header of a file, and how many bytes of data follow it.
fn read_header(path: &Path) -> Result<(Metadata, u64)> {
    let name = path.display();
    let mut file = open_regular(path)?;
    let refused = |error: std::io::Error| crate::input_error!("{name} cannot be read: {error}");
    let mut left = file.metadata().map_err(refused)?.len();
    let mut start = Vec::new();
    (&mut file).take(8).read_to_end(&mut start).map_err(refused)?;
    let length = header_length(&start, left, &name)?;
    left -= 8 + length;
    let mut header = Vec::new();
    file.take(length).read_to_end(&mut header).map_err(refused)?;
    Ok((parse_header(&header, &name)?, left))
}

/// The length of the header of a file of `length` bytes that begins with `start`.
fn header_length(start: &[u8], length: u64, name: &dyn Display) -> Result<u64> {
    let Some(&announced) = start.first_chunk() else {
        crate::bail_input!(
            "{name} has {} bytes, but a safetensors file starts with a length of 8; write it again",
            start.len()
        );
    };
    let announced = u64::from_le_bytes(announced);
    if announced > length.saturating_sub(8) {
        crate::bail_input!(
            "{name} is truncated or not a safetensors file: it announces a header of {announced} bytes, but {} follow; \
             write it again",
            length.saturating_sub(8)
        );
    }
    if announced > MAX_HEADER {
        crate::bail_input!(
            "{name} announces a header of {announced} bytes, but at most {MAX_HEADER} are read; write it with fewer tensors"
        );
    }
    Ok(announced)
}

/// As `SafeTensors::deserialize`, which adds offsets from the file without a check and so can overflow.
fn parse_header(header: &[u8], name: &dyn Display) -> Result<Metadata> {
    serde_json::from_slice(header).map_err(|error| {
        crate::input_error!("{name} has no valid safetensors header ({error}); write it with safetensors")
    })
}

fn check_length(header: &Metadata, found: u64, name: &dyn Display) -> Result<()> {
    let announced = header.data_len();
    if announced as u64 != found {
        crate::bail_input!(
            "{name} has {found} bytes of data, but its header announces {announced}, so it is damaged; write it again"
        );
    }
    Ok(())
}

fn descriptions(header: &Metadata) -> BTreeMap<String, String> {
    let ours = header.metadata().as_ref().and_then(|metadata| metadata.get(METADATA_KEY));
    ours.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
}

/// A safetensors file whose header was checked against its length.
pub struct TensorFile<'a> {
    /// For errors.
    pub name: &'a str,
    header: Metadata,
    data: &'a [u8],
}

impl<'a> TensorFile<'a> {
    /// The tensors in these bytes.
    ///
    /// # Errors
    /// An [`InputError`](crate::error::InputError) when they are not exactly what their header announces.
    pub fn open(bytes: &'a [u8], name: &'a str) -> Result<Self> {
        let length = header_length(bytes, bytes.len() as u64, &name)? as usize;
        let (header, data) = bytes[8..].split_at(length);
        let header = parse_header(header, &name)?;
        check_length(&header, data.len() as u64, &name)?;
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
        descriptions(&self.header)
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::InputError;
    use std::fs::{self, File};

    /// Files of a terabyte that hold nothing behind their first bytes: none is read beyond its header.
    #[test]
    fn claims_are_refused_before_anything_is_read() {
        let home = tempfile::TempDir::new().unwrap();
        let path = home.path().join("x.safetensors");
        let file = |header: &str, length: u64| [&length.to_le_bytes(), header.as_bytes()].concat();
        let small = r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}"#;
        let huge = r#"{"a":{"dtype":"U8","shape":[1099511627776],"data_offsets":[0,1099511627776]}}"#;
        for (start, part) in [
            (file("", 1 << 41), "announces a header of 2199023255552 bytes"),
            (file("", 1 << 30), "announces a header of 1073741824 bytes, but at most 8388608"),
            (file("", 1 << 10), "no valid safetensors header"),
            (file(small, small.len() as u64), "but its header announces 2"),
            (file(huge, huge.len() as u64), "but its header announces 1099511627776"),
        ] {
            fs::write(&path, start).unwrap();
            File::options().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
            let error = read_bytes(&path, 1 << 30).unwrap_err();
            assert!(error.is::<InputError>() && error.to_string().contains(part), "{error}");
        }
        // One that keeps its word is larger than asked for.
        fs::write(&path, file(huge, huge.len() as u64)).unwrap();
        File::options().write(true).open(&path).unwrap().set_len((1 << 40) + 8 + huge.len() as u64).unwrap();
        let error = read_bytes(&path, 1 << 30).unwrap_err();
        assert!(error.is::<InputError>() && error.to_string().contains("at most 1073741824"), "{error}");
    }
}
