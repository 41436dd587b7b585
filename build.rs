//! Compiles the CUDA kernels with nvcc into fatbins that `src/kernels.rs` embeds, together with ptxas' report on them.
//! Tests learn from `cfg(kernels)` whether kernels were built, and from `ADALI_NVCC` by which nvcc.
//!
//! Environment: `CUDA_HOME`, `NVCC_CCBIN` (nvcc's host compiler), `NVCC_PREPEND_FLAGS`, `NVCC_APPEND_FLAGS`,
//! `ADALI_CUDA_ARCHS` (default `80,90`), `ADALI_REQUIRE_CUDA` (fail if there is no usable nvcc, unless this is empty,
//! 0, no, false or off).

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, exit};
use std::sync::Mutex;

const KERNELS: &str = "kernels";
/// No fast-math, and a product and a sum are fused only where the source says `fmaf`, so that kernels and the CPU
/// reference round alike.
const FLAGS: &str = "-fatbin -O3 -std=c++17 -fmad=false --expt-relaxed-constexpr -lineinfo -Xfatbin=-compress-all \
                     -Xptxas -v -Xptxas --warn-on-spills -I kernels";
/// The first nvcc that knows sm_90; `__grid_constant__`, which every kernel uses, came with 11.7, and C++17 with 11.0.
/// nvcc itself is asked whether it knows other architectures.
const OLDEST_NVCC: (u32, u32) = (11, 8);
/// Environment variables that nvcc itself reads.
const NVCC_VARIABLES: [&str; 3] = ["NVCC_CCBIN", "NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS"];
/// Part of every output's key, because changes to this file may change the outputs.
const RECIPE: &str = include_str!("build.rs");
/// Kernels with this in their name may spill and keep arrays on the stack.
const MAY_SPILL: &str = "_naive";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-changed={KERNELS}");
    println!("cargo::rustc-check-cfg=cfg(kernels)");
    for variable in ["PATH", "CUDA_HOME", "ADALI_CUDA_ARCHS", "ADALI_REQUIRE_CUDA"].iter().chain(&NVCC_VARIABLES) {
        println!("cargo::rerun-if-env-changed={variable}");
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    match Nvcc::find() {
        Ok(nvcc) => build_cuda(&nvcc, &out),
        Err(why) => without_cuda(&why, &out),
    }
}

/// Ends the build with a message.
fn fail(message: impl AsRef<str>) -> ! {
    for line in message.as_ref().trim_end().lines() {
        println!("cargo::error={line}");
    }
    exit(1)
}

fn without_cuda(why: &str, out: &Path) {
    let advice = "run `make cuda` (fetches nvcc from PyPI) and build again";
    let required = env::var("ADALI_REQUIRE_CUDA").unwrap_or_default();
    if !["", "0", "no", "false", "off"].contains(&required.trim().to_lowercase().as_str()) {
        fail(format!("ADALI_REQUIRE_CUDA={required}, but {why}; {advice}"));
    }
    println!("cargo::warning=built without CUDA kernels: {why}. For CUDA, {advice}.");
    write_table(out, None, &[], &[]);
}

fn build_cuda(nvcc: &Nvcc, out: &Path) {
    let sources = files(KERNELS, &["cu"]);
    let resources = in_parallel(&sources, |source| nvcc.compile(source, out)).concat();
    let spilling: Vec<String> = resources.iter().filter_map(Resources::complaint).collect();
    if !spilling.is_empty() {
        fail(format!(
            "{}\nkernels must keep to registers: smaller tiles, wider launch bounds or constant indices; \
             only names with `{MAY_SPILL}` may spill",
            spilling.join("\n")
        ));
    }
    write_table(out, Some(&nvcc.version), &sources, &resources);
    println!("cargo::rustc-cfg=kernels");
    println!("cargo::rustc-env=ADALI_NVCC={}", nvcc.path.display());
}

struct Nvcc {
    path: PathBuf,
    /// Such as `nvcc 13.0.88`.
    version: String,
    /// `-gencode` and the rest of [`FLAGS`].
    flags: Vec<String>,
}

impl Nvcc {
    /// The first usable one, or why there is none.
    fn find() -> Result<Nvcc, String> {
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
    fn compile(&self, source: &Path, out: &Path) -> Result<Vec<Resources>, String> {
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

/// Printed as the `kernels::Resources` of `src/kernels.rs`.
#[derive(Clone, Debug, Default)]
struct Resources {
    kernel: String,
    module: String,
    arch: String,
    registers: u32,
    stack: u32,
    spill_stores: u32,
    spill_loads: u32,
    shared: u32,
    constant: u32,
    threads: Option<u32>,
}

/// Parses the output of `ptxas -v` followed by [`ptx_bounds`]. Functions that were not inlined follow the kernel
/// that calls them and count towards it.
fn parse_report(module: &str, text: &str) -> Vec<Resources> {
    let mut resources = BTreeMap::<_, Resources>::new();
    let mut current = (String::new(), String::new());
    for line in text.lines().filter(|line| !line.starts_with("ptxas warning")) {
        if let Some((_, rest)) = line.split_once("Compiling entry function '") {
            let (kernel, arch) = rest.split_once("' for 'sm_").unwrap_or_default();
            let (kernel, arch) = (kernel.to_string(), arch.trim_end_matches('\'').to_string());
            current = (kernel.clone(), arch.clone());
            resources.insert(current.clone(), Resources { kernel, module: module.into(), arch, ..Default::default() });
        } else if let Some(target) = line.strip_prefix(".target sm_") {
            current.1 = target.split(',').next().unwrap_or_default().to_string();
        } else if let Some((_, name)) = line.split_once(".entry ") {
            current.0 = name.split('(').next().unwrap_or_default().to_string();
        } else if let Some(found) = resources.get_mut(&current) {
            found.read(line);
        }
    }
    resources.into_values().collect()
}

impl Resources {
    /// The complaint about a kernel that does not fit in its registers.
    fn complaint(&self) -> Option<String> {
        let Resources { kernel, module, arch, registers, stack, spill_stores, spill_loads, .. } = self;
        let fine = stack + spill_stores + spill_loads == 0 || kernel.contains(MAY_SPILL);
        (!fine).then(|| {
            format!(
                "{KERNELS}/{module}.cu: {kernel} on sm_{arch}: stack frame {stack} bytes, spill stores \
                 {spill_stores} bytes, spill loads {spill_loads} bytes, {registers} registers"
            )
        })
    }

    /// Parses a line of the kernel's report, such as `Used 17 registers, used 1 barriers, 1024 bytes smem`.
    fn read(&mut self, line: &str) {
        if let Some(bounds) = line.strip_prefix(".maxntid").or(line.strip_prefix(".reqntid")) {
            self.threads = bounds.split(',').map(|extent| extent.trim().parse::<u32>().ok()).product();
            return;
        }
        for part in line.rsplit_once(" : ").map_or(line, |(_, part)| part).split(',') {
            let mut words = part.trim().trim_start_matches("Used ").splitn(2, ' ');
            let Some(Ok(value)) = words.next().map(str::parse::<u32>) else { continue };
            match words.next().unwrap_or_default() {
                "registers" => self.registers = value,
                "bytes stack frame" | "bytes cumulative stack size" => self.stack = self.stack.max(value),
                "bytes spill stores" => self.spill_stores += value,
                "bytes spill loads" => self.spill_loads += value,
                "bytes smem" => self.shared = value,
                what if what.starts_with("bytes cmem") => self.constant += value,
                _ => {}
            }
        }
    }
}

/// Writes the file that `src/kernels.rs` includes.
fn write_table(out: &Path, compiler: Option<&str>, sources: &[PathBuf], resources: &[Resources]) {
    let module = |source: &PathBuf| {
        let name = stem(source);
        format!(
            "    Module {{ name: {name:?}, fatbin: include_bytes!(concat!(env!(\"OUT_DIR\"), \"/{name}.fatbin\")) }},\n"
        )
    };
    let modules: String = sources.iter().map(module).collect();
    let report: String = resources.iter().map(|resources| format!("    {resources:?},\n")).collect();
    let table = format!(
        "pub static COMPILER: Option<&str> = {compiler:?};\n\npub static MODULES: &[Module] = &[\n{modules}];\n\n\
         pub static REPORT: &[Resources] = &[\n{report}];\n"
    );
    write(&out.join("kernels.rs"), &table);
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

fn write(path: &Path, text: &str) {
    fs::write(path, text).unwrap_or_else(|error| fail(format!("cannot write {}: {error}", path.display())));
}

fn stem(path: &Path) -> String {
    path.file_stem().unwrap_or_default().to_string_lossy().into_owned()
}

/// The files of a folder with one of these extensions, sorted; none if there is no such folder.
fn files(folder: impl AsRef<Path>, extensions: &[&str]) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut files: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extensions.iter().any(|e| extension == *e)));
    files.sort();
    files
}

/// Runs `work` on every item, with as many threads as cargo allows. Ends the build with all errors, if any.
fn in_parallel<R: Send>(items: &[PathBuf], work: impl Fn(&Path) -> Result<R, String> + Sync) -> Vec<R> {
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
