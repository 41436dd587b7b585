//! Event frames from one safetensors file, in the layout used by SpikingJelly and tonic.
//!
//! ```text
//! train.frames, test.frames   u8 [N, T, C, H, W]        event counts; a value b is b events
//! train.labels, test.labels   u8, u16, i32 or i64 [N]   0 up to the number of classes, none left out
//! ```
//! From Python: `safetensors.numpy.save_file({"train.frames": frames.clip(0, 255).astype("uint8"), "train.labels":
//! labels.astype("int64"), "test.frames": …, "test.labels": …}, "frames.safetensors")`.

use super::files::{self, some_of};
use super::{DataSource, Dataset, Reader, SampleShape, Samples};
use crate::host::reserve;
use crate::tensors::TensorFile;
use anyhow::{Context, Result};
use safetensors::tensor::Dtype;
use std::path::{Path, PathBuf};

/// Most frames per sample.
pub const MAX_FRAMES: usize = 4096;
/// Largest height and width of a frame.
pub const MAX_SIDE: usize = 4096;
/// Most channels of a frame.
pub const MAX_CHANNELS: usize = 64;
/// Largest file that is accepted.
pub const MAX_BYTES: u64 = 1 << 38;
/// The file name that is looked for in a folder.
pub const FILE_NAME: &str = "frames.safetensors";

/// The tensors that are read.
const TENSORS: [&str; 4] = ["train.frames", "train.labels", "test.frames", "test.labels"];

/// Reads the bytes of a frames file; `name` is the file's name in errors and the data set's source.
///
/// # Errors
/// An [`InputError`](crate::error::InputError) if a tensor is missing or has another type or shape, or if labels
/// do not run from 0 to the number of classes.
pub fn parse_frames(bytes: &[u8], name: &str) -> Result<Dataset> {
    from_file(&TensorFile::open(bytes, name)?)
}

fn from_file(file: &TensorFile) -> Result<Dataset> {
    let name = file.name.as_ref();
    let train = file.part("train")?;
    let test = file.part("test")?;
    if train.shape != test.shape {
        crate::bail_input!(
            "{name} has training samples of {} and test samples of {} (frames x height x width x channels); write both \
             with one shape",
            train.shape,
            test.shape
        );
    }
    let classes = count_classes(&train.labels, name)?;
    let others: Vec<String> = file.names().into_iter().filter(|tensor| !TENSORS.contains(&tensor.as_str())).collect();
    let notes = match others.is_empty() {
        true => Vec::new(),
        false => vec![format!("{name} also holds {}, not used: only {} are", some_of(&others), TENSORS.join(", "))],
    };
    if let Some(index) = test.labels.iter().position(|&label| usize::from(label) >= classes) {
        crate::bail_input!(
            "{name} gives test sample {index} the label {}, but the training labels end at {}; add training samples \
             of that class or leave the test sample out",
            test.labels[index],
            classes - 1
        );
    }
    Ok(Dataset {
        name: DataSource::Frames.name().into(),
        source: name.into(),
        class_names: files::numbered(classes),
        full_scale: 1.0,
        mean: vec![0.0; train.shape.channels],
        std: vec![1.0; train.shape.channels],
        train,
        test,
        notes,
    })
}

/// The number of classes; every label below it must occur, so that a file that counts from 1 is noticed.
fn count_classes(labels: &[u16], name: &str) -> Result<usize> {
    let classes = labels.iter().max().map_or(0, |&label| usize::from(label) + 1);
    let mut seen = vec![false; classes];
    for &label in labels {
        seen[usize::from(label)] = true;
    }
    if let Some(class) = seen.iter().position(|&seen| !seen) {
        crate::bail_input!(
            "{name} has training labels up to {}, but none is {class}; number the classes from 0 without gaps",
            classes - 1
        );
    }
    Ok(classes)
}

/// The two parts of a frames file.
impl TensorFile<'_> {
    fn part(&self, part: &str) -> Result<Samples> {
        let (count, shape, values) = self.frames(&format!("{part}.frames"))?;
        let labels = self.labels(&format!("{part}.labels"))?;
        if labels.len() != count {
            crate::bail_input!(
                "{} has {count} samples in {part}.frames, but {} labels in {part}.labels; write one label a sample",
                self.name,
                labels.len()
            );
        }
        Ok(Samples { shape, values: values.into(), labels })
    }

    fn frames(&self, key: &str) -> Result<(usize, SampleShape, Vec<u8>)> {
        let (name, info) = (&self.name, self.info(key)?);
        if info.dtype != Dtype::U8 {
            crate::bail_input!("{name} has {key} as {:?}, but frames must be U8; convert them", info.dtype);
        }
        let &[count, frames, channels, height, width] = &info.shape[..] else {
            crate::bail_input!("{name} has {key} of shape {:?}, but frames must be [N, T, C, H, W]", info.shape);
        };
        if count == 0 || u32::try_from(count).is_err() {
            crate::bail_input!("{name} has {count} samples in {key}, but there must be 1 to {}", u32::MAX);
        }
        let limits = [
            ("frames (T)", frames, MAX_FRAMES),
            ("channels (C)", channels, MAX_CHANNELS),
            ("rows (H)", height, MAX_SIDE),
            ("columns (W)", width, MAX_SIDE),
        ];
        for (what, value, limit) in limits {
            if value == 0 || value > limit {
                crate::bail_input!(
                    "{name} has {value} {what} in {key}, but there must be 1 to {limit}; check the order [N, T, C, H, W]"
                );
            }
        }
        let (size, sample) = (count * frames * channels * height * width, frames * channels * height * width);
        let mut values = Vec::new();
        reserve(&mut values, size).with_context(|| format!("{name}: {key}"))?;
        self.pieces(key, sample, |piece| {
            files::append_channels_last(piece, channels, height * width, &mut values);
        })?;
        Ok((count, SampleShape { frames, height, width, channels }, values))
    }

    fn labels(&self, key: &str) -> Result<Vec<u16>> {
        let name = &self.name;
        let (info, data) = self.tensor(key)?;
        if info.shape.len() != 1 {
            crate::bail_input!("{name} has {key} of shape {:?}, but labels must be [N]", info.shape);
        }
        let wide: Vec<i64> = match info.dtype {
            Dtype::U8 => data.iter().map(|&label| label.into()).collect(),
            Dtype::U16 => data.as_chunks().0.iter().map(|&bytes| u16::from_le_bytes(bytes).into()).collect(),
            Dtype::I32 => data.as_chunks().0.iter().map(|&bytes| i32::from_le_bytes(bytes).into()).collect(),
            Dtype::I64 => data.as_chunks().0.iter().map(|&bytes| i64::from_le_bytes(bytes)).collect(),
            other => crate::bail_input!(
                "{name} has {key} as {other:?}, but labels must be U8, U16, I32 or I64; convert them"
            ),
        };
        let narrow = |(index, label)| {
            u16::try_from(label).map_err(|_| {
                crate::input_error!(
                    "{name} gives sample {index} the label {label} in {key}, but labels must be 0 to {}; number the \
                     classes from 0",
                    u16::MAX
                )
            })
        };
        wide.into_iter().enumerate().map(narrow).collect()
    }
}

pub(super) static FRAMES: Reader = Reader {
    name: "frames",
    extents: None,
    advice: "write train.frames, train.labels, test.frames and test.labels into one safetensors file and name it \
                 with --data-dir",
    place: None,
    events: false,
    find,
    load: |path, _| load(path),
};

/// The file that [`load`] would read, if it exists.
fn find(path: &Path) -> Option<PathBuf> {
    let path = if path.is_dir() { path.join(FILE_NAME) } else { path.to_path_buf() };
    path.is_file().then_some(path)
}

/// Reads the file `path`, or `frames.safetensors` in the folder `path`.
fn load(path: &Path) -> Result<Dataset> {
    if path.is_dir() && !path.join(FILE_NAME).exists() {
        crate::bail_input!("{} has no {FILE_NAME}; {}", path.display(), DataSource::Frames.advice());
    }
    let path = if path.is_dir() { path.join(FILE_NAME) } else { path.to_path_buf() };
    from_file(&TensorFile::open_file(&path, MAX_BYTES)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::InputError;

    /// A file with the given header, followed by the data.
    fn file(header: &str, data: &[u8]) -> Vec<u8> {
        [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
    }

    #[test]
    fn offsets_that_overflow_are_refused() {
        // Eight tensors that end seven bytes before the last address, so that the file's length would wrap.
        let step = (1u64 << 61) - 1;
        let entry = |i: u64| {
            let (start, end) = (i * step, (i + 1) * step);
            format!(r#""t{i}":{{"dtype":"U8","shape":[{step}],"data_offsets":[{start},{end}]}}"#)
        };
        let huge = format!("{{{}}}", (0..8).map(entry).collect::<Vec<_>>().join(","));
        let overlapping = r#"{"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]},
                              "b":{"dtype":"U8","shape":[2],"data_offsets":[1,3]}}"#;
        let refused = [
            (file(&huge, &[]), "announces 18446744073709551608"),
            (file(overlapping, &[0; 3]), "no valid safetensors header"),
            (file("{}", &[]), "has no tensor train.frames"),
            (file("{}", &[1]), "1 bytes of data, but its header announces 0"),
            (file("[", &[]), "no valid safetensors header"),
            (vec![0; 7], "7 bytes"),
            (vec![255; 9], "announces a header of 18446744073709551615"),
        ];
        let mut cases = 0;
        for (bytes, part) in refused {
            let error = parse_frames(&bytes, "the file").unwrap_err();
            assert!(error.is::<InputError>() && error.to_string().contains(part), "{error}");
            cases += 1;
        }
        assert_eq!(cases, 7);
    }

    #[test]
    fn classes_count_from_zero_without_gaps() {
        assert_eq!(count_classes(&[2, 0, 1, 2], "x").unwrap(), 3);
        assert!(count_classes(&[1, 2], "x").unwrap_err().to_string().contains("none is 0"));
    }
}
