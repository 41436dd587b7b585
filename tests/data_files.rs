//! Data files, good and bad: each format is written on the fly, read, then damaged in every way that its reader promises to
//! notice.

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

/// CIFAR records: the label bytes, then constant planes.
fn records(labels: &[&[u8]]) -> Vec<u8> {
    labels.iter().flat_map(|label| [label, &[1; 1024][..], &[2; 1024], &[3; 1024]].concat()).collect()
}

fn write_cifar(source: DataSource, folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    if source == DataSource::Cifar10 {
        for batch in 1..=5 {
            fs::write(folder.join(format!("data_batch_{batch}.bin")), records(&[&[batch], &[9]])).unwrap();
        }
        fs::write(folder.join("test_batch.bin"), records(&[&[4]])).unwrap();
    } else {
        fs::write(folder.join("train.bin"), records(&[&[19, 99], &[0, 42]])).unwrap();
        fs::write(folder.join("test.bin"), records(&[&[1, 7]])).unwrap();
    }
}

/// The same images as [`write_cifar`], in the Python version.
fn write_pickles(source: DataSource, folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    let write = |name: &str, labels: &[u8]| {
        let planes = [[1; 1024], [2; 1024], [3; 1024]].concat().repeat(labels.len());
        let key = if source == DataSource::Cifar10 { "labels" } else { "fine_labels" };
        fs::write(folder.join(name), cifar_pickle(key, labels, labels.len(), &planes)).unwrap();
    };
    if source == DataSource::Cifar10 {
        (1..=5).for_each(|batch| write(&format!("data_batch_{batch}"), &[batch, 9]));
        write("test_batch", &[4]);
    } else {
        write("train", &[99, 42]);
        write("test", &[7]);
    }
}

type Tensor<'a> = (&'a str, Dtype, &'a [usize], Vec<u8>);

/// Three training samples and two test samples of [T, C, H, W] = [2, 2, 3, 4], with `changes` applied.
fn frames_file(changes: &[Tensor]) -> Vec<u8> {
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
fn cifar_is_read_from_its_folder_or_the_one_above() {
    let mut cases = 0;
    for (source, sub) in [(DataSource::Cifar10, "cifar-10-batches-bin"), (DataSource::Cifar100, "cifar-100-binary")] {
        for sub in ["", sub] {
            let dir = TempDir::new().unwrap();
            let folder = dir.path().join(sub);
            write_cifar(source, &folder);
            assert_eq!(find(source, Some(dir.path())), Some(Found::At(folder.clone())));
            let data = load(source, Some(dir.path())).unwrap();
            let (train, test): (&[u16], &[u16]) = match source {
                DataSource::Cifar10 => (&[1, 9, 2, 9, 3, 9, 4, 9, 5, 9], &[4]),
                _ => (&[99, 42], &[7]),
            };
            assert_eq!((&data.train.labels[..], &data.test.labels[..]), (train, test));
            assert_eq!(*data.train.bytes(), [1, 2, 3].repeat(1024 * train.len()));
            assert_eq!((data.mean.len(), data.std.len()), (3, 3));
            if source == DataSource::Cifar100 {
                assert_eq!((data.classes(), &data.class_names[42][..]), (100, "42"));
                let names: String = (0..100).map(|i| format!("name{i}\r\n")).collect();
                fs::write(folder.join("fine_label_names.txt"), &names).unwrap();
                assert_eq!(load(source, Some(dir.path())).unwrap().class_names[42], "name42");
                fs::write(folder.join("fine_label_names.txt"), "apple\n").unwrap();
                refused(load(source, Some(dir.path())), "one name", &["fine_label_names.txt", "holds 1 names"]);
                fs::write(folder.join("fine_label_names.txt"), [0xff]).unwrap();
                refused(load(source, Some(dir.path())), "names in bytes", &["fine_label_names.txt", "UTF-8"]);
            } else {
                assert_eq!(data.class_names[9], "truck");
                let damaged = folder.join("data_batch_3.bin");
                for (what, bytes, part) in [
                    ("an empty file", vec![], "no images"),
                    ("a cut record", records(&[&[1], &[2]])[..6000].to_vec(), "6000 bytes"),
                    ("a byte too many", [records(&[&[1]]), vec![0]].concat(), "1 more than 1 records"),
                    ("a label of 10", records(&[&[1], &[10]]), "image 1 the label 10"),
                ] {
                    fs::write(&damaged, bytes).unwrap();
                    refused(load(source, Some(dir.path())), what, &["data_batch_3.bin", part]);
                }
            }
            cases += 1;
        }
    }
    assert_eq!(cases, 4);
}

#[test]
fn the_python_version_of_cifar_gives_the_same_samples() {
    let mut cases = 0;
    for (source, subs) in [
        (DataSource::Cifar10, ["cifar-10-batches-bin", "cifar-10-batches-py"]),
        (DataSource::Cifar100, ["cifar-100-binary", "cifar-100-python"]),
    ] {
        let [binary, python] = [(); 2].map(|()| TempDir::new().unwrap());
        write_cifar(source, &binary.path().join(subs[0]));
        let want = load(source, Some(binary.path())).unwrap();
        for sub in ["", subs[1]] {
            let folder = python.path().join(sub);
            write_pickles(source, &folder);
            assert_eq!(find(source, Some(&folder)), Some(Found::At(folder.clone())));
            let data = load(source, Some(&folder)).unwrap();
            for (read, want) in [(&data.train, &want.train), (&data.test, &want.test)] {
                assert!(read.bytes() == want.bytes() && read.labels == want.labels && read.shape == want.shape);
            }
            assert_eq!(
                (&data.class_names, &data.mean, &data.notes.len()),
                (&want.class_names, &want.mean, &want.notes.len())
            );
            let damaged = folder.join(if source == DataSource::Cifar10 { "data_batch_3" } else { "train" });
            let key = if source == DataSource::Cifar10 { "labels" } else { "fine_labels" };
            let good = cifar_pickle(key, &[1], 1, &[5; 3072]);
            let changed = |from: &[u8], to: &[u8]| {
                let at = good.windows(from.len()).position(|part| part == from).unwrap();
                [&good[..at], to, &good[at + from.len()..]].concat()
            };
            for (what, bytes, part) in [
                ("an empty file", vec![], "ends too early at byte 0"),
                ("a record", vec![1; 3073], "unknown code 0x01"),
                ("a cut file", good[..good.len() - 1].to_vec(), "ends too early"),
                ("another label", cifar_pickle(key, &[200], 1, &[5; 3072]), "image 0 the label 200"),
                ("a label too many", cifar_pickle(key, &[1, 2], 1, &[5; 3072]), "1 images of 3072 bytes and 2 labels"),
                ("no images", cifar_pickle(key, &[], 0, &[]), "0 images"),
                ("a byte too few", cifar_pickle(key, &[1], 1, &[5; 3071]), "does not hold"),
                ("other keys", cifar_pickle("names", &[1], 1, &[5; 3072]), key),
                ("floats", changed(b"u1", b"f4"), "does not hold"),
                ("a call", changed(b"numpy\ndtype", b"os\nsystem"), "asks for \"system\""),
            ] {
                fs::write(&damaged, bytes).unwrap();
                let name = damaged.file_name().unwrap().to_str().unwrap();
                refused(load(source, Some(&folder)), what, &[name, part]);
            }
            fs::remove_file(&damaged).unwrap();
            assert_eq!(find(source, Some(&folder)), None);
            refused(load(source, Some(&folder)), "a missing file", &["has no", source.advice()]);
            fs::remove_file(folder.join(if source == DataSource::Cifar10 { "test_batch" } else { "test" })).unwrap();
            for batch in [1, 2, 4, 5] {
                let _ = fs::remove_file(folder.join(format!("data_batch_{batch}")));
            }
            cases += 1;
        }
    }
    assert_eq!(cases, 4);
}

#[test]
fn the_names_of_cifar_100_are_read_from_its_pickle() {
    let dir = TempDir::new().unwrap();
    write_pickles(DataSource::Cifar100, dir.path());
    let meta = dir.path().join("meta");
    // {"fine_label_names": [...]}, as Python 2 writes it.
    let text = |text: &str| [&[b'U', text.len() as u8][..], text.as_bytes()].concat();
    let names: Vec<u8> = (0..100).flat_map(|i| text(&format!("name{i}"))).collect();
    let pickle = |names: &[u8]| [b"\x80\x02}", &text("fine_label_names")[..], b"](", names, b"es."].concat();
    fs::write(&meta, pickle(&names)).unwrap();
    assert_eq!(load(DataSource::Cifar100, Some(dir.path())).unwrap().class_names[42], "name42");
    fs::write(&meta, pickle(&text("one"))).unwrap();
    refused(load(DataSource::Cifar100, Some(dir.path())), "one name", &["meta", "holds 1 names"]);
    fs::write(&meta, "{}").unwrap();
    refused(load(DataSource::Cifar100, Some(dir.path())), "text", &["meta"]);
}

fn png(height: u32, width: u32, grey: u8) -> Vec<u8> {
    let mut out = Vec::new();
    let bytes = vec![grey; (height * width) as usize];
    PngEncoder::new(&mut out).write_image(&bytes, width, height, ExtendedColorType::L8).unwrap();
    out
}

fn jpeg(height: u16, width: u16, grey: u8) -> Vec<u8> {
    let mut out = Vec::new();
    let bytes = vec![grey; 3 * usize::from(height) * usize::from(width)];
    let mut encoder = JpegEncoder::new_with_quality(&mut out, 100);
    encoder.encode(&bytes, width.into(), height.into(), ExtendedColorType::Rgb8).unwrap();
    out
}

fn write(root: &Path, name: &str, bytes: impl AsRef<[u8]>) {
    let path = root.join(name);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
}

#[test]
fn pictures_are_read_from_their_folders() {
    let home = TempDir::new().unwrap();
    let root = home.path();
    let (source, here) = (DataSource::ImageFolder, Some(root));
    refused(load(source, here), "nothing", &["no folder train", source.advice()]);
    write(root, "train/cat/2.png", png(6, 9, 20));
    write(root, "train/cat/10.JPG", jpeg(6, 9, 10));
    write(root, "train/dog/1.jpeg", jpeg(6, 9, 30));
    write(root, "Val/dog/1.png", png(6, 9, 40));
    write(root, "Val/cat/1.jpg", jpeg(6, 9, 50));
    assert_eq!(find(source, here), Some(Found::At(root.into())));
    let data = load(source, here).unwrap();
    assert_eq!(data.train.shape, SampleShape { frames: 1, height: 6, width: 9, channels: 3 });
    assert_eq!((&data.class_names[..], data.full_scale), (&["cat".to_string(), "dog".into()][..], 255.0));
    assert_eq!((&data.train.labels[..], &data.test.labels[..]), (&[0, 0, 1][..], &[0, 1][..]));
    let greys = |bytes: &[u8]| bytes.chunks(6 * 9 * 3).map(|image| image[70]).collect::<Vec<_>>();
    assert_eq!((greys(&data.train.bytes()), greys(&data.test.bytes())), (vec![10, 20, 30], vec![50, 40]));
    assert_eq!(data.notes.len(), 1);
    assert!(data.notes[0].contains("the pictures of val are the test samples"), "{:?}", data.notes);

    write(root, "test/dog/1.png", png(6, 9, 60));
    write(root, "train/cat/notes.txt", "");
    let data = load(source, here).unwrap();
    assert_eq!((greys(&data.test.bytes()), &data.test.labels[..]), (vec![60], &[1][..]));
    assert!(data.notes[0].contains("Val, train/cat/notes.txt are not used"), "{:?}", data.notes);
    assert!(data.notes[1].contains("no test sample of class cat"), "{:?}", data.notes);

    // Pictures of any size become squares.
    write(root, "train/dog/2.png", png(3, 40, 70));
    refused(load(source, here), "another size", &["2.png has 3x40 pixels", "10.JPG has 6x9", "--image-size"]);
    let squares = load_as(source, here, &Request { image_size: Some(4), ..Request::default() }).unwrap();
    assert_eq!(squares.train.shape, SampleShape { frames: 1, height: 4, width: 4, channels: 3 });
    assert_eq!(squares.train.bytes().chunks(48).map(|image| image[20]).collect::<Vec<_>>(), [10, 20, 30, 70]);
    for side in [0, 5000] {
        let request = Request { image_size: Some(side), ..Request::default() };
        refused(load_as(source, here, &request), "a side", &["--image-size", "from 1 to 4096"]);
    }
    let request = Request { image_size: Some(8), ..Request::default() };
    refused(load_as(DataSource::Digits, None, &request), "another source", &["image size 8", "digits"]);

    let whole = jpeg(6, 9, 30);
    for (what, bytes, part) in [
        ("an empty file", vec![], "not a whole picture"),
        ("text", b"<!DOCTYPE html>".to_vec(), "not a whole picture"),
        ("a cut picture", whole[..whole.len() - 2].to_vec(), "it ends too early"),
        ("a cut png", png(6, 9, 3)[..60].to_vec(), "not a whole picture"),
    ] {
        write(root, "train/dog/2.png", bytes);
        refused(load(source, here), what, &["train/dog/2.png", part]);
    }
    fs::remove_file(root.join("train/dog/2.png")).unwrap();
    write(root, "test/lion/1.png", png(6, 9, 60));
    refused(load(source, here), "another class", &["test/lion is no class of", "cat, dog"]);
    fs::remove_dir_all(root.join("test")).unwrap();
    fs::create_dir_all(root.join("test/dog")).unwrap();
    refused(load(source, here), "no test sample", &["no test sample"]);
    for class in ["cat", "dog"] {
        fs::remove_dir_all(root.join("train").join(class)).unwrap();
    }
    refused(load(source, here), "no class", &["train has 0 folders", source.advice()]);
    write(root, "file", "");
    refused(load(source, Some(&root.join("file"))), "a file", &["is a file where a folder"]);
}

#[test]
fn tiny_imagenet_is_read_from_its_folder_or_the_one_above() {
    let source = DataSource::TinyImagenet;
    for sub in ["", "tiny-imagenet-200"] {
        let home = TempDir::new().unwrap();
        let root = &home.path().join(sub);
        refused(load(source, Some(home.path())), "nothing", &["val_annotations.txt", source.advice()]);
        for (class, grey) in [("n02", 20), ("n01", 10)] {
            write(root, &format!("train/{class}/images/{class}_0.JPEG"), jpeg(8, 8, grey));
            write(root, &format!("train/{class}/{class}_boxes.txt"), "n02_0.JPEG\t0\t0\t8\t8\n");
        }
        write(root, "val/images/val_0.JPEG", jpeg(8, 8, 30));
        write(root, "val/images/val_1.JPEG", jpeg(8, 8, 40));
        write(root, "test/images/test_0.JPEG", jpeg(8, 8, 50));
        let list = "val_0.JPEG\tn02\t0\t32\t44\t62\nval_1.JPEG\tn01\t5\t5\t6\t6\n";
        write(root, "val/val_annotations.txt", list);
        assert_eq!(
            find(source, Some(home.path())),
            Some(Found::At(root.join(""))).map(|_| Found::At(home.path().join(sub)))
        );
        let data = load(source, Some(home.path())).unwrap();
        assert_eq!((&data.train.labels[..], &data.test.labels[..]), (&[0, 1][..], &[1, 0][..]));
        let greys = |bytes: &[u8]| bytes.chunks(192).map(|image| image[70]).collect::<Vec<_>>();
        assert_eq!((greys(&data.train.bytes()), greys(&data.test.bytes())), (vec![10, 20], vec![30, 40]));
        assert!(data.class_names == ["n01", "n02"] && data.notes.is_empty(), "{:?}", data.notes);
        for (what, list, parts) in [
            ("another class", list.replace("n01", "n03"), &["in line 2", "n01, n02"][..]),
            ("a path", list.replace("val_0", "../../x"), &["in line 1"]),
            ("no tab", list.replace('\t', " "), &["in line 1"]),
            ("no picture", list.replace("val_1", "val_7"), &["val_7.JPEG does not exist"]),
            ("nothing", String::new(), &["no test sample"]),
        ] {
            write(root, "val/val_annotations.txt", list);
            refused(load(source, Some(home.path())), what, parts);
        }
    }
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
