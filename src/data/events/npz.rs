//! NumPy's archive (.npz) of events: arrays `x`, `y`, `t` and `p`, one array of records with these fields, or one array
//! of four columns; other arrays are ignored.
//!
//! A zip of .npy files ([`npy`](super::npy)). The arrays are stored one after the other, so each is read through its own
//! stream, piece by piece: an archive takes no more memory than its pieces, whatever sizes it claims. Before anything is
//! inflated, the size of each array is checked against its type and shape.

use super::archive::{Array, Stream, list};
use super::columns::{Clock, Column, Columns, Order, Polarities, Values};
use super::npy::{self, Class, Number};
use super::options::ReadOptions;
use super::{Event, EventReader, SensorSize};
use anyhow::Result;
use std::cell::RefCell;
use std::io::{Read, Seek};
use std::rc::Rc;

/// Events read at a time, and bytes per stream.
const PIECE: usize = 1 << 16;
const PIECE_BYTES: usize = 1 << 20;
/// Names of arrays listed in a message.
const SHOWN: usize = 8;

/// A recording stored as arrays.
struct Npz {
    streams: Vec<Stream>,
    /// x, y, t and p.
    columns: [Place; 4],
    /// The number of events, how many have been returned, and how many more are in the streams' pieces.
    events: u64,
    given: u64,
    ready: usize,
    clock: Clock,
    polarities: Polarities,
    notes: Vec<String>,
    name: String,
}

/// Where the values of a column are.
#[derive(Clone)]
struct Place {
    /// The index of the stream, and the offset in its records.
    stream: usize,
    offset: usize,
    number: Number,
    /// The array, or the field of one.
    label: String,
}

/// Opens an archive; `name` is for errors, `options` give the order and the unit of time if the archive does not.
pub(super) fn open<R: Read + Seek + 'static>(
    file: R,
    name: String,
    options: &ReadOptions,
) -> Result<Box<dyn EventReader>> {
    open_checked(file, &name, options.columns.as_ref())
        .map_err(|what| crate::input_error!("{name} {what}"))
        .map(|reader| Box::new(reader) as Box<dyn EventReader>)
}

fn open_checked<R: Read + Seek + 'static>(file: R, name: &str, stated: Option<&Columns>) -> Result<Npz, String> {
    let (file, arrays) = list(file)?;
    let mut table = Table::find(&file, &arrays, stated.map(Columns::order))?;
    let longest = table.streams.iter().map(|stream| stream.stride).max().unwrap_or(1);
    let piece = PIECE.min(PIECE_BYTES / longest).max(1);
    let ready = usize::try_from(table.events).unwrap_or(usize::MAX).min(piece);
    table.streams.iter_mut().try_for_each(|stream| stream.fill(ready))?;
    let mut first = vec![Values::default(); table.columns.len()];
    for (values, place) in first.iter_mut().zip(&table.columns) {
        place.numbers(&table.streams, ready).reals().for_each(|value| values.add(value));
    }
    let mut notes = Vec::new();
    let order = match table.order {
        Some(order) => order,
        None => {
            let order = Order::guess(&first).ok_or(
                "does not say which columns are x, y, t and p, and no order alone fits its values; name them with \
                 --columns, as --columns x,y,t,p",
            )?;
            notes.push(format!("columns taken as {order}, the one order that fits the values"));
            order
        }
    };
    let columns = order.places.map(|place| table.columns[place].clone());
    let clock = match (order.unit, columns[2].number.class) {
        (_, Class::Time(unit)) | (Some(unit), _) => Clock::stated(unit),
        (None, _) => {
            let of = Clock::of(&first[order.places[2]]);
            let (clock, why) = of.map_err(|what| format!("has {what} in {}", columns[2].label))?;
            notes.push(why);
            clock
        }
    };
    let (streams, events) = (table.streams, table.events);
    let polarities = Polarities::default();
    Ok(Npz { streams, columns, events, given: 0, ready, clock, polarities, notes, name: name.into() })
}

/// The columns of an archive, in its own order.
struct Table {
    streams: Vec<Stream>,
    columns: Vec<Place>,
    /// The order of the columns, if names tell it.
    order: Option<Order>,
    events: u64,
}

impl Table {
    /// Finds x, y, t and p among the arrays: as four arrays, otherwise as one.
    fn find<R: Read + Seek + 'static>(
        file: &Rc<RefCell<R>>,
        arrays: &[Array],
        stated: Option<Order>,
    ) -> Result<Self, String> {
        let named = |array: &&Array| array.column() != Column::Other;
        let mut folders: Vec<&str> = arrays.iter().filter(named).map(|array| &array.folder[..]).collect();
        folders.sort_unstable();
        folders.dedup();
        let mut found = Vec::new();
        let mut missing = None;
        for folder in folders {
            let own: Vec<&Array> = arrays.iter().filter(named).filter(|array| array.folder == folder).collect();
            let columns: Vec<Column> = own.iter().map(|array| array.column()).collect();
            match Order::of(&columns) {
                Ok(order) => found.push((own, order)),
                Err(what) => missing = Some(what),
            }
        }
        match &found[..] {
            [(own, order)] => {
                let unit = order.unit.or(stated.and_then(|stated| stated.unit));
                return Self::of_arrays(file, own, Order { unit, ..*order });
            }
            [] => {}
            several => {
                let folders: Vec<&str> = several.iter().map(|(own, _)| &own[0].folder[..]).collect();
                return Err(format!(
                    "holds {} recordings ({}); write one of them into a file of its own",
                    several.len(),
                    folders.join(", ")
                ));
            }
        }
        let mut tables = Vec::new();
        let mut shown = Vec::new();
        for array in arrays {
            let header = array.header(file)?;
            shown.push(format!("{} {}", array.key, describe(&header)));
            if let Some(table) = Self::of_one(file, array, header, stated)? {
                tables.push((&array.key, table));
            }
        }
        match (tables.len(), missing) {
            (1, _) => Ok(tables.remove(0).1),
            (0, missing) => {
                let why = missing.map_or(String::new(), |what| format!(": {what}"));
                shown.truncate(SHOWN);
                Err(format!("holds no events{why}; its arrays are {}, but x, y, t and p are wanted", shown.join(", ")))
            }
            (_, _) => {
                let keys: Vec<&str> = tables.iter().map(|(key, _)| &key[..]).collect();
                Err(format!(
                    "holds several arrays of events ({}); write one of them into a file of its own",
                    keys.join(", ")
                ))
            }
        }
    }

    /// One array per column.
    fn of_arrays<R: Read + Seek + 'static>(
        file: &Rc<RefCell<R>>,
        arrays: &[&Array],
        order: Order,
    ) -> Result<Self, String> {
        let mut table = Self { streams: Vec::new(), columns: Vec::new(), order: Some(order), events: 0 };
        for (index, array) in arrays.iter().enumerate() {
            let header = array.header(file)?;
            let npy::Values::Single(kind) = &header.values else {
                return Err(format!("holds {} as records, but a column of numbers is wanted", array.key));
            };
            let number =
                Number::of(kind).map_err(|what| format!("holds {what} in {}, but numbers are wanted", array.key))?;
            // A column written by NumPy may have further extents of 1.
            let events = header.shape.iter().product();
            if header.shape.is_empty() || header.shape.iter().filter(|&&extent| extent != 1).count() > 1 {
                return Err(format!(
                    "holds {} of shape {:?}, but one value for each event is wanted",
                    array.key, header.shape
                ));
            }
            if index > 0 && events != table.events {
                let (first, before) = (&arrays[0].key, table.events);
                return Err(format!("holds {events} values in {}, but {before} in {first}", array.key));
            }
            table.events = events;
            table.streams.push(array.stream(file, &header, 0, number.bytes)?);
            table.columns.push(Place { stream: index, offset: 0, number, label: array.key.clone() });
        }
        Ok(table)
    }

    /// All columns in one array, if it can hold them.
    fn of_one<R: Read + Seek + 'static>(
        file: &Rc<RefCell<R>>,
        array: &Array,
        header: npy::Header,
        stated: Option<Order>,
    ) -> Result<Option<Self>, String> {
        let key = &array.key;
        let number = |label: &str, kind: &str| {
            Number::of(kind).map_err(|what| format!("holds {what} in {label}, but numbers are wanted"))
        };
        match &header.values {
            npy::Values::Records(fields) => {
                let columns: Vec<Column> = fields.iter().map(|field| Column::of_name(&field.name)).collect();
                if columns.iter().all(|column| *column == Column::Other) {
                    return Ok(None);
                }
                let order = Order::of(&columns).map_err(|what| format!("holds records {key} of which {what}"))?;
                let unit = order.unit.or(stated.and_then(|stated| stated.unit));
                let events = header.shape.iter().product();
                let mut places = Vec::new();
                for place in order.places {
                    let (offset, label) = (fields[place].offset, format!("{key}.{}", fields[place].name));
                    places.push(Place { stream: 0, offset, number: number(&label, &fields[place].kind)?, label });
                }
                let order = Order { places: [0, 1, 2, 3], unit, count: 4 };
                let streams = vec![array.stream(file, &header, 0, header.bytes)?];
                Ok(Some(Self { streams, columns: places, order: Some(order), events }))
            }
            npy::Values::Single(kind) => {
                let count = stated.map_or(4, |order| order.count as u64);
                // As laid out in C.
                let (rows, columns) = match (&header.shape[..], header.fortran) {
                    (&[rows, columns], false) | (&[columns, rows], true) => (rows, columns),
                    _ => return Ok(None),
                };
                if rows == count && columns == count {
                    return Err(format!(
                        "holds {key} of {count} events and {count} columns, and does not say which is which"
                    ));
                }
                let mut table = Self { streams: Vec::new(), columns: Vec::new(), order: stated, events: 0 };
                let number = if rows == count || columns == count { number(key, kind)? } else { return Ok(None) };
                if columns == count {
                    table.events = rows;
                    table.streams.push(array.stream(file, &header, 0, header.bytes * count as usize)?);
                } else {
                    table.events = columns;
                    for row in 0..count {
                        let skipped = row * columns * header.bytes as u64;
                        table.streams.push(array.stream(file, &header, skipped, header.bytes)?);
                    }
                }
                for place in 0..count as usize {
                    let (stream, offset) = if columns == count { (0, place * header.bytes) } else { (place, 0) };
                    table.columns.push(Place { stream, offset, number, label: format!("column {place} of {key}") });
                }
                Ok(Some(table))
            }
        }
    }
}

/// `uint8 [4, 2, 34, 34]`.
fn describe(header: &npy::Header) -> String {
    match &header.values {
        npy::Values::Single(kind) => format!("{kind} {:?}", header.shape),
        npy::Values::Records(fields) => {
            let names: Vec<&str> = fields.iter().map(|field| &field.name[..]).filter(|name| !name.is_empty()).collect();
            format!("({}) {:?}", names.join(", "), header.shape)
        }
    }
}

/// The values of a column.
enum Numbers {
    Whole(Vec<i64>),
    Real(Vec<f64>),
}

impl Numbers {
    fn reals(&self) -> Box<dyn Iterator<Item = f64> + '_> {
        match self {
            Self::Whole(values) => Box::new(values.iter().map(|&value| value as f64)),
            Self::Real(values) => Box::new(values.iter().copied()),
        }
    }

    /// Converts each value; an error has the position and the value that cannot be converted.
    fn each<T>(
        self,
        mut whole: impl FnMut(i64) -> Option<T>,
        mut real: impl FnMut(f64) -> Option<T>,
    ) -> Result<Vec<T>, (usize, String)> {
        match self {
            Self::Whole(values) => {
                let each = |(i, value)| whole(value).ok_or_else(|| (i, value.to_string()));
                values.into_iter().enumerate().map(each).collect()
            }
            Self::Real(values) => {
                let each = |(i, value)| real(value).ok_or_else(|| (i, value.to_string()));
                values.into_iter().enumerate().map(each).collect()
            }
        }
    }
}

impl Place {
    /// The column's values in the streams' pieces.
    fn numbers(&self, streams: &[Stream], count: usize) -> Numbers {
        let (class, bytes) = (self.number.class, self.number.bytes);
        match (class, bytes) {
            (Class::Float, 2) => self.real(streams, count, |bytes| half::f16::from_le_bytes(bytes).into()),
            (Class::Float, 4) => self.real(streams, count, |bytes| f32::from_le_bytes(bytes).into()),
            (Class::Float, _) => self.real(streams, count, f64::from_le_bytes),
            (Class::Signed, 1) => self.whole(streams, count, |[byte]| i64::from(byte as i8)),
            (Class::Unsigned, 1) => self.whole(streams, count, |[byte]| i64::from(byte)),
            (Class::Signed, 2) => self.whole(streams, count, |bytes| i16::from_le_bytes(bytes).into()),
            (Class::Unsigned, 2) => self.whole(streams, count, |bytes| u16::from_le_bytes(bytes).into()),
            (Class::Signed, 4) => self.whole(streams, count, |bytes| i32::from_le_bytes(bytes).into()),
            (Class::Unsigned, 4) => self.whole(streams, count, |bytes| u32::from_le_bytes(bytes).into()),
            // Unsigned values beyond 2^63 become negative, and are refused.
            _ => self.whole(streams, count, i64::from_le_bytes),
        }
    }

    fn whole<const N: usize>(&self, streams: &[Stream], count: usize, value: impl Fn([u8; N]) -> i64) -> Numbers {
        Numbers::Whole(self.bytes(streams, count).map(value).collect())
    }

    fn real<const N: usize>(&self, streams: &[Stream], count: usize, value: impl Fn([u8; N]) -> f64) -> Numbers {
        Numbers::Real(self.bytes(streams, count).map(value).collect())
    }

    /// The bytes of each value, little-endian.
    fn bytes<'a, const N: usize>(&'a self, streams: &'a [Stream], count: usize) -> impl Iterator<Item = [u8; N]> + 'a {
        let Stream { piece, stride, .. } = &streams[self.stream];
        piece[..count * stride].chunks_exact(*stride).map(|record| {
            let mut bytes: [u8; N] = *record[self.offset..].first_chunk().expect("a field lies in its record");
            if self.number.big_endian {
                bytes.reverse();
            }
            bytes
        })
    }
}

impl EventReader for Npz {
    fn size(&self) -> Option<SensorSize> {
        None
    }

    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }

    fn read(&mut self, events: &mut Vec<Event>) -> Result<()> {
        events.clear();
        let Self { streams, columns, name, clock, polarities, given, .. } = self;
        let left = self.events - *given;
        if left == 0 {
            return Ok(());
        }
        if self.ready == 0 {
            let count = left.min((streams[0].piece.len() / streams[0].stride) as u64) as usize;
            let fill = |stream: &mut Stream| stream.fill(count);
            streams.iter_mut().try_for_each(fill).map_err(|what| crate::input_error!("{name} {what}"))?;
            self.ready = count;
        }
        let count = std::mem::take(&mut self.ready);
        let [xs, ys, times, ons] = columns.each_ref().map(|place| place.numbers(streams, count));
        let refuse = |which: usize, wanted: &str, (i, value): (usize, String)| {
            let (label, event) = (&columns[which].label, *given + i as u64);
            crate::input_error!("{name}: {label} of event {event} is {value}, but {wanted}")
        };
        let pixel = |value: i64| u16::try_from(value).ok();
        let real_pixel =
            |value: f64| (value.fract() == 0.0 && (0.0..65_536.0).contains(&value)).then_some(value as u16);
        let pixels = |which, values: Numbers| {
            values
                .each(pixel, real_pixel)
                .map_err(|found| refuse(which, "pixels are whole numbers from 0 to 65535", found))
        };
        let (xs, ys) = (pixels(0, xs)?, pixels(1, ys)?);
        let times = times.each(|time| clock.whole(time.try_into().ok()?), |time| clock.real(time));
        let times = times.map_err(|found| refuse(2, clock.wanted(), found))?;
        let polarities = RefCell::new(polarities);
        let real_on = |on: f64| polarities.borrow_mut().on(if on.fract() == 0.0 { on as i64 } else { return None });
        let ons = ons.each(|on| polarities.borrow_mut().on(on), real_on);
        let ons = ons.map_err(|found| refuse(3, "polarities are 1 and 0, or 1 and -1", found))?;
        let all = xs.into_iter().zip(ys).zip(times).zip(ons);
        events.extend(all.map(|(((x, y), time), on)| Event { time, x, y, on }));
        *given += count as u64;
        Ok(())
    }
}
