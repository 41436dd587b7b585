//! Separates errors in what the user gave from other failures, because their exit codes differ.

/// Something the user gave cannot be used: a flag, a configuration, a file. The program exits with code 2.
///
/// The text is one sentence that names the thing, the value, the limit, and what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct InputError(pub String);

/// Returns early with an [`InputError`] built as by `format!`.
#[macro_export]
macro_rules! bail_input {
    ($($arg:tt)*) => { return Err($crate::error::InputError(format!($($arg)*)).into()) };
}

/// An [`InputError`] as an [`anyhow::Error`], built as by `format!`.
#[macro_export]
macro_rules! input_error {
    ($($arg:tt)*) => { anyhow::Error::from($crate::error::InputError(format!($($arg)*))) };
}

/// The user or the system asked to stop, and nothing is left to save. The program exits with code 130.
#[derive(Debug, thiserror::Error)]
#[error("interrupted")]
pub struct Interrupted;

/// The process's exit code for an error: 2 for what the user gave, 1 for other failures.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    if error.chain().any(|cause| cause.is::<InputError>()) { 2 } else { 1 }
}
