//! adali trains convolutional spiking neural networks (SNNs) with the AdaLi surrogate gradient of
//! Hou, Wu and Zhou (Front. Neurosci. 2026, doi 10.3389/fnins.2026.1795946), on the CPU or on an NVIDIA GPU.
//!
//! # Train and predict
//!
//! ```
//! use adali::data::load;
//! use adali::train::config::DataSpec;
//! use adali::{Config, Cpu, DataSource, Trainer};
//! use std::ops::ControlFlow;
//! use std::sync::atomic::AtomicBool;
//!
//! # fn main() -> anyhow::Result<()> {
//! let mut data = load(DataSource::Digits, None)?; // 1797 handwritten digits, built in
//! let test = data.test.clone();
//!
//! let mut config = Config::for_data(DataSpec::default(), &data)?;
//! config.training.epochs = 2;
//! let mut trainer = Trainer::new(Cpu, config, &mut data)?;
//! trainer.run(&mut (), &AtomicBool::new(false))?; // () shows and saves nothing
//!
//! let scores = trainer.evaluate(test.clone(), &mut |_, _| ControlFlow::Continue(()))?.unwrap();
//! println!("accuracy {:.1} %", 100.0 * scores.accuracy);
//! assert!(scores.accuracy > 0.8);
//!
//! let logits = trainer.predict(&test.sample(0))?; // [1, 10]: bytes in, one logit per class out
//! let class = (0..10).max_by(|&a, &b| logits[a].total_cmp(&logits[b]));
//! assert_eq!(class, Some(test.labels[0].into()));
//! # Ok(())
//! # }
//! ```
//!
//! `examples/` in the repository has complete programs: training a network of your own in a run folder, predicting with a
//! saved model, and reading event-camera recordings.
//!
//! # Where to look
//!
//! | to | see |
//! |---|---|
//! | load a data set | [`data::load`], [`DataSource`] |
//! | configure a training | [`Config`], [`NetworkSpec`] |
//! | train in memory, or in a run folder | [`Trainer`], [`Session`] |
//! | use a trained network | [`Model::predict`], [`train::checkpoint`] |
//! | read recordings of event cameras | [`data::events`] |
//! | compare configurations | [`mod@compare`] |
//! | choose a device | [`Cpu`], [`Gpu`] |
//! | time operations | [`mod@bench`] |
//! | look up the mathematics | [`neuron`], [`surrogate`], [`autotune`], [`slope_means`] |
//!
//! Without its default feature `cli`, the library does not need the crates of the command line.
//!
//! Errors are [`anyhow::Error`]; one that contains an [`error::InputError`] means that an input was at fault.
//!
//! Imports point one way: `cli → compare → train → network → backend`.
//!
//! Modules that these docs leave out are the program's and its tests'; they may change at any time.
//!
//! In these docs, **\[paper\]** marks what the article's abstract states, **\[authors\]** what its authors' public code
//! does, and **\[ours\]** what this project chose.

pub mod autotune;
pub mod backend;
pub mod bench;
#[cfg(feature = "cli")]
#[doc(hidden)]
pub mod cli;
pub mod compare;
pub mod data;
pub mod error;
#[doc(hidden)]
pub mod files;
pub mod histogram;
#[doc(hidden)]
pub mod host;
#[doc(hidden)]
pub mod kernels;
pub mod metrics;
pub mod network;
pub mod neuron;
#[doc(hidden)]
pub mod random;
#[doc(hidden)]
pub mod report;
pub mod slope_means;
pub mod surrogate;
#[doc(hidden)]
pub mod tensors;
#[doc(hidden)]
pub mod terminal;
pub mod train;

pub use backend::cpu::Cpu;
pub use backend::gpu::Gpu;
pub use data::{DataSource, Dataset};
pub use network::{Model, NetworkSpec};
pub use train::{Config, Session, Trainer};
