//! The tests of the software GPU.

mod calls;
mod common;
mod instructions;
mod planted;
