//! Text for a terminal: nothing from a file, a name or a command line can control the terminal.

use std::ffi::OsStr;
use std::fmt::Write;

/// Whether a terminal would act on `c`, or reorder or hide text because of it.
fn commands(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{61c}' | '\u{200b}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

/// `text` as one line without control characters: each is written as JSON would, `\n` or `\u001b`.
pub fn one_line(text: &str) -> String {
    escaped(text.trim_end_matches('\n'), |_| false)
}

/// Like [`one_line`], but keeps line breaks. JSON on one line stays the same JSON.
pub fn lines(text: &str) -> String {
    escaped(text, |c| c == '\n')
}

fn escaped(text: &str, kept: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if kept(c) || !commands(c) => out.push(c),
            '\n' => out += "\\n",
            '\r' => out += "\\r",
            '\t' => out += "\\t",
            c => {
                for unit in c.encode_utf16(&mut [0; 2]) {
                    let _ = write!(out, "\\u{unit:04x}");
                }
            }
        }
    }
    out
}

/// `word` in a form that a shell reads back: as is if that is safe, else quoted; any bytes survive.
pub fn shell_word(word: impl AsRef<OsStr>) -> String {
    let word = word.as_ref();
    let plain = |c: char| c.is_alphanumeric() || "-_./=,:+@%".contains(c);
    match word.to_str() {
        Some(text) if !text.is_empty() && text.chars().all(plain) => text.to_string(),
        Some(text) if !text.contains(commands) => format!("'{}'", text.replace('\'', "'\\''")),
        _ => {
            let byte = |&byte: &u8| match byte {
                b'\'' | b'\\' => format!("\\{}", byte as char),
                b' '..=b'~' => (byte as char).to_string(),
                _ => format!("\\x{byte:02x}"),
            };
            format!("$'{}'", word.as_encoded_bytes().iter().map(byte).collect::<String>())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_commands_a_terminal_is_left() {
        let text = "a\u{1b}[31mred\u{7}\u{9b}2J\u{202e}gnp.exe\u{2066}\u{e0041}\u{feff}\r\nb\tc\n";
        let line = one_line(text);
        assert!(!line.contains(commands), "{line:?}");
        assert!(
            line.starts_with("a\\u001b[31mred\\u0007\\u009b2J\\u202egnp.exe\\u2066\\udb40\\udc41\\ufeff\\r\\nb\\tc")
        );
        assert_eq!(lines(text).matches('\n').count(), 2);
        assert_eq!(one_line("größer als 5 µs, 日本 — “x” \\"), "größer als 5 µs, 日本 — “x” \\");
    }

    #[test]
    fn json_stays_the_same_json() {
        let value = serde_json::json!({ "run": "a\u{202e}b\u{7f}\n\u{e0041}" });
        let shown = lines(&value.to_string());
        assert!(!shown.contains(commands));
        assert_eq!(serde_json::from_str::<serde_json::Value>(&shown).unwrap(), value);
    }

    #[cfg(unix)]
    #[test]
    fn a_shell_reads_a_word_back() {
        use std::os::unix::ffi::OsStrExt;
        for word in
            [&b"runs/digits-1"[..], b"my run", b"it's", b"$(reboot)`x`", b"a\\b", b"", b"\x1b[31m'\\\n", b"r\xff"]
        {
            let word = OsStr::from_bytes(word);
            let line = format!("printf %s {}", shell_word(word));
            assert!(!line.contains(commands), "{line:?}");
            let out = std::process::Command::new("bash").args(["-c", &line]).output().unwrap();
            assert_eq!(out.stdout, word.as_bytes(), "{line}");
        }
        assert_eq!(shell_word("runs/digits-1"), "runs/digits-1");
    }
}
