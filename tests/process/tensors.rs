//! Safetensors files taken apart, changed and reassembled, using only the safetensors crate.

use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView, serialize};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

/// A file's tensors and the descriptions that adali keeps in its metadata.
#[derive(Clone, Debug, PartialEq)]
pub struct Tensors {
    pub all: BTreeMap<String, (Dtype, Vec<usize>, Vec<u8>)>,
    pub descriptions: Map<String, Value>,
}

impl Tensors {
    pub fn read(path: &Path) -> Self {
        let bytes = super::bytes(path);
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let take =
            |(name, view): (String, TensorView)| (name, (view.dtype(), view.shape().to_vec(), view.data().to_vec()));
        let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
        let ours = header.metadata().as_ref().and_then(|metadata| metadata.get("adali"));
        let descriptions = ours.map_or_else(Map::new, |text| serde_json::from_str(text).unwrap());
        Self { all: file.tensors().into_iter().map(take).collect(), descriptions }
    }

    pub fn write(&self, path: &Path) {
        let metadata = HashMap::from([("adali".to_string(), Value::Object(self.descriptions.clone()).to_string())]);
        let views = self
            .all
            .iter()
            .map(|(name, (dtype, shape, data))| (name.as_str(), TensorView::new(*dtype, shape.clone(), data).unwrap()));
        fs::write(path, serialize(views, Some(metadata)).unwrap()).unwrap();
    }

    /// A tensor's values.
    pub fn floats(&self, name: &str) -> Vec<f32> {
        let (dtype, _, data) = &self.all[name];
        assert_eq!(*dtype, Dtype::F32, "{name}");
        data.as_chunks().0.iter().map(|&bytes| f32::from_le_bytes(bytes)).collect()
    }

    /// Overwrites the start of a tensor's bytes.
    pub fn poke(&mut self, name: &str, bytes: &[u8]) {
        self.all.get_mut(name).unwrap().2[..bytes.len()].copy_from_slice(bytes);
    }

    /// Replaces a tensor by zeros.
    pub fn replace(&mut self, name: &str, dtype: Dtype, shape: &[usize]) {
        let size = shape.iter().product::<usize>() * dtype.bitsize() / 8;
        *self.all.get_mut(name).unwrap() = (dtype, shape.to_vec(), vec![0; size]);
    }

    /// The training progress in a state file.
    pub fn progress(&self) -> Map<String, Value> {
        serde_json::from_str(self.descriptions["progress"].as_str().unwrap()).unwrap()
    }

    pub fn set_progress(&mut self, key: &str, value: Value) {
        let mut progress = self.progress();
        assert!(progress.insert(key.to_string(), value).is_some(), "{key}");
        self.descriptions.insert("progress".into(), Value::Object(progress).to_string().into());
    }

    /// A state without times.
    pub fn without_times(mut self) -> Self {
        self.set_progress("seconds", 0.into());
        let rates = self.progress()["rates"].as_array().unwrap().len();
        self.set_progress("rates", vec![0; rates].into());
        self
    }
}
