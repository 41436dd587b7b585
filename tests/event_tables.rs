//! Events as text and as NumPy arrays, in the variants that people write (`tests/cases`).

use crate::process::adali;
use adali::data::events::Event;
use adali::data::events::format::Format;
use adali::data::events::options::ReadOptions;
use adali::error::InputError;
use anyhow::Result;
use std::fs;
use std::path::PathBuf;

/// Events, size, and notes.
type Read = (Vec<Event>, Option<(u32, u32)>, String);

fn read_with(format: Format, bytes: &[u8], columns: Option<&str>) -> Result<Read> {
    let columns = columns.map(|columns| columns.parse().unwrap());
    let options = ReadOptions { columns, ..ReadOptions::default() };
    let mut reader = format.open_bytes(bytes.to_vec(), "the file", &options)?;
    let (mut events, mut piece) = (Vec::new(), Vec::new());
    loop {
        reader.read(&mut piece)?;
        if piece.is_empty() {
            let size = reader.size().map(|size| (size.width, size.height));
            return Ok((events, size, reader.notes().join("; ")));
        }
        events.extend_from_slice(&piece);
    }
}

fn text(text: &str, columns: Option<&str>) -> Result<Read> {
    read_with(Format::Csv, text.as_bytes(), columns)
}

fn refused(read: Result<Read>, what: &str, part: &str) {
    let Err(error) = read else { panic!("{what} was read") };
    assert!(error.is::<InputError>() && error.to_string().contains(part), "{what}: {error}");
}

fn case(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/cases").join(name)
}

#[test]
fn every_order_and_unit_of_the_same_text_gives_the_same_events() {
    let mut seen = Vec::new();
    for name in ["txyp.txt", "txyp_float.txt", "header_txyp.txt"] {
        let bytes = fs::read(case("text-t-x-y-p").join(name)).unwrap();
        let (events, _, notes) = read_with(Format::Csv, &bytes, None).unwrap();
        assert_eq!((events.len(), events[0].time, events[199].time), (200, 0, 2587), "{name}");
        assert_eq!(events.iter().filter(|event| event.on).count(), 100, "{name}");
        assert!(events.iter().all(|event| event.x < 34 && event.y < 34), "{name}");
        assert_eq!(notes.contains("taken as t,x,y,p"), !name.starts_with("header"), "{name}: {notes}");
        assert_eq!(notes.contains("taken as seconds"), name.contains("float"), "{name}: {notes}");
        seen.push(events);
    }
    assert!(seen[0] == seen[1] && seen[0] == seen[2]);
}

#[test]
fn text_is_read_as_people_write_it() {
    let event = |time, x, y, on| Event { time, x, y, on };
    let both = |first, last| vec![event(first, 1, 2, true), event(last, 3, 4, false)];
    for (file, columns, events, size, note) in [
        ("\u{feff}x,y,t,p\r\n1,2,5,1\r\n3,4,6,0\r\n", None, both(5, 6), None, "microseconds"),
        ("\"x\",\"y\",\"t\",\"p\"\n1,2,5,\"1\"\n3,4,6,0\n", None, both(5, 6), None, "microseconds"),
        (",x,y,t,p\n0,1,2,5,1\n1,3,4,6,0\n", None, both(5, 6), None, "microseconds"),
        (" x y t p\n0 1 2 5 1\n1 3 4 6 0\n", None, both(5, 6), None, "index"),
        ("x,y,timestamp_us,polarity\n1,2,5,true\n3,4,6,False\n", None, both(5, 6), None, ""),
        ("x;y;t_ms;p\n1;2;5;1\n3;4;6;-1\n", None, both(5000, 6000), None, ""),
        ("t\tx\ty\tp\n0.5\t1\t2\t1.0\n0.6\t3\t4\t0.0\n", None, both(500_000, 600_000), None, "seconds"),
        ("# t x y p\n5.0e0 1 2 1\n6.0e0 3 4 0\n", None, both(5, 6), None, "microseconds"),
        ("%geometry:320,240\n1,2,1,5\n3,4,0,6\n", None, both(5, 6), Some((320, 240)), "x,y,p,t"),
        ("240 180\n0.000005 1 2 1\n0.000006 3 4 0\n", None, both(5, 6), Some((240, 180)), "t,x,y,p"),
        ("1,2,5,1\n3,4,6,0\n", Some("x,y,t_us,p"), both(5, 6), None, ""),
        ("9 1 5000 2 1\n9 3 6000 4 0\n", Some("_,x,t_ns,y,p"), both(5, 6), None, ""),
        ("x,y,t,p\n", None, vec![], None, ""),
    ] {
        let (found, found_size, notes) = text(file, columns).unwrap();
        assert_eq!((found, found_size), (events, size), "{file}");
        assert!(notes.contains(note), "{file}: {notes}");
    }
}

#[test]
fn text_that_can_be_read_in_two_ways_is_refused() {
    for (file, part) in [
        ("1,2,3,1\n", "--columns"),
        ("1,2,3,1\n2,3,4,0\n", "no order alone fits"),
        ("0 0 0\n1 7 13\n", "3 columns without names"),
        ("1,2,3,1,5\n", "5 columns"),
        ("x,y,t\n1,2,3\n", "p is missing"),
        ("x,y,t,ts,p\n1,2,3,3,1\n", "t is there twice"),
        ("x,y,t,p\n1,2,-3,1\n", "line 2 has time -3"),
        ("x,y,t,p\n1,2,3,-1\n1,2,4,0\n", "line 3 has polarity 0"),
        ("x,y,t,p\n1,2,3,2\n", "polarity 2"),
        ("x,y,t,p\n1.5,2,3,1\n", "x 1.5"),
        ("x,y,t,p\n65536,2,3,1\n", "x 65536"),
        ("x,y,t,p\n1,2,3\n", "has 3 fields"),
        ("x,y,t,p\n1,2,0.5,1\n1,2,99000.0,1\n", "t_us"),
        ("x,y,t,p\n1,2,1700000000000000000,1\n", "t_ns"),
    ] {
        refused(text(file, None), file, part);
    }
    refused(read_with(Format::Csv, b"\xff\xfex\0,\0", None), "UTF-16", "UTF-16");
}

#[test]
fn archives_of_every_dtype_hold_the_same_events() {
    let plain = fs::read(case("npz-dtypes/plain.npz")).unwrap();
    let (plain, ..) = read_with(Format::Npz, &plain, None).unwrap();
    assert_eq!((plain.len(), plain[99].time), (100, 99_000));
    let refusals = [
        ("cut.npz", "damaged"),
        ("just_a_zip.npz", "a.txt"),
        ("neg.npz", "x of event 0 is -1"),
        ("objects.npz", "Python objects"),
    ];
    let mut cases = 0;
    for entry in fs::read_dir(case("npz-dtypes")).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap();
        if !name.ends_with(".npz") {
            continue;
        }
        let read = read_with(Format::Npz, &fs::read(&path).unwrap(), None);
        cases += 1;
        if let Some((_, part)) = refusals.iter().find(|(refused, _)| *refused == name) {
            refused(read, name, part);
            continue;
        }
        let (events, _, notes) = read.unwrap();
        match name {
            "zero.npz" => assert!(events.is_empty()),
            "t_ms.npz" => {
                assert!(notes.contains("microseconds") && events[99].time == 99, "{notes}");
                let (events, ..) = read_with(Format::Npz, &fs::read(&path).unwrap(), Some("x,y,t_ms,p")).unwrap();
                assert!(events == plain);
            }
            _ => assert!(events == plain, "{name}"),
        }
    }
    assert_eq!(cases, 26);
}

#[test]
fn columns_are_named_on_the_command_line() {
    let home = tempfile::TempDir::new().unwrap();
    fs::write(home.path().join("one.txt"), "7,1,2,1\n").unwrap();
    adali(home.path(), "events one.txt").failed(2, &["one.txt", "--columns"]);
    adali(home.path(), "events one.txt --columns t,x,q").misused("--columns");
    let said = adali(home.path(), "events one.txt --json --columns t_ms,x,y,p").done().json();
    assert_eq!((said["events"].as_u64(), said["first_us"].as_u64()), (Some(1), Some(7000)));
}
