//! Short commands, their results, and the files that they leave behind.

use super::program::{Ran, bytes, command, run};
use super::tensors::Tensors;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

/// Runs the program.
pub fn adali(cwd: &Path, arguments: &str) -> Ran {
    run(command(cwd, arguments))
}

impl Ran {
    /// Checks that clap, whose messages have several lines, refused an argument and named one of its words.
    pub fn misused(self, argument: &str) -> Self {
        let named = argument.split(' ').any(|word| self.err.contains(word));
        assert!(self.code == Some(2) && self.err.starts_with("error: ") && named, "{argument}: {self}");
        self
    }

    /// Standard output as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(self.out.trim()).unwrap_or_else(|e| panic!("{e}: {self}"))
    }
}

/// Arguments of a training into `out` that takes a fraction of a second; `more` may override the usual values.
pub fn tiny(out: &str, more: &str) -> String {
    let mut arguments = format!("train --quiet --out {out} {more}");
    let usual: &[(&str, &[&str])] = &[
        ("--channels 8", &["--channels", "--network", "--config"]),
        ("--epochs 2", &["--epochs", "--config"]),
        ("--limit 256", &["--limit", "--config"]),
    ];
    for (argument, instead) in usual {
        if !more.split_whitespace().any(|word| instead.contains(&word)) {
            arguments += &format!(" {argument}");
        }
    }
    arguments
}

/// Runs a tiny training and returns its folder.
pub fn train(cwd: &Path, out: &str, more: &str) -> PathBuf {
    adali(cwd, &tiny(out, more)).done();
    cwd.join(out)
}

/// Every file below a folder with its bytes, and every folder (with `/` after its name).
pub fn snapshot(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            all.extend(snapshot(&path).into_iter().map(|(below, bytes)| (format!("{name}/{below}"), bytes)));
            all.insert(name + "/", Vec::new());
        } else {
            all.insert(name, bytes(&path));
        }
    }
    all
}

/// Copies the files of a run.
pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for (name, bytes) in snapshot(from) {
        fs::write(to.join(name), bytes).unwrap();
    }
}

/// The lines of `metrics.jsonl` without times.
pub fn metrics(run: &Path) -> Vec<Value> {
    let text = String::from_utf8(bytes(run.join("metrics.jsonl"))).unwrap();
    let mut lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    for line in &mut lines {
        assert!(line["seconds"].as_f64().unwrap() > 0.0 && line["images_per_second"].as_f64().unwrap() > 0.0);
        line.as_object_mut().unwrap().retain(|key, _| !["seconds", "images_per_second"].contains(&key.as_str()));
    }
    lines
}

pub fn result(run: &Path) -> Value {
    serde_json::from_slice(&bytes(run.join("result.json"))).unwrap()
}

/// Checks that two trainings have the same result: all bytes, except times.
pub fn assert_same(a: &Path, b: &Path, what: &str) {
    for file in ["model.safetensors", "membranes.svg"] {
        assert!(bytes(a.join(file)) == bytes(b.join(file)), "{what}: {file} differs");
    }
    assert_eq!(metrics(a), metrics(b), "{what}: metrics.jsonl differs");
    let [x, y] = [a, b].map(|run| Tensors::read(&run.join("state.safetensors")).without_times());
    assert!(x == y, "{what}: state.safetensors differs in more than times");
    for key in ["test_accuracy", "test_loss", "test_samples", "epoch", "epochs", "validation_accuracy", "parameters"] {
        assert_eq!(result(a)[key], result(b)[key], "{what}: {key}");
    }
    assert_no_leftovers(a);
    assert_no_leftovers(b);
}

/// Checks that no temporary file is left.
pub fn assert_no_leftovers(folder: &Path) {
    let left: Vec<_> = snapshot(folder).into_keys().filter(|name| name.ends_with(".tmp")).collect();
    assert!(left.is_empty(), "{left:?} left in {}", folder.display());
}

/// Sends a signal.
pub fn signal(child: &Child, name: &str) {
    let status = Command::new("kill").args([format!("-{name}"), child.id().to_string()]).status().unwrap();
    assert!(status.success());
}

/// Takes the first line that a process prints, and leaves the rest to [`finish`].
pub fn first_line(child: &mut Child) -> String {
    // One byte at a time: a buffer would swallow what follows the line.
    let (out, mut line, mut byte) = (child.stdout.as_mut().unwrap(), Vec::new(), [0]);
    while out.read(&mut byte).unwrap() == 1 && byte[0] != b'\n' {
        line.push(byte[0]);
    }
    String::from_utf8(line).unwrap()
}

/// A data set in MNIST's format: 64 and 20 images of 8x8 in 10 classes.
pub fn write_images(folder: &Path) {
    fs::create_dir_all(folder).unwrap();
    for (part, count) in [("train", 64u32), ("t10k", 20)] {
        let header = [0x803, count, 8, 8].map(u32::to_be_bytes).concat();
        let pixels = (0..count * 64).map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8).collect::<Vec<_>>();
        fs::write(folder.join(format!("{part}-images-idx3-ubyte")), [header, pixels].concat()).unwrap();
        let header = [0x801, count].map(u32::to_be_bytes).concat();
        let labels = (0..count).map(|i| (i % 10) as u8).collect::<Vec<_>>();
        fs::write(folder.join(format!("{part}-labels-idx1-ubyte")), [header, labels].concat()).unwrap();
    }
}

/// A network with dropout after both hidden layers; `(from, to)` replaces a part of its text.
pub fn write_network(path: &Path, change: (&str, &str)) {
    let text = "steps = 3\ninput = \"direct\"\n\
        [[layers]]\ntype = \"conv\"\nchannels = 8\nkernel = 3\npadding = 1\nnorm = \"batch\"\n\
        [[layers]]\ntype = \"max_pool\"\nkernel = 2\n\
        [[layers]]\ntype = \"dropout\"\nprobability = 0.25\n\
        [[layers]]\ntype = \"linear\"\nfeatures = 24\n\
        [[layers]]\ntype = \"dropout\"\nprobability = 0.5\n\
        [[layers]]\ntype = \"readout\"\nclasses = 10\n";
    assert!(change.0.is_empty() || text.contains(change.0), "{change:?}");
    fs::write(path, if change.0.is_empty() { text.into() } else { text.replacen(change.0, change.1, 1) }).unwrap();
}
