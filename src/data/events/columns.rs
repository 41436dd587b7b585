//! Tables of events, as text or as arrays: the names of their columns, their order if nothing states it,
//! and the unit of their times.

use std::fmt;
use std::str::FromStr;

/// Longest possible recording in microseconds: a day. It tells seconds from microseconds.
const DAY: f64 = 86_400e6;
/// Whole times from here on cannot be microseconds: that would be the year 5138.
const MOST_MICROSECONDS: f64 = 1e17;
/// Columns and rows of the largest sensor that can be read.
const MOST_PIXELS: f64 = 65_535.0;

/// The content of a column.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    X,
    Y,
    /// Times, with their unit if the name has one: `t_us`, `timestamp [ns]`.
    Time(Option<Unit>),
    Polarity,
    /// Not used.
    Other,
}

/// A unit of time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Seconds,
    Milliseconds,
    Microseconds,
    Nanoseconds,
}

impl Unit {
    /// The unit with this name: `us`, `usec`, `microseconds`.
    pub fn of_name(name: &str) -> Option<Self> {
        Some(match name {
            "s" | "sec" | "secs" | "second" | "seconds" => Self::Seconds,
            "ms" | "msec" | "msecs" | "millisecond" | "milliseconds" => Self::Milliseconds,
            "us" | "usec" | "usecs" | "µs" | "μs" | "microsecond" | "microseconds" => Self::Microseconds,
            "ns" | "nsec" | "nsecs" | "nanosecond" | "nanoseconds" => Self::Nanoseconds,
            _ => return None,
        })
    }

    /// Microseconds per unit, or units per microsecond.
    fn factor(self) -> (u64, u64) {
        match self {
            Self::Seconds => (1_000_000, 1),
            Self::Milliseconds => (1_000, 1),
            Self::Microseconds => (1, 1),
            Self::Nanoseconds => (1, 1_000),
        }
    }
}

impl fmt::Display for Unit {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Seconds => "seconds",
            Self::Milliseconds => "milliseconds",
            Self::Microseconds => "microseconds",
            Self::Nanoseconds => "nanoseconds",
        })
    }
}

impl Column {
    /// The column with this name, ignoring case: `x`, `xs`, `t`, `timestamp_us`, `polarity`.
    pub fn of_name(name: &str) -> Self {
        let name = name.trim().to_lowercase();
        match name.as_str() {
            "x" | "xs" => return Self::X,
            "y" | "ys" => return Self::Y,
            "p" | "ps" | "pol" | "polarity" | "polarities" | "on" => return Self::Polarity,
            _ => {}
        }
        let base = name.split(|c: char| !c.is_ascii_alphabetic()).next().unwrap_or_default();
        if !matches!(base, "t" | "ts" | "time" | "times" | "timestamp" | "timestamps") {
            return Self::Other;
        }
        match name[base.len()..].trim_matches(|c: char| !c.is_alphabetic()) {
            "" => Self::Time(None),
            unit => Unit::of_name(unit).map_or(Self::Other, |unit| Self::Time(Some(unit))),
        }
    }
}

/// The columns of a table in order, as given by `--columns`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Columns(Vec<Column>);

impl FromStr for Columns {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let column = |name: &str| match (Column::of_name(name), name.trim()) {
            (Column::Other, "_") => Ok(Column::Other),
            (Column::Other, other) => Err(format!("`{other}` is none of x, y, t (or t_s, t_ms, t_us, t_ns), p, and _")),
            (column, _) => Ok(column),
        };
        let columns: Vec<Column> = text.split(',').map(column).collect::<Result<_, _>>()?;
        Order::of(&columns)?;
        Ok(Self(columns))
    }
}

impl Columns {
    /// The positions of x, y, t and p.
    pub fn order(&self) -> Order {
        Order::of(&self.0).expect("checked when it was read")
    }
}

/// The positions of x, y, t and p among the columns of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// Positions of x, y, t and p.
    pub places: [usize; 4],
    /// The unit of the times, if the name of their column has one.
    pub unit: Option<Unit>,
    /// The number of columns.
    pub count: usize,
}

/// A name, and which columns have it.
type Kind = (&'static str, fn(&Column) -> bool);

impl Order {
    /// The order of these columns; an error says which one is missing or duplicated.
    pub fn of(columns: &[Column]) -> Result<Self, String> {
        let find = |(name, is): Kind| {
            let mut found = columns.iter().enumerate().filter(|(_, column)| is(column)).map(|(place, _)| place);
            match (found.next(), found.next()) {
                (Some(place), None) => Ok(place),
                (None, _) => Err(format!("{name} is missing")),
                (Some(_), Some(_)) => Err(format!("{name} is there twice")),
            }
        };
        let wanted: [Kind; 4] = [
            ("x", |c| *c == Column::X),
            ("y", |c| *c == Column::Y),
            ("t", |c| matches!(c, Column::Time(_))),
            ("p", |c| *c == Column::Polarity),
        ];
        let [x, y, t, p] = wanted.map(find);
        let places = [x?, y?, t?, p?];
        let unit = if let Column::Time(unit) = columns[places[2]] { unit } else { None };
        Ok(Self { places, unit, count: columns.len() })
    }

    /// The order of four columns, if only one fits their values: times rise, polarity has two values, and x and y are
    /// pixels; x is assumed to come before y.
    pub fn guess(columns: &[Values]) -> Option<Self> {
        let [_, _, _, _] = columns else { return None };
        let mut found = None;
        for t in (0..4).filter(|&t| columns[t].rise()) {
            for p in (0..4).filter(|&p| p != t && columns[p].are_polarities()) {
                let mut pixels = (0..4).filter(|&place| place != t && place != p);
                let [x, y] = [pixels.next()?, pixels.next()?];
                if !columns[x].are_pixels() || !columns[y].are_pixels() {
                    continue;
                }
                if found.is_some() {
                    return None;
                }
                found = Some(Self { places: [x, y, t, p], unit: None, count: 4 });
            }
        }
        found
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let mut names = vec!["_"; self.count];
        for (place, name) in self.places.into_iter().zip(["x", "y", "t", "p"]) {
            names[place] = name;
        }
        f.write_str(&names.join(","))
    }
}

/// What the first values of a column have in common.
#[derive(Clone, Debug)]
pub struct Values {
    count: u64,
    whole: bool,
    rising: bool,
    least: f64,
    most: f64,
    last: f64,
    /// Whether a value is none of -1, 0 and 1.
    other: bool,
    minus: bool,
    zero: bool,
}

impl Default for Values {
    fn default() -> Self {
        let (least, most, last) = (f64::INFINITY, f64::NEG_INFINITY, f64::NEG_INFINITY);
        Self { count: 0, whole: true, rising: true, least, most, last, other: false, minus: false, zero: false }
    }
}

impl Values {
    /// Adds one value.
    pub fn add(&mut self, value: f64) {
        self.count += 1;
        self.whole &= value.fract() == 0.0;
        self.rising &= value >= self.last;
        (self.least, self.most, self.last) = (self.least.min(value), self.most.max(value), value);
        self.minus |= value == -1.0;
        self.zero |= value == 0.0;
        self.other |= ![-1.0, 0.0, 1.0].contains(&value);
    }

    /// Whether the values are 0, 1, 2, … or 1, 2, 3, …, like an index.
    pub fn count_up(&self) -> bool {
        self.whole
            && self.rising
            && [0.0, 1.0].contains(&self.least)
            && self.most - self.least == (self.count - 1) as f64
    }

    fn rise(&self) -> bool {
        self.rising && self.least >= 0.0 && (self.most > self.least || !self.are_pixels())
    }

    fn are_polarities(&self) -> bool {
        self.count > 0 && !self.other && !(self.minus && self.zero)
    }

    fn are_pixels(&self) -> bool {
        self.whole && self.least >= 0.0 && self.most <= MOST_PIXELS
    }
}

/// Converts times to microseconds.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    unit: Unit,
    /// Whether the unit was deduced from the first times rather than taken from a name.
    told: bool,
}

impl Clock {
    /// The clock for times with a stated unit.
    pub fn stated(unit: Unit) -> Self {
        Self { unit, told: false }
    }

    /// The clock for times without a stated unit, deduced from the first ones: seconds if they have fractions, otherwise
    /// microseconds. Returns the reason; an error says why neither fits.
    pub fn of(first: &Values) -> Result<(Self, String), String> {
        let name = "name the unit: --columns with t_s, t_ms, t_us or t_ns instead of t";
        if first.count == 0 || first.whole {
            if first.most >= MOST_MICROSECONDS {
                return Err(format!("times up to {:e}, which are hardly microseconds; {name}", first.most));
            }
            let told = Self { unit: Unit::Microseconds, told: true };
            return Ok((told, "times are whole numbers: taken as microseconds".into()));
        }
        if (first.most - first.least) * 1e6 > DAY {
            return Err(format!(
                "times with fractions from {} to {}, which would be more than a day in seconds; {name}",
                first.least, first.most
            ));
        }
        Ok((Self { unit: Unit::Seconds, told: true }, "times have fractions: taken as seconds".into()))
    }

    /// What times must be, for errors.
    pub fn wanted(self) -> &'static str {
        match self {
            Self { unit: Unit::Microseconds, told: true } => {
                "times are whole microseconds from 0 on, as the first ones; for another unit use --columns with t_s, t_ms, \
                 t_us or t_ns"
            }
            _ => "times are from 0 on, and below 2^53 µs where they have fractions",
        }
    }

    /// The microseconds of a whole time, rounded down; `None` beyond 2^64 µs.
    pub fn whole(self, time: u64) -> Option<u64> {
        let (times, parts) = self.unit.factor();
        Some(time.checked_mul(times)? / parts)
    }

    /// The microseconds of a time with a fraction, rounded to the nearest; `None` if it is negative, beyond
    /// 2^53 µs, or has a fraction although the first times had none and were taken for microseconds.
    pub fn real(self, time: f64) -> Option<u64> {
        let (times, parts) = self.unit.factor();
        // A negative time is refused before it is rounded to 0.
        if time < 0.0 || self.told && self.unit == Unit::Microseconds && time.fract() != 0.0 {
            return None;
        }
        let time = (time * times as f64 / parts as f64).round();
        (0.0..9_007_199_254_740_992.0).contains(&time).then_some(time as u64)
    }
}

/// Which value stands for OFF in a file: 0 or -1, never both.
#[derive(Clone, Copy, Debug, Default)]
pub struct Polarities {
    off: Option<i64>,
}

impl Polarities {
    /// Whether a polarity is ON; `None` for a value that is neither 1 nor the file's OFF.
    pub fn on(&mut self, value: i64) -> Option<bool> {
        match value {
            1 => Some(true),
            0 | -1 if *self.off.get_or_insert(value) == value => Some(false),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(list: &[f64]) -> Values {
        let mut values = Values::default();
        list.iter().for_each(|&value| values.add(value));
        values
    }

    #[test]
    fn names_tell_columns_and_units() {
        let time = |unit| Column::Time(Some(unit));
        for (name, column) in [
            ("x", Column::X),
            (" Y ", Column::Y),
            ("Polarity", Column::Polarity),
            ("t", Column::Time(None)),
            ("timestamp", Column::Time(None)),
            ("timestamp_us", time(Unit::Microseconds)),
            ("t [s]", time(Unit::Seconds)),
            ("ts(ns)", time(Unit::Nanoseconds)),
            ("time_msec", time(Unit::Milliseconds)),
            ("t_offset", Column::Other),
            ("", Column::Other),
            ("label", Column::Other),
        ] {
            assert_eq!(Column::of_name(name), column, "{name}");
        }
    }

    #[test]
    fn columns_are_named_once() {
        let order = "t_us,x,y,_,p".parse::<Columns>().unwrap().order();
        assert_eq!((order.places, order.unit, order.count), ([1, 2, 0, 4], Some(Unit::Microseconds), 5));
        assert_eq!(order.to_string(), "t,x,y,_,p");
        for (text, part) in [("x,y,p", "t is missing"), ("x,x,y,t,p", "x is there twice"), ("x,y,t,q", "`q` is none")] {
            assert!(text.parse::<Columns>().unwrap_err().contains(part), "{text}");
        }
    }

    #[test]
    fn an_order_is_guessed_where_one_alone_fits() {
        let (x, y, t, p) =
            (values(&[3.0, 1.0, 2.0]), values(&[7.0, 0.0, 9.0]), values(&[5.0, 6.0, 6.0]), values(&[1.0, 0.0, 1.0]));
        let guess = |columns: [&Values; 4]| Order::guess(&columns.map(Clone::clone)).map(|order| order.to_string());
        assert_eq!(guess([&x, &y, &t, &p]).unwrap(), "x,y,t,p");
        assert_eq!(guess([&t, &x, &y, &p]).unwrap(), "t,x,y,p");
        assert_eq!(guess([&p, &t, &x, &y]).unwrap(), "p,t,x,y");
        // Two columns rise, none rises, two may be polarities, a pixel beyond 65535.
        assert_eq!(guess([&t, &t, &y, &p]), None);
        assert_eq!(guess([&x, &y, &x, &p]), None);
        assert_eq!(guess([&x, &p, &t, &p]), None);
        assert_eq!(guess([&x, &values(&[70_000.0, 1.0, 2.0]), &t, &p]), None);
        assert_eq!(Order::guess(&[x, y, t]), None);
    }

    #[test]
    fn units_are_told_by_fractions() {
        let clock = |list: &[f64]| Clock::of(&values(list)).map(|(clock, _)| clock);
        let seconds = clock(&[0.0, 0.5]).unwrap();
        assert_eq!((seconds.real(0.000013), seconds.whole(2)), (Some(13), Some(2_000_000)));
        assert_eq!(clock(&[1_700_000_000.25, 1_700_000_001.0]).unwrap().real(1.7e9), Some(1_700_000_000_000_000));
        let whole = clock(&[0.0, 99_000.0]).unwrap();
        assert_eq!((whole.real(13.0), whole.real(13.5), whole.whole(7)), (Some(13), None, Some(7)));
        assert!(clock(&[0.5, 99_000.0]).unwrap_err().contains("t_us"));
        assert!(clock(&[1.7e18, 1.8e18]).unwrap_err().contains("t_ns"));
        let nanoseconds = Clock::stated(Unit::Nanoseconds);
        assert_eq!(
            (nanoseconds.whole(1999), nanoseconds.real(1999.0), nanoseconds.real(-1.0)),
            (Some(1), Some(2), None)
        );
        assert_eq!(Clock::stated(Unit::Seconds).whole(u64::MAX), None);
    }

    #[test]
    fn off_is_zero_or_minus_one_and_never_both() {
        let mut polarities = Polarities::default();
        assert_eq!(
            [1, -1, 1, -1, 0, 2].map(|value| polarities.on(value)),
            [Some(true), Some(false), Some(true), Some(false), None, None]
        );
    }
}
