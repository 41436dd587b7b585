//! Finds nvcc and compiles kernels with it.

use crate::report::{Resources, parse_report};
use crate::tools::{KERNELS, fail, files, stem, write};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// No fast-math, and a product and a sum are fused only where the source says `fmaf`, so that kernels and the CPU
/// reference round alike.
const FLAGS: &str = "-fatbin -O3 -std=c++17 -fmad=false --expt-relaxed-constexpr -lineinfo -Xfatbin=-compress-all \
                     -Xptxas -v -Xptxas --warn-on-spills -I kernels";
/// The first nvcc that knows sm_90; `__grid_constant__`, which every kernel uses, came with 11.7, and C++17 with 11.0.
/// nvcc itself is asked whether it knows other architectures.
const OLDEST_NVCC: (u32, u32) = (11, 8);
/// Environment variables that nvcc itself reads.
pub const NVCC_VARIABLES: [&str; 3] = ["NVCC_CCBIN", "NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS"];
/// Part of every output's key, because changes to this file may change the outputs.
const RECIPE: &str = include_str!("nvcc.rs");

pub struct Nvcc {
    pub path: PathBuf,
    /// Such as `nvcc 13.0.88`.
    pub version: String,
    /// `-gencode` and the rest of [`FLAGS`].
    flags: Vec<String>,
}

impl Nvcc {
    /// The first usable one, or why there is none.
    pub fn find() -> Result<Nvcc, String> {
        let home = env::var_os("CUDA_HOME").map(|home| Path::new(&home).join("bin"));
        let path = env::var_os("PATH").unwrap_or_default();
        let project = env::current_dir().expect("cargo sets the folder").join(".cuda/bin");
        let folders = home.into_iter().chain(env::split_paths(&path)).chain(["/usr/local/cuda/bin".into(), project]);
        let mut unusable = Vec::new();
        for path in folders.map(|folder| folder.join("nvcc")).filter(|path| path.is_file()) {
            println!("cargo::rerun-if-changed={}", path.display());
            match Nvcc::at(&path) {
                Ok(nvcc) => {
                    unusable.iter().for_each(|why| println!("cargo::warning={why}; {} is used", path.display()));
                    return Ok(nvcc);
                }
                Err(why) if unusable.contains(&why) => {}
                Err(why) => unusable.push(why),
            }
        }
        match unusable.is_empty() {
            true => Err("nvcc is neither in $CUDA_HOME/bin, PATH, /usr/local/cuda/bin nor .cuda/bin".into()),
            false => Err(unusable.join(", and ")),
        }
    }

    /// Asks nvcc for its version and architectures; the error says in one line why it cannot be used.
    fn at(path: &Path) -> Result<Nvcc, String> {
        let text = run(Command::new(path).arg("--version")).map_err(|why| format!("{} {why}", path.display()))?;
        let version = text.split(", V").nth(1).and_then(|rest| rest.split_whitespace().next());
        let mut numbers = version.unwrap_or_default().split('.').map_while(|number| number.parse().ok());
        let (Some(version), Some(major), Some(minor)) = (version, numbers.next(), numbers.next()) else {
            let line = text.lines().next().unwrap_or_default();
            return Err(format!("{} --version does not say its version, but {line:?}", path.display()));
        };
        let (oldest_major, oldest_minor) = OLDEST_NVCC;
        if (major, minor) < OLDEST_NVCC {
            return Err(format!(
                "{} is nvcc {version}, and the kernels need {oldest_major}.{oldest_minor} or newer",
                path.display()
            ));
        }
        let known =
            run(Command::new(path).arg("--list-gpu-code")).map_err(|why| format!("{} {why}", path.display()))?;
        let knows = |&number: &u32| known.split_whitespace().any(|name| name == format!("sm_{number}"));
        if let Some(number) = architectures().iter().map(|(_, number)| number).find(|number| !knows(number)) {
            let known = known.split_whitespace().collect::<Vec<_>>().join(", ");
            let nvcc = path.display();
            return Err(format!(
                "{nvcc} is nvcc {version}, which has no sm_{number} of ADALI_CUDA_ARCHS (it has {known})"
            ));
        }
        let flags = FLAGS.split(' ').map(str::to_string).chain(architecture_flags()).collect();
        Ok(Nvcc { path: path.into(), version: format!("nvcc {version}"), flags })
    }

    /// Compiles `kernels/x.cu` to `x.fatbin` and `x.log` in `out`, unless the inputs (`x.key`) have not changed.
    pub fn compile(&self, source: &Path, out: &Path) -> Result<Vec<Resources>, String> {
        let name = stem(source);
        let [fatbin, log, keep] = ["fatbin", "log", "keep"].map(|kind| out.join(format!("{name}.{kind}")));
        let settings = format!("{} {:?} {:?}", self.version, self.flags, NVCC_VARIABLES.map(env::var_os));
        let key = Key::new(out.join(format!("{name}.key")), &settings, source, &[KERNELS]);
        key.unless_current(&[&fatbin, &log], || {
            let _ = fs::remove_dir_all(&keep);
            fs::create_dir_all(&keep).map_err(|error| error.to_string())?;
            let mut command = Command::new(&self.path);
            command.args(&self.flags).arg("--keep").arg("--keep-dir").arg(&keep).arg("-o").arg(&fatbin).arg(source);
            let _ = fs::remove_file(&fatbin);
            let said = run(&mut command).map_err(|why| format!("{} {why}", self.path.display()))?;
            if !fatbin.is_file() {
                return Err(format!("{} ended well and wrote no {}", self.path.display(), fatbin.display()));
            }
            write(&log, &(said + &ptx_bounds(&keep)));
            let _ = fs::remove_dir_all(&keep);
            Ok(())
        })?;
        Ok(parse_report(&name, &fs::read_to_string(&log).map_err(|error| error.to_string())?))
    }
}

/// The output of a command on both streams; the error says how it ended and what it printed.
fn run(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("cannot be started: {error}"))?;
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        return Ok(said.into_owned());
    }
    let said: Vec<_> = said.lines().filter(|line| !line.starts_with("ptxas info")).collect();
    match (output.status, said.join("\n").trim()) {
        (ended, "") => Err(format!("failed and said nothing ({ended})")),
        (ended, said) => Err(format!("failed ({ended}): {said}")),
    }
}

/// The names in `ADALI_CUDA_ARCHS`, such as `90a`, with their numbers.
fn architectures() -> Vec<(String, u32)> {
    let list = env::var("ADALI_CUDA_ARCHS").unwrap_or("80,90".into());
    let number = |name: &str| name.trim_end_matches(|c: char| c.is_ascii_lowercase()).parse().ok();
    let named = list.split(',').map(str::trim).map(|name| Some((name.to_string(), number(name)?)));
    named
        .collect::<Option<_>>()
        .unwrap_or_else(|| fail(format!("ADALI_CUDA_ARCHS={list:?} is not a list such as 80,90a")))
}

/// Native code for each of `ADALI_CUDA_ARCHS`, and PTX of the lowest for newer GPUs. `90a` stands for
/// instructions of exactly that generation, so its PTX would be of no use to a later one.
fn architecture_flags() -> Vec<String> {
    let names = architectures();
    let native = names.iter().map(|(name, _)| format!("arch=compute_{name},code=sm_{name}"));
    let lowest = names.iter().map(|(_, number)| number).min();
    let floor = lowest.map(|lowest| format!("arch=compute_{lowest},code=compute_{lowest}"));
    native.chain(floor).flat_map(|code| ["-gencode".to_string(), code]).collect()
}

/// The lines of the PTX files in `folder` that give the target and the thread limits of each kernel.
fn ptx_bounds(folder: &Path) -> String {
    let told = [".target", ".visible .entry", ".entry", ".maxntid", ".reqntid"];
    let texts: Vec<_> = files(folder, &["ptx"]).into_iter().flat_map(fs::read_to_string).collect();
    let lines = texts.iter().flat_map(|ptx| ptx.lines().map(str::trim));
    lines.filter(|line| told.iter().any(|start| line.starts_with(start))).map(|line| format!("{line}\n")).collect()
}

/// Everything an output depends on: settings, source and headers, stored as text next to it.
struct Key {
    path: PathBuf,
    text: String,
}

impl Key {
    fn new(path: PathBuf, settings: &str, source: &Path, include: &[&str]) -> Key {
        let headers = include.iter().flat_map(|folder| files(folder, &["cuh", "h", "hpp"]));
        let mut text = format!("{settings}\n{RECIPE}");
        for file in [source.to_path_buf()].into_iter().chain(headers) {
            text += &format!("\n{}\n", file.display());
            text += &fs::read_to_string(&file).unwrap_or_else(|error| fail(format!("{}: {error}", file.display())));
        }
        Key { path, text }
    }

    /// Makes the outputs, unless they exist and were made from the same inputs.
    fn unless_current(&self, outputs: &[&Path], make: impl FnOnce() -> Result<(), String>) -> Result<(), String> {
        let same = fs::read_to_string(&self.path).is_ok_and(|old| old == self.text);
        if same && outputs.iter().all(|output| output.is_file()) {
            return Ok(());
        }
        let _ = fs::remove_file(&self.path); // so that a build cut short is not taken for a whole one
        make()?;
        write(&self.path, &self.text);
        Ok(())
    }
}
