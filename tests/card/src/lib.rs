//! A stand-in for `libcuda.so.1`: driver calls on the host, with kernels run from their PTX on the CPU.

pub mod checker;
pub mod device;
pub mod driver;
pub mod exec;
pub mod fatbin;
pub mod half;
pub mod lower;
pub mod memory;
pub mod ops;
pub mod order;
pub mod parse;
pub mod profile;
pub mod settings;
