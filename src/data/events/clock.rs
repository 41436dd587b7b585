//! A clock with few bits, which wraps around.

/// Unwraps times of `bits` bits, which rise except for small disorder in the recording.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    bits: u32,
    last: u64,
    /// What has been lost by wrapping.
    lost: u64,
}

impl Clock {
    pub fn new(bits: u32) -> Self {
        Self { bits, last: 0, lost: 0 }
    }

    /// The time for a reading. A fall by more than half of the range is a wrap; after one, a rise by more than seven eighths is
    /// a late event from before the wrap.
    #[inline(always)]
    pub fn read(&mut self, reading: u64) -> u64 {
        if self.last > reading && self.last - reading > 1 << (self.bits - 1) {
            self.lost += 1 << self.bits;
        } else if reading > self.last && reading - self.last > 7 << (self.bits - 3) && self.lost > 0 {
            self.lost -= 1 << self.bits;
        }
        self.last = reading;
        self.lost + reading
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_great_fall_is_a_new_round() {
        let mut clock = Clock::new(8);
        let times = [10, 200, 190, 250, 3, 2, 100, 240, 0].map(|reading| clock.read(reading));
        assert_eq!(times, [10, 200, 190, 250, 259, 258, 356, 496, 512]);
    }

    #[test]
    fn a_late_event_behind_a_new_round_is_of_the_round_before() {
        let mut clock = Clock::new(8);
        let times = [250, 1, 254, 2, 90, 255, 0].map(|reading| clock.read(reading));
        assert_eq!(times, [250, 257, 254, 258, 346, 511, 512]);
        // There is nothing to go back to before the first wrap.
        assert_eq!([1, 254].map(|reading| Clock { last: 1, ..Clock::new(8) }.read(reading)), [1, 254]);
    }
}
