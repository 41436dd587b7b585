//! Operations that a device prepares once and repeats; see [`Backend::repeat`].

use crate::backend::Backend;
use crate::network::Model;
use anyhow::Result;
use std::collections::HashMap;

/// What is repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Repeated {
    /// A training step; whether it counts membrane potentials, and whether the bounds are then updated from them.
    Train {
        counts: bool,
        updates: bool,
    },
    Evaluate,
}

/// The operations of one model over one data set, by kind, batch size and model version.
pub struct Graphs<B: Backend>(HashMap<(Repeated, usize, u32), Option<B::Graph>>);

impl<B: Backend> Default for Graphs<B> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<B: Backend> Graphs<B> {
    /// Runs the operations, which must be the same for equal `repeated`.
    pub fn run(
        &mut self,
        model: &mut Model<B>,
        repeated: Repeated,
        mut operations: impl FnMut(&mut Model<B>) -> Result<()>,
    ) -> Result<()> {
        let backend = model.backend().clone();
        let graph = self.0.entry((repeated, model.size(), model.version())).or_default();
        backend.repeat(graph, &mut || operations(model))
    }
}
