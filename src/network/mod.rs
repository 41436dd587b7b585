//! Networks: layers as configured, their shapes, presets, and the model that runs them on a backend.

mod layer;
pub mod model;
pub mod parameters;
pub mod presets;
pub mod shapes;
pub mod spec;

pub use model::Model;
pub use shapes::{Plan, Stage, Volume};
pub use spec::{InputMode, LayerSpec, NetworkSpec, Norm};
