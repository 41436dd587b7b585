//! Folders of pictures.

use super::*;

pub fn png(height: u32, width: u32, grey: u8) -> Vec<u8> {
    let mut out = Vec::new();
    let bytes = vec![grey; (height * width) as usize];
    PngEncoder::new(&mut out).write_image(&bytes, width, height, ExtendedColorType::L8).unwrap();
    out
}

pub fn jpeg(height: u16, width: u16, grey: u8) -> Vec<u8> {
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
