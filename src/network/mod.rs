//! Networks: layers as configured, their shapes, presets, and the model that runs them on a backend.

pub mod lifetimes;
pub mod model;
pub mod parameters;
pub mod plan;
pub mod population;
pub mod presets;
pub mod spec;
pub mod table;

pub use model::Model;
pub use plan::{Plan, Population, Volume};
pub use spec::{InputMode, LayerSpec, NetworkSpec, Norm};
