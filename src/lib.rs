//! adali trains convolutional spiking neural networks (SNNs) with the AdaLi surrogate gradient of
//! Hou, Wu and Zhou (Front. Neurosci. 2026, doi 10.3389/fnins.2026.1795946).
//!
//! Imports point one way: `cli → compare → train → network → backend`. The mathematics that all of them share is in
//! [`neuron`], [`surrogate`], [`slope_means`] and [`autotune`]; [`data`] reads images; [`bench`](mod@bench) times the
//! backend's operations; [`report`] draws.
//!
//! In these docs **\[paper\]** marks what that article's abstract states, **\[authors\]** what its authors' public
//! code does, and **\[ours\]** what this project chose.

pub mod autotune;
pub mod backend;
pub mod bench;
pub mod cli;
pub mod compare;
pub mod data;
pub mod error;
pub mod files;
pub mod histogram;
pub mod host;
pub mod kernels;
pub mod network;
pub mod neuron;
pub mod report;
pub mod slope_means;
pub mod surrogate;
pub mod tensors;
pub mod terminal;
pub mod train;
