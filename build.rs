//! Compiles the CUDA kernels with nvcc into fatbins that `src/kernels.rs` embeds, together with ptxas' report on them.
//! Tests learn from `cfg(kernels)` whether kernels were built, and from `ADALI_NVCC` by which nvcc.
//!
//! Environment: `CUDA_HOME`, `NVCC_CCBIN` (nvcc's host compiler), `NVCC_PREPEND_FLAGS`, `NVCC_APPEND_FLAGS`,
//! `ADALI_CUDA_ARCHS` (default `80,90`), `ADALI_REQUIRE_CUDA` (fail if there is no usable nvcc, unless this is empty,
//! 0, no, false or off).

#[path = "kernels/build/nvcc.rs"]
mod nvcc;
#[path = "kernels/build/report.rs"]
mod report;
#[path = "kernels/build/tools.rs"]
mod tools;

use nvcc::{NVCC_VARIABLES, Nvcc};
use report::{MAY_SPILL, Resources};
use std::env;
use std::path::{Path, PathBuf};
use tools::{KERNELS, fail, files, in_parallel, stem, write};

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
