//! One file an operation; [`harness`] is what they share.

mod conv_current;
mod conv_input_grad;
mod conv_lif_forward;
mod conv_weight_grad;
mod convolution;
mod dropout;
mod harness;
mod input;
mod layouts;
mod linear;
mod loss;
mod norm_lif;
mod optimizer;
mod pool;
mod readout;
mod unfold;
mod weight_norm;
