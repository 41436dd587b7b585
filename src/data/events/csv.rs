//! Events as text: a line each, its numbers parted by commas, semicolons, blanks or tabs.
//!
//! The columns are x, y, t, p, or as a first line of those names says (also `timestamp`, `time`, `polarity`, `on`). Times
//! in microseconds, whole; polarity 1, 0, -1, true or false. Lines that begin with `#` and empty ones are passed over.

use super::source::Source;
use super::{Event, EventReader, SensorSize};
use anyhow::Result;

/// Events read at a time.
const PIECE: usize = 1 << 16;
/// No line is longer.
const LINE: usize = 1 << 12;

/// A recording as text.
pub(super) struct Csv {
    source: Source,
    /// Places of x, y, t and p.
    columns: [usize; 4],
    line: u64,
}

/// The parts of a line.
fn parts(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| b",;\t ".contains(byte)).filter(|part| !part.is_empty())
}

/// A line without its end and the blanks around it, and how many bytes it takes with its end; the last has none.
fn line(ahead: &[u8]) -> (&[u8], usize) {
    let end = ahead.iter().position(|&byte| byte == b'\n').unwrap_or(ahead.len());
    (ahead[..end].trim_ascii(), (end + 1).min(ahead.len()))
}

fn is_comment(line: &[u8]) -> bool {
    line.is_empty() || line[0] == b'#'
}

fn number<T: TryFrom<u64>>(digits: &[u8]) -> Option<T> {
    let add = |sum: u64, digit: &u8| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    };
    T::try_from(digits.iter().try_fold(0, add)?).ok()
}

impl Csv {
    pub fn new(source: Source) -> Result<Self> {
        let mut reader = Self { columns: [0, 1, 2, 3], line: 0, source };
        let first = loop {
            let ahead = reader.source.ahead(LINE)?;
            let (line, bytes) = line(ahead);
            if ahead.is_empty() || !is_comment(line) {
                break String::from_utf8_lossy(&line[..line.len().min(LINE)]).to_ascii_lowercase();
            }
            reader.source.pass(bytes);
            reader.line += 1;
        };
        if first.starts_with(|c: char| c.is_ascii_alphabetic()) {
            let names: Vec<&[u8]> = parts(first.as_bytes()).collect();
            let find =
                |known: &[&str]| names.iter().position(|name| known.iter().any(|known| known.as_bytes() == *name));
            let wanted: [&[&str]; 4] =
                [&["x"], &["y"], &["t", "time", "timestamp", "ts"], &["p", "polarity", "on", "pol"]];
            let Some(columns) = wanted.into_iter().map(find).collect::<Option<Vec<_>>>() else {
                crate::bail_input!(
                    "{} names the columns {first}, but x, y, t and p are wanted; rename them",
                    reader.source.name
                );
            };
            reader.columns.copy_from_slice(&columns);
            let (_, bytes) = line(reader.source.ahead(LINE)?);
            reader.source.pass(bytes);
            reader.line += 1;
        }
        Ok(reader)
    }
}

/// The event of a line whose x, y, t and p are these of its parts.
fn event(line: &[u8], columns: &[usize; 4]) -> Option<Event> {
    let mut values: [&[u8]; 4] = [b""; 4];
    for (place, part) in parts(line).enumerate() {
        if let Some(which) = columns.iter().position(|&column| column == place) {
            values[which] = part;
        }
    }
    let [x, y, time, on] = values;
    let on = match on {
        b"1" | b"+1" | b"true" | b"True" => true,
        b"0" | b"-1" | b"false" | b"False" => false,
        _ => return None,
    };
    let filled = [x, y, time].iter().all(|part| !part.is_empty());
    filled.then(|| Some(Event { time: number(time)?, x: number(x)?, y: number(y)?, on }))?
}

impl EventReader for Csv {
    fn size(&self) -> Option<SensorSize> {
        None
    }

    fn read(&mut self, events: &mut Vec<Event>) -> Result<()> {
        events.clear();
        while events.is_empty() {
            let name = self.source.name.clone();
            let mut ahead = self.source.ahead(LINE)?;
            if ahead.is_empty() {
                return Ok(());
            }
            // A line that may be cut stays for the next piece, unless the file ends here.
            let (mut used, whole) = (0, ahead.len() < LINE);
            while !ahead.is_empty() && events.len() < PIECE {
                let (line, bytes) = line(ahead);
                let cut = bytes == ahead.len() && ahead[bytes - 1] != b'\n' && !whole;
                if cut && used > 0 {
                    break;
                }
                self.line += 1;
                if line.len() >= LINE {
                    let line = self.line;
                    crate::bail_input!("{name}: line {line} has more than {LINE} bytes; it is no line of an event");
                }
                if !is_comment(line) {
                    let Some(event) = event(line, &self.columns) else {
                        crate::bail_input!(
                            "{name}: line {} is no event (x, y, whole microseconds, polarity 0 or 1): {}",
                            self.line,
                            String::from_utf8_lossy(line)
                        );
                    };
                    events.push(event);
                }
                used += bytes;
                ahead = &ahead[bytes..];
            }
            self.source.pass(used);
        }
        Ok(())
    }
}
