//! Recordings whose bytes are ambiguous (`tests/cases/events`, laid out by the published formats): each is read correctly, or
//! refused with advice.

use crate::process::adali;
use adali::data::events::format::Format;
use adali::data::events::open;
use adali::data::events::options::{ReadOptions, Sensor};
use adali::data::events::{Event, EventReader};
use adali::error::InputError;
use std::fs;
use std::path::PathBuf;
use tempfile::TempDir;

fn case(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/cases/events").join(name)
}

fn sensor(sensor: Sensor) -> ReadOptions {
    ReadOptions { sensor: Some(sensor), ..ReadOptions::default() }
}

fn stream(stream: u32) -> ReadOptions {
    ReadOptions { stream: Some(stream), ..ReadOptions::default() }
}

/// All events, the notes about them, and the stated size.
type Read = (Vec<Event>, Vec<String>, Option<(u32, u32)>);

fn all(mut reader: Box<dyn EventReader>) -> anyhow::Result<Read> {
    let (mut events, mut piece) = (Vec::new(), Vec::new());
    loop {
        reader.read(&mut piece)?;
        if piece.is_empty() {
            return Ok((events, reader.notes(), reader.size().map(|size| (size.width, size.height))));
        }
        events.extend_from_slice(&piece);
    }
}

fn read(name: &str, options: &ReadOptions) -> anyhow::Result<Read> {
    all(open(&case(name), options)?)
}

fn bytes(format: Format, bytes: &[u8], options: &ReadOptions) -> anyhow::Result<Read> {
    all(format.open_bytes(bytes.to_vec(), "the file", options)?)
}

fn refused(read: anyhow::Result<Read>, parts: &[&str]) {
    let error = read.unwrap_err();
    assert!(error.is::<InputError>(), "{error:?}");
    parts.iter().for_each(|part| assert!(error.to_string().contains(part), "{part}: {error}"));
}

fn times(events: &[Event]) -> (u64, u64) {
    (events.first().unwrap().time, events.last().unwrap().time)
}

/// Events of AEDAT 2.0 after header lines.
fn aedat2(lines: &[&str], addresses: &[u32]) -> Vec<u8> {
    let mut file = b"#!AER-DAT2.0\r\n".to_vec();
    lines.iter().for_each(|line| file.extend_from_slice(format!("{line}\r\n").as_bytes()));
    for (time, address) in addresses.iter().enumerate() {
        file.extend_from_slice(&address.to_be_bytes());
        file.extend_from_slice(&(time as u32).to_be_bytes());
    }
    file
}

#[test]
fn data_that_begin_as_a_header_are_data() {
    for (name, first, last) in [("hash.aedat", 1000, 1039), ("hash_with_newline.aedat", 10, 49)] {
        let (events, notes, size) = read(name, &ReadOptions::default()).unwrap();
        assert_eq!((events.len(), times(&events), size), (40, (first, last), Some((240, 180))), "{name}");
        // Row bits 141 of 180 rows.
        assert!(events.iter().all(|event| event.y == 38 && event.on) && notes.is_empty(), "{name}: {notes:?}");
    }
    // The same without the line that ends the header.
    let file = aedat2(&["# AEChip: x.DAVIS240C"], &[0x2340_5800, 0x2340_6800]);
    assert_eq!(bytes(Format::Aedat2, &file, &ReadOptions::default()).unwrap().0.len(), 2);
    // EVT 3.0: an event in column 37 starts with `% `.
    let words = [0x8001_u16, 0x0002, 0x2025].map(u16::to_le_bytes).concat();
    for header in ["% evt 3.0\n% end\n", "% evt 3.0\n"] {
        let file = [header.as_bytes(), &[0x25, 0x20], &words].concat();
        let (events, notes, _) = bytes(Format::Evt3, &file, &ReadOptions::default()).unwrap();
        assert_eq!((events.len(), events[0].x, events[0].y, notes.len()), (1, 37, 2, 1));
    }
}

#[test]
fn special_events_frames_and_imu_are_no_events_of_pixels() {
    let (events, notes, _) = read("special.aedat", &ReadOptions::default()).unwrap();
    assert_eq!((events.len(), events.iter().filter(|event| event.on).count(), notes.len()), (3, 2, 0));
    let addresses = [0x8000_0000, 0x8000_0c00, 0x0000_0400, 0x27ce_5800];
    let davis = bytes(Format::Aedat2, &aedat2(&[], &addresses), &sensor(Sensor::Davis240)).unwrap();
    assert_eq!(davis.0, [Event { time: 3, x: 239 - 0xe5, y: 179 - 0x9f, on: true }]);
    let addresses = [0x8000_0001, 0x0000_8000, 0x0000_7ffe];
    let dvs = bytes(Format::Aedat2, &aedat2(&["# AEChip: a.b.DVS128"], &addresses), &ReadOptions::default()).unwrap();
    assert_eq!((dvs.0, dvs.1.len()), (vec![Event { time: 2, x: 0, y: 0, on: true }], 0));
}

#[test]
fn the_chip_decides_what_an_address_means() {
    for name in ["davis346.aedat", "davis346_v2e.aedat"] {
        refused(read(name, &ReadOptions::default()), &["does not name its chip", "--sensor (davis346, davis640)"]);
        refused(read(name, &sensor(Sensor::Dvs128)), &["not of a DVS128", "--sensor"]);
        refused(read(name, &sensor(Sensor::Davis240)), &["outside of the 240x180 pixels of davis240", "--sensor"]);
    }
    let (events, notes, size) = read("davis346.aedat", &sensor(Sensor::Davis346)).unwrap();
    assert_eq!((events.len(), size, notes.len()), (20, Some((346, 260)), 0));
    // As given to v2e: (10, 20), (345, 259) and so on, rotated by 180 degrees.
    assert!(events[0] == Event { time: 0, x: 345 - 0x14f, y: 259 - 0xef, on: true }, "{:?}", events[0]);
    assert_eq!(read("davis346_v2e.aedat", &sensor(Sensor::Davis346)).unwrap().0.len(), 400);
    let (events, _, size) = read("davis640.aedat", &ReadOptions::default()).unwrap();
    assert_eq!((events.len(), size), (40, Some((640, 480))));
    assert!(events.iter().all(|event| event.y == 200));
    for (chip, wanted) in [
        ("DVS128", (128, 128)),
        ("eu.seebetter.ini.chips.davis.Davis128", (128, 128)),
        ("eu.seebetter.ini.chips.davis.Davis208PixelParade", (208, 192)),
        ("eu.seebetter.ini.chips.davis.DAVIS240A", (240, 180)),
        ("eu.seebetter.ini.chips.davis.DAVIS240B", (240, 180)),
        ("eu.seebetter.ini.chips.davis.DAVIS240C", (240, 180)),
        ("eu.seebetter.ini.chips.davis.Davis346blue", (346, 260)),
        ("eu.seebetter.ini.chips.davis.Davis346cBSI", (346, 260)),
        ("eu.seebetter.ini.chips.davis.Davis640Color", (640, 480)),
    ] {
        let file = aedat2(&["# HardwareInterface: DAVIS FX3", &format!("# AEChip: {chip}")], &[]);
        assert_eq!(bytes(Format::Aedat2, &file, &ReadOptions::default()).unwrap().2, Some(wanted), "{chip}");
    }
    // These chips have another address layout.
    for chip in ["eu.seebetter.ini.chips.davis.DavisRGBW640", "ch.unizh.ini.jaer.chip.dvs320.DVS320", "CDAVIS"] {
        let file = aedat2(&[&format!("# AEChip: {chip}")], &[0x0840]);
        let name = chip.rsplit('.').next().unwrap();
        refused(bytes(Format::Aedat2, &file, &ReadOptions::default()), &[name, "not known", "--sensor"]);
        let (_, notes, size) = bytes(Format::Aedat2, &file, &sensor(Sensor::Davis640)).unwrap();
        assert!(size == Some((640, 480)) && notes[0].contains(name) && notes[0].contains("--sensor"), "{notes:?}");
    }
}

#[test]
fn addresses_decide_where_no_chip_is_named_and_it_is_said() {
    let (events, notes, size) =
        bytes(Format::Aedat2, &aedat2(&["# mat2dat"], &[0x7ffe, 0x0001, 0x4083]), &ReadOptions::default()).unwrap();
    assert_eq!((events.len(), size), (3, None));
    assert!(notes[0].contains("DVS128 is assumed"), "{notes:?}");
    // One pixel row of a DAVIS also has 16-bit addresses.
    refused(
        bytes(Format::Aedat2, &aedat2(&[], &[0x0800, 0x1000]), &ReadOptions::default()),
        &["DVS128's or a DAVIS's"],
    );
    refused(bytes(Format::Aedat2, &aedat2(&[], &[0x0001_0001]), &ReadOptions::default()), &["neither", "--sensor"]);
    // What the start of the file does not show is found while reading.
    let mut late = vec![0x0101; 300_000];
    late.push(0x3bd4_f800);
    refused(bytes(Format::Aedat2, &aedat2(&[], &late), &ReadOptions::default()), &["0x3bd4f800", "--sensor"]);
    // A single glitch among many events is dropped and counted.
    let mut glitch = vec![0x27ce_5800; 200];
    glitch.push(0x7fff_f800);
    let (events, notes, _) =
        bytes(Format::Aedat2, &aedat2(&["# AEChip: DAVIS240C"], &glitch), &ReadOptions::default()).unwrap();
    assert_eq!(events.len(), 200);
    assert!(notes[0].starts_with("1 events outside of the sensor of 240x180"), "{notes:?}");
}

#[test]
fn events_without_a_time_are_left_out_and_counted() {
    for (name, time) in [("evt2.raw", (3_000_000_000, 3_000_000_004)), ("evt3.raw", (11_718_657, 11_718_657))] {
        let (events, notes, _) = read(name, &ReadOptions::default()).unwrap();
        assert_eq!((events.len(), times(&events), &notes[0][..9]), (5, time, "5 events "), "{name}");
    }
    // No row was given yet.
    let words = [0x8001_u16, 0x2001, 0x3001, 0x4003, 0x0005, 0x2001].map(u16::to_le_bytes).concat();
    let (events, notes, _) = bytes(Format::Evt3, &words, &ReadOptions::default()).unwrap();
    assert!(events.len() == 1 && notes[0].starts_with("3 events "), "{notes:?}");
}

#[test]
fn vectors_and_rounds_of_the_clock_are_read_as_the_maker_does() {
    let (events, ..) = read("incomplete_vector.raw", &ReadOptions::default()).unwrap();
    assert_eq!((events.len(), events[2].time), (3, 4096 * 255));
    let (events, notes, _) = read("vector_beyond_width.raw", &ReadOptions::default()).unwrap();
    assert_eq!(events.iter().map(|event| event.x).collect::<Vec<_>>(), [1275, 1276, 1277, 1278, 1279]);
    assert!(notes[0].starts_with("27 events outside of the sensor of 1280x720"), "{notes:?}");
    let (events, ..) = read("wrap_three_loops.raw", &ReadOptions::default()).unwrap();
    assert_eq!((events.len(), times(&events)), (192, (5, (2 << 24) + (4032 << 12) + 5)));
    assert!(events.is_sorted_by_key(|event| event.time));
}

#[test]
fn prophesees_headers_decide_and_what_they_leave_open_is_asked() {
    let (events, notes, size) = read("v1.dat", &ReadOptions::default()).unwrap();
    assert_eq!((events.len(), events.iter().filter(|event| event.on).count(), size), (50, 25, None));
    let extents = (events.iter().map(|e| e.x).max().unwrap(), events.iter().map(|e| e.y).max().unwrap());
    assert!(extents.0 < 304 && extents.1 < 240 && extents.1 > 200 && notes.is_empty(), "{extents:?} {notes:?}");
    let (events, notes, _) = read("old.raw", &ReadOptions::default()).unwrap();
    assert_eq!((events.len(), times(&events)), (20, (2_000_000, 2_000_019)));
    assert!(notes[0].contains("system_ID 21"), "{notes:?}");
    refused(read("evt21.raw", &ReadOptions::default()), &["2.1"]);
    let dat = |header: &str, data: u32| [header.as_bytes(), &[12, 8, 0, 0, 0, 0], &data.to_le_bytes()].concat();
    refused(bytes(Format::Dat, &dat("% Version 3\n", 0), &ReadOptions::default()), &["version 3"]);
    refused(bytes(Format::Dat, &dat("% Width 640\n", 5), &ReadOptions::default()), &["1 or 2", "% Version"]);
    let (events, notes, _) = bytes(Format::Dat, &dat("% Width 640\n", 1 << 28 | 5), &ReadOptions::default()).unwrap();
    assert!(events[0].on && notes[0].contains("2 is assumed"), "{notes:?}");
    let home = TempDir::new().unwrap();
    fs::write(home.path().join("x.raw"), "% Date today\n% integrator_name me\n\x01\x02\x03\x04").unwrap();
    adali(home.path(), "events x.raw").failed(2, &["names no format", "--format evt2"]);
}

#[test]
fn of_several_sources_one_is_read() {
    // EVT 3.0: two events of the slave, one of the master.
    let words = [0x8001_u16, 0x0805, 0x2001, 0x0007, 0x2002, 0x0805, 0x3003, 0x4001].map(u16::to_le_bytes).concat();
    let read = |options: &ReadOptions| bytes(Format::Evt3, &words, options).unwrap();
    let (events, notes, _) = read(&ReadOptions::default());
    assert_eq!((events.len(), events[0].y), (2, 5));
    assert!(notes[0].contains("1 events of the master camera") && notes[0].contains("--stream 0"), "{notes:?}");
    let (events, notes, _) = read(&stream(0));
    assert_eq!((events.len(), events[0].y), (1, 7));
    assert!(notes[0].contains("2 events of the slave camera") && notes[0].contains("--stream 1"), "{notes:?}");
    refused(bytes(Format::Evt3, &words[..6], &stream(0)), &["no stream 0"]);
    refused(bytes(Format::Evt3, &words, &stream(2)), &["--stream 2"]);

    // AEDAT 3.1: one event each of sources 2, 4, 2.
    let mut file = b"#!AER-DAT3.1\r\n#Source 2: DVS128\r\n#Source 4: DVS128\r\n#!END-HEADER\r\n".to_vec();
    for (source, x) in [(2_i16, 1_u32), (4, 2), (2, 3)] {
        file.extend([1_i16, source].map(i16::to_le_bytes).concat());
        file.extend([8_i32, 4, 0, 1, 1, 1].map(i32::to_le_bytes).concat());
        file.extend([x << 17 | 1, 7].map(u32::to_le_bytes).concat());
    }
    let columns = |options: &ReadOptions| {
        let (events, notes, _) = bytes(Format::Aedat3, &file, options).unwrap();
        (events.iter().map(|event| event.x).collect::<Vec<_>>(), notes.concat())
    };
    let (first, note) = columns(&ReadOptions::default());
    assert!(first == [1, 3] && note.contains("1 events of other streams") && note.contains("(4)"), "{first:?} {note}");
    assert_eq!(columns(&stream(4)).0, [2]);
    refused(bytes(Format::Aedat3, &file, &stream(3)), &["no stream 3", "2, 4"]);
    let at = file.len() - 36;
    file[at + 1] = 0x80;
    refused(bytes(Format::Aedat3, &file, &ReadOptions::default()), &["compressed"]);
}

/// Uncompressed AEDAT 4 that lists these event streams, with packets of one event each: stream and column.
fn aedat4(streams: &[u32], packets: &[(u32, u16)]) -> Vec<u8> {
    let nodes = streams.iter().map(|id| {
        format!(
            "<node name=\"{id}\" path=\"/o/{id}/\"><attr key=\"typeIdentifier\" type=\"string\">EVTS</attr><node name=\"info\" \
             path=\"/o/{id}/info/\"><attr key=\"sizeX\" type=\"int\">{w}</attr><attr key=\"sizeY\" type=\"int\">8</attr></node>\
             </node>",
            w = 100 + id
        )
    });
    let text = format!("<dv><node name=\"outInfo\" path=\"/o/\">{}</node></dv>", nodes.collect::<String>());
    let word = |number: u32| number.to_le_bytes();
    // Root, identifier, vtable (10 bytes, 2 of padding), table: offset back to the vtable, text.
    let header = [
        &word(20)[..],
        b"IOHE",
        &[10, 0, 8, 0, 0, 0, 0, 0, 4, 0, 0, 0],
        &word(12),
        &word(4),
        &word(text.len() as u32),
        text.as_bytes(),
    ]
    .concat();
    let mut file = [&b"#!AER-DAT4.0\r\n"[..], &word(header.len() as u32), &header].concat();
    for &(stream, x) in packets {
        let event = [&7_u64.to_le_bytes()[..], &x.to_le_bytes(), &[0, 0, 1, 0, 0, 0]].concat();
        let table = [&word(16)[..], b"EVTS", &[6, 0, 8, 0, 4, 0, 0, 0], &word(8), &word(4), &word(1), &event].concat();
        let packet = [&word(table.len() as u32)[..], &table].concat();
        file.extend([&word(stream)[..], &word(packet.len() as u32), &packet].concat());
    }
    file
}

#[test]
fn of_several_streams_of_aedat4_one_is_read() {
    let file = aedat4(&[3, 1], &[(1, 11), (3, 33), (1, 12)]);
    let (events, notes, size) = bytes(Format::Aedat4, &file, &ReadOptions::default()).unwrap();
    assert_eq!((events.len(), events[0].x, size), (1, 33, Some((103, 8))));
    assert!(notes[0].contains("other streams") && notes[0].contains("(1)"), "{notes:?}");
    let (events, _, size) = bytes(Format::Aedat4, &file, &stream(1)).unwrap();
    assert_eq!((events.iter().map(|event| event.x).collect::<Vec<_>>(), size), (vec![11, 12], Some((101, 8))));
    refused(bytes(Format::Aedat4, &file, &stream(2)), &["no stream 2", "3, 1"]);
    // No stream is listed: the stream of the first packet is read.
    let file = aedat4(&[], &[(1, 11), (3, 33), (1, 12)]);
    assert_eq!(bytes(Format::Aedat4, &file, &ReadOptions::default()).unwrap().0.len(), 2);
    refused(bytes(Format::Aedat4, &file, &stream(2)), &["no stream 2"]);
}

#[test]
fn what_is_no_recording_says_what_to_do() {
    let home = TempDir::new().unwrap();
    for name in ["lfs.aedat4", "lfs.bin", "lfs.csv", "lfs.raw"] {
        adali(home.path(), &format!("events {}", case(name).display())).failed(2, &["git-lfs pointer", "git lfs pull"]);
    }
    adali(home.path(), &format!("events {}", case("v1.aedat").display())).failed(2, &["AEDAT 1.0", "DV"]);
    adali(home.path(), &format!("events {}", case("data_batch_1.bin").display()))
        .failed(2, &["n-mnist", "out of order"]);
    // It is read if the user names the format.
    adali(home.path(), &format!("events --format n-mnist {}", case("data_batch_1.bin").display())).done();
}

#[test]
fn notes_and_options_reach_the_command() {
    let (home, file) = (TempDir::new().unwrap(), case("davis346_v2e.aedat"));
    adali(home.path(), &format!("events {}", file.display())).failed(2, &["--sensor (davis346, davis640)"]);
    let said = adali(home.path(), &format!("events --sensor davis346 {}", file.display())).done();
    assert!(said.out.contains("346x260 (as --sensor says)") && !said.out.contains("stated"), "{said}");
    let said = adali(home.path(), &format!("events --json {}", case("evt3.raw").display())).done().json();
    assert!(said["notes"][0].as_str().unwrap().starts_with("5 events before"), "{said}");
    adali(home.path(), &format!("events --stream 1 {}", case("v1.dat").display())).failed(2, &["--stream", "dat"]);
    adali(home.path(), &format!("events --sensor dvs128 {}", case("v1.dat").display())).failed(2, &["--sensor", "dat"]);
}

/// v2e recordings in the layout of CIFAR10-DVS: refused with a hint at the option, read with it, and the run remembers it.
#[test]
fn training_reads_the_chip_right_or_asks() {
    let home = TempDir::new().unwrap();
    for class in ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"] {
        let folder = home.path().join("data").join(class);
        fs::create_dir_all(&folder).unwrap();
        for i in 0..10 {
            fs::copy(case("davis346_v2e.aedat"), folder.join(format!("{i}.aedat"))).unwrap();
        }
    }
    let train = "train --data cifar10-dvs --data-dir data --cache-dir cache --downsample 8 --steps 2 --epochs 1 --quiet --out r \
                 --network conv2 --limit 10 --batch 5";
    adali(home.path(), train).failed(2, &["does not name its chip", "--sensor (davis346, davis640)"]);
    adali(home.path(), &format!("{train} --sensor dvs128")).failed(2, &["not of a DVS128", "--sensor"]);
    adali(home.path(), "train --data digits --sensor dvs128").failed(2, &["--sensor", "digits"]);
    adali(home.path(), &format!("{train} --sensor davis346")).done();
    let config = fs::read_to_string(home.path().join("r/config.toml")).unwrap();
    assert!(config.contains("sensor = \"davis346\""), "{config}");
    adali(home.path(), "eval r --cache-dir cache").done();
}

/// A recording with its event count, ON events, first and last time, and sums of columns and rows (0: not known).
type Recording = (&'static str, usize, usize, (u64, u64), [u64; 2]);

/// What other readers find in real recordings, which are too large for the repository.
#[test]
fn real_recordings_are_read_as_by_others() {
    let Some(folder) = std::env::var_os("ADALI_RECORDINGS").map(PathBuf::from) else {
        eprintln!("ADALI_RECORDINGS is not set, so real recordings are NOT read");
        return;
    };
    let cases: [Recording; 6] = [
        ("evt2_gen4.raw", 539_481, 367_855, (1_317_888, 1_367_888), [171_811_022, 110_162_026]),
        ("evt3_gen4.raw", 219_596, 115_532, (11_718_656, 11_727_457), [0; 2]),
        ("dv.aedat4", 111_954, 55_023, (1_605_537_493_718_345, 1_605_537_494_308_262), [0; 2]),
        ("ncars.dat", 2_009, 1_350, (0, 99_952), [0; 2]),
        ("nmnist.bin", 4_325, 2_145, (654, 311_175), [0; 2]),
        ("davis240_square.aedat", 16_000, 8_000, (50_000, 5_000_000), [0; 2]),
    ];
    for (name, count, on, (first, last), sums) in cases {
        let path = folder.join(name);
        let options = if name.starts_with("davis") { sensor(Sensor::Davis240) } else { ReadOptions::default() };
        let (events, notes, _) = all(open(&path, &options).unwrap()).unwrap();
        let times = (events.iter().map(|e| e.time).min().unwrap(), events.iter().map(|e| e.time).max().unwrap());
        let found = (events.len(), events.iter().filter(|event| event.on).count(), times);
        assert_eq!(found, (count, on, (first, last)), "{name}: {notes:?}");
        let found = [events.iter().map(|e| u64::from(e.x)).sum(), events.iter().map(|e| u64::from(e.y)).sum::<u64>()];
        assert!(sums == [0; 2] || found == sums, "{name}: {found:?}");
    }
    let (none, davis) = (ReadOptions::default(), folder.join("davis240_square.aedat"));
    refused(open(&davis, &none).and_then(all), &["does not name its chip", "davis240"]);
}
