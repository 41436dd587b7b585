//! A file against its tables of keys.

use super::{CONFIGURATION, Document, Key, Kind, LAYERS, NETWORK, PLAN, Presence, required};
use crate::input_error;
use anyhow::Result;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

const NAME: &[Key] = &[required("name", Kind::Text, "Name of the configuration and of its folder.")];

/// Checks every key of `text`, the content of the file `name`.
///
/// # Errors
/// One sentence with the line at fault, the key, its value and what is allowed.
pub fn check(document: Document, text: &str, name: &str) -> Result<()> {
    let checker = Checker { text, name };
    let table = DeTable::parse(text).map_err(|e| checker.syntax(&e))?;
    let base: &[&[Key]] = match document {
        Document::Configuration => &[CONFIGURATION],
        Document::Network => &[NETWORK],
        Document::Plan => &[PLAN, CONFIGURATION],
    };
    let part = Part { keys: base, path: "", span: 0..0 };
    match document {
        Document::Plan => checker.known(table.get_ref(), &part, Demand::Nothing),
        _ => checker.known(table.get_ref(), &part, Demand::Required),
    }
}

/// A table in a file: its keys, its name, its location.
struct Part<'a> {
    keys: &'a [&'a [Key]],
    /// Empty, or ends in a dot.
    path: &'a str,
    span: std::ops::Range<usize>,
}

/// Which keys are required.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Demand {
    Required,
    /// Absent keys are taken from elsewhere.
    Nothing,
}

struct Checker<'a> {
    text: &'a str,
    name: &'a str,
}

impl Checker<'_> {
    fn error(&self, at: usize, message: impl std::fmt::Display) -> anyhow::Error {
        let line = 1 + self.text.bytes().take(at).filter(|&byte| byte == b'\n').count();
        input_error!("{}: line {line}: {message}", self.name)
    }

    fn syntax(&self, error: &toml::de::Error) -> anyhow::Error {
        let message = error.message().trim_end().replace('\n', "; ").replace('`', "");
        self.error(error.span().map_or(0, |span| span.start), message)
    }

    fn known(&self, table: &DeTable, part: &Part, demand: Demand) -> Result<()> {
        let keys = || part.keys.iter().copied().flatten();
        let absent = keys().find(|key| key.presence == Presence::Required && !table.contains_key(key.name));
        let needed = absent.filter(|_| demand == Demand::Required).map(|key| {
            let place = part.path.strip_suffix('.').unwrap_or("the file");
            format!("{place} needs {}, {}", key.name, key.kind.allowed())
        });
        // In file order, so that the first error is reported.
        let mut entries: Vec<_> = table.iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        for (given, value) in entries {
            let path = format!("{}{}", part.path, given.get_ref());
            if let Some(key) = keys().find(|key| key.name == given.get_ref()) {
                self.value(&key.kind, value, &path, demand)?;
                continue;
            }
            let names: Vec<&str> = keys().map(|key| key.name).collect();
            return Err(match (nearest(given.get_ref(), &names), needed) {
                (Some(near), _) => {
                    self.error(given.span().start, format!("nothing is called {path}; did you mean {near}?"))
                }
                (None, Some(needed)) => {
                    let needed = format!("{needed}; nothing is called {path}");
                    self.error(part.span.start, needed)
                }
                (None, None) => {
                    let names = names.join(", ");
                    self.error(given.span().start, format!("nothing is called {path}; there are {names}"))
                }
            });
        }
        match needed {
            Some(needed) => Err(self.error(part.span.start, needed)),
            None => Ok(()),
        }
    }

    fn value(&self, kind: &Kind, value: &Spanned<DeValue>, path: &str, demand: Demand) -> Result<()> {
        let span = value.span();
        let wrong = |value: &DeValue| {
            let shown = shown(value);
            Err(self.error(span.start, format!("{path} = {shown} is not {}", kind.allowed())))
        };
        let whole = |value: &DeValue, most: u64| {
            let number = value.as_integer().and_then(|n| i128::from_str_radix(n.as_str(), n.radix()).ok());
            number.is_some_and(|number| (0..=i128::from(most)).contains(&number))
        };
        let number = |value: &DeValue| value.is_float() || value.is_integer();
        let all = |value: &DeValue, count: Option<usize>, fits: &dyn Fn(&DeValue) -> bool| {
            value.as_array().is_some_and(|values| {
                count.is_none_or(|count| values.len() == count) && values.iter().all(|value| fits(value.get_ref()))
            })
        };
        let given = value.get_ref();
        let fits = match *kind {
            Kind::Whole(most) => whole(given, most),
            Kind::Number => number(given),
            Kind::Numbers(count) => all(given, Some(count), &number),
            Kind::PerChannel => all(given, None, &number),
            Kind::Switch => given.is_bool(),
            Kind::Text => given.is_str(),
            Kind::Word(words) => given.as_str().is_some_and(|word| words().contains(&word)),
            Kind::Extent => {
                let extent = |value: &DeValue| whole(value, i64::MAX as u64);
                extent(given) || all(given, Some(2), &extent)
            }
            Kind::Seeds => all(given, None, &|seed| whole(seed, i64::MAX as u64)),
            Kind::Keys(keys) => {
                let Some(table) = given.as_table() else { return wrong(given) };
                let (keys, path) = (&[keys][..], format!("{path}."));
                return self.known(table, &Part { keys, path: &path, span }, demand);
            }
            Kind::Tables(_) | Kind::Layers | Kind::Configurations => {
                let Some(tables) = given.as_array() else { return wrong(given) };
                for (index, table) in tables.iter().enumerate() {
                    let path = format!("{path}[{index}]");
                    let Some(keys) = table.get_ref().as_table() else {
                        let shown = shown(table.get_ref());
                        return Err(self.error(table.span().start, format!("{path} = {shown} is not a table")));
                    };
                    match kind {
                        Kind::Layers => self.layer(keys, &path, table.span())?,
                        Kind::Tables(of) => {
                            let path = format!("{path}.");
                            self.known(keys, &Part { keys: &[of], path: &path, span: table.span() }, Demand::Required)?;
                        }
                        _ => self.configuration(keys, &path, table.span())?,
                    }
                }
                return Ok(());
            }
        };
        if fits { Ok(()) } else { wrong(given) }
    }

    fn layer(&self, layer: &DeTable, path: &str, span: std::ops::Range<usize>) -> Result<()> {
        let types: Vec<&str> = LAYERS.iter().map(|(name, _)| *name).collect();
        let types = types.join(", ");
        let Some(given) = layer.get("type") else {
            return Err(self.error(span.start, format!("{path} needs type, one of {types}")));
        };
        let Some((kind, keys)) = LAYERS.iter().find(|(name, _)| given.get_ref().as_str() == Some(name)) else {
            let shown = shown(given.get_ref());
            return Err(self.error(given.span().start, format!("{path}.type = {shown} is not one of {types}")));
        };
        // Errors name the layer's type, as its keys depend on it.
        let path = format!("{path} ({kind}).");
        let of_type = [required("type", Kind::Text, "")];
        self.known(layer, &Part { keys: &[&of_type, keys], path: &path, span }, Demand::Required)
    }

    fn configuration(&self, table: &DeTable, path: &str, span: std::ops::Range<usize>) -> Result<()> {
        if let Some((seed, _)) = table.get_key_value("seed") {
            let advice = "seed is not a configuration's; write seeds = [0, 1, 2] at the top";
            return Err(self.error(seed.span().start, format!("{path}: {advice}")));
        }
        let Some(name) = table.get("name") else {
            return Err(self.error(span.start, format!("{path} has no name; write name = \"…\"")));
        };
        if !name.get_ref().is_str() {
            let shown = shown(name.get_ref());
            return Err(
                self.error(name.span().start, format!("{path}: the name {shown} is not text; write name = \"…\""))
            );
        }
        let path = format!("{path}.");
        self.known(table, &Part { keys: &[NAME, CONFIGURATION], path: &path, span }, Demand::Nothing)
    }
}

/// A value as written, cut if it is long.
fn shown(value: &DeValue) -> String {
    const LONGEST: usize = 60;
    let text = match value {
        DeValue::String(text) => format!("{text:?}"),
        DeValue::Integer(number) => number.to_string(),
        DeValue::Float(number) => number.to_string(),
        DeValue::Boolean(switch) => switch.to_string(),
        DeValue::Datetime(time) => time.to_string(),
        DeValue::Array(values) => {
            let values: Vec<_> = values.iter().take(9).map(|value| shown(value.get_ref())).collect();
            format!("[{}]", values.join(", "))
        }
        DeValue::Table(_) => "a table".into(),
    };
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

/// The name that `word` was most likely meant to be.
fn nearest<'a>(word: &str, names: &[&'a str]) -> Option<&'a str> {
    let near = names.iter().map(|name| (edits(word, name), *name)).min()?;
    (near.0 <= near.1.len().max(3) / 3).then_some(near.1)
}

/// Number of letters to insert, delete, replace, or swap with their neighbour, to get from one word to the other.
fn edits(from: &str, to: &str) -> usize {
    let (from, to): (Vec<char>, Vec<char>) = (from.chars().take(64).collect(), to.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=to.len()).collect()];
    for i in 1..=from.len() {
        let mut row = vec![i];
        for j in 1..=to.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(from[i - 1] != to[j - 1]);
            let mut least = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && from[i - 1] == to[j - 2] && from[i - 2] == to[j - 1] {
                least = least.min(rows[i - 2][j - 2] + 1);
            }
            row.push(least);
        }
        rows.push(row);
    }
    rows[from.len()][to.len()]
}
