//! A lock that lets one process at a time work in a folder.
//!
//! The lock is the system's own (`flock`) on the file `.adali.lock`: it ends with its process, however that ends, so no lock
//! is ever left behind. The file stays; while it is locked it names the holder.

use crate::bail_input;
use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The file that is locked.
pub const LOCK: &str = ".adali.lock";

/// A lock on a folder; released when dropped.
#[derive(Debug)]
pub struct Lock {
    file: File,
    note: Option<String>,
}

/// Who holds a lock.
#[derive(Serialize, Deserialize)]
struct Holder {
    pid: u32,
    host: String,
    /// Seconds since 1970.
    since: u64,
    command: String,
}

impl Lock {
    /// Locks a folder, which must exist.
    ///
    /// # Errors
    /// An [`InputError`](crate::error::InputError) that says which process works there.
    pub fn acquire(folder: &Path) -> Result<Self> {
        let path = folder.join(LOCK);
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let mut file = file.with_context(|| format!("cannot write {}", path.display()))?;
        let note = match file.try_lock() {
            Ok(()) => None,
            Err(TryLockError::WouldBlock) => bail_input!(
                "{} is in use by {}; wait until it has ended, or name another folder",
                folder.display(),
                holder(&path)
            ),
            Err(TryLockError::Error(error)) => Some(format!(
                "the file system of {} keeps no locks ({error}), so another process there would not be noticed",
                folder.display()
            )),
        };
        // On a full disk the holder is not recorded, but the lock holds all the same.
        let _ = file.set_len(0).and_then(|()| file.write_all(Holder::this_process().as_bytes()));
        Ok(Self { file, note })
    }

    /// What the user must know about it.
    pub fn note(&self) -> Option<&str> {
        self.note.as_deref()
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        let _ = self.file.set_len(0);
    }
}

impl Holder {
    fn this_process() -> String {
        let host = fs::read_to_string("/proc/sys/kernel/hostname").ok().or_else(|| std::env::var("HOSTNAME").ok());
        let words: Vec<_> = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned()).collect();
        let holder = Self {
            pid: std::process::id(),
            host: host.map_or("an unknown host".into(), |host| host.trim().to_string()),
            since: now(),
            command: format!("adali {}", words.join(" ")),
        };
        serde_json::to_string(&holder).expect("a holder has a JSON form")
    }
}

/// Describes who holds a lock.
fn holder(path: &Path) -> String {
    let found = fs::read(path).ok().and_then(|bytes| serde_json::from_slice::<Holder>(&bytes).ok());
    let Some(Holder { pid, host, since, command }) = found else { return "another process".into() };
    format!("process {pid} on {host}, begun {} ago: {command}", age(now().saturating_sub(since)))
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs()
}

/// A number of seconds, in the largest unit of which it has at least two.
fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_is_held_once_and_says_by_whom() {
        let home = tempfile::TempDir::new().unwrap();
        let first = Lock::acquire(home.path()).unwrap();
        assert!(first.note().is_none());
        let refused = Lock::acquire(home.path()).unwrap_err();
        assert_eq!(crate::error::exit_code(&refused), 2);
        assert!(refused.to_string().contains(&format!("process {} on ", std::process::id())), "{refused}");
        drop(first);
        assert_eq!(fs::metadata(home.path().join(LOCK)).unwrap().len(), 0);
        Lock::acquire(home.path()).unwrap();
    }

    #[test]
    fn a_stale_or_broken_lock_file_hinders_nobody() {
        let home = tempfile::TempDir::new().unwrap();
        for text in ["", "{", "{\"pid\": 1}", "\u{1b}[2J"] {
            fs::write(home.path().join(LOCK), text).unwrap();
            let held = Lock::acquire(home.path()).unwrap();
            fs::write(home.path().join(LOCK), text).unwrap();
            assert!(Lock::acquire(home.path()).unwrap_err().to_string().contains("another process"));
            drop(held);
        }
    }

    #[test]
    fn an_age_is_short() {
        let ages = [3, 119, 120, 7199, 7200, 172_799, 172_800].map(age);
        assert_eq!(ages, ["3 s", "119 s", "2 min", "119 min", "2 h", "47 h", "2 days"]);
    }
}
