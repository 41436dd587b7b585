//! One file an operation; [`harness`] is what they share.

mod harness;
mod layouts;
mod loss;
mod norm_lif;
mod optimizer;
mod readout;
mod weight_norm;
