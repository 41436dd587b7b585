//! NumPy's archive (.npz) of events: arrays `x`, `y`, `t` and `p`, or one structured array with these fields.
//!
//! A zip of .npy files: `\x93NUMPY`, version, the length of a header, the header as a Python dictionary, then the values in
//! order. Integers and booleans of 1 to 8 bytes, little-endian; times in microseconds (`timestamp` and `polarity` are
//! known names too). Unlike the other formats, an archive is taken to memory whole: its arrays lie one behind the other.

use super::{Event, EventReader, SensorSize};
use anyhow::Result;
use std::io::{BufReader, Read, Seek};

/// Bytes of all arrays together.
const MOST: u64 = 1 << 32;
/// Bytes of an array's header.
const HEADER: usize = 1 << 16;
/// Events given out at a time.
const PIECE: usize = 1 << 16;
/// Names of x, y, t and p.
const NAMES: [&[&str]; 4] = [&["x"], &["y"], &["t", "ts", "time", "timestamp"], &["p", "pol", "polarity", "on"]];

/// A recording in memory.
struct Npz {
    /// x, y, t and p.
    columns: [Column; 4],
    events: usize,
    given: usize,
    name: String,
}

/// A field of an array.
#[derive(Clone)]
struct Column {
    array: std::rc::Rc<Vec<u8>>,
    /// Bytes from one value to the next, to the first, and of a value.
    stride: usize,
    offset: usize,
    size: usize,
    signed: bool,
}

/// The header of an array.
struct Header {
    /// Name (empty where the array has no fields), type as NumPy writes it, and place in a record.
    fields: Vec<(String, String)>,
    events: usize,
}

/// Opens an archive; `name` is for errors.
pub(super) fn open(file: impl Read + Seek, name: String) -> Result<Box<dyn EventReader>> {
    let damaged =
        |what: &str| crate::input_error!("{name} {what}; write it with numpy.savez(file, x=x, y=y, t=t, p=p)");
    let mut archive =
        zip::ZipArchive::new(BufReader::new(file)).map_err(|error| damaged(&format!("is no archive: {error}")))?;
    let mut found: [Option<(Column, usize)>; 4] = [const { None }; 4];
    let mut left = MOST;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(|error| damaged(&format!("is damaged: {error}")))?;
        let key = entry.name().map_err(|error| damaged(&format!("is damaged: {error}")))?;
        let key = key.trim_end_matches(".npy").to_string();
        let of_key = |key: &str| NAMES.iter().position(|names| names.contains(&key));
        let mut bytes = Vec::new();
        let read = (&mut entry).take(left + 1).read_to_end(&mut bytes);
        read.map_err(|error| damaged(&format!("is damaged in {key}: {error}")))?;
        let Some(rest) = left.checked_sub(bytes.len() as u64) else {
            return Err(damaged(&format!("has arrays of more than {MOST} bytes")));
        };
        left = rest;
        let Some((header, start)) = header(&bytes) else {
            return Err(damaged(&format!("has an array {key} that is not of one dimension, little-endian")));
        };
        let array = std::rc::Rc::new(bytes.split_off(start));
        for (column, field) in header.columns(&array).ok_or_else(|| damaged(&format!("ends within its array {key}")))? {
            let field = if field.is_empty() { key.clone() } else { field };
            if let Some(which) = of_key(&field) {
                found[which] = Some((column, header.events));
            }
        }
    }
    let missing = |found: &Option<_>| found.is_none();
    if let Some(which) = found.iter().position(missing) {
        return Err(damaged(&format!("has no array or field {}", NAMES[which][0])));
    }
    let found = found.map(|column| column.expect("none is missing"));
    let events = found[0].1;
    if found.iter().any(|column| column.1 != events) {
        return Err(damaged("has x, y, t and p of different lengths"));
    }
    Ok(Box::new(Npz { columns: found.map(|column| column.0), events, given: 0, name }))
}

/// The header of an array, and where its values begin.
fn header(bytes: &[u8]) -> Option<(Header, usize)> {
    let version = bytes.strip_prefix(b"\x93NUMPY")?;
    let (length, start) = match version.first()? {
        1 => (u16::from_le_bytes(*version.get(2..)?.first_chunk()?) as usize, 10),
        _ => (u32::from_le_bytes(*version.get(2..)?.first_chunk()?) as usize, 12),
    };
    let text = bytes.get(start..)?.get(..length).filter(|text| text.len() <= HEADER)?;
    let text = std::str::from_utf8(text).ok()?;
    let shape = text.split("'shape'").nth(1)?.split('(').nth(1)?.split(')').next()?;
    let mut extents = shape.split(',').map(str::trim).filter(|extent| !extent.is_empty());
    let events = extents.next()?.parse().ok()?;
    if extents.next().is_some() {
        return None;
    }
    let descr = text.split("'descr'").nth(1)?.trim_start_matches([':', ' ']);
    let fields = match descr.strip_prefix('[') {
        // [('t', '<i8'), ('x', '<i2'), …]
        Some(list) => {
            let tuples = list.split(']').next()?.split('(').skip(1);
            let field = |tuple: &str| {
                let mut quoted = tuple.split('\'').skip(1).step_by(2);
                Some((quoted.next()?.to_string(), quoted.next()?.to_string()))
            };
            tuples.map(field).collect::<Option<Vec<_>>>()?
        }
        None => vec![(String::new(), descr.strip_prefix('\'')?.split('\'').next()?.to_string())],
    };
    Some((Header { fields, events }, start + length))
}

impl Header {
    /// The columns of an array, which must hold all its events, with their names.
    fn columns(&self, array: &std::rc::Rc<Vec<u8>>) -> Option<Vec<(Column, String)>> {
        let sizes: Vec<(usize, bool)> = self.fields.iter().map(|(_, kind)| size(kind)).collect::<Option<_>>()?;
        let stride: usize = sizes.iter().map(|size| size.0).sum();
        if stride.checked_mul(self.events)? > array.len() {
            return None;
        }
        let mut offset = 0;
        let column = |((name, _), (size, signed)): (&(String, String), (usize, bool))| {
            let column = Column { array: array.clone(), stride, offset, size, signed };
            offset += size;
            (column, name.clone())
        };
        Some(self.fields.iter().zip(sizes).map(column).collect())
    }
}

/// Bytes of a NumPy type, and whether it has a sign: `<i8`, `|u1`, `|b1`.
fn size(kind: &str) -> Option<(usize, bool)> {
    let (order, kind) = kind.split_at_checked(1)?;
    let (letter, size) = kind.split_at_checked(1)?;
    let size: usize = size.parse().ok()?;
    let known = matches!(letter, "i" | "u" | "b") && matches!(size, 1 | 2 | 4 | 8);
    (known && (order != ">" || size == 1)).then_some((size, letter == "i"))
}

impl Column {
    /// The values of some events.
    fn values(&self, events: std::ops::Range<usize>) -> Vec<i64> {
        match (self.size, self.signed) {
            (1, true) => self.each(events, |[byte]| i64::from(byte as i8)),
            (1, false) => self.each(events, |[byte]| i64::from(byte)),
            (2, true) => self.each(events, |bytes| i16::from_le_bytes(bytes).into()),
            (2, false) => self.each(events, |bytes| u16::from_le_bytes(bytes).into()),
            (4, true) => self.each(events, |bytes| i32::from_le_bytes(bytes).into()),
            (4, false) => self.each(events, |bytes| u32::from_le_bytes(bytes).into()),
            // Times beyond 292 000 years become negative, and are refused.
            _ => self.each(events, i64::from_le_bytes),
        }
    }

    fn each<const N: usize>(&self, events: std::ops::Range<usize>, value: impl Fn([u8; N]) -> i64) -> Vec<i64> {
        let records = self.array[events.start * self.stride..events.end * self.stride].chunks_exact(self.stride);
        records.map(|record| value(*record[self.offset..].first_chunk().expect("a field has its bytes"))).collect()
    }
}

impl EventReader for Npz {
    fn size(&self) -> Option<SensorSize> {
        None
    }

    fn read(&mut self, events: &mut Vec<Event>) -> Result<()> {
        events.clear();
        let end = self.events.min(self.given + PIECE);
        let [xs, ys, times, ons] = self.columns.each_ref().map(|column| column.values(self.given..end));
        for (i, (((x, y), time), on)) in xs.into_iter().zip(ys).zip(times).zip(ons).enumerate() {
            let (Ok(x), Ok(y), Ok(time)) = (x.try_into(), y.try_into(), time.try_into()) else {
                crate::bail_input!(
                    "{} has event {} at column {x}, row {y}, {time} µs, but columns and rows are 0 to 65535 and times from 0 on",
                    self.name,
                    self.given + i
                );
            };
            events.push(Event { time, x, y, on: on > 0 });
        }
        self.given = end;
        Ok(())
    }
}
