//! Data files, good and bad: each format is written on the fly, read, then damaged in every way that its reader promises to
//! notice.

mod cifar;
mod frames;
mod pictures;

use self::cifar::{records, write_cifar};
use self::frames::frames_file;
use self::pictures::{jpeg, png};
use crate::pickles::cifar_pickle;
use adali::data::cifar::{Variant, parse_batch, parse_pickle};
use adali::data::frames::parse_frames;
use adali::data::idx::{SYSTEM_FASHION_MNIST, parse_images, parse_labels};
use adali::data::{DataSource, Dataset, Found, Request, SampleShape, find, load, load_as};
use adali::error::{InputError, exit_code};
use flate2::{Compression, write::GzEncoder};
use image::{ExtendedColorType, ImageEncoder, codecs::jpeg::JpegEncoder, codecs::png::PngEncoder};
use proptest::prelude::*;
use proptest::test_runner::TestRunner;
use safetensors::tensor::{Dtype, TensorView, serialize};
use std::fs;
use std::io::Write;
use std::path::Path;
use tempfile::TempDir;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn pixels(len: usize) -> Vec<u8> {
    (0..len).map(|i| (i * 7 % 251) as u8).collect()
}

fn idx_images(count: u32, height: u32, width: u32) -> Vec<u8> {
    let header = [0x803, count, height, width].map(u32::to_be_bytes).concat();
    [header, pixels((count * height * width) as usize)].concat()
}

fn idx_labels(labels: &[u8]) -> Vec<u8> {
    [&0x801u32.to_be_bytes(), &(labels.len() as u32).to_be_bytes(), labels].concat()
}

/// Turns content into a file.
type Pack = fn(&[u8]) -> Vec<u8>;

/// Writes a set of five training and two test images, 3x4, under the given names.
fn write_mnist(folder: &Path, [images, labels]: [&str; 2], pack: Pack) {
    fs::create_dir_all(folder).unwrap();
    for (part, marks) in [("train", &[0, 9, 5, 5, 1][..]), ("t10k", &[3, 8])] {
        fs::write(folder.join(format!("{part}-{images}")), pack(&idx_images(marks.len() as u32, 3, 4))).unwrap();
        fs::write(folder.join(format!("{part}-{labels}")), pack(&idx_labels(marks))).unwrap();
    }
}

const PLAIN: [&str; 2] = ["images-idx3-ubyte", "labels-idx1-ubyte"];

/// Checks that this is a one-line user error that names all of `parts`.
fn refused<T>(result: anyhow::Result<T>, what: &str, parts: &[&str]) {
    let Err(error) = result else { panic!("{what} was accepted") };
    let text = error.to_string();
    assert!(error.is::<InputError>() && exit_code(&error) == 2, "{what}: {text}");
    assert!(parts.iter().all(|part| text.contains(part)), "{what}: {text} misses one of {parts:?}");
    assert!(!text.contains('\n') && !text.contains("  "), "{what}: {text}");
}

fn check_mnist(data: &Dataset) {
    assert_eq!(data.train.shape, SampleShape { frames: 1, height: 3, width: 4, channels: 1 });
    assert_eq!((&*data.train.bytes(), &*data.test.bytes()), (&pixels(60)[..], &pixels(24)[..]));
    assert_eq!((&data.train.labels[..], &data.test.labels[..]), (&[0u16, 9, 5, 5, 1][..], &[3u16, 8][..]));
    assert_eq!((data.full_scale, &data.mean[..], &data.std[..]), (255.0, &[0.0][..], &[1.0][..]));
    assert_eq!(data.classes(), 10);
}

#[test]
fn the_mnist_family_is_read_under_all_its_names() {
    let gz = ["images-idx3-ubyte.gz", "labels-idx1-ubyte.gz"];
    let dotted = ["images.idx3-ubyte", "labels.idx1-ubyte"];
    let dotted_gz = ["images.idx3-ubyte.gz", "labels.idx1-ubyte.gz"];
    let packs: [(_, Pack); 6] = [
        (PLAIN, <[u8]>::to_vec),
        (dotted, <[u8]>::to_vec),
        (gz, gzip),
        (dotted_gz, gzip),
        (PLAIN, gzip), // the content decides, not the name
        (gz, <[u8]>::to_vec),
    ];
    let mut cases = 0;
    for (source, sub) in [(DataSource::Mnist, "MNIST/raw"), (DataSource::FashionMnist, "FashionMNIST/raw")] {
        for (names, pack) in packs {
            for sub in ["", sub] {
                let dir = TempDir::new().unwrap();
                let folder = dir.path().join(sub);
                assert_eq!(find(source, Some(dir.path())), None);
                write_mnist(&folder, names, pack);
                assert_eq!(find(source, Some(dir.path())), Some(Found::At(folder)));
                let data = load(source, Some(dir.path())).unwrap();
                check_mnist(&data);
                assert_eq!(data.name, source.name());
                cases += 1;
            }
        }
    }
    assert_eq!(cases, 24);
}

#[test]
fn damaged_idx_files_are_refused() {
    let bomb = {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(&idx_images(5, 3, 4)).unwrap();
        (0..256).for_each(|_| encoder.write_all(&[0; 1 << 20]).unwrap());
        encoder.finish().unwrap()
    };
    let packed = gzip(&idx_images(5, 3, 4));
    let mut broken = packed.clone();
    let checksum = packed.len() - 6;
    broken[checksum] ^= 1;
    let claim = |words: [u32; 4]| [&words.map(u32::to_be_bytes).concat()[..], &[0; 60]].concat();
    let lies: Vec<(&str, Vec<u8>, &str, &str)> = vec![
        ("an empty file", vec![], "images-idx3", "truncated: its content ends after 0 bytes"),
        ("a cut header", idx_images(5, 3, 4)[..9].to_vec(), "images-idx3", "inside the header of 16 bytes"),
        ("a cut body", idx_images(5, 3, 4)[..75].to_vec(), "images-idx3", "60 bytes of data, but 59 follow"),
        ("a byte too many", [idx_images(5, 3, 4), vec![0]].concat(), "images-idx3", "goes on after the 60 bytes"),
        ("labels as images", idx_labels(&[1; 5]), "images-idx3", "swapped"),
        ("images as labels", idx_images(5, 3, 4), "labels-idx1", "swapped"),
        ("another type", claim([0xd03, 5, 3, 4]), "images-idx3", "0x00000d03"),
        ("text", b"<!DOCTYPE html>".to_vec(), "images-idx3", "0x3c21444f"),
        ("fewer images than labels", idx_images(4, 3, 4), "images-idx3", "holds 4 images, but"),
        ("fewer labels than images", idx_labels(&[1; 4]), "labels-idx1", "holds 4 labels"),
        ("no images", claim([0x803, 0, 3, 4]), "images-idx3", "no images"),
        ("no labels", idx_labels(&[]), "labels-idx1", "no labels"),
        ("a label of 10", idx_labels(&[0, 1, 10, 1, 2]), "labels-idx1", "sample 2 the label 10"),
        ("images of no height", claim([0x803, 5, 0, 4]), "images-idx3", "0x4"),
        ("a huge side", claim([0x803, 5, 1 << 31, 4]), "images-idx3", "2147483648x4"),
        ("huge in all", claim([0x803, u32::MAX, 4096, 4096]), "images-idx3", "at most 8589934592"),
        ("a claim of gigabytes", claim([0x803, 512, 4096, 4095]), "images-idx3", "but 60 follow"),
        ("a claim of gigabytes, packed", gzip(&claim([0x803, 512, 4096, 4095])), "images-idx3", "but 60 follow"),
        ("a bomb", bomb, "images-idx3", "goes on after the 60 bytes"),
        ("a cut gzip file", packed[..packed.len() - 9].to_vec(), "images-idx3", "truncated"),
        ("a wrong checksum", broken, "images-idx3", "not valid gzip"),
        ("rubbish after gzip", [&packed[..], b"rubbish"].concat(), "images-idx3", "gzip"),
        ("another image size", idx_images(5, 4, 3), "images-idx3", "holds images of 3x4, but"),
    ];
    let mut cases = 0;
    for (what, bytes, kind, part) in lies {
        let dir = TempDir::new().unwrap();
        write_mnist(dir.path(), PLAIN, <[u8]>::to_vec);
        let file = format!("train-{kind}-ubyte");
        fs::write(dir.path().join(&file), bytes).unwrap();
        refused(load(DataSource::Mnist, Some(dir.path())), what, &[&file, part]);
        cases += 1;
    }
    assert_eq!(cases, 23);
}

#[test]
fn missing_and_misplaced_files_are_refused() {
    use DataSource::{Cifar10, Cifar100, Frames, Mnist};
    let mnist =
        ["train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"];
    let sets = [
        (Mnist, &mnist[..]),
        (Cifar10, &["data_batch_1.bin", "data_batch_5.bin", "test_batch.bin"]),
        (Cifar100, &["train.bin", "test.bin"]),
        (Frames, &["frames.safetensors"]),
    ];
    let mut cases = 0;
    for (source, files) in sets {
        for file in files {
            let dir = TempDir::new().unwrap();
            let root = dir.path();
            match source {
                Mnist => write_mnist(root, PLAIN, <[u8]>::to_vec),
                Frames => fs::write(root.join("frames.safetensors"), frames_file(&[])).unwrap(),
                _ => write_cifar(source, root),
            }
            load(source, Some(root)).unwrap();
            assert_eq!(find(source, Some(&root.join("nowhere"))), None);
            refused(
                load(source, Some(&root.join("nowhere"))),
                "no folder",
                &["nowhere does not exist", source.advice()],
            );
            if source != Frames {
                refused(load(source, Some(&root.join(file))), "a file", &[file, "is a file where a folder"]);
            }
            fs::remove_file(root.join(file)).unwrap();
            assert_eq!(find(source, Some(root)), None);
            refused(load(source, Some(root)), "a missing file", &[file, source.advice()]);
            fs::create_dir(root.join(file)).unwrap();
            refused(load(source, Some(root)), "a folder", &[file, "is a folder where a file"]);
            cases += 1;
        }
    }
    assert_eq!(cases, 10);
}

#[test]
fn what_is_missing_or_not_used_is_said() {
    use DataSource::{Cifar10, Cifar100, Frames, Mnist};
    let home = TempDir::new().unwrap();
    let root = home.path();
    write_mnist(root, PLAIN, <[u8]>::to_vec);
    write_cifar(Cifar10, root);
    write_cifar(Cifar100, root);
    let frames = root.join("frames.safetensors");
    fs::write(&frames, frames_file(&[])).unwrap();
    let here = root.display();
    let notes = |source| load(source, Some(root)).unwrap().notes;
    // The training labels are 0, 9, 5, 5, 1, the test labels 3, 8.
    let classes = [
        "no training sample of class 2, 3, 4 and 3 more, but 2 of 2 test samples",
        "no test sample of class 0, 1, 2 and 5 more",
    ];
    assert_eq!(notes(Mnist), classes.map(|note| format!("{here}: {note}")));
    let said = notes(Cifar10);
    assert_eq!(said[0], format!("{here}/data_batch_1.bin holds 2 images, where cifar10's has 10000"));
    assert_eq!(said[5], format!("{here}/test_batch.bin holds 1 images, where cifar10's has 10000"));
    assert!(said.len() == 8 && said[6].contains("airplane, frog, horse and 1 more"), "{said:?}");
    let said = notes(Cifar100);
    assert!(said.len() == 4 && said[0].ends_with("train.bin holds 2 images, where cifar100's has 50000"), "{said:?}");
    assert!(said[2].ends_with("no training sample of class 0, 1, 2 and 95 more, but 1 of 1 test samples"), "{said:?}");
    assert_eq!(notes(Frames), [format!("{}: no test sample of class 0", frames.display())]);
    let more = serialize(
        [
            ("train.frames", 48 * 3),
            ("train.labels", 3),
            ("test.frames", 48 * 2),
            ("test.labels", 2),
            ("valid.frames", 48),
        ]
        .map(|(name, len)| {
            let labels = name.ends_with("labels");
            let (shape, data) = (if labels { vec![len] } else { vec![len / 48, 2, 2, 3, 4] }, vec![0; len]);
            (name, TensorView::new(Dtype::U8, shape, data.leak()).unwrap())
        }),
        None,
    );
    fs::write(&frames, more.unwrap()).unwrap();
    let said = notes(Frames);
    assert!(said.len() == 1 && said[0].contains("also holds valid.frames, not used"), "{said:?}");
    assert!(load(DataSource::Digits, None).unwrap().notes.is_empty());
}

#[test]
fn no_bytes_make_a_parser_panic() {
    type Parser = fn(&[u8]) -> anyhow::Result<()>;
    let pickle = cifar_pickle("labels", &[1, 9], 2, &[5; 2 * 3072]);
    let parsers: [(&str, Vec<u8>, Parser); 10] = [
        ("pickle", pickle, |bytes| parse_pickle(bytes, "x", Variant::Cifar10).map(drop)),
        ("jpeg", jpeg(8, 8, 9), |bytes| adali::data::images::parse(bytes, "x").map(drop)),
        ("png", png(8, 8, 9), |bytes| adali::data::images::parse(bytes, "x").map(drop)),
        ("images", idx_images(3, 2, 2), |bytes| parse_images(bytes, "x").map(drop)),
        ("gzip images", gzip(&idx_images(3, 2, 2)), |bytes| parse_images(bytes, "x").map(drop)),
        ("labels", idx_labels(&[0, 9, 5]), |bytes| parse_labels(bytes, "x", 10).map(drop)),
        ("gzip labels", gzip(&idx_labels(&[0, 9, 5])), |bytes| parse_labels(bytes, "x", 10).map(drop)),
        ("cifar10", records(&[&[9]]), |bytes| parse_batch(bytes, "x", Variant::Cifar10).map(drop)),
        ("cifar100", records(&[&[1, 99]]), |bytes| parse_batch(bytes, "x", Variant::Cifar100).map(drop)),
        ("frames", frames_file(&[]), |bytes| parse_frames(bytes, "x").map(drop)),
    ];
    let mut cases = 0;
    for (name, good, parse) in parsers {
        parse(&good).unwrap();
        let sound = |bytes: &[u8]| parse(bytes).map_or_else(|error| error.is::<InputError>(), |()| true);
        for len in 0..good.len() {
            refused(parse(&good[..len]), name, &["x"]);
            cases += 1;
        }
        let config = ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) };
        let mut runner = TestRunner::new(config);
        let end = good.len();
        let edits = prop::collection::vec((0..end, any::<u8>()), 1..4);
        let case = (any::<prop::sample::Index>(), edits, prop::collection::vec(any::<u8>(), 0..200), 0..4);
        let count = std::cell::Cell::new(0);
        let outcome = runner.run(&case, |(cut, edits, random, kind)| {
            let mut bytes = good.clone();
            match kind {
                0 => bytes = random,
                1 => edits.iter().for_each(|&(at, value)| bytes[at] ^= 1 << (value % 8)),
                2 => edits.iter().for_each(|&(at, value)| bytes[at] = value),
                // A valid beginning, then random bytes.
                _ => bytes = [&good[..cut.index(end)], &random].concat(),
            }
            count.set(count.get() + 1);
            prop_assert!(sound(&bytes), "{name}: neither read nor refused");
            Ok(())
        });
        outcome.unwrap();
        cases += count.get();
    }
    assert!(cases > 7 * 512 + 6000, "{cases}");
}

#[test]
fn the_real_fashion_mnist_is_read() {
    if !Path::new(SYSTEM_FASHION_MNIST).exists() {
        // Bypasses the harness, which hides the output of passing tests.
        let text = "\nNOT TESTED: Fashion-MNIST's real files; run `apt-get install dataset-fashion-mnist`\n\n";
        std::io::stderr().write_all(text.as_bytes()).unwrap();
        return;
    }
    assert_eq!(find(DataSource::FashionMnist, None), Some(Found::At(SYSTEM_FASHION_MNIST.into())));
    let data = load(DataSource::FashionMnist, None).unwrap();
    assert_eq!((data.name.as_str(), data.source.as_str()), ("fashion-mnist", SYSTEM_FASHION_MNIST));
    assert_eq!(data.train.shape, SampleShape { frames: 1, height: 28, width: 28, channels: 1 });
    assert_eq!(data.train.labels[..10], [9, 0, 0, 3, 0, 2, 7, 2, 5, 5]);
    assert_eq!(data.test.labels[..10], [9, 2, 1, 1, 6, 1, 4, 6, 5, 7]);
    for (part, each) in [(&data.train, 6000), (&data.test, 1000)] {
        let counts = (0..10).map(|class| part.labels.iter().filter(|&&label| label == class).count());
        assert!(counts.eq([each; 10]) && part.bytes().len() == 10 * each * 784);
    }
    let sum: u64 = data.train.bytes().iter().map(|&value| u64::from(value)).sum();
    let mean = sum as f64 / data.train.bytes().len() as f64 / 255.0;
    assert!((mean - 0.2860).abs() < 5e-5, "{mean}"); // as published with common codebases
}
