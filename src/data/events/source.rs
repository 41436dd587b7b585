//! The bytes of a recording, piece by piece.

use super::Event;
use crate::files::open_regular;
use anyhow::Result;
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Bytes requested from the file at a time.
const PIECE: usize = 1 << 20;
/// Longest header line.
const LINE: usize = 1 << 16;
/// Longest header in bytes.
const HEADER: usize = 1 << 22;

/// A file, or bytes in memory, read forwards.
pub(super) struct Source {
    file: Box<dyn Read>,
    /// The name used in errors.
    pub name: String,
    buffer: Vec<u8>,
    /// How much of the buffer has been used.
    used: usize,
    /// The buffer's offset in the file.
    begin: u64,
    ended: bool,
}

impl Source {
    /// Opens a regular file.
    ///
    /// # Errors
    /// An [`InputError`](crate::error::InputError) if it cannot be read.
    pub fn open(path: &Path) -> Result<Self> {
        Ok(Self::of(Box::new(Self::file(path)?), path.display().to_string()))
    }

    /// Opens the regular file itself.
    pub fn file(path: &Path) -> Result<File> {
        open_regular(path)
    }

    /// Reads from `file`; `name` is for errors.
    pub fn of(file: Box<dyn Read>, name: String) -> Self {
        Self { file, name, buffer: Vec::new(), used: 0, begin: 0, ended: false }
    }

    /// The bytes ahead, at least `wanted` of them unless the file ends first.
    pub fn ahead(&mut self, wanted: usize) -> Result<&[u8]> {
        if self.buffer.len() - self.used < wanted && !self.ended {
            self.begin += self.used as u64;
            self.buffer.drain(..self.used);
            self.used = 0;
            // A length claimed by the file is not allocated before the bytes are there.
            while self.buffer.len() < wanted && !self.ended {
                let before = self.buffer.len();
                let read = (&mut self.file).take(PIECE as u64).read_to_end(&mut self.buffer);
                read.map_err(|error| crate::input_error!("{} cannot be read: {error}", self.name))?;
                self.ended = self.buffer.len() == before;
            }
        }
        Ok(&self.buffer[self.used..])
    }

    /// Reads events from records of `N` bytes each, piece by piece, until there is an event or the file ends.
    ///
    /// # Errors
    /// If the file ends within a record.
    pub fn records<const N: usize>(
        &mut self,
        what: &str,
        events: &mut Vec<Event>,
        mut decode: impl FnMut([u8; N], &mut Vec<Event>),
    ) -> Result<()> {
        events.clear();
        while events.is_empty() {
            let (whole, rest) = self.ahead_in()?;
            if whole.is_empty() {
                return if rest == 0 { Ok(()) } else { self.cut(what) };
            }
            whole.iter().for_each(|&record| decode(record, events));
            let bytes = N * whole.len();
            self.pass(bytes);
        }
        Ok(())
    }

    /// A piece of whole records of `N` bytes, and the number of bytes that follow them; there is no record only at the end
    /// of the file.
    pub fn ahead_in<const N: usize>(&mut self) -> Result<(&[[u8; N]], usize)> {
        let wanted = if self.buffer.len() - self.used >= N { N } else { PIECE };
        let (whole, rest) = self.ahead(wanted)?.as_chunks();
        Ok((whole, rest.len()))
    }

    /// Skips bytes without keeping them.
    ///
    /// # Errors
    /// If the file ends first.
    pub fn pass_over(&mut self, mut bytes: usize, what: &str) -> Result<()> {
        while bytes > 0 {
            let here = self.ahead(bytes.min(PIECE))?.len().min(bytes);
            if here == 0 {
                return self.cut(what);
            }
            self.pass(here);
            bytes -= here;
        }
        Ok(())
    }

    /// Skips bytes that have been looked at.
    pub fn pass(&mut self, bytes: usize) {
        self.used = (self.used + bytes).min(self.buffer.len());
    }

    /// The offset of the next byte in the file.
    pub fn place(&self) -> u64 {
        self.begin + self.used as u64
    }

    /// The next `N` bytes; `None` at the end of the file.
    ///
    /// # Errors
    /// If the file ends within them.
    pub fn take<const N: usize>(&mut self, what: &str) -> Result<Option<[u8; N]>> {
        let ahead = self.ahead(N)?;
        match (ahead.first_chunk().copied(), ahead.is_empty()) {
            (Some(bytes), _) => {
                self.pass(N);
                Ok(Some(bytes))
            }
            (None, true) => Ok(None),
            (None, false) => self.cut(what),
        }
    }

    /// The next `count` bytes.
    ///
    /// # Errors
    /// If the file ends first.
    pub fn exactly(&mut self, count: usize, what: &str) -> Result<Vec<u8>> {
        let Some(bytes) = self.ahead(count)?.get(..count).map(<[u8]>::to_vec) else { return self.cut(what) };
        self.pass(count);
        Ok(bytes)
    }

    /// The lines of a header, without line ends: they begin with `mark`, are text and end with the line `last`, if present.
    /// Data may begin with the mark too, but contain control bytes before a line would end.
    ///
    /// # Errors
    /// If they do not end.
    pub fn header_to(&mut self, mark: &str, last: &str) -> Result<Vec<String>> {
        let (mut lines, mut bytes) = (Vec::new(), 0);
        while let Some(line) = self.header_line(mark)? {
            bytes += line.len() + 1;
            let ended = line == last;
            lines.push(line);
            if ended {
                break;
            }
            if bytes > HEADER {
                crate::bail_input!("{} has a header of more than {HEADER} bytes; it is damaged", self.name);
            }
        }
        Ok(lines)
    }

    fn header_line(&mut self, mark: &str) -> Result<Option<String>> {
        let ahead = self.ahead(LINE)?;
        if !ahead.starts_with(mark.as_bytes()) {
            return Ok(None);
        }
        let (ahead, ended) = (&ahead[..ahead.len().min(LINE)], ahead.len() < LINE);
        let end = ahead.iter().position(|&byte| byte == b'\n');
        let line = &ahead[..end.unwrap_or(ahead.len())];
        let text = line.strip_suffix(b"\r").unwrap_or(line);
        if text.iter().any(|&byte| byte.is_ascii_control() && byte != b'\t') {
            return Ok(None);
        }
        let line = String::from_utf8_lossy(text).trim_end().to_string();
        match end {
            Some(end) => self.pass(end + 1),
            None if ended => return self.cut("its header"),
            None => crate::bail_input!("{} has a header line of more than {LINE} bytes; it is damaged", self.name),
        }
        Ok(Some(line))
    }

    /// A first piece of the bytes ahead, for recognition before reading.
    pub fn beginning(&mut self) -> Result<&[u8]> {
        self.ahead(PIECE)
    }

    /// The first line of the bytes ahead, cut if it is long.
    pub fn first_line(&mut self) -> Result<String> {
        let line = self.ahead(128)?.split(|&byte| byte == b'\n').next().unwrap_or_default();
        Ok(String::from_utf8_lossy(&line[..line.len().min(128)]).trim_end().to_string())
    }

    /// The error that the file ends too early.
    pub fn cut<T>(&self, what: &str) -> Result<T> {
        Err(crate::input_error!("{} ends within {what} at byte {}; fetch it again", self.name, self.place()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_forwards_in_pieces() {
        let home = tempfile::TempDir::new().unwrap();
        let path = home.path().join("x");
        let bytes: Vec<u8> = (0..3 * PIECE + 5).map(|i| (i % 251) as u8).collect();
        std::fs::write(&path, &bytes).unwrap();
        let mut source = Source::open(&path).unwrap();
        assert_eq!(source.take::<2>("a pair").unwrap(), Some([0, 1]));
        assert_eq!(source.exactly(2 * PIECE, "much").unwrap(), bytes[2..][..2 * PIECE]);
        let mut rest = Vec::new();
        loop {
            let (piece, _) = source.ahead_in::<1>().unwrap();
            if piece.is_empty() {
                break;
            }
            rest.extend_from_slice(piece.as_flattened());
            let len = piece.len();
            source.pass(len);
        }
        assert_eq!(rest, bytes[2 + 2 * PIECE..]);
        assert_eq!((source.place(), source.take::<2>("a pair").unwrap()), (bytes.len() as u64, None));
        let error = source.exactly(1, "a byte").unwrap_err();
        assert!(error.to_string().contains("a byte at byte 3145733"), "{error}");
        assert!(Source::open(home.path()).is_err() && Source::open(&home.path().join("none")).is_err());
    }

    #[test]
    fn a_header_ends_where_its_mark_does() {
        let home = tempfile::TempDir::new().unwrap();
        let path = home.path().join("x");
        std::fs::write(&path, "# one\r\n#two\nrest # no").unwrap();
        let mut source = Source::open(&path).unwrap();
        assert_eq!(source.header_to("#", "").unwrap(), ["# one", "#two"]);
        assert_eq!(source.ahead(4).unwrap(), b"rest # no");
        for (data, lines) in [("# a\n#b\0\0\nc\n", 1), ("# a\n# end\n# data\n", 2), ("#\x01", 0)] {
            std::fs::write(&path, data).unwrap();
            assert_eq!(Source::open(&path).unwrap().header_to("#", "# end").unwrap().len(), lines, "{data:?}");
        }
        for bad in ["#".repeat(LINE + 1), "#\n".repeat(HEADER)] {
            std::fs::write(&path, bad).unwrap();
            assert!(Source::open(&path).unwrap().header_to("#", "").unwrap_err().to_string().contains("damaged"));
        }
    }
}
