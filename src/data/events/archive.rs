//! The arrays of a zip file as written by NumPy, each read through its own stream; nothing is inflated before its size has
//! been checked.

use super::columns::Column;
use super::npy;
use flate2::Crc;
use flate2::bufread::DeflateDecoder;
use std::cell::RefCell;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::rc::Rc;
use zip::CompressionMethod;

/// Bytes skipped at a time.
const PIECE: usize = 1 << 20;
/// Most arrays in an archive.
const MOST_ARRAYS: usize = 1 << 12;
/// Deflate expands one byte to at most this many.
const MOST_INFLATION: u64 = 1032;
/// Names listed in a message.
const SHOWN: usize = 8;

/// An array of an archive.
pub(super) struct Array {
    /// Its name without `.npy`, and the path up to the last `/`.
    pub key: String,
    pub folder: String,
    start: u64,
    packed: u64,
    bytes: u64,
    crc: u32,
    deflated: bool,
}

/// The file and its arrays, none of them inflated yet.
pub(super) fn list<R: Read + Seek>(file: R) -> Result<(Rc<RefCell<R>>, Vec<Array>), String> {
    let damaged = |error: &dyn std::fmt::Display| format!("is a damaged archive ({error}); fetch or write it again");
    let mut archive = zip::ZipArchive::new(file).map_err(|error| damaged(&error))?;
    if archive.len() > MOST_ARRAYS {
        return Err(format!("has {} arrays, but at most {MOST_ARRAYS} are read", archive.len()));
    }
    let (mut arrays, mut others) = (Vec::new(), Vec::new());
    for index in 0..archive.len() {
        let entry = archive.by_index_raw(index).map_err(|error| damaged(&error))?;
        let whole = entry.name().map_err(|error| damaged(&error))?.into_owned();
        let Some(key) = whole.strip_suffix(".npy").map(str::to_string) else {
            others.push(whole);
            continue;
        };
        let deflated = match entry.compression() {
            CompressionMethod::Stored => false,
            CompressionMethod::Deflated => true,
            method => return Err(format!("holds {key} packed by {method}, but NumPy stores or deflates")),
        };
        if entry.encrypted() {
            return Err(format!("holds {key} encrypted; write it without a password"));
        }
        let (bytes, packed) = (entry.size(), entry.compressed_size());
        if if deflated { bytes > packed.saturating_mul(MOST_INFLATION) } else { bytes != packed } {
            return Err(format!("says {bytes} bytes of {key}, which {packed} bytes cannot hold; it is damaged"));
        }
        let start = entry.data_start().ok_or_else(|| damaged(&"an array has no place"))?;
        let folder = key.rsplit_once('/').map_or("", |(folder, _)| folder).to_string();
        arrays.push(Array { key, folder, start, packed, bytes, crc: entry.crc32(), deflated });
    }
    if arrays.is_empty() {
        others.truncate(SHOWN);
        return Err(format!(
            "is a zip file without arrays of NumPy (it holds {}); write x, y, t and p with numpy.savez",
            others.join(", ")
        ));
    }
    Ok((Rc::new(RefCell::new(archive.into_inner())), arrays))
}

impl Array {
    /// Which column its name stands for.
    pub fn column(&self) -> Column {
        Column::of_name(self.key.rsplit('/').next().unwrap_or_default())
    }

    /// Its header.
    pub fn header<R: Read + Seek + 'static>(&self, file: &Rc<RefCell<R>>) -> Result<npy::Header, String> {
        npy::read(self.content(file)).map_err(|what| format!("has an array {} that {what}", self.key))
    }

    /// The records of `stride` bytes after the header and after the `skipped` values, if the array's size matches its type and
    /// shape.
    pub fn stream<R: Read + Seek + 'static>(
        &self,
        file: &Rc<RefCell<R>>,
        header: &npy::Header,
        skipped: u64,
        stride: usize,
    ) -> Result<Stream, String> {
        let key = &self.key;
        let values = header.shape.iter().try_fold(header.bytes as u64, |all, &extent| all.checked_mul(extent));
        if values.and_then(|values| values.checked_add(header.start as u64)) != Some(self.bytes) {
            let (bytes, each, shape, start) = (self.bytes, header.bytes, &header.shape, header.start);
            return Err(format!(
                "holds {key} as {bytes} bytes, but its header of {start} bytes says {shape:?} values of {each}; it is damaged"
            ));
        }
        let (crc, piece, content) = (Crc::new(), Vec::new(), self.content(file));
        let mut stream =
            Stream { content, crc, wanted_crc: self.crc, left: self.bytes, stride, piece, key: key.clone() };
        let mut behind = header.start as u64 + skipped;
        while behind > 0 {
            let bytes = behind.min(PIECE as u64);
            stream.take(bytes as usize)?;
            behind -= bytes;
        }
        Ok(stream)
    }

    /// Its bytes from the beginning.
    fn content<R: Read + Seek + 'static>(&self, file: &Rc<RefCell<R>>) -> Box<dyn Read> {
        let region = Region { file: file.clone(), at: self.start, left: self.packed };
        if self.deflated { Box::new(DeflateDecoder::new(BufReader::new(region))) } else { Box::new(region) }
    }
}

/// A part of a file that others read too.
struct Region<R> {
    file: Rc<RefCell<R>>,
    at: u64,
    left: u64,
}

impl<R: Read + Seek> Read for Region<R> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let wanted = buffer.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let mut file = self.file.borrow_mut();
        file.seek(SeekFrom::Start(self.at))?;
        let read = file.read(&mut buffer[..wanted])?;
        (self.at, self.left) = (self.at + read as u64, self.left - read as u64);
        Ok(read)
    }
}

/// The records of an array, or of part of one, piece by piece.
pub(super) struct Stream {
    content: Box<dyn Read>,
    crc: Crc,
    wanted_crc: u32,
    /// Bytes of the array that have not been read yet.
    left: u64,
    /// Bytes per record.
    pub stride: usize,
    /// The records that were read last.
    pub piece: Vec<u8>,
    key: String,
}

impl Stream {
    /// Reads the next records.
    pub fn fill(&mut self, records: usize) -> Result<(), String> {
        self.take(records * self.stride)
    }

    fn take(&mut self, bytes: usize) -> Result<(), String> {
        let key = &self.key;
        self.piece.resize(bytes, 0);
        let read = self.content.read_exact(&mut self.piece);
        read.map_err(|error| format!("is damaged in {key} ({error}); fetch or write it again"))?;
        self.crc.update(&self.piece);
        self.left = self.left.checked_sub(bytes as u64).ok_or_else(|| format!("ends within {key}"))?;
        if self.left == 0 && self.crc.sum() != self.wanted_crc {
            return Err(format!("is damaged in {key}: its checksum is wrong; fetch or write it again"));
        }
        Ok(())
    }
}
