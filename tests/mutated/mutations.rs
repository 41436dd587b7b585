//! Damage: flipped bits, wrong numbers, truncation, splices of two files, repeated and lost parts.

use crate::process::Random;

/// Typical wrong values in headers.
const NUMBERS: [u64; 12] =
    [0, 1, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 1 << 16, 0x7fff_ffff, 0xffff_ffff, i64::MAX as u64, u64::MAX];
/// Words that replace a number in a text.
const WORDS: [&str; 10] = ["", "-1", "0", "1e999", "nan", "99999999999999999999", "4294967296", "\"", "[", "\u{1b}"];

/// File `which` of `seeds`, changed in one to four ways.
pub fn mutated(rng: &mut Random, seeds: &[Vec<u8>], which: usize) -> Vec<u8> {
    let mut bytes = seeds[which].clone();
    for _ in 0..1 + rng.below(4) {
        if bytes.is_empty() {
            break;
        }
        // Headers are a small part of a file, but most lies are there.
        let reach = if rng.below(2) == 0 { bytes.len().min(300) } else { bytes.len() };
        let at = rng.below(reach);
        match rng.below(8) {
            0 | 1 => bytes[at] ^= 1 << rng.below(8),
            2 => bytes[at] = rng.next_u64() as u8,
            3 => {
                let number = NUMBERS[rng.below(NUMBERS.len())];
                let width = [1, 2, 4, 8][rng.below(4)].min(bytes.len() - at);
                match rng.below(2) {
                    0 => bytes[at..at + width].copy_from_slice(&number.to_le_bytes()[..width]),
                    _ => bytes[at..at + width].copy_from_slice(&number.to_be_bytes()[8 - width..]),
                }
            }
            4 => {
                let is_digit = |byte: &u8| byte.is_ascii_digit();
                let Some(start) = bytes[at..].iter().position(is_digit).map(|skipped| at + skipped) else { continue };
                let end = bytes[start..].iter().position(|byte| !is_digit(byte)).map_or(bytes.len(), |len| start + len);
                bytes.splice(start..end, WORDS[rng.below(WORDS.len())].bytes());
            }
            5 => bytes.truncate(at),
            6 => {
                let other = &seeds[rng.below(seeds.len())];
                bytes.truncate(at);
                bytes.extend_from_slice(&other[rng.below(other.len().max(1)).min(other.len())..]);
            }
            _ => {
                let end = at + rng.below(bytes.len() - at) + 1;
                if rng.below(2) == 0 {
                    bytes.drain(at..end);
                } else {
                    let part = bytes[at..end].to_vec();
                    bytes.splice(at..at, part);
                }
            }
        }
    }
    bytes
}
