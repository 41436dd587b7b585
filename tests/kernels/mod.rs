//! One file per operation, with shared code in [`harness`].

mod batch_norm;
mod benched;
mod ceiling;
mod channel_sums;
mod conv_current;
mod conv_input_grad;
mod conv_lif_forward;
mod conv_weight_grad;
mod convolution;
mod dropout;
mod edges;
mod harness;
mod input;
mod integrate_events;
mod layouts;
mod loss;
mod membrane_histogram;
mod norm_lif;
mod norm_lif_backward;
mod optimizer;
mod pool;
mod readout;
mod spike_backward;
mod tune_bounds;
mod unfold;
mod weight_norm;
