//! What each part of the build needs: errors, files, threads.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::exit;
use std::sync::Mutex;

pub const KERNELS: &str = "kernels";

/// Ends the build with a message.
pub fn fail(message: impl AsRef<str>) -> ! {
    for line in message.as_ref().trim_end().lines() {
        println!("cargo::error={line}");
    }
    exit(1)
}

pub fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap_or_else(|error| fail(format!("cannot write {}: {error}", path.display())));
}

pub fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// The files of a folder with one of these extensions, sorted; none if there is no such folder.
pub fn files(folder: impl AsRef<Path>, extensions: &[&str]) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extensions.iter().any(|e| extension == *e)));
    files.sort();
    files
}

/// Runs `work` on every item, with as many threads as cargo allows. Ends the build with all errors, if any.
pub fn in_parallel<R: Send>(items: &[PathBuf], work: impl Fn(&Path) -> Result<R, String> + Sync) -> Vec<R> {
    let threads = env::var("NUM_JOBS").ok().and_then(|jobs| jobs.parse().ok()).unwrap_or(1);
    let (queue, results) = (Mutex::new(items.iter()), Mutex::new(BTreeMap::new()));
    let next = || queue.lock().expect("no thread panics").next();
    std::thread::scope(|scope| {
        for _ in 0..items.len().min(threads) {
            scope.spawn(|| {
                while let Some(item) = next() {
                    let result = work(item);
                    results.lock().expect("no thread panics").insert(item, result);
                }
            });
        }
    });
    let results = results.into_inner().expect("no thread panics");
    let mut errors = BTreeMap::<&str, Vec<&PathBuf>>::new();
    for (item, result) in &results {
        if let Err(why) = result {
            errors.entry(why).or_default().push(item);
        }
    }
    if !errors.is_empty() {
        let each = errors.iter().map(|(why, items)| match items.len() {
            1 => format!("cannot compile {}: {why}", items[0].display()),
            all => format!("cannot compile {} and {} more: {why}", items[0].display(), all - 1),
        });
        fail(each.collect::<Vec<_>>().join("\n"));
    }
    results.into_values().filter_map(Result::ok).collect()
}
