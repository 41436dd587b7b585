//! What the readers share: folders, channel order, class names.

use std::path::{Path, PathBuf};

/// The first of `dir` and its sub-folders for which `holds` is true.
pub(super) fn folder(dir: &Path, sub_folders: &[&str], holds: impl Fn(&Path) -> bool) -> Option<PathBuf> {
    std::iter::once(dir.to_path_buf()).chain(sub_folders.iter().map(|sub| dir.join(sub))).find(|path| holds(path))
}

/// Appends planes `[M][channels][area]` to `out` as `[M][area][channels]`.
pub(super) fn append_channels_last(planes: &[u8], channels: usize, area: usize, out: &mut Vec<u8>) {
    if channels == 1 {
        return out.extend_from_slice(planes);
    }
    out.reserve(planes.len());
    for frame in planes.chunks_exact(channels * area) {
        for position in 0..area {
            out.extend(frame[position..].iter().step_by(area));
        }
    }
}

/// The first few of many names, for messages: `a, b, c and 12 more`.
pub(super) fn some_of(names: &[impl AsRef<str>]) -> String {
    const SHOWN: usize = 3;
    let shown: Vec<&str> = names.iter().take(SHOWN).map(AsRef::as_ref).collect();
    let more = names.len() - shown.len();
    if more == 0 { shown.join(", ") } else { format!("{} and {more} more", shown.join(", ")) }
}

/// `"0"`, `"1"`, … for classes without names.
pub(super) fn numbered(classes: usize) -> Vec<String> {
    (0..classes).map(|class| class.to_string()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn channels_move_last() {
        let mut out = vec![9];
        // Two frames of two channels over three positions.
        append_channels_last(&[1, 2, 3, 4, 5, 6, 11, 12, 13, 14, 15, 16], 2, 3, &mut out);
        assert_eq!(out, [9, 1, 4, 2, 5, 3, 6, 11, 14, 12, 15, 13, 16]);
        let mut out = Vec::new();
        append_channels_last(&[1, 2, 3, 4], 1, 2, &mut out);
        assert_eq!(out, [1, 2, 3, 4]);
    }

    #[test]
    fn few_of_many_are_named() {
        assert_eq!(some_of(&["a", "b", "c"]), "a, b, c");
        assert_eq!(some_of(&["a", "b", "c", "d", "e"]), "a, b, c and 2 more");
    }
}
