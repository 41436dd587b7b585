//! One file an operation; [`harness`] is what they share.

mod conv_lif_forward;
mod convolution;
mod harness;
mod layouts;
mod norm_lif;
