//! One file an operation; [`harness`] is what they share.

mod conv_current;
mod conv_input_grad;
mod conv_lif_forward;
mod conv_weight_grad;
mod convolution;
mod harness;
mod layouts;
mod loss;
mod norm_lif;
mod optimizer;
mod readout;
mod weight_norm;
