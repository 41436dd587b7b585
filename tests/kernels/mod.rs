//! One file an operation; [`harness`] is what they share.

mod dropout;
mod harness;
mod input;
mod layouts;
mod linear;
mod norm_lif;
mod pool;
mod unfold;
