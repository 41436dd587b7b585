//! The part of Python's pickle format that data sets use: dictionaries, lists, tuples, numbers, text, and NumPy arrays of
//! bytes. Nothing is imported or called; a file that asks for more is refused.
//!
//! Values live in one table and refer to each other by index, so a value that is used many times is stored once: unlike with a
//! general reader, which copies such values, memory stays in proportion to the file.

use anyhow::Result;
use std::ops::Range;

/// The most values in a file; CIFAR-100 has 150 thousand.
const MOST_VALUES: usize = 1 << 21;

/// The index of a value.
type Id = usize;

#[derive(Clone, Debug)]
enum Value {
    None,
    Number(i64),
    /// Text or bytes, in the file.
    Bytes(Range<usize>),
    List(Vec<Id>),
    /// Keys and values in turn.
    Dictionary(Vec<Id>),
    /// The name of something in a Python module.
    Global(String),
    /// An object made by a function from a tuple, and its state.
    Object {
        function: Id,
        arguments: Id,
        state: Option<Id>,
    },
}

/// A file that has been read.
pub struct Pickle<'a> {
    bytes: &'a [u8],
    values: Vec<Value>,
    root: Id,
}

/// An array of bytes in two dimensions.
pub struct Array<'a> {
    pub rows: usize,
    pub columns: usize,
    /// `[rows][columns]`, or the other way round if `by_column`.
    pub bytes: &'a [u8],
    pub by_column: bool,
}

/// Reads the bytes of a file, `name` in errors.
///
/// # Errors
/// An [`InputError`](crate::error::InputError) if it is not a pickle, damaged, or contains anything else.
pub fn parse<'a>(bytes: &'a [u8], name: &str) -> Result<Pickle<'a>> {
    let mut reader =
        Reader { bytes, at: 0, values: Vec::new(), stack: Vec::new(), marks: Vec::new(), memo: Vec::new() };
    match reader.run() {
        Ok(root) => Ok(Pickle { bytes, values: reader.values, root }),
        Err(what) => Err(crate::input_error!(
            "{name} {what} at byte {}, so it is damaged or not a pickle of this data set; unpack the archive again",
            reader.at
        )),
    }
}

/// What is wrong, as the predicate of a sentence.
type Read<T> = std::result::Result<T, String>;

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    values: Vec<Value>,
    stack: Vec<Id>,
    /// Heights of the stack.
    marks: Vec<usize>,
    memo: Vec<(u32, Id)>,
}

impl Reader<'_> {
    /// Executes the file and returns the value that it leaves. Codes as in CPython's `Lib/pickle.py`.
    fn run(&mut self) -> Read<Id> {
        loop {
            let [code] = self.take()?;
            match code {
                0x80 => drop(self.take::<1>()?), // protocol
                0x95 => drop(self.take::<8>()?), // frame
                b'.' => return self.pop(),
                b'(' => self.marks.push(self.stack.len()),
                b'N' => self.push(Value::None)?,
                0x88 => self.push(Value::Number(1))?,
                0x89 => self.push(Value::Number(0))?,
                b'K' => self.number(|[byte]: [u8; 1]| byte.into())?,
                b'M' => self.number(|bytes| u16::from_le_bytes(bytes).into())?,
                b'J' => self.number(|bytes| i32::from_le_bytes(bytes).into())?,
                b'U' | b'C' | 0x8c => self.text(|[byte]: [u8; 1]| byte.into())?,
                b'T' | b'X' | b'B' => self.text(|bytes| u32::from_le_bytes(bytes).into())?,
                0x8e => self.text(u64::from_le_bytes)?,
                b']' => self.push(Value::List(Vec::new()))?,
                b')' => self.push(Value::List(Vec::new()))?,
                b'}' => self.push(Value::Dictionary(Vec::new()))?,
                0x85..=0x87 => {
                    let from = self.stack.len().checked_sub(usize::from(code) - 0x84).ok_or(EMPTY)?;
                    self.tuple(from)?;
                }
                b't' => {
                    let from = self.marks.pop().ok_or(EMPTY)?;
                    self.tuple(from)?;
                }
                b'a' => self.extend(1)?,
                b's' => self.extend(2)?,
                b'e' | b'u' => {
                    let from = self.marks.pop().ok_or(EMPTY)?;
                    let count = self.stack.len().checked_sub(from).ok_or(EMPTY)?;
                    self.extend(count)?;
                }
                b'q' => {
                    let [place] = self.take()?;
                    self.keep(place.into())?;
                }
                b'r' => {
                    let place = u32::from_le_bytes(self.take()?);
                    self.keep(place)?;
                }
                0x94 => self.keep(self.memo.len() as u32)?,
                b'h' => {
                    let [place] = self.take()?;
                    self.recall(place.into())?;
                }
                b'j' => {
                    let place = u32::from_le_bytes(self.take()?);
                    self.recall(place)?;
                }
                b'c' => {
                    let [module, name] = [self.line()?, self.line()?];
                    self.global(&module, &name)?;
                }
                0x93 => {
                    let [name, module] = [self.pop_text()?, self.pop_text()?];
                    self.global(&module, &name)?;
                }
                b'R' => {
                    let (arguments, function) = (self.pop()?, self.pop()?);
                    self.push(Value::Object { function, arguments, state: None })?;
                }
                b'b' => {
                    let given = self.pop()?;
                    match self.top()? {
                        Value::Object { state, .. } => *state = Some(given),
                        _ => return Err("gives a state to something that has none".into()),
                    }
                }
                _ => return Err(format!("has the unknown code {code:#04x}")),
            }
        }
    }

    fn take<const N: usize>(&mut self) -> Read<[u8; N]> {
        let bytes = self.bytes[self.at..].first_chunk().ok_or("ends too early")?;
        self.at += N;
        Ok(*bytes)
    }

    fn push(&mut self, value: Value) -> Read<()> {
        if self.values.len() == MOST_VALUES {
            return Err(format!("has more than {MOST_VALUES} values"));
        }
        self.stack.push(self.values.len());
        self.values.push(value);
        Ok(())
    }

    fn pop(&mut self) -> Read<Id> {
        // Nothing below a mark is taken singly.
        let free = self.marks.last().is_none_or(|&mark| self.stack.len() > mark);
        Ok(self.stack.pop().filter(|_| free).ok_or(EMPTY)?)
    }

    fn top(&mut self) -> Read<&mut Value> {
        let id = *self.stack.last().ok_or(EMPTY)?;
        Ok(&mut self.values[id])
    }

    fn number<const N: usize>(&mut self, decode: impl Fn([u8; N]) -> i64) -> Read<()> {
        let number = decode(self.take()?);
        self.push(Value::Number(number))
    }

    fn text<const N: usize>(&mut self, length: impl Fn([u8; N]) -> u64) -> Read<()> {
        let length = length(self.take()?);
        let left = self.bytes.len() - self.at;
        let length = usize::try_from(length).ok().filter(|&length| length <= left).ok_or("ends too early")?;
        self.at += length;
        self.push(Value::Bytes(self.at - length..self.at))
    }

    fn tuple(&mut self, from: usize) -> Read<()> {
        if from > self.stack.len() {
            return Err(EMPTY.into());
        }
        let items = self.stack.split_off(from);
        self.push(Value::List(items))
    }

    /// Moves `count` values to the list or dictionary below them.
    fn extend(&mut self, count: usize) -> Read<()> {
        let from = self.stack.len().checked_sub(count).ok_or(EMPTY)?;
        let items = self.stack.split_off(from);
        match self.top()? {
            Value::List(list) => list.extend(items),
            Value::Dictionary(entries) if items.len().is_multiple_of(2) => entries.extend(items),
            _ => return Err("adds values to something that holds none".into()),
        }
        Ok(())
    }

    /// Notes the value on top under a number. Numbers rise in files that Python writes.
    fn keep(&mut self, place: u32) -> Read<()> {
        let id = *self.stack.last().ok_or(EMPTY)?;
        if self.memo.last().is_some_and(|&(last, _)| place <= last) || self.memo.len() == MOST_VALUES {
            return Err("numbers its values in no order".into());
        }
        self.memo.push((place, id));
        Ok(())
    }

    fn recall(&mut self, place: u32) -> Read<()> {
        let found = self.memo.binary_search_by_key(&place, |&(place, _)| place);
        if self.stack.len() == 2 * MOST_VALUES {
            return Err(format!("uses values more than {MOST_VALUES} times"));
        }
        self.stack.push(self.memo[found.map_err(|_| "uses a value that it does not define")?].1);
        Ok(())
    }

    fn line(&mut self) -> Read<String> {
        const LONGEST: usize = 100;
        let rest = &self.bytes[self.at..];
        let end = rest.iter().take(LONGEST).position(|&byte| byte == b'\n').ok_or("has a name that does not end")?;
        self.at += end + 1;
        Ok(String::from_utf8_lossy(&rest[..end]).into_owned())
    }

    fn pop_text(&mut self) -> Read<String> {
        let id = self.pop()?;
        match &self.values[id] {
            Value::Bytes(place) if place.len() < 100 => {
                Ok(String::from_utf8_lossy(&self.bytes[place.clone()]).into_owned())
            }
            _ => Err("names something by other than text".into()),
        }
    }

    /// NumPy 2 has renamed its module.
    fn global(&mut self, module: &str, name: &str) -> Read<()> {
        match (module, name) {
            ("numpy.core.multiarray" | "numpy._core.multiarray", "_reconstruct") | ("numpy", "ndarray" | "dtype") => {
                self.push(Value::Global(name.into()))
            }
            _ => Err(format!("asks for {:?} of the Python module {module:?}, which this data set does not use", name)),
        }
    }
}

/// The file takes what it has not written.
const EMPTY: &str = "uses a value that is not there";

impl<'a> Pickle<'a> {
    /// The value of a key of the dictionary that the file is.
    fn entry(&self, key: &str) -> Option<Id> {
        let Value::Dictionary(entries) = &self.values[self.root] else { return None };
        let (pairs, _) = entries.as_chunks();
        pairs.iter().find(|[name, _]| self.text(*name) == Some(key.as_bytes())).map(|&[_, value]| value)
    }

    fn text(&self, id: Id) -> Option<&'a [u8]> {
        match &self.values[id] {
            Value::Bytes(place) => Some(&self.bytes[place.clone()]),
            _ => None,
        }
    }

    fn number(&self, id: Id) -> Option<i64> {
        match self.values[id] {
            Value::Number(number) => Some(number),
            _ => None,
        }
    }

    fn list(&self, id: Id) -> Option<&[Id]> {
        match &self.values[id] {
            Value::List(items) => Some(items),
            _ => None,
        }
    }

    /// The object's arguments and its state, if this function has made it.
    fn object(&self, id: Id, maker: &str) -> Option<(&[Id], &[Id])> {
        let Value::Object { function, arguments, state } = &self.values[id] else { return None };
        let made = matches!(&self.values[*function], Value::Global(name) if name == maker);
        let (arguments, state) = (self.list(*arguments)?, self.list((*state)?)?);
        made.then_some((arguments, state))
    }

    /// A list of numbers under this key.
    pub fn numbers(&self, key: &str) -> Option<Vec<i64>> {
        self.list(self.entry(key)?)?.iter().map(|&id| self.number(id)).collect()
    }

    /// A list of texts under this key.
    pub fn texts(&self, key: &str) -> Option<Vec<String>> {
        let text = |&id: &Id| Some(String::from_utf8_lossy(self.text(id)?).into_owned());
        self.list(self.entry(key)?)?.iter().map(text).collect()
    }

    /// An array of unsigned bytes in two dimensions under this key, if its bytes are as many as its extents say.
    pub fn array(&self, key: &str) -> Option<Array<'a>> {
        // The state of an array: version, extents, type, whether it is stored by column, bytes.
        let (_, &[_, extents, kind, by_column, bytes]) = self.object(self.entry(key)?, "_reconstruct")? else {
            return None;
        };
        let (&[kind, ..], _) = self.object(kind, "dtype")? else { return None };
        let &[rows, columns] = self.list(extents)? else { return None };
        let [rows, columns] = [rows, columns].map(|extent| self.number(extent).and_then(|n| usize::try_from(n).ok()));
        let (rows, columns, bytes) = (rows?, columns?, self.text(bytes)?);
        let whole = self.text(kind)? == b"u1" && rows.checked_mul(columns)? == bytes.len();
        whole.then_some(Array { rows, columns, bytes, by_column: self.number(by_column)? != 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(bytes: &[u8], part: &str) {
        let Err(error) = parse(bytes, "the file") else { panic!("{bytes:?} was read") };
        assert!(error.is::<crate::error::InputError>(), "{error}");
        assert!(error.to_string().starts_with("the file ") && error.to_string().contains(part), "{error}");
    }

    #[test]
    fn values_are_found_by_their_keys() {
        // pickle.dumps({"a": [1, 300, -2], "b": ["x", "yz"]}, 2), and the same in protocol 4.
        let two = b"\x80\x02}q\x00(X\x01\x00\x00\x00aq\x01]q\x02(K\x01M,\x01J\xfe\xff\xff\xffeX\x01\x00\x00\x00bq\x03]q\x04(X\x01\x00\x00\x00xq\x05X\x02\x00\x00\x00yzq\x06eu.";
        let four = b"\x80\x04\x95%\x00\x00\x00\x00\x00\x00\x00}\x94(\x8c\x01a\x94]\x94(K\x01M,\x01J\xfe\xff\xff\xffe\x8c\x01b\x94]\x94(\x8c\x01x\x94\x8c\x02yz\x94eu.";
        for bytes in [&two[..], four] {
            let pickle = parse(bytes, "x").unwrap();
            assert_eq!(pickle.numbers("a"), Some(vec![1, 300, -2]));
            assert_eq!(pickle.texts("b"), Some(vec!["x".to_string(), "yz".into()]));
            assert!(pickle.numbers("b").is_none() && pickle.texts("c").is_none() && pickle.array("a").is_none());
            for end in 0..bytes.len() {
                refused(&bytes[..end], "");
            }
        }
    }

    #[test]
    fn nothing_else_is_read() {
        for (bytes, part) in [
            (&b""[..], "ends too early at byte 0"),
            (b"hello", "uses a value that it does not define"),
            (b".", "uses a value that is not there"),
            (b"cos\nsystem\n.", "asks for \"system\" of the Python module \"os\""),
            (b"(.", "uses a value that is not there"),
            (b"N(.", "uses a value that is not there"),
            (b"K\x01(t(\x86.", "uses a value that is not there"),
            (b"K\x01K\x01a.", "holds none"),
            (b"}K\x01a.", "holds none"),
            (b"NNb.", "has none"),
            (b"T\xff\xff\xff\x7fabc.", "ends too early"),
            (b"\x8e\xff\xff\xff\xff\xff\xff\xff\xffabc.", "ends too early"),
            (b"Nq\x01q\x01.", "no order"),
            (b"\x8c\x01aK\x01\x93.", "by other than text"),
            (b"c", "does not end"),
        ] {
            refused(bytes, part);
        }
        refused(&vec![b'N'; MOST_VALUES + 1], "more than 2097152 values");
        refused(&[&b"Nq\x01"[..], &b"h\x01".repeat(2 * MOST_VALUES + 1)].concat(), "more than 2097152 times");
        // A list that contains itself is read and means nothing.
        assert!(parse(b"]q\x01h\x01a.", "x").unwrap().numbers("a").is_none());
    }
}
