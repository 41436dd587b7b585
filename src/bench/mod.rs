//! Microbenchmarks of the operations: random tensors at a stated firing rate, a check, then times against the least that
//! the device could need.

pub mod card;
pub mod ceilings;
pub mod check;
pub mod counters;
pub mod measure;
pub mod operation;
pub mod paper;
pub mod record;
mod reference;
pub mod report;
pub mod roofline;
pub mod shape;
pub mod table;
pub mod tensors;
pub mod timing;
