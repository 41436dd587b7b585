//! Shared by the tests of the network and of the backend's operations: random networks with their parameters and data
//! ([`draw`]), run on the CPU and compared with the oracle ([`compare`]).

pub mod branches;
pub mod compare;
pub mod draw;
pub mod graph;
pub mod layers;
pub mod loops;
pub mod structures;

pub use compare::{Outcome, check, run_model};
pub use draw::{Case, Drawn, can_be_drawn, draw, suits_batch_statistics};
