//! Writing.

use super::{Element, METADATA_KEY};
use anyhow::{Result, ensure};
use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use std::collections::{BTreeMap, HashMap};
use std::io::Write;

/// Named tensors and descriptions to be written to a file. A tensor's values are requested when it is written and then
/// dropped, so that only one is in memory at a time.
#[derive(Default)]
pub struct Tensors<'a> {
    entries: Vec<Entry<'a>>,
    descriptions: BTreeMap<String, String>,
}

/// Writes a tensor's values.
type Values<'a> = Box<dyn FnOnce(&mut dyn Write) -> Result<()> + 'a>;

struct Entry<'a> {
    name: String,
    shape: Vec<usize>,
    dtype: Dtype,
    write: Values<'a>,
}

impl<'a> Tensors<'a> {
    /// Adds a tensor whose values `read` will return.
    pub fn push<V: Element, R: AsRef<[V]>>(
        &mut self,
        name: impl Into<String>,
        shape: &[usize],
        read: impl FnOnce() -> Result<R> + 'a,
    ) {
        let (name, count) = (name.into(), shape.iter().product::<usize>());
        let described = name.clone();
        let write = move |out: &mut dyn Write| {
            let values = read()?;
            let values = values.as_ref();
            ensure!(values.len() == count, "{described} has {} values where {count} were announced", values.len());
            Ok(out.write_all(bytemuck::cast_slice(values))?)
        };
        self.entries.push(Entry { name, shape: shape.to_vec(), dtype: V::DTYPE, write: Box::new(write) });
    }

    /// Adds a line of metadata.
    pub fn describe(&mut self, key: impl Into<String>, value: impl Into<String>) {
        self.descriptions.insert(key.into(), value.into());
    }

    /// Writes the file with the order and bytes of `safetensors::serialize`: the same for the same content.
    pub fn write(mut self, out: &mut dyn Write) -> Result<()> {
        self.entries.sort_by(|a, b| b.dtype.cmp(&a.dtype).then_with(|| a.name.cmp(&b.name)));
        let mut end = 0;
        let infos = self.entries.iter().map(|Entry { name, shape, dtype, .. }| {
            let begin = end;
            end += shape.iter().product::<usize>() * dtype.bitsize() / 8;
            (name.clone(), TensorInfo { dtype: *dtype, shape: shape.clone(), data_offsets: (begin, end) })
        });
        let metadata = HashMap::from([(METADATA_KEY.to_string(), serde_json::to_string(&self.descriptions)?)]);
        let mut header = serde_json::to_vec(&Metadata::new(Some(metadata), infos.collect())?)?;
        header.resize(header.len().next_multiple_of(8), b' ');
        out.write_all(&(header.len() as u64).to_le_bytes())?;
        out.write_all(&header)?;
        self.entries.into_iter().try_for_each(|entry| (entry.write)(out))
    }
}
