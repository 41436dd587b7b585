//! CIFAR, as bytes and as pickles.

use super::*;

/// CIFAR records: the label bytes, then constant planes.
pub fn records(labels: &[&[u8]]) -> Vec<u8> {
    labels.iter().flat_map(|label| [label, &[1; 1024][..], &[2; 1024], &[3; 1024]].concat()).collect()
}

pub fn write_cifar(source: DataSource, folder: &Path) {
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
