//! Random numbers.

use std::time::UNIX_EPOCH;

/// Numbers from a seed (SplitMix64).
pub struct Random(u64);

impl Random {
    /// From `ADALI_TEST_SEED`, or from the clock; the seed is printed.
    pub fn new(what: &str) -> Self {
        let now = || UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
        let seed = std::env::var_os("ADALI_TEST_SEED").map_or_else(now, |text| {
            text.to_str().and_then(|text| text.parse().ok()).expect("ADALI_TEST_SEED is a number")
        });
        eprintln!("{what}: ADALI_TEST_SEED={seed}");
        Self(seed)
    }

    pub fn seeded(seed: u64) -> Self {
        Self(seed)
    }

    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// In `0 .. bound`.
    pub fn below<N: TryInto<u64> + TryFrom<u64>>(&mut self, bound: N) -> N {
        let number = bound.try_into().ok().map(|bound: u64| self.next_u64() % bound);
        number.and_then(|number| N::try_from(number).ok()).expect("a bound above 0")
    }
}
