//! The header of NumPy's .npy: `\x93NUMPY`, version, length, and the type, order and shape of the values as a Python
//! dictionary: `{'descr': '<i8', 'fortran_order': False, 'shape': (100,), }`.
//!
//! Format: NumPy Enhancement Proposal 1 and `numpy.lib.format`, versions 1.0 to 3.0.

use super::columns::Unit;
use std::io::Read;

/// Largest header in bytes.
const MOST_BYTES: usize = 1 << 16;
/// Deepest nesting of brackets.
const MOST_DEPTH: usize = 8;
/// Largest value or record in bytes.
const MOST_RECORD: usize = 1 << 12;

/// The content of an array's header.
#[derive(Debug)]
pub(super) struct Header {
    pub values: Values,
    pub fortran: bool,
    pub shape: Vec<u64>,
    /// Bytes per value or record.
    pub bytes: usize,
    /// Bytes before the first value.
    pub start: usize,
}

/// What an array consists of.
#[derive(Debug)]
pub(super) enum Values {
    /// Single values of this type: `<i8`.
    Single(String),
    /// Records with these fields.
    Records(Vec<Field>),
}

/// A field of a record.
#[derive(Debug)]
pub(super) struct Field {
    pub name: String,
    /// `<i8`; anything other than a single value is shown as Python writes it.
    pub kind: String,
    /// Bytes from the start of the record.
    pub offset: usize,
}

/// A numeric type.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Number {
    pub class: Class,
    pub bytes: usize,
    pub big_endian: bool,
}

/// The class of a number.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Class {
    Signed,
    /// Also booleans.
    Unsigned,
    Float,
    /// `datetime64` and `timedelta64`, whole numbers of this unit.
    Time(Unit),
}

impl Number {
    /// Parses a numeric type as NumPy writes it; an error says what the type is instead.
    pub fn of(kind: &str) -> Result<Self, String> {
        let not = |what: &str| Err(format!("{what} (NumPy's {kind})"));
        let (Some(letter), Some(size)) = (kind.chars().nth(1), kind.get(2..)) else { return not("an unknown type") };
        let (bytes, unit) = size.split_once('[').unwrap_or((size, ""));
        let class = match (letter, bytes) {
            ('i', "1" | "2" | "4" | "8") => Class::Signed,
            ('u', "1" | "2" | "4" | "8") | ('b', "1") => Class::Unsigned,
            ('f', "2" | "4" | "8") => Class::Float,
            ('m' | 'M', "8") => match Unit::of_name(unit.trim_end_matches(']')) {
                Some(unit) => Class::Time(unit),
                None => return not("times of a unit other than s, ms, us and ns"),
            },
            ('O', _) => return not("Python objects"),
            ('U' | 'S' | 'T', _) => return not("text"),
            ('c', _) => return not("complex numbers"),
            ('f', _) => return not("numbers of extended precision"),
            _ => return not("no numbers"),
        };
        Ok(Self { class, bytes: bytes.parse().expect("one digit"), big_endian: kind.starts_with('>') })
    }
}

/// Reads a header from the beginning of an array; an error says what is wrong with it.
pub(super) fn read(mut bytes: impl Read) -> Result<Header, String> {
    let mut more = |count: usize| {
        let mut taken = vec![0; count];
        bytes.read_exact(&mut taken).map(|()| taken).map_err(|error| format!("ends within its header ({error})"))
    };
    let begin = more(8)?;
    if !begin.starts_with(b"\x93NUMPY") {
        return Err("is no array of NumPy".into());
    }
    let width = match begin[6] {
        1 => 2,
        2 | 3 => 4,
        version => return Err(format!("is of version {version}, but 1 to 3 are read")),
    };
    let length = more(width)?.iter().rev().fold(0, |sum, &byte| sum << 8 | usize::from(byte));
    if length > MOST_BYTES {
        return Err(format!("has a header of {length} bytes, but at most {MOST_BYTES} are read"));
    }
    let text = String::from_utf8_lossy(&more(length)?).into_owned();
    parse(&text, 8 + width + length).ok_or_else(|| "has a header that NumPy does not write".into())
}

fn parse(text: &str, start: usize) -> Option<Header> {
    let mut rest = text;
    let Literal::Dictionary(entries) = literal(&mut rest, 0)? else { return None };
    let entry = |key: &str| entries.iter().find(|(name, _)| name == key).map(|(_, value)| value);
    let Literal::Tuple(extents) = entry("shape")? else { return None };
    let extent = |extent: &Literal| if let Literal::Number(extent) = extent { Some(*extent) } else { None };
    let shape = extents.iter().map(extent).collect::<Option<Vec<_>>>()?;
    let fortran = matches!(entry("fortran_order")?, Literal::Word(word) if word == "True");
    let descr = entry("descr")?;
    let bytes = size(descr)?;
    let values = match descr {
        Literal::Text(kind) => Values::Single(kind.clone()),
        Literal::List(fields) => {
            let (mut offset, mut found) = (0usize, Vec::new());
            for field in fields {
                let Literal::Tuple(parts) = field else { return None };
                let name = match parts.first()? {
                    // A title and a name.
                    Literal::Tuple(names) => names.get(1)?,
                    name => name,
                };
                let Literal::Text(name) = name else { return None };
                let kind = match parts.get(1..)? {
                    [Literal::Text(kind)] => kind.clone(),
                    _ => "a record or an array in a record".into(),
                };
                found.push(Field { name: name.clone(), kind, offset });
                offset = offset.checked_add(field_size(field)?)?;
            }
            Values::Records(found)
        }
        _ => return None,
    };
    Some(Header { values, fortran, shape, bytes, start })
}

/// Size of a type in bytes: `'<i8'`, or a list of fields.
fn size(kind: &Literal) -> Option<usize> {
    let bytes = match kind {
        Literal::Text(kind) => {
            let count = kind.get(2..)?.split('[').next()?;
            let bytes: usize = if count.is_empty() { 8 } else { count.parse().ok()? };
            bytes.checked_mul(if kind.contains('U') { 4 } else { 1 })?
        }
        Literal::List(fields) => fields.iter().try_fold(0usize, |sum, field| sum.checked_add(field_size(field)?))?,
        _ => return None,
    };
    (bytes <= MOST_RECORD).then_some(bytes)
}

/// Size of a field in bytes: a name, a type and, if the field is an array, its extents.
fn field_size(field: &Literal) -> Option<usize> {
    let Literal::Tuple(parts) = field else { return None };
    let extents = match parts.get(2..)? {
        [] => &[][..],
        [Literal::Tuple(extents)] => extents,
        _ => return None,
    };
    extents.iter().try_fold(size(&parts[1])?, |bytes, extent| match extent {
        Literal::Number(extent) => bytes.checked_mul(usize::try_from(*extent).ok()?),
        _ => None,
    })
}

/// A Python literal.
#[derive(Debug, PartialEq)]
enum Literal {
    Text(String),
    Number(u64),
    /// `True`, `False`, `None`.
    Word(String),
    List(Vec<Literal>),
    Tuple(Vec<Literal>),
    Dictionary(Vec<(String, Literal)>),
}

/// Takes a value from the start of `rest`.
fn literal(rest: &mut &str, depth: usize) -> Option<Literal> {
    let blank = |rest: &mut &str| *rest = rest.trim_start();
    blank(rest);
    let first = rest.chars().next()?;
    match first {
        '\'' | '"' => {
            let (text, behind) = rest[1..].split_once(first)?;
            *rest = behind;
            Some(Literal::Text(text.into()))
        }
        '0'..='9' => {
            let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
            let number = rest[..digits].parse().ok()?;
            // Python 2 wrote 100L.
            *rest = rest[digits..].trim_start_matches('L');
            Some(Literal::Number(number))
        }
        '[' | '(' | '{' => {
            if depth == MOST_DEPTH {
                return None;
            }
            let end = [']', ')', '}'][['[', '(', '{'].iter().position(|&open| open == first)?];
            *rest = &rest[1..];
            let (mut items, mut entries) = (Vec::new(), Vec::new());
            loop {
                blank(rest);
                if let Some(behind) = rest.strip_prefix(end) {
                    *rest = behind;
                    return Some(match end {
                        ']' => Literal::List(items),
                        ')' => Literal::Tuple(items),
                        _ => Literal::Dictionary(entries),
                    });
                }
                let item = literal(rest, depth + 1)?;
                blank(rest);
                if end == '}' {
                    let Literal::Text(key) = item else { return None };
                    *rest = rest.strip_prefix(':')?;
                    entries.push((key, literal(rest, depth + 1)?));
                } else {
                    items.push(item);
                }
                blank(rest);
                if !rest.starts_with(end) {
                    *rest = rest.strip_prefix(',')?;
                }
            }
        }
        _ => {
            let letters = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_alphabetic()).len();
            let (word, behind) = rest.split_at(letters);
            *rest = behind;
            (!word.is_empty()).then(|| Literal::Word(word.into()))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(text: &str) -> Option<Header> {
        parse(text, 10)
    }

    #[test]
    fn headers_are_read() {
        let plain = header("{'descr': '<i8', 'fortran_order': False, 'shape': (100,), }   \n").unwrap();
        assert!(matches!(&plain.values, Values::Single(kind) if kind == "<i8"));
        assert_eq!((plain.bytes, plain.shape, plain.fortran), (8, vec![100], false));
        let scalar = header("{'descr': '<U3', 'fortran_order': False, 'shape': (), }").unwrap();
        assert_eq!((scalar.bytes, scalar.shape), (12, vec![]));
        let old = header("{'descr': '>u2', 'fortran_order': True, 'shape': (7L, 4L)}").unwrap();
        assert_eq!((old.shape, old.fortran), (vec![7, 4], true));
        let records = "{'descr': [('t', '<i8'), ('x', '<i2'), (('of the row', 'y'), '<i2'), ('p', '|u1'), ('', '|V3'), \
                       ('at', [('a', '<f4'), ('b', '<f4', (2,))])], 'fortran_order': False, 'shape': (3,)}";
        let records = header(records).unwrap();
        assert_eq!(records.bytes, 8 + 2 + 2 + 1 + 3 + 12);
        let Values::Records(fields) = records.values else { panic!("records") };
        let found: Vec<_> = fields.iter().map(|field| (&field.name[..], field.offset)).collect();
        assert_eq!(found, [("t", 0), ("x", 8), ("y", 10), ("p", 12), ("", 13), ("at", 16)]);
    }

    #[test]
    fn what_numpy_does_not_write_is_refused() {
        for text in [
            "",
            "{",
            "{'descr': '<i8', 'fortran_order': False, 'shape': 7}",
            "{'descr': '<i8', 'fortran_order': False}",
            "{'descr': '<V999999', 'fortran_order': False, 'shape': (1,)}",
            "{'descr': [('x', '<i2', (99999999999, 99999999999))], 'fortran_order': False, 'shape': (1,)}",
            &"[".repeat(1000),
        ] {
            assert!(header(text).is_none(), "{text}");
        }
        assert!(read(&b"\x93NUMPY\x02\x00\x00\x00\x00\x40"[..]).unwrap_err().contains("at most"));
        assert!(read(&b"\x93NUMPY\x01\x00\x10\x00{"[..]).unwrap_err().contains("ends within"));
        assert!(read(&b"not an array"[..]).unwrap_err().contains("no array"));
    }

    #[test]
    fn types_are_numbers_or_named() {
        let number = |class, bytes, big_endian| Ok(Number { class, bytes, big_endian });
        assert_eq!(Number::of("<i8"), number(Class::Signed, 8, false));
        assert_eq!(Number::of(">u2"), number(Class::Unsigned, 2, true));
        assert_eq!(Number::of("|b1"), number(Class::Unsigned, 1, false));
        assert_eq!(Number::of("<m8[us]"), number(Class::Time(Unit::Microseconds), 8, false));
        for (kind, part) in [
            ("|O", "Python objects"),
            ("<U3", "text"),
            ("<m8[D]", "unit"),
            ("<f16", "extended"),
            ("", "unknown"),
            ("é", "unknown"),
        ] {
            assert!(Number::of(kind).unwrap_err().contains(part), "{kind}");
        }
    }
}
