//! Event recordings: files that other programs wrote or read (`tests/events`), and hostile ones.

use crate::process::{Random, adali};
use adali::data::events::Event;
use adali::data::events::format::Format;
use adali::data::events::options::ReadOptions;
use adali::data::{DataSource, Integration, Request, load_as};
use adali::error::InputError;
use anyhow::Result;
use std::fs;
use std::path::PathBuf;
use tempfile::TempDir;

/// Every file with the format that must be recognised.
const FILES: [(&str, Format); 17] = [
    ("nmnist.bin", Format::NMnist),
    ("cifar10dvs.aedat", Format::Aedat2),
    ("gesture.aedat", Format::Aedat3),
    ("dv_none.aedat4", Format::Aedat4),
    ("dv_lz4.aedat4", Format::Aedat4),
    ("dv_zstd.aedat4", Format::Aedat4),
    ("evt2.raw", Format::Evt2),
    ("evt2_faery.raw", Format::Evt2),
    ("evt3.raw", Format::Evt3),
    ("evt3_expelliarmus.raw", Format::Evt3),
    ("evt3_words.raw", Format::Evt3),
    ("td.dat", Format::Dat),
    ("td_faery.dat", Format::Dat),
    ("events.npz", Format::Npz),
    ("structured.npz", Format::Npz),
    ("events.csv", Format::Csv),
    ("plain.csv", Format::Csv),
];
/// The sizes that some of them state: columns and rows.
const SIZES: [(&str, u32, u32); 6] = [
    ("dv_lz4.aedat4", 64, 48),
    ("evt2_faery.raw", 640, 480),
    ("evt3.raw", 640, 480),
    ("evt3_words.raw", 1280, 720),
    ("td_faery.dat", 304, 240),
    ("dv_zstd.aedat4", 64, 48),
];

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/events")
}

fn read(format: Format, bytes: Vec<u8>) -> Result<Vec<Event>> {
    let (mut reader, mut piece, mut events) =
        (format.open_bytes(bytes, "the file", &ReadOptions::default())?, Vec::new(), Vec::new());
    loop {
        reader.read(&mut piece)?;
        if piece.is_empty() {
            return Ok(events);
        }
        events.extend_from_slice(&piece);
    }
}

/// One `time,x,y,on` per line, as read by the other program.
fn expected(name: &str) -> Vec<Event> {
    let text = fs::read_to_string(folder().join(format!("{name}.expected.csv"))).unwrap();
    let event = |line: &str| {
        let numbers: Vec<u64> = line.split(',').map(|number| number.parse().unwrap()).collect();
        let &[time, x, y, on] = &numbers[..] else { panic!("{line}") };
        Event { time, x: x as u16, y: y as u16, on: on == 1 }
    };
    text.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit())).map(event).collect()
}

#[test]
fn events_are_those_that_other_programs_read() {
    let mut cases = 0;
    for (name, format) in FILES {
        let path = folder().join(name);
        assert_eq!(Format::of(&path).unwrap(), format, "{name}");
        let (found, wanted) = (read(format, fs::read(&path).unwrap()).unwrap(), expected(name));
        assert!(wanted.len() >= 100, "{name} has {} events", wanted.len());
        assert_eq!(found.len(), wanted.len(), "{name}");
        for (i, (found, wanted)) in found.iter().zip(&wanted).enumerate() {
            assert_eq!(found, wanted, "event {i} of {name}");
        }
        cases += 1;
    }
    assert_eq!(cases, 17);
}

#[test]
fn sizes_are_those_that_files_state() {
    for (name, width, height) in SIZES {
        let size =
            adali::data::events::open(&folder().join(name), &ReadOptions::default()).unwrap().size().expect(name);
        assert_eq!((size.width, size.height), (width, height), "{name}");
    }
}

/// As SpikingJelly cuts the recording, one `label,events,first,last` per trial; it counts an invalid event inside a trial.
#[test]
fn gestures_are_cut_as_by_spikingjelly() {
    let one = Integration { frames: 1, ..Integration::default() };
    let data =
        load_as(DataSource::DvsGesture, Some(&folder()), &Request { integration: one, ..Request::default() }).unwrap();
    let text = fs::read_to_string(folder().join("gesture_labels.expected.csv")).unwrap();
    let trials: Vec<Vec<u64>> =
        text.lines().map(|line| line.split(',').map(|number| number.parse().unwrap()).collect()).collect();
    assert_eq!((trials.len(), data.train.len(), data.test.len()), (3, 3, 3));
    for part in [&data.train, &data.test] {
        for (i, trial) in trials.iter().enumerate() {
            let events: u64 = part.sample(i).iter().map(|&count| u64::from(count)).sum();
            assert_eq!((u64::from(part.labels[i]), events), (trial[0], trial[1]), "trial {i}");
        }
    }
}

/// Reads arbitrary bytes: no more events than possible, or a user error.
fn survives(format: Format, bytes: Vec<u8>, what: &str) {
    // The densest encoding has 12 events in a word of two bytes; compressed formats hold many more.
    let most = 12 * bytes.len() * if matches!(format, Format::Aedat4 | Format::Npz) { 1000 } else { 1 };
    match read(format, bytes) {
        Ok(events) => assert!(events.len() <= most, "{what}: {} events", events.len()),
        Err(error) => assert!(error.is::<InputError>(), "{what}: {error:?}"),
    }
}

#[test]
fn hostile_recordings_are_refused_or_read() {
    let mut rng = Random::new("hostile recordings");
    let mut cases = 0;
    for (name, format) in FILES {
        let good = fs::read(folder().join(name)).unwrap();
        let lengths = (0..good.len().min(500)).chain((0..200).map(|_| rng.below(good.len()))).collect::<Vec<_>>();
        for length in lengths {
            survives(format, good[..length].to_vec(), &format!("{name} cut at {length}"));
            cases += 1;
        }
        for _ in 0..300 {
            let mut bad = good.clone();
            for _ in 0..1 + rng.below(4) {
                // Headers are a small part of a file, but most lies are there.
                let at = if rng.below(2) == 0 { rng.below(bad.len().min(200)) } else { rng.below(bad.len()) };
                bad[at] = [0, 1, 0x7f, 0x80, 0xff, rng.next_u64() as u8][rng.below(6)];
            }
            survives(format, bad, &format!("{name} changed"));
            cases += 1;
        }
        for _ in 0..20 {
            let noise = (0..rng.below(3000)).map(|_| rng.next_u64() as u8).collect();
            survives(format, noise, &format!("noise as {name}"));
            cases += 1;
        }
    }
    assert!(cases >= 17 * (300 + 200 + 20), "{cases}");
}

#[test]
fn a_recording_is_summed_up() {
    let home = TempDir::new().unwrap();
    let file = folder().join("evt3.raw");
    let ran = adali(home.path(), &format!("events {} --svg r.svg --time", file.display())).done();
    assert!(ran.out.contains("(evt3)") && ran.out.contains("640x480 (stated)") && ran.out.contains("decoded"), "{ran}");
    let drawn = fs::read_to_string(home.path().join("r.svg")).unwrap();
    assert!(drawn.starts_with("<svg") && drawn.contains("thousand events/s"));
    let (events, said) =
        (expected("evt3.raw"), adali(home.path(), &format!("events {} --json", file.display())).done());
    let said = said.json();
    let numbers = ["events", "on", "first_us", "last_us"].map(|name| said[name].as_u64().unwrap());
    let on = events.iter().filter(|event| event.on).count() as u64;
    let times = events.iter().map(|event| event.time);
    assert_eq!(numbers, [events.len() as u64, on, times.clone().min().unwrap(), times.max().unwrap()]);
    adali(home.path(), "events none.raw").failed(2, &["none.raw", "does not exist"]);
    adali(home.path(), &format!("events {} --frames 0", file.display())).failed(2, &["--frames"]);
    adali(home.path(), &format!("events {} --format dat", file.display())).failed(2, &["type"]);
    fs::write(home.path().join("x.unknown"), [1, 2, 3]).unwrap();
    adali(home.path(), "events x.unknown").failed(2, &["--format"]);
}

#[test]
fn lies_are_named() {
    let refused = |format: Format, bytes: Vec<u8>, part: &str| {
        let error = read(format, bytes).unwrap_err();
        assert!(error.is::<InputError>() && error.to_string().contains(part), "{error}");
    };
    refused(Format::NMnist, vec![1; 7], "ends within an event at byte 5");
    refused(Format::Aedat2, b"#!AER-DAT3.1\r\n".to_vec(), "AER-DAT2.0");
    refused(Format::Aedat2, b"#!AER-DAT2.0\r\n\x01\x02".to_vec(), "ends within an event");
    let packet = |kind: i16, size: i32, capacity: i32, events: i32| {
        let numbers = [size, 4, 0, capacity, events, events].map(i32::to_le_bytes).concat();
        [b"#!AER-DAT3.1\r\n#!END-HEADER\r\n".to_vec(), kind.to_le_bytes().to_vec(), vec![0; 2], numbers].concat()
    };
    refused(Format::Aedat3, packet(1, 8, 4, 5), "5 of 4 events");
    refused(Format::Aedat3, packet(1, 16, 4, 4), "type 1");
    refused(Format::Aedat3, packet(1, 8, i32::MAX, 1), "damaged");
    refused(Format::Aedat3, packet(1, -8, 1, 1), "negative");
    refused(Format::Aedat3, packet(1, 8, 4, 4), "ends within a packet");
    refused(Format::Aedat3, packet(0, 8, 4, 4), "ends within a packet");
    refused(Format::Aedat4, b"#!AER-DAT4.0\r\n\xff\xff\xff\xff".to_vec(), "damaged");
    refused(Format::Aedat4, b"#!AER-DAT4.0\r\n\x08\0\0\0\x04\0\0\0IOHX".to_vec(), "damaged");
    refused(Format::Evt3, b"% evt 3.0\n\x01".to_vec(), "ends within a word");
    refused(Format::Dat, b"% Version 2\n\x0e\x08".to_vec(), "type 14");
    refused(Format::Dat, b"% Version 2\n".to_vec(), "its header");
    refused(Format::Npz, b"PK\x03\x04".to_vec(), "damaged archive");
    refused(Format::Csv, b"x,y,t\n1,2,3\n".to_vec(), "of which p is missing");
    refused(Format::Csv, b"x,y,t,p\n1,2,3,1\n1,2,-3,1\n".to_vec(), "line 3");
    refused(Format::Csv, [&b"x,y,t,p\n"[..], &[b'1'; 5000]].concat(), "no line of an event");
}
