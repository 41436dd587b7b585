//! `build.rs` with stand-ins for nvcc: the messages when it is missing, too old or broken.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};
use tempfile::TempDir;

/// The build script, compiled, and a project of two kernels.
struct Project {
    home: TempDir,
    /// One at a time: a process started by another test while a script is being written would hold it open and make it busy.
    _alone: MutexGuard<'static, ()>,
}

impl Project {
    fn new() -> Self {
        static ALONE: Mutex<()> = Mutex::new(());
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let home = TempDir::new().unwrap();
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("build.rs");
        let compiled = Command::new("rustc")
            .args(["--edition", "2024", "-o"])
            .args([&home.path().join("script"), &source])
            .status();
        assert!(compiled.unwrap().success());
        for folder in ["kernels", "out", "empty"] {
            fs::create_dir(home.path().join(folder)).unwrap();
        }
        for kernel in ["one", "two"] {
            fs::write(home.path().join(format!("kernels/{kernel}.cu")), "").unwrap();
        }
        Self { home, _alone: alone }
    }

    /// A folder with an nvcc that is this shell script.
    fn nvcc(&self, name: &str, script: &str) -> PathBuf {
        let folder = self.home.path().join(name);
        fs::create_dir(&folder).unwrap();
        let nvcc = folder.join("nvcc");
        fs::write(&nvcc, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&nvcc, fs::Permissions::from_mode(0o755)).unwrap();
        folder
    }

    /// Whether the build succeeds, and the errors and warnings that cargo would show.
    fn build(&self, folders: &[&Path], variables: &[(&str, &str)]) -> (bool, Vec<String>) {
        let mut script = Command::new(self.home.path().join("script"));
        script.current_dir(self.home.path()).env("OUT_DIR", self.home.path().join("out")).env("NUM_JOBS", "2");
        for name in ["CUDA_HOME", "ADALI_CUDA_ARCHS", "ADALI_REQUIRE_CUDA"] {
            script.env_remove(name);
        }
        script.env("PATH", std::env::join_paths(folders).unwrap()).envs(variables.iter().copied());
        let ran = script.output().unwrap();
        assert!(ran.stderr.is_empty(), "{}", String::from_utf8_lossy(&ran.stderr));
        let told = String::from_utf8(ran.stdout).unwrap();
        let shown =
            told.lines().filter(|line| line.starts_with("cargo::error=") || line.starts_with("cargo::warning="));
        (ran.status.success(), shown.map(str::to_string).collect())
    }
}

/// An nvcc of this version that compiles by running this shell script.
fn working(version: &str, compile: &str) -> String {
    format!(
        "case \"$1\" in\n--version) echo 'Cuda compilation tools, release x, V{version}' ;;\n\
         --list-gpu-code) echo 'sm_80\nsm_90' ;;\n*) {compile} ;;\nesac"
    )
}

/// Writes the output named by `-o`.
const WRITES: &str = "while [ \"$1\" != -o ]; do shift; done; echo > \"$2\"";

#[test]
fn an_nvcc_of_no_use_is_one_line() {
    if Path::new("/usr/local/cuda/bin/nvcc").exists() {
        eprintln!("left out: build.rs would find this machine's own /usr/local/cuda/bin/nvcc");
        return;
    }
    let project = Project::new();
    for (name, script, said) in [
        ("silent", "exit 1", "silent/nvcc failed and said nothing (exit status: 1)"),
        ("killed", "kill -9 $$", "killed/nvcc failed and said nothing (signal: 9"),
        ("talks", "echo 'no licence' >&2; exit 3", "talks/nvcc failed (exit status: 3): no licence"),
        ("garbage", "echo hello; echo world", "garbage/nvcc --version does not say its version, but \"hello\""),
        ("empty-words", "exit 0", "empty-words/nvcc --version does not say its version, but \"\""),
        ("old", &working("11.0.194", WRITES), "old/nvcc is nvcc 11.0.194, and the kernels need 11.8 or newer"),
        ("older", &working("9.2.88", WRITES), "older/nvcc is nvcc 9.2.88, and the kernels need 11.8 or newer"),
    ] {
        let nvcc = project.nvcc(name, script);
        let (goes_on, shown) = project.build(&[&nvcc], &[]);
        assert!(goes_on && shown.len() == 1, "{name}: {shown:?}");
        assert!(shown[0].starts_with("cargo::warning=built without CUDA kernels: "), "{name}: {shown:?}");
        assert!(shown[0].contains(said) && shown[0].contains("run `make cuda`"), "{name}: {shown:?}");
        let (goes_on, shown) = project.build(&[&nvcc], &[("ADALI_REQUIRE_CUDA", "yes")]);
        assert!(!goes_on && shown.len() == 1, "{name}: {shown:?}");
        assert!(
            shown[0].starts_with("cargo::error=ADALI_REQUIRE_CUDA=yes, but ") && shown[0].contains(said),
            "{shown:?}"
        );
    }
}

#[test]
fn a_kernel_that_is_not_compiled_ends_the_build() {
    let project = Project::new();
    for (name, compile, said) in [
        ("silent", "exit 1", "nvcc failed and said nothing (exit status: 1)"),
        ("killed", "kill -9 $$", "nvcc failed and said nothing (signal: 9"),
        ("idle", "exit 0", "nvcc ended well and wrote no "),
        (
            "talks",
            "echo 'ptxas info: x'; echo 'nvcc fatal: no' >&2; exit 2",
            "nvcc failed (exit status: 2): nvcc fatal: no",
        ),
    ] {
        let nvcc = project.nvcc(name, &working("11.8.89", compile));
        let (goes_on, shown) = project.build(&[&nvcc, Path::new("/usr/bin"), Path::new("/bin")], &[]);
        assert!(!goes_on && shown.iter().all(|line| line.contains(said)), "{name}: {shown:?}");
        assert!(shown[0].starts_with("cargo::error=cannot compile kernels/one.cu"), "{name}: {shown:?}");
        assert_eq!(shown.len(), if name == "idle" { 2 } else { 1 }, "the same once: {name}: {shown:?}");
    }
}

#[test]
fn another_nvcc_that_works_is_taken() {
    let project = Project::new();
    let old = project.nvcc("old", &working("11.7.64", WRITES));
    let new = project.nvcc("new", &working("11.8.89", WRITES));
    let (goes_on, shown) = project.build(&[&old, &new], &[("ADALI_REQUIRE_CUDA", "1")]);
    assert!(goes_on && shown.len() == 1, "{shown:?}");
    assert!(shown[0].contains("old/nvcc is nvcc 11.7.64") && shown[0].ends_with("new/nvcc is used"), "{shown:?}");
    let table = fs::read_to_string(project.home.path().join("out/kernels.rs")).unwrap();
    assert!(table.contains("Some(\"nvcc 11.8.89\")") && table.contains("two.fatbin"), "{table}");
    let required = [("ADALI_REQUIRE_CUDA", "1"), ("ADALI_CUDA_ARCHS", "80,120a")];
    let (goes_on, shown) = project.build(&[&new], &required);
    if !Path::new("/usr/local/cuda/bin/nvcc").exists() {
        let said = "nvcc 11.8.89, which has no sm_120 of ADALI_CUDA_ARCHS (it has sm_80, sm_90)";
        assert!(!goes_on && shown.len() == 1 && shown[0].contains(said), "{shown:?}");
    }
    let (goes_on, shown) = project.build(&[&new], &[("ADALI_CUDA_ARCHS", "hopper")]);
    assert!(
        !goes_on && shown == [r#"cargo::error=ADALI_CUDA_ARCHS="hopper" is not a list such as 80,90a"#],
        "{shown:?}"
    );
}

#[test]
fn what_requires_cuda() {
    if Path::new("/usr/local/cuda/bin/nvcc").exists() {
        eprintln!("left out: build.rs would find this machine's own /usr/local/cuda/bin/nvcc");
        return;
    }
    let project = Project::new();
    let empty = project.home.path().join("empty");
    for (value, required) in [
        ("", false),
        ("0", false),
        ("no", false),
        ("False", false),
        ("off", false),
        ("1", true),
        ("yes", true),
        ("on", true),
    ] {
        let (goes_on, shown) = project.build(&[&empty], &[("ADALI_REQUIRE_CUDA", value)]);
        assert!(goes_on != required && shown.len() == 1, "{value:?}: {shown:?}");
        assert!(shown[0].contains("nvcc is neither in $CUDA_HOME/bin"), "{value:?}: {shown:?}");
    }
}
