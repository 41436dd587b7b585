//! A clock of few bits that goes round.

/// Times of `bits` bits, each after the one before but for the jitter of a recording's order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    bits: u32,
    last: u64,
    /// What it has lost by going round.
    lost: u64,
}

impl Clock {
    pub fn new(bits: u32) -> Self {
        Self { bits, last: 0, lost: 0 }
    }

    /// The time that a reading shows: a fall by more than half of the range is a new round.
    #[inline(always)]
    pub fn read(&mut self, reading: u64) -> u64 {
        if self.last > reading && self.last - reading > 1 << (self.bits - 1) {
            self.lost += 1 << self.bits;
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
}
