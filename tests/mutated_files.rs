//! Every file reader, on thousands of damaged files, pipes, devices and folders: each is read, or refused as a user error in
//! one line, within seconds and in bounded memory. One process per reader, under `ulimit`.

#[path = "mutated/mutations.rs"]
mod mutations;
#[path = "mutated/readers.rs"]
mod readers;

use crate::process::{Random, bytes};
use adali::error::exit_code;
use mutations::mutated;
use readers::{FORMATS, OTHERS, Reader};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Damaged files per reader.
const CASES: usize = 3000;
/// Address space of a process, in KiB. The readers take less than a tenth of it; the trainings that write their files take more
/// on machines with many cores.
const MEMORY: u64 = 256 << 10;
/// CPU seconds per reader, in total.
const SECONDS: u64 = 90;
/// Upper limit per file, on a busy machine.
const LONGEST: Duration = Duration::from_secs(5);

/// Runs each reader in its own process.
fn under_limits(names: &[&str]) {
    for name in names {
        let limited = format!(
            "ulimit -v {MEMORY} && ulimit -t {SECONDS} && exec \"$0\" --exact --ignored --nocapture mutated_files::reads_mutated_files"
        );
        let mut command = Command::new("sh");
        command.arg("-c").arg(limited).arg(std::env::current_exe().unwrap());
        command
            .env("ADALI_READER", name)
            .env("MALLOC_ARENA_MAX", "1")
            .env("RAYON_NUM_THREADS", "2")
            .stdin(Stdio::null());
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let ran = crate::process::finish(child, name);
        let said = ran.out.lines().find(|line| line.contains("refused"));
        assert!(ran.code == Some(0) && said.is_some(), "the last file is in {}: {ran}", folder(name).display());
        println!("{}", said.unwrap());
    }
}

#[test]
fn recordings_are_read_or_refused() {
    under_limits(&FORMATS);
}

#[test]
fn other_files_are_read_or_refused() {
    under_limits(&OTHERS);
}

/// Where a reader's files are.
fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("mutated").join(name)
}

/// A reader with its files in a fresh folder.
fn reader(name: &str) -> Reader {
    let folder = folder(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).unwrap();
    Reader::new_in(&folder, name)
}

/// Replaces a file by a new one: some file systems wait for the disk if a file is truncated and rewritten.
fn replace(file: &Path, bytes: &[u8]) {
    fs::remove_file(file).unwrap();
    fs::write(file, bytes).unwrap();
}

/// Whether a damaged file was read (true) or properly refused.
fn is_read(reader: &mut Reader, file: &Path, what: &str) -> bool {
    let begin = Instant::now();
    let read = (reader.read)(file);
    assert!(begin.elapsed() < LONGEST, "{what} takes {:?}", begin.elapsed());
    let Err(error) = read else { return true };
    let text = format!("{error:#}");
    assert!(exit_code(&error) == 2 && text.lines().count() == 1, "{what}: {error:?}");
    false
}

#[test]
#[ignore = "run by the tests above, under limits"]
fn reads_mutated_files() {
    let name = std::env::var("ADALI_READER").expect("ADALI_READER names a reader");
    let mut reader = reader(&name);
    let files = reader.files.clone();
    let seeds: Vec<Vec<u8>> = files.iter().map(bytes).collect();
    assert!(!files.is_empty(), "{name}");
    let (mut read, mut refused) = (0, 0);
    let mut count = |is_read| *(if is_read { &mut read } else { &mut refused }) += 1;
    for case in 0..CASES {
        let which = case % files.len();
        replace(&files[which], &mutated(&mut Random::seeded(case as u64), &seeds, which));
        count(is_read(&mut reader, &files[which], &format!("case {case} of {name}, {}", files[which].display())));
        replace(&files[which], &seeds[which]);
    }
    for (file, seed) in files.iter().zip(&seeds) {
        for kind in ["folder", "device", "pipe", "sparse"] {
            fs::remove_file(file).unwrap();
            match kind {
                "folder" => fs::create_dir(file).unwrap(),
                "device" => std::os::unix::fs::symlink("/dev/zero", file).unwrap(),
                "pipe" => assert!(Command::new("mkfifo").arg(file).status().unwrap().success()),
                // Streaming readers would keep reading a huge sparse file.
                _ if FORMATS.contains(&&name[..]) => fs::write(file, seed).unwrap(),
                _ => {
                    fs::write(file, seed).unwrap();
                    File::options().write(true).open(file).unwrap().set_len(1 << 40).unwrap();
                }
            }
            count(is_read(&mut reader, file, &format!("a {kind} as {}", file.display())));
            if kind == "folder" { fs::remove_dir(file) } else { fs::remove_file(file) }.unwrap();
            fs::write(file, seed).unwrap();
        }
    }
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmPeak:")).unwrap().trim();
    println!("{name}: {read} files read, {refused} refused, in an address space of {peak}");
    assert!(refused > 0, "nothing was damaged");
}

/// Writes the corpora of `fuzz/run`.
#[test]
#[ignore = "run by fuzz/run"]
fn writes_seeds() {
    let to = PathBuf::from(std::env::var_os("ADALI_SEEDS").expect("ADALI_SEEDS names a folder"));
    for name in FORMATS.iter().chain(&OTHERS) {
        fs::create_dir_all(to.join(name)).unwrap();
        for (i, file) in reader(name).files.iter().enumerate() {
            fs::copy(file, to.join(name).join(format!("{i}-{}", file.file_name().unwrap().display()))).unwrap();
        }
    }
}
