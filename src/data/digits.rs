//! The built-in digits: 1797 handwritten digits of 8x8 pixels with 17 grey levels.
//!
//! They are the test part of UCI's "Optical Recognition of Handwritten Digits" (E. Alpaydin and C. Kaynak, 1998,
//! doi 10.24432/C50P49), licensed CC BY 4.0, in scikit-learn's copy; see `DIGITS.md` next to this file. That copy
//! is not divided into training and test; every fifth image is in the test part here (our choice).

use super::{Dataset, Reader, SampleShape, Samples, files};
use crate::files::room;
use anyhow::{Context, Result, ensure};
use flate2::read::GzDecoder;
use std::io::Read;

/// One line per digit: 64 values of 0 … 16, row by row, then the label.
const DIGITS: &[u8] = include_bytes!("digits.csv.gz");
const SHAPE: SampleShape = SampleShape { frames: 1, height: 8, width: 8, channels: 1 };
const LEVELS: u8 = 16;
const CLASSES: usize = 10;
/// More bytes than their text has.
const LENGTH: u64 = 1 << 19;

/// Built in, so there is no folder.
pub(super) static READER: Reader = Reader {
    name: "digits",
    extents: Some([8, 8, 1]),
    advice: "leave out --data-dir",
    place: None,
    events: false,
    find: |_| None,
    load: |_, _| load(),
};

/// The built-in digits. Index `i` is in the test part when `i % 5 == 4`.
///
/// # Errors
/// If there is not enough memory.
pub fn load() -> Result<Dataset> {
    let mut text = room(LENGTH, &"the built-in digits")?;
    GzDecoder::new(DIGITS).read_to_end(&mut text).context("the built-in digits are damaged")?;
    let text = String::from_utf8(text).context("the built-in digits are damaged")?;
    let mut parts = [(); 2].map(|()| (Vec::new(), Vec::new()));
    for (index, line) in text.lines().enumerate() {
        let row: Vec<u8> = line
            .split(',')
            .map(str::parse)
            .collect::<Result<_, _>>()
            .with_context(|| format!("the built-in digits are damaged: line {}", index + 1))?;
        let (&label, values) = row.split_last().context("the built-in digits are damaged: an empty line")?;
        ensure!(
            values.len() == SHAPE.len() && values.iter().all(|&value| value <= LEVELS) && usize::from(label) < CLASSES,
            "the built-in digits are damaged: line {}",
            index + 1
        );
        let part = &mut parts[usize::from(index % 5 == 4)];
        part.0.extend_from_slice(values);
        part.1.push(label.into());
    }
    let [train, test] = parts.map(|(values, labels)| Samples { shape: SHAPE, values: values.into(), labels });
    Ok(Dataset {
        name: "digits".into(),
        source: "built in".into(),
        class_names: files::numbered(CLASSES),
        full_scale: LEVELS.into(),
        mean: vec![0.0],
        std: vec![1.0],
        train,
        test,
        notes: Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_digits_are_there() {
        let digits = load().unwrap();
        assert_eq!((digits.train.len(), digits.test.len()), (1438, 359));
        assert_eq!((digits.train.bytes().len(), digits.test.bytes().len()), (1438 * 64, 359 * 64));
        // scikit-learn's load_digits(): the first image, the sum of all images, and the number of images per label.
        assert_eq!(digits.train.sample(0)[..10], [0, 0, 5, 13, 9, 1, 0, 0, 0, 0]);
        let sum = |part: &Samples| part.bytes().iter().map(|&value| u64::from(value)).sum::<u64>();
        assert_eq!(sum(&digits.train) + sum(&digits.test), 561_718);
        let mut counts = [0; CLASSES];
        for &label in digits.train.labels.iter().chain(&digits.test.labels) {
            counts[usize::from(label)] += 1;
        }
        assert_eq!(counts, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
        assert_eq!((digits.train.labels[4], digits.test.labels[0], digits.test.labels[1]), (5, 4, 9));
    }
}
