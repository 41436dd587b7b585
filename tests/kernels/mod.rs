//! One file an operation; [`harness`] is what they share.

mod batch_norm;
mod harness;
mod layouts;
mod membrane_histogram;
mod norm_lif;
mod norm_lif_backward;
mod spike_backward;
mod tune_bounds;
