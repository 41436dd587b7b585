//! A network with the size of its input.

use adali::network::{NetworkSpec, Plan, Volume};

/// What to train.
pub struct Case {
    pub spec: NetworkSpec,
    /// C, H, W.
    pub input: [usize; 3],
    pub batch: usize,
}

impl Case {
    pub fn new(spec: NetworkSpec, input: [usize; 3], batch: usize) -> Self {
        Self { spec, input, batch }
    }

    pub fn plan(&self) -> Plan {
        let [c, h, w] = self.input;
        Plan::new(&self.spec, Volume { h, w, c }).expect("a possible network")
    }
}
