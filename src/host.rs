//! This process's memory: how much is available, and large vectors whose allocation fails with an error, not an abort.

mod available;

use crate::input_error;
use anyhow::Result;
use std::path::Path;

pub use available::Limit;

/// Bytes of memory still available to this process, and what limits them; `None` if the system does not say.
pub fn available() -> Option<(usize, Limit)> {
    available::available(Path::new("/"))
}

/// Restarts the program if its address space is limited (`ulimit -v`) and glibc has not been told to keep to one arena.
/// Otherwise glibc sets 64 MB of addresses aside for each thread; where these do not fit, it tries again at every small
/// allocation and leaves nothing for those of other threads. It reads the variable only when a program starts.
#[cfg(target_os = "linux")]
pub fn keep_to_one_arena() {
    use std::os::unix::process::CommandExt;
    const VARIABLE: &str = "MALLOC_ARENA_MAX";
    if std::env::var_os(VARIABLE).is_some() || available::soft_limit(Path::new("/"), available::ADDRESSES).is_none() {
        return;
    }
    let mut words = std::env::args_os();
    if let (Ok(program), Some(name)) = (std::env::current_exe(), words.next()) {
        // Returns only if it fails; then things stay as they are.
        let _ = std::process::Command::new(program).arg0(name).args(words).env(VARIABLE, "1").exec();
    }
}

/// Checks that so many bytes are available; `what` begins the message, such as "the frames take".
///
/// # Errors
/// An [`InputError`](crate::error::InputError) that names what limits the memory.
pub fn ensure_room(bytes: usize, what: &str) -> Result<()> {
    match available() {
        Some((left, limit)) if left < bytes => Err(input_error!(
            "{what} {:.1} MB of memory, but {:.1} MB are left {limit}; use fewer or smaller samples, or raise the limit",
            bytes as f64 / 1e6,
            left as f64 / 1e6
        )),
        _ => Ok(()),
    }
}

/// How much memory is left, as part of a sentence.
pub fn left() -> String {
    match available() {
        Some((bytes, limit)) => format!("{:.1} MB are left {limit}", bytes as f64 / 1e6),
        None => "there is no more".into(),
    }
}

/// `len` zeros.
///
/// # Errors
/// An [`InputError`](crate::error::InputError) that names what limits the memory.
pub fn zeros<V: Clone + Default>(len: usize) -> Result<Vec<V>> {
    let mut values = Vec::new();
    resize(&mut values, len)?;
    Ok(values)
}

/// Resizes a vector to `len` values; new ones are zeros.
///
/// # Errors
/// As [`zeros`].
pub fn resize<V: Clone + Default>(values: &mut Vec<V>, len: usize) -> Result<()> {
    reserve(values, len.saturating_sub(values.len()))?;
    values.resize(len, V::default());
    Ok(())
}

/// Makes room for exactly `more` values.
///
/// # Errors
/// As [`zeros`].
pub fn reserve<V>(values: &mut Vec<V>, more: usize) -> Result<()> {
    values.try_reserve_exact(more).map_err(|_| {
        let (wanted, left) = (more as f64 * size_of::<V>() as f64 / 1e6, left());
        input_error!(
            "cannot allocate {wanted:.1} MB of memory, {left}; use a smaller network, batch or file, or raise the limit"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::exit_code;

    #[test]
    fn what_memory_does_not_hold_is_an_error() {
        assert_eq!(zeros::<u32>(3).unwrap(), [0; 3]);
        let mut values = vec![1.0f32; 2];
        resize(&mut values, 4).unwrap();
        assert_eq!(values, [1.0, 1.0, 0.0, 0.0]);
        for len in [usize::MAX, usize::MAX / 8] {
            let error = zeros::<f32>(len).unwrap_err();
            let text = error.to_string();
            assert!(exit_code(&error) == 2 && text.contains("MB of memory") && text.lines().count() == 1);
        }
        ensure_room(1 << 20, "a test takes").unwrap();
        #[cfg(target_os = "linux")]
        assert!(ensure_room(usize::MAX, "a test takes").unwrap_err().to_string().contains("MB are left of"));
    }
}
