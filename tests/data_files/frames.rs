//! Event frames.

use super::*;

type Tensor<'a> = (&'a str, Dtype, &'a [usize], Vec<u8>);

/// Three training samples and two test samples of [T, C, H, W] = [2, 2, 3, 4], with `changes` applied.
pub fn frames_file(changes: &[Tensor]) -> Vec<u8> {
    let mut tensors: Vec<Tensor> = vec![
        ("train.frames", Dtype::U8, &[3, 2, 2, 3, 4], pixels(3 * 48)),
        ("train.labels", Dtype::U8, &[3], vec![1, 0, 2]),
        ("test.frames", Dtype::U8, &[2, 2, 2, 3, 4], pixels(2 * 48)),
        ("test.labels", Dtype::U8, &[2], vec![2, 1]),
    ];
    for change in changes {
        tensors.iter_mut().find(|tensor| tensor.0 == change.0).unwrap().clone_from(change);
    }
    let views = tensors.iter().filter(|tensor| !tensor.2.is_empty());
    serialize(
        views.map(|(name, dtype, shape, data)| (*name, TensorView::new(*dtype, shape.to_vec(), data).unwrap())),
        None,
    )
    .unwrap()
}

#[test]
fn frames_are_read_with_labels_of_every_type() {
    let labels = [1i64, 0, 2];
    let types = [
        (Dtype::U8, labels.iter().map(|&l| l as u8).collect()),
        (Dtype::U16, labels.iter().flat_map(|&l| (l as u16).to_le_bytes()).collect()),
        (Dtype::I32, labels.iter().flat_map(|&l| (l as i32).to_le_bytes()).collect()),
        (Dtype::I64, labels.iter().flat_map(|&l| l.to_le_bytes()).collect::<Vec<u8>>()),
    ];
    let mut cases = 0;
    for (dtype, bytes) in types {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("frames.safetensors");
        fs::write(&file, frames_file(&[("train.labels", dtype, &[3], bytes)])).unwrap();
        for path in [dir.path(), &file] {
            assert_eq!(find(DataSource::Frames, Some(path)), Some(Found::At(file.clone())));
            let data = load(DataSource::Frames, Some(path)).unwrap();
            assert_eq!(data.train.shape, SampleShape { frames: 2, height: 3, width: 4, channels: 2 });
            assert_eq!((&data.train.labels[..], &data.test.labels[..]), (&[1u16, 0, 2][..], &[2u16, 1][..]));
            assert_eq!((data.classes(), data.full_scale, data.mean.len()), (3, 1.0, 2));
            let flat = pixels(3 * 48);
            for (i, &value) in data.train.bytes().iter().enumerate() {
                let (n, t, h, w, c) = (i / 48, i / 24 % 2, i / 8 % 3, i / 2 % 4, i % 2);
                assert_eq!(value, flat[((((n * 2) + t) * 2 + c) * 3 + h) * 4 + w]);
            }
            cases += 1;
        }
    }
    assert_eq!(cases, 8);
}

#[test]
fn damaged_frames_files_are_refused() {
    let good = frames_file(&[]);
    let one = |change: Tensor| frames_file(&[change]);
    let lies = [
        ("an empty file", vec![], "0 bytes"),
        ("a cut file", good[..good.len() - 1].to_vec(), "bytes of data, but its header announces"),
        ("a byte too many", [&good[..], &[0]].concat(), "bytes of data, but its header announces"),
        ("a cut header", good[..100].to_vec(), "truncated"),
        ("no labels", one(("test.labels", Dtype::U8, &[], vec![])), "no tensor test.labels"),
        ("no frames", one(("train.frames", Dtype::U8, &[], vec![])), "no tensor train.frames"),
        ("bits", one(("train.frames", Dtype::BOOL, &[3, 2, 2, 3, 4], vec![0; 144])), "must be U8"),
        ("four extents", one(("train.frames", Dtype::U8, &[3, 4, 3, 4], vec![0; 144])), "[N, T, C, H, W]"),
        (
            "no samples",
            one(("train.frames", Dtype::U8, &[0, 2, 2, 3, 4], vec![])),
            "0 samples in train.frames, but there must",
        ),
        ("no steps", one(("train.frames", Dtype::U8, &[3, 0, 2, 3, 4], vec![])), "0 frames (T)"),
        (
            "many samples of nothing",
            one(("train.frames", Dtype::U8, &[1 << 40, 0, 2, 3, 4], vec![])),
            "1 to 4294967295",
        ),
        ("channels last", one(("train.frames", Dtype::U8, &[1, 1, 65, 1, 1], vec![0; 65])), "65 channels (C)"),
        ("two shapes", one(("test.frames", Dtype::U8, &[2, 2, 2, 4, 3], pixels(96))), "2x4x3x2"),
        ("a label too few", one(("train.labels", Dtype::U8, &[2], vec![0, 1])), "3 samples in train.frames, but 2"),
        ("labels in a column", one(("train.labels", Dtype::U8, &[3, 1], vec![0, 1, 2])), "labels must be [N]"),
        ("labels as i8", one(("train.labels", Dtype::I8, &[3], vec![0, 1, 2])), "I8"),
        ("a negative label", one(("train.labels", Dtype::I32, &[3], [[0; 4], [255; 4], [0; 4]].concat())), "label -1"),
        ("a huge label", one(("train.labels", Dtype::I64, &[3], [[0; 8], [0; 8], [127; 8]].concat())), "sample 2"),
        ("counted from 1", one(("train.labels", Dtype::U8, &[3], vec![1, 2, 3])), "none is 0"),
        ("a class in the test alone", one(("test.labels", Dtype::U8, &[2], vec![0, 3])), "test sample 1 the label 3"),
    ];
    let mut cases = 0;
    for (what, bytes, part) in lies {
        refused(parse_frames(&bytes, "my.safetensors"), what, &["my.safetensors", part]);
        cases += 1;
    }
    assert_eq!(cases, 20);
}
