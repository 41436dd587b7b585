//! Safetensors files, written and read with every offset checked, one tensor at a time.

mod write;

pub use write::Tensors;

use crate::files::open_limited;
use crate::host::zeros;
use crate::{bail_input, input_error};
use anyhow::{Context, Result};
use bytemuck::Pod;
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

/// A safetensors file whose header has been checked against its length.
pub struct TensorFile<'a> {
    /// For error messages.
    pub name: Cow<'a, str>,
    header: Metadata,
    data: Data<'a>,
}

/// Where the tensors lie, one after the other.
enum Data<'a> {
    Bytes(&'a [u8]),
    /// From this byte on.
    File(File, u64),
}

/// The longest header accepted: a network of a thousand layers needs less than a tenth of it.
const LONGEST_HEADER: u64 = 1 << 23;
/// Bytes of a tensor held in memory at a time when it is read in pieces.
const PIECE: usize = 1 << 20;

impl<'a> TensorFile<'a> {
    /// Like `SafeTensors::deserialize`, which adds offsets from the file unchecked and so can overflow.
    pub fn open(bytes: &'a [u8], name: &'a str) -> Result<Self> {
        let mut rest = bytes;
        let header = read_header(&mut rest, bytes.len() as u64, name)?;
        Ok(Self { name: name.into(), header, data: Data::Bytes(rest) })
    }

    /// Opens a regular file of at most `most` bytes; its tensors stay there until they are requested.
    ///
    /// # Errors
    /// An [`InputError`](crate::error::InputError) if it is not such a file, or its header and its length disagree.
    pub fn open_file(path: &Path, most: u64) -> Result<Self> {
        let name = path.display().to_string();
        let (mut file, length) = open_limited(path, most)?;
        let header = read_header(&mut file, length, &name)?;
        let start = length - header.data_len() as u64;
        Ok(Self { name: name.into(), header, data: Data::File(file, start) })
    }

    /// A tensor's type and shape.
    pub fn info(&self, key: &str) -> Result<&TensorInfo> {
        self.header.info(key).ok_or_else(|| {
            let mut keys = self.names();
            let count = keys.len();
            keys.truncate(8);
            input_error!("{} has no tensor {key} among its {count} ({}); add it", self.name, keys.join(", "))
        })
    }

    /// A tensor's type and shape, and its bytes.
    pub fn tensor(&self, key: &str) -> Result<(&TensorInfo, Cow<'a, [u8]>)> {
        let info = self.info(key)?;
        let bytes = match self.data {
            Data::Bytes(data) => Cow::Borrowed(&data[info.data_offsets.0..info.data_offsets.1]),
            Data::File(..) => Cow::Owned(self.read(key, info)?),
        };
        Ok((info, bytes))
    }

    /// Calls `f` with the bytes of a tensor, a whole number of pieces of `len` bytes at a time, in order.
    pub fn pieces(&self, key: &str, len: usize, mut f: impl FnMut(&[u8])) -> Result<()> {
        let (from, to) = self.info(key)?.data_offsets;
        let step = len.max(1) * (PIECE / len.max(1)).max(1);
        let mut piece = Vec::new();
        for first in (from..to).step_by(step) {
            let size = step.min(to - first);
            match self.data {
                Data::Bytes(data) => f(&data[first..][..size]),
                Data::File(..) => {
                    piece.resize(size, 0);
                    self.fill(key, first, &mut piece)?;
                    f(&piece);
                }
            }
        }
        Ok(())
    }

    /// All values of a tensor of this type.
    fn read<V: Pod + Default>(&self, key: &str, info: &TensorInfo) -> Result<Vec<V>> {
        let (from, to) = info.data_offsets;
        let count = (to - from) / size_of::<V>();
        let mut values = zeros(count).with_context(|| format!("{}: {key}", self.name))?;
        self.fill(key, from, bytemuck::cast_slice_mut(&mut values))?;
        Ok(values)
    }

    /// The bytes of the tensors from `from` on.
    fn fill(&self, key: &str, from: usize, bytes: &mut [u8]) -> Result<()> {
        match &self.data {
            Data::Bytes(data) => bytes.copy_from_slice(&data[from..][..bytes.len()]),
            Data::File(file, start) => {
                let mut file: &File = file;
                let read = file.seek(SeekFrom::Start(start + from as u64)).and_then(|_| file.read_exact(bytes));
                read.map_err(|e| input_error!("{}: {key} cannot be read: {e}", self.name))?;
            }
        }
        Ok(())
    }

    /// Whether there is such a tensor.
    pub fn has(&self, key: &str) -> bool {
        self.header.info(key).is_some()
    }

    /// The names of all tensors, in the order of their data.
    pub fn names(&self) -> Vec<String> {
        self.header.offset_keys()
    }

    /// A tensor of this type and shape.
    fn expect<V: Element>(&self, key: &str, shape: &[usize]) -> Result<Vec<V>> {
        let info = self.info(key)?;
        if info.shape != shape || info.dtype != V::DTYPE {
            let (needed, name) = (V::DTYPE, &self.name);
            bail_input!("{name}: {key} is {:?} {:?}, but {needed:?} {shape:?} is needed", info.dtype, info.shape);
        }
        self.read(key, info)
    }

    /// A tensor of this shape, every value finite.
    pub fn floats(&self, key: &str, shape: &[usize]) -> Result<Vec<f32>> {
        let values: Vec<f32> = self.expect(key, shape)?;
        if let Some(i) = values.iter().position(|v| !v.is_finite()) {
            bail_input!("{}: {key} holds {} at {i}; every value must be finite", self.name, values[i]);
        }
        Ok(values)
    }

    /// A tensor of 64-bit integers of this shape.
    pub fn integers(&self, key: &str, shape: &[usize]) -> Result<Vec<i64>> {
        self.expect(key, shape)
    }

    /// What [`Tensors::describe`] wrote.
    pub fn descriptions(&self) -> BTreeMap<String, String> {
        let ours = self.header.metadata().as_ref().and_then(|metadata| metadata.get(METADATA_KEY));
        ours.and_then(|text| serde_json::from_str(text).ok()).unwrap_or_default()
    }
}

/// What [`Tensors::describe`] wrote into a file; only the header is read.
///
/// # Errors
/// As [`TensorFile::open_file`].
pub fn read_descriptions(path: &Path) -> Result<BTreeMap<String, String>> {
    Ok(TensorFile::open_file(path, u64::MAX)?.descriptions())
}

/// Reads the header of a file of `length` bytes, and checks it against that length.
fn read_header(from: &mut impl Read, length: u64, name: &str) -> Result<Metadata> {
    if length < 8 {
        bail_input!("{name} has {length} bytes, but a safetensors file starts with a length of 8; write it again");
    }
    let cannot = |e: std::io::Error| input_error!("{name} cannot be read: {e}");
    let mut announced = [0; 8];
    from.read_exact(&mut announced).map_err(cannot)?;
    let (announced, rest) = (u64::from_le_bytes(announced), length - 8);
    if announced > rest {
        bail_input!(
            "{name} is truncated or not a safetensors file: it announces a header of {announced} bytes, but {rest} \
             follow; write it again"
        );
    }
    if announced > LONGEST_HEADER {
        bail_input!(
            "{name} is not a safetensors file: it announces a header of {announced} bytes, but at most \
             {LONGEST_HEADER} are read; write it again"
        );
    }
    let mut header = vec![0; announced as usize];
    from.read_exact(&mut header).map_err(cannot)?;
    let header: Metadata = serde_json::from_slice(&header)
        .map_err(|error| input_error!("{name} has no valid safetensors header ({error}); write it with safetensors"))?;
    // The header was checked to cover the data without gaps.
    if header.data_len() as u64 != rest - announced {
        bail_input!(
            "{name} has {} bytes of data, but its header announces {}, so it is damaged; write it again",
            rest - announced,
            header.data_len()
        );
    }
    Ok(header)
}

/// A type of a tensor's values.
pub trait Element: Pod + Default {
    const DTYPE: Dtype;
}

/// Values are written and read as they are laid out in memory.
const _: () = assert!(cfg!(target_endian = "little"), "safetensors files are little-endian");

impl Element for u8 {
    const DTYPE: Dtype = Dtype::U8;
}

impl Element for f32 {
    const DTYPE: Dtype = Dtype::F32;
}

impl Element for i64 {
    const DTYPE: Dtype = Dtype::I64;
}

/// All our metadata is under one key as JSON: a map with several keys would be written in random order.
const METADATA_KEY: &str = "adali";

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::InputError;
    use safetensors::tensor::TensorView;
    use std::collections::HashMap;
    use std::fs;

    /// Files that claim a terabyte but hold nothing after their first bytes: none is read beyond its header.
    #[test]
    fn claims_are_refused_before_anything_is_read() {
        let home = tempfile::TempDir::new().unwrap();
        let path = home.path().join("x.safetensors");
        let file = |header: &str, length: u64| [&length.to_le_bytes(), header.as_bytes()].concat();
        let small = r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}"#;
        let huge = r#"{"a":{"dtype":"U8","shape":[1099511627776],"data_offsets":[0,1099511627776]}}"#;
        for (start, most, part) in [
            (file("", 1 << 41), 1 << 40, "announces a header of 2199023255552 bytes"),
            (file("", 1 << 30), 1 << 40, "announces a header of 1073741824 bytes, but at most 8388608"),
            (file("", 1 << 10), 1 << 40, "no valid safetensors header"),
            (file(small, small.len() as u64), 1 << 40, "but its header announces 2"),
            (file(huge, huge.len() as u64), 1 << 40, "but its header announces 1099511627776"),
            (file(huge, huge.len() as u64), 1 << 30, "at most 1073741824"),
        ] {
            fs::write(&path, start).unwrap();
            File::options().write(true).open(&path).unwrap().set_len(1 << 40).unwrap();
            let error = TensorFile::open_file(&path, most).err().expect("it lies");
            assert!(error.is::<InputError>() && error.to_string().contains(part), "{error}");
        }
    }

    /// Names in no particular order, of all types, one of them empty.
    fn some() -> Vec<(&'static str, Dtype, Vec<usize>, Vec<u8>)> {
        let mut all = Vec::new();
        for (i, name) in
            ["layers.10.weight", "layers.2.weight", "b", "a.\"quoted\"", "z", "layers.2.bias"].iter().enumerate()
        {
            for (dtype, size) in [(Dtype::F32, 4), (Dtype::U8, 1), (Dtype::I64, 8)] {
                let shape = vec![i, 3, 2];
                let bytes = (0..i * 6 * size).map(|at| (at * 7 + i) as u8).collect();
                let name: &str = Box::leak(format!("{name}.{size}").into_boxed_str());
                all.push((name, dtype, shape, bytes));
            }
        }
        all
    }

    fn written(all: &[(&'static str, Dtype, Vec<usize>, Vec<u8>)]) -> Vec<u8> {
        let mut tensors = Tensors::default();
        for (name, dtype, shape, bytes) in all {
            match dtype {
                Dtype::F32 => {
                    let (values, _) = bytes.as_chunks();
                    tensors
                        .push(*name, shape, || Ok(values.iter().map(|&b| f32::from_le_bytes(b)).collect::<Vec<_>>()));
                }
                Dtype::I64 => {
                    let (values, _) = bytes.as_chunks();
                    tensors
                        .push(*name, shape, || Ok(values.iter().map(|&b| i64::from_le_bytes(b)).collect::<Vec<_>>()));
                }
                _ => tensors.push(*name, shape, move || Ok(bytes)),
            }
        }
        tensors.describe("format", "a test");
        tensors.describe("other", "\"é\"\n");
        let mut out = Vec::new();
        tensors.write(&mut out).unwrap();
        out
    }

    #[test]
    fn bytes_are_those_of_the_safetensors_library() {
        let all = some();
        for count in 0..=all.len() {
            let views = all[..count]
                .iter()
                .map(|(name, dtype, shape, bytes)| (*name, TensorView::new(*dtype, shape.clone(), bytes).unwrap()));
            let text = r#"{"format":"a test","other":"\"é\"\n"}"#;
            let metadata = HashMap::from([(METADATA_KEY.to_string(), text.to_string())]);
            let expected = safetensors::serialize(views, Some(metadata)).unwrap();
            assert_eq!(written(&all[..count]), expected, "{count} tensors");
        }
    }

    #[test]
    fn what_was_written_is_read_back_from_memory_and_from_a_file() {
        let all = some();
        let bytes = written(&all);
        let home = tempfile::TempDir::new().unwrap();
        let path = home.path().join("x");
        std::fs::write(&path, &bytes).unwrap();
        for file in [TensorFile::open(&bytes, "x").unwrap(), TensorFile::open_file(&path, 1 << 20).unwrap()] {
            assert_eq!(file.descriptions()["other"], "\"é\"\n");
            for (name, dtype, shape, bytes) in &all {
                let (info, found) = file.tensor(name).unwrap();
                assert_eq!((info.dtype, &info.shape, &found[..]), (*dtype, shape, &bytes[..]));
                let mut pieces = Vec::new();
                file.pieces(name, 5, |piece| pieces.extend_from_slice(piece)).unwrap();
                assert_eq!(&pieces, bytes);
                if *dtype == Dtype::I64 {
                    assert_eq!(bytemuck::cast_slice::<i64, u8>(&file.integers(name, shape).unwrap()), bytes);
                }
            }
            assert!(file.integers("z.8", &[4, 3]).is_err() && file.integers("z.4", &[4, 3, 2]).is_err());
        }
        for length in 0..bytes.len() {
            std::fs::write(&path, &bytes[..length]).unwrap();
            let short = TensorFile::open_file(&path, 1 << 20).err().expect("it was cut");
            assert!(crate::error::exit_code(&short) == 2, "{short}");
        }
    }

    #[test]
    fn a_tensor_of_another_size_than_announced_is_an_error() {
        let mut tensors = Tensors::default();
        tensors.push("a", &[2, 2], || Ok(vec![1.0f32; 3]));
        assert!(tensors.write(&mut Vec::new()).unwrap_err().to_string().contains("a has 3 values where 4"));
    }
}
