//! Recording and timing of operations.

use super::memory::Gpu;
use super::{Driver, driver};
use crate::backend::Backend;
use anyhow::Result;

impl<D: Driver> Backend for Gpu<D> {
    fn repeat(&self, graph: &mut Option<D::Graph>, operations: &mut dyn FnMut() -> Result<()>) -> Result<()> {
        let Some(driver) = self.driver().filter(|_| self.records()) else { return operations() };
        let graph = match graph {
            Some(graph) => graph,
            None => {
                driver.begin_recording()?;
                let done = operations();
                let recorded = driver.end_recording();
                done?;
                graph.insert(recorded?)
            }
        };
        driver::replay(driver, graph)
    }

    fn seconds(&self, operations: &mut dyn FnMut() -> Result<()>) -> Result<f64> {
        match self.driver() {
            Some(driver) => driver.seconds(operations),
            None => operations().map(|()| 0.0),
        }
    }
}
