//! Events as text: one line per event, with fields separated by commas, semicolons, tabs or blanks.
//!
//! The columns are named by `--columns`, by the first line or by a comment before the events (`# t x y p`), or deduced from
//! their values if only one order fits. Lines that begin with `#` or `%` and empty lines are skipped; a line
//! `%geometry:1280,720` (Metavision's) or a first line of two numbers states the sensor's size.

use super::columns::{Clock, Column, Columns, Order, Polarities, Values};
use super::options::ReadOptions;
use super::source::Source;
use super::text::{Separator, line, number, real};
use super::{Event, EventReader, SensorSize};
use anyhow::Result;

/// Events read at a time.
const PIECE: usize = 1 << 16;
/// Longest line that is accepted.
const LINE: usize = 1 << 12;
/// Bytes at the beginning from which order and units are deduced.
const BEGINNING: usize = 1 << 20;
/// Bytes of a line quoted in a message.
const SHOWN: usize = 80;

/// A recording as text.
pub(super) struct Csv {
    source: Source,
    separator: Separator,
    order: Order,
    clock: Clock,
    polarities: Polarities,
    size: Option<SensorSize>,
    notes: Vec<String>,
    /// Lines read so far.
    line: u64,
}

/// What precedes the events.
#[derive(Default)]
struct Head {
    size: Option<SensorSize>,
    metavision: bool,
    /// The names of the columns as written.
    names: Option<String>,
    lines: u64,
}

fn is_comment(line: &[u8]) -> bool {
    line.is_empty() || line[0] == b'#' || line[0] == b'%'
}

fn shown(line: &[u8]) -> String {
    String::from_utf8_lossy(&line[..line.len().min(SHOWN)]).into_owned()
}

impl Csv {
    pub fn new(mut source: Source, options: &ReadOptions) -> Result<Self> {
        let head = head(&mut source)?;
        let name = source.name.clone();
        let beginning = source.ahead(BEGINNING)?;
        let beginning = &beginning[..beginning.len().min(BEGINNING)];
        let (separator, columns, count) = columns(beginning);
        let mut notes = Vec::new();
        let order = order(&head, options.columns.as_ref(), separator, &columns, count, &mut notes);
        let order = order.map_err(|what| crate::input_error!("{name} {what}"))?;
        let clock = match (order.unit, columns.get(order.places[2])) {
            (Some(unit), _) => Clock::stated(unit),
            (None, times) => {
                let told = Clock::of(times.unwrap_or(&Values::default()));
                let (clock, why) = told.map_err(|what| crate::input_error!("{name} has {what}"))?;
                if count > 0 {
                    notes.push(why);
                }
                clock
            }
        };
        let polarities = Polarities::default();
        Ok(Self { source, separator, order, clock, polarities, size: head.size, notes, line: head.lines })
    }

    /// The event of a line; an error says what is wrong with it.
    fn event(&mut self, line: &[u8]) -> Result<Event, String> {
        let mut values: [&[u8]; 4] = [b""; 4];
        let mut count = 0;
        for field in self.separator.fields(line) {
            if let Some(which) = self.order.places.iter().position(|&place| place == count) {
                values[which] = field;
            }
            count += 1;
        }
        if count != self.order.count {
            return Err(format!("has {count} fields, but there are {} columns ({})", self.order.count, self.order));
        }
        let [x, y, time, on] = values;
        let pixel = |name: &str, field: &[u8]| {
            let whole =
                number(field).or_else(|| real(field).filter(|v| v.fract() == 0.0 && *v >= 0.0).map(|v| v as u64));
            whole
                .and_then(|pixel| u16::try_from(pixel).ok())
                .ok_or_else(|| format!("has {name} {}, but pixels are whole numbers from 0 to 65535", shown(field)))
        };
        let micros = match number(time) {
            Some(time) => self.clock.whole(time),
            None => real(time).and_then(|time| self.clock.real(time)),
        };
        let time = micros.ok_or_else(|| format!("has time {}, but {}", shown(time), self.clock.wanted()))?;
        let value = match on {
            b"1" | b"0" => Some(i64::from(on[0] - b'0')),
            _ => polarity(on),
        };
        let on = value.and_then(|value| self.polarities.on(value)).ok_or_else(|| {
            format!("has polarity {}, but polarities are 1 and 0, 1 and -1, or true and false", shown(on))
        })?;
        Ok(Event { time, x: pixel("x", x)?, y: pixel("y", y)?, on })
    }
}

/// A polarity as a number.
fn polarity(field: &[u8]) -> Option<i64> {
    match field.to_ascii_lowercase().as_slice() {
        b"true" => Some(1),
        b"false" => Some(0),
        _ => real(field).filter(|value| value.fract() == 0.0).map(|value| value as i64),
    }
}

/// Skips what precedes the events.
fn head(source: &mut Source) -> Result<Head> {
    let mut head = Head::default();
    let ahead = source.ahead(3)?;
    if ahead.starts_with(b"\xff\xfe") || ahead.starts_with(b"\xfe\xff") {
        crate::bail_input!("{} is text in UTF-16; save it as UTF-8", source.name);
    }
    if ahead.starts_with(b"\xef\xbb\xbf") {
        source.pass(3);
    }
    let mut comment = None;
    loop {
        let ahead = source.ahead(LINE)?;
        let (line, bytes) = line(ahead);
        let text = shown(line);
        let lower = text.to_ascii_lowercase();
        if ahead.is_empty() {
            return Ok(head);
        }
        if let Some(size) = lower.strip_prefix("%geometry:") {
            head.size = size_of(size);
            head.metavision = true;
        } else if is_comment(line) {
            let names = text.trim_start_matches(['#', '%', ' ']);
            if named(names).is_some() {
                comment = Some(names.to_string());
            }
        } else if head.size.is_none() && head.names.is_none() && Separator::of(line).fields(line).count() == 2 {
            let Some(size) = size_of(&lower) else { return Ok(head) };
            head.size = Some(size);
        } else if named(&text).is_some() || looks_like_names(line) {
            head.names = Some(String::from_utf8_lossy(&line[..line.len().min(LINE)]).into_owned());
            source.pass(bytes);
            head.lines += 1;
            return Ok(head);
        } else {
            head.names = comment;
            return Ok(head);
        }
        source.pass(bytes);
        head.lines += 1;
    }
}

/// `1280,720`, `240 180`.
fn size_of(text: &str) -> Option<SensorSize> {
    let mut extents = Separator::of(text.as_bytes()).fields(text.as_bytes()).map(number);
    let (width, height) = (extents.next()??, extents.next()??);
    extents.next().is_none().then(|| SensorSize::stated(width, height)).flatten()
}

/// The order of columns with these names.
fn named(names: &str) -> Option<Order> {
    names_of(names).ok()
}

fn names_of(names: &str) -> Result<Order, String> {
    let bytes = names.as_bytes();
    let columns: Vec<Column> =
        Separator::of(bytes).fields(bytes).map(|name| Column::of_name(&String::from_utf8_lossy(name))).collect();
    Order::of(&columns)
}

/// Whether a line has a field that begins like a name and is not a value of an event.
fn looks_like_names(line: &[u8]) -> bool {
    let mut fields = Separator::of(line).fields(line);
    fields.any(|field| field.first().is_some_and(u8::is_ascii_alphabetic) && polarity(field).is_none())
}

/// The separator of the lines, and what the values of each column have in common, using lines with as many
/// fields as the first; a field that is not a number is left out.
fn columns(beginning: &[u8]) -> (Separator, Vec<Values>, u64) {
    let (mut separator, mut columns, mut count) = (Separator::Blanks, Vec::new(), 0);
    let mut rest = beginning;
    while !rest.is_empty() {
        let (line, bytes) = line(rest);
        // The last line may be cut.
        if (bytes == rest.len() && rest[bytes - 1] != b'\n' && count > 0 && beginning.len() == BEGINNING)
            || line.len() > LINE
        {
            break;
        }
        rest = &rest[bytes..];
        if is_comment(line) {
            continue;
        }
        if count == 0 {
            separator = Separator::of(line);
            columns = vec![Values::default(); separator.fields(line).count()];
        }
        count += 1;
        for (values, field) in columns.iter_mut().zip(separator.fields(line)) {
            let value = number(field).map(|value: u64| value as f64).or_else(|| real(field));
            values.add(value.or_else(|| polarity(field).map(|value| value as f64)).unwrap_or(f64::NAN));
        }
    }
    (separator, columns, count)
}

/// The positions of x, y, t and p, and a note on how they are known; an error says why they are not.
fn order(
    head: &Head,
    stated: Option<&Columns>,
    separator: Separator,
    columns: &[Values],
    lines: u64,
    notes: &mut Vec<String>,
) -> Result<Order, String> {
    if let Some(stated) = stated {
        return Ok(stated.order());
    }
    let example = "name them with --columns, as --columns t,x,y,p (_ for a column of something else)";
    if let Some(names) = &head.names {
        let mut order = names_of(names)
            .map_err(|what| format!("names its columns `{}`, of which {what}; {example}", shown(names.as_bytes())))?;
        // A table written by R, or by pandas with blanks, has no name for its first column.
        if lines > 0 && columns.len() == order.count + 1 && columns[0].count_up() {
            order = Order { places: order.places.map(|place| place + 1), count: order.count + 1, ..order };
            notes.push("the first column has no name and counts the lines: taken for an index".into());
        }
        return Ok(order);
    }
    let places = |places| Order { places, unit: None, count: 4 };
    if head.metavision {
        notes.push("columns taken as x,y,p,t, as Metavision writes them after %geometry".into());
        return Ok(places([0, 1, 3, 2]));
    }
    if lines == 0 {
        return Ok(places([0, 1, 2, 3]));
    }
    if columns.len() != 4 {
        let count = columns.len();
        return Err(format!(
            "has {count} columns without names ({separator}), but x, y, t and p are wanted; {example}"
        ));
    }
    let order = Order::guess(columns)
        .ok_or_else(|| format!("does not name its columns, and no order alone fits its values; {example}"))?;
    notes.push(format!("columns taken as {order}, the one order that fits the values"));
    Ok(order)
}

impl EventReader for Csv {
    fn size(&self) -> Option<SensorSize> {
        self.size
    }

    fn notes(&self) -> Vec<String> {
        self.notes.clone()
    }

    fn read(&mut self, events: &mut Vec<Event>) -> Result<()> {
        events.clear();
        while events.is_empty() {
            let ahead = self.source.ahead(LINE)?;
            if ahead.is_empty() {
                return Ok(());
            }
            // A line that may be cut is left for the next piece, unless the file ends here.
            let (piece, whole) = (ahead.to_vec(), ahead.len() < LINE);
            let (mut used, mut rest) = (0, &piece[..]);
            while !rest.is_empty() && events.len() < PIECE {
                let (line, bytes) = line(rest);
                let cut = bytes == rest.len() && rest[bytes - 1] != b'\n' && !whole;
                if cut && used > 0 {
                    break;
                }
                self.line += 1;
                let refuse = |what: &str, line: u64, name: &str| crate::input_error!("{name}: line {line} {what}");
                if line.len() >= LINE {
                    let what = format!("has more than {LINE} bytes; it is no line of an event");
                    return Err(refuse(&what, self.line, &self.source.name));
                }
                if !is_comment(line) {
                    let event = self.event(line);
                    events.push(event.map_err(|what| refuse(&what, self.line, &self.source.name))?);
                }
                used += bytes;
                rest = &rest[bytes..];
            }
            self.source.pass(used);
        }
        Ok(())
    }
}
