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

fn parts(line: &str) -> impl Iterator<Item = &str> {
    line.split([',', ';', '\t', ' ']).map(str::trim).filter(|part| !part.is_empty())
}

impl Csv {
    pub fn new(mut source: Source) -> Result<Self> {
        let mut reader = Self {
            columns: [0, 1, 2, 3],
            line: 0,
            source: {
                source.ahead(1)?;
                source
            },
        };
        reader.skip_comments()?;
        let first = reader.peek()?.unwrap_or_default().to_ascii_lowercase();
        if first.starts_with(|c: char| c.is_ascii_alphabetic()) {
            let names: Vec<&str> = parts(&first).collect();
            let find = |known: &[&str]| names.iter().position(|name| known.contains(name));
            let wanted: [&[&str]; 4] =
                [&["x"], &["y"], &["t", "time", "timestamp", "ts"], &["p", "polarity", "on", "pol"]];
            let Some(columns) = wanted.into_iter().map(find).collect::<Option<Vec<_>>>() else {
                crate::bail_input!(
                    "{} names the columns {first}, but x, y, t and p are wanted; rename them",
                    reader.source.name
                );
            };
            reader.columns.copy_from_slice(&columns);
            reader.advance()?;
        }
        Ok(reader)
    }

    fn skip_comments(&mut self) -> Result<()> {
        while self.peek()?.is_some_and(|line| line.is_empty() || line.starts_with('#')) {
            self.advance()?;
        }
        Ok(())
    }

    /// The next line without its end; `None` at the end of the file.
    fn peek(&mut self) -> Result<Option<String>> {
        let (line, name) = (self.line + 1, self.source.name.clone());
        let ahead = self.source.ahead(LINE)?;
        let end = ahead.iter().take(LINE).position(|&byte| byte == b'\n');
        if end.is_none() && ahead.len() >= LINE {
            crate::bail_input!("{name}: line {line} has more than {LINE} bytes; it is no line of an event");
        }
        let text = &ahead[..end.unwrap_or(ahead.len())];
        Ok((!ahead.is_empty()).then(|| String::from_utf8_lossy(text).trim().to_string()))
    }

    fn advance(&mut self) -> Result<()> {
        let ahead = self.source.ahead(LINE)?;
        let bytes = ahead.iter().position(|&byte| byte == b'\n').map_or(ahead.len(), |end| end + 1);
        self.source.pass(bytes);
        self.line += 1;
        Ok(())
    }

    fn event(&self, line: &str) -> Option<Event> {
        let mut values = [""; 4];
        for (place, part) in parts(line).enumerate() {
            if let Some(which) = self.columns.iter().position(|&column| column == place) {
                values[which] = part;
            }
        }
        let [x, y, time, on] = values;
        let on = match on {
            "1" | "true" | "True" | "+1" => true,
            "0" | "-1" | "false" | "False" => false,
            _ => return None,
        };
        Some(Event { time: time.parse().ok()?, x: x.parse().ok()?, y: y.parse().ok()?, on })
    }
}

impl EventReader for Csv {
    fn size(&self) -> Option<SensorSize> {
        None
    }

    fn read(&mut self, events: &mut Vec<Event>) -> Result<()> {
        events.clear();
        while events.len() < PIECE {
            let Some(line) = self.peek()? else { break };
            if !(line.is_empty() || line.starts_with('#')) {
                let Some(event) = self.event(&line) else {
                    crate::bail_input!(
                        "{}: line {} is no event (x, y, whole microseconds, polarity 0 or 1): {line}",
                        self.source.name,
                        self.line + 1
                    );
                };
                events.push(event);
            }
            self.advance()?;
        }
        Ok(())
    }
}
