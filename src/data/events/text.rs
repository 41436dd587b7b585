//! Lines of text and their fields.

use std::fmt;

/// The separator between the fields of a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Separator {
    /// This byte; blanks around the fields are ignored.
    One(u8),
    /// Any number of blanks and tabs.
    Blanks,
}

impl Separator {
    /// The separator of a line: a semicolon, a comma or a tab if there is one, otherwise blanks.
    pub fn of(line: &[u8]) -> Self {
        b";,\t".iter().find(|byte| line.contains(byte)).map_or(Self::Blanks, |&byte| Self::One(byte))
    }

    /// The fields of a line without quotes and surrounding blanks; an empty one after the last separator is dropped.
    pub fn fields(self, line: &[u8]) -> impl Iterator<Item = &[u8]> {
        let line = match self {
            Self::One(byte) => line.strip_suffix(&[byte]).unwrap_or(line),
            Self::Blanks => line,
        };
        let fields = line.split(move |&byte| match self {
            Self::One(separator) => byte == separator,
            Self::Blanks => byte == b' ' || byte == b'\t',
        });
        fields.filter(move |field| self != Self::Blanks || !field.is_empty()).map(|field| {
            let field = field.trim_ascii();
            let quoted = |quote: &[u8]| field.strip_prefix(quote)?.strip_suffix(quote);
            quoted(b"\"").or_else(|| quoted(b"'")).unwrap_or(field)
        })
    }
}

impl fmt::Display for Separator {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::One(b';') => "separated by semicolons",
            Self::One(b',') => "separated by commas",
            Self::One(_) => "separated by tabs",
            Self::Blanks => "separated by blanks",
        })
    }
}

/// A line without its line end and surrounding blanks, and its length with the line end; the last line may have none.
pub(super) fn line(ahead: &[u8]) -> (&[u8], usize) {
    let end = ahead.iter().position(|&byte| byte == b'\n').unwrap_or(ahead.len());
    // A tab at the beginning separates an empty field.
    let line = ahead[..end].trim_ascii_end();
    let blanks = line.iter().take_while(|&&byte| byte == b' ').count();
    (&line[blanks..], (end + 1).min(ahead.len()))
}

/// An unsigned whole number, digits only.
pub(super) fn number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |sum, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    })
}

/// A finite number in any usual notation: `0.25`, `-1`, `1e3`.
pub(super) fn real(field: &[u8]) -> Option<f64> {
    std::str::from_utf8(field).ok()?.parse().ok().filter(|value: &f64| value.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_divided() {
        let fields = |text: &'static str| {
            let (line, _) = line(text.as_bytes());
            Separator::of(line)
                .fields(line)
                .map(|field| String::from_utf8_lossy(field).into_owned())
                .collect::<Vec<_>>()
        };
        assert_eq!(fields("1, 2 ,3,\"4\"\r\n"), ["1", "2", "3", "4"]);
        assert_eq!(fields(",x,y\n"), ["", "x", "y"]);
        assert_eq!(fields("\tx\ty"), ["", "x", "y"]);
        assert_eq!(fields("  1   2 3 "), ["1", "2", "3"]);
        assert_eq!(fields("1;2;'3';"), ["1", "2", "3"]);
        assert_eq!(fields("1"), ["1"]);
    }

    #[test]
    fn numbers_are_read() {
        assert_eq!(
            [number(b"12"), number(b""), number(b"-1"), number(b"99999999999999999999")],
            [Some(12), None, None, None]
        );
        assert_eq!(
            [real(b"1e3"), real(b"-1.5"), real(b"nan"), real(b"inf"), real(b"x"), real(b"")],
            [Some(1000.0), Some(-1.5), None, None, None, None]
        );
    }
}
