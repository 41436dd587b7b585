//! The samples of an event data set, and what in its folder does not belong to it.

use super::SensorSize;
use crate::data::listing::{Listing, has_extension};
use std::path::{Path, PathBuf};

/// The sensor of CIFAR10-DVS and of DVS128 Gesture.
pub(super) const DVS128: SensorSize = SensorSize { width: 128, height: 128 };

/// One sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trial {
    /// The recording.
    pub file: PathBuf,
    /// The class.
    pub label: u16,
    /// The time span in the recording, in microseconds, end excluded; the whole recording if absent.
    pub span: Option<(u64, u64)>,
}

/// An event data set before its events are read.
#[derive(Clone, Debug)]
pub struct Recordings {
    /// Where they were found.
    pub folder: PathBuf,
    /// One per class.
    pub class_names: Vec<String>,
    /// The sensor's size, the same for all recordings.
    pub size: SensorSize,
    /// Samples from the same file are adjacent.
    pub train: Vec<Trial>,
    /// Like `train`.
    pub test: Vec<Trial>,
    /// What the user should know about the folder, one line each.
    pub notes: Vec<String>,
}

/// Sub-folders and recordings in a data set's own folder that do not belong to it; archives and texts
/// are ignored, as they are often kept there.
pub(super) fn beside(root: &Listing, extension: &str, is_used: impl Fn(&Path) -> bool) -> Vec<PathBuf> {
    let recordings = root.files.iter().filter(|path| has_extension(path, extension));
    root.folders.iter().chain(recordings).filter(|path| !is_used(path)).cloned().collect()
}
