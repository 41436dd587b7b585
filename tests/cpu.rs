//! The library on the CPU, against an oracle in f64.

mod augmentations;
mod configuration;
mod data_files;
mod imports;
mod network_matches_oracle;
mod operations_match_oracle;
mod oracle;
mod oracle_checks;
#[path = "support/pickles.rs"]
mod pickles;
mod support;
