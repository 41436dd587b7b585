//! One file an operation; [`harness`] is what they share.

mod harness;
mod layouts;
mod norm_lif;
mod spike_backward;
