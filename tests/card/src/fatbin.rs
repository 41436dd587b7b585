//! The PTX in a fatbin, as nvcc embeds it: a header (magic, version, its own bytes, bytes after it), then entries of a header
//! and a payload each; several fatbins may follow each other. The undocumented layout was derived from files of nvcc 13.

use std::io::Read;

const MAGIC: u64 = 0xBA55_ED50;
/// The kind of a PTX entry; machine code is 2.
const PTX: u64 = 1;
const LZ4: u64 = 0x2000;
const ZSTD: u64 = 0x8000;

/// Bytes of the fatbin that starts at `image`; `None` if there is none.
///
/// # Safety
/// Sixteen bytes must be readable.
pub unsafe fn length(image: *const u8) -> Option<usize> {
    // SAFETY: the caller's promise.
    let header = unsafe { std::slice::from_raw_parts(image, 16) };
    (number(header, 0, 4)? == MAGIC).then_some(number(header, 6, 2)? as usize + number(header, 8, 8)? as usize)
}

fn number(bytes: &[u8], at: usize, length: usize) -> Option<u64> {
    let mut value = [0; 8];
    value[..length].copy_from_slice(bytes.get(at..at + length)?);
    Some(u64::from_le_bytes(value))
}

/// The PTX text; if there are several, that of the lowest architecture.
pub fn ptx(mut image: &[u8]) -> Result<String, String> {
    let mut found: Option<(u64, String)> = None;
    while !image.is_empty() {
        let field = |at, length| number(image, at, length).ok_or("the fatbin's header is cut off");
        if field(0, 4)? != MAGIC {
            return Err("the image is not a fatbin of nvcc's".into());
        }
        let (header, bytes) = (field(6, 2)? as usize, field(8, 8)? as usize);
        let mut entries = image.get(header..header + bytes).ok_or("the fatbin is cut off")?;
        while !entries.is_empty() {
            let entry = Entry::read(entries)?;
            if entry.kind == PTX && found.as_ref().is_none_or(|(lowest, _)| entry.architecture < *lowest) {
                found = Some((entry.architecture, entry.text()?));
            }
            entries = &entries[entry.bytes..];
        }
        image = &image[header + bytes..];
    }
    found.map(|(_, text)| text).ok_or("the fatbin holds no PTX, only machine code".into())
}

struct Entry<'a> {
    kind: u64,
    architecture: u64,
    flags: u64,
    /// Bytes of the text, if it is compressed.
    plain: usize,
    payload: &'a [u8],
    /// Bytes of header and payload.
    bytes: usize,
}

impl<'a> Entry<'a> {
    fn read(bytes: &'a [u8]) -> Result<Self, String> {
        let field = |at, length| number(bytes, at, length).ok_or("an entry of the fatbin is cut off");
        let (header, padded, compressed) = (field(4, 4)? as usize, field(8, 8)? as usize, field(16, 4)? as usize);
        let payload = bytes.get(header..header + padded).ok_or("an entry of the fatbin is cut off")?;
        Ok(Entry {
            kind: field(0, 2)?,
            architecture: field(28, 4)?,
            flags: field(40, 8)?,
            plain: field(56, 8)? as usize,
            payload: payload.get(..compressed).filter(|cut| !cut.is_empty()).unwrap_or(payload),
            bytes: header + padded,
        })
    }

    fn text(&self) -> Result<String, String> {
        let mut text = Vec::with_capacity(self.plain);
        if self.flags & ZSTD != 0 {
            let decoder = ruzstd::decoding::StreamingDecoder::new(self.payload);
            decoder.map_err(|error| error.to_string())?.read_to_end(&mut text).map_err(|error| error.to_string())?;
        } else if self.flags & LZ4 != 0 {
            text = lz4_flex::block::decompress(self.payload, self.plain).map_err(|error| error.to_string())?;
        } else {
            text.extend_from_slice(self.payload);
        }
        text.truncate(text.iter().position(|&byte| byte == 0).unwrap_or(text.len()));
        String::from_utf8(text).map_err(|error| format!("the PTX is no text: {error}"))
    }
}
