//! Parameter structs have the same layout on the host and in the kernels.

use adali::backend::gpu::{params, tile};
use adali::kernels::REPORT;
use adali::surrogate::{Surrogate, SurrogateKind};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

/// nvcc's messages about the kernels' structs with these assertions; empty if all hold.
fn check(assertions: &str) -> String {
    let kernels = Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels");
    let (mut includes, mut structs) = (String::new(), String::new());
    for entry in fs::read_dir(&kernels).expect("a folder") {
        let path = entry.expect("a file").path();
        let text = fs::read_to_string(&path).unwrap_or_default();
        match path.extension().and_then(|extension| extension.to_str()) {
            Some("cuh") => includes += &format!("#include {:?}\n", path.file_name().expect("a name")),
            // Only the structs of plain fields: kernels take long to compile.
            Some("cu") => {
                for part in text.split("\nstruct ").skip(1) {
                    let lines = part.split("\n};").next().expect("a struct").lines();
                    let fields =
                        lines.map(|line| line.split("//").next().expect("a part")).collect::<Vec<_>>().join("\n");
                    let body = fields.split_once('{').expect("a body").1;
                    if !body.contains(['(', '<']) && !body.contains("constexpr") {
                        structs += &format!("struct {fields}\n}};\n");
                    }
                }
            }
            _ => {}
        }
    }
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("layouts.cu");
    fs::write(&source, format!("{includes}{structs}{assertions}")).expect("a file");
    let mut nvcc = Command::new(env!("ADALI_NVCC"));
    nvcc.args(["-ptx", "-std=c++17", "--expt-relaxed-constexpr", "-arch=compute_80", "-I"]).arg(&kernels);
    let output = nvcc.arg("-o").arg(folder.path().join("layouts.ptx")).arg(&source).output().expect("nvcc runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.success(), !said.contains("error"), "{said}");
    if output.status.success() { String::new() } else { said }
}

#[test]
fn parameter_structs_are_laid_out_alike() {
    let (mut assertions, mut names) = (String::new(), BTreeSet::new());
    for (name, size, fields) in params::all() {
        assertions += &format!("static_assert(sizeof({name}) == {size}, \"{name}\");\n");
        for (field, offset, size) in fields {
            let place = format!("{name}::{field}");
            assertions += &format!("static_assert(offsetof({name}, {field}) == {offset}, \"offset of {place}\");\n");
            assertions += &format!("static_assert(sizeof({place}) == {size}, \"size of {place}\");\n");
        }
        assert!(names.insert(name), "two structs are named {name}");
    }
    assert!(names.len() > 40, "{} structs", names.len());
    for &kind in SurrogateKind::all() {
        let (number, ..) = params::slope(&Surrogate::new(kind), 1.0);
        let name = if kind == SurrogateKind::Rectangle { SurrogateKind::Adali } else { kind };
        assertions += &format!("static_assert(uint32_t(SlopeKind::{name:?}) == {number}, \"{name:?}\");\n");
    }
    if !Path::new(env!("ADALI_NVCC")).exists() {
        eprintln!("LEFT OUT: the nvcc that compiled the kernels is not on this machine");
        return;
    }
    assert_eq!(check(&assertions), "");
    for wrong in ["sizeof(Places) == 16", "offsetof(Places, words) == 0", "sizeof(Places::steps) == 8"] {
        assert!(check(&format!("static_assert({wrong}, \"planted\");\n")).contains("planted"), "{wrong}");
    }
}

#[test]
fn convolutions_declare_no_more_shared_memory_than_is_planned_for() {
    let mut cases = 0;
    for kernel in REPORT.iter().filter(|kernel| kernel.kernel.starts_with("conv_")) {
        let most = if kernel.kernel.starts_with("conv_input_grad") { 0 } else { tile::STATIC_SHARED };
        assert!(kernel.shared as usize <= most, "{} declares {} bytes", kernel.kernel, kernel.shared);
        cases += 1;
    }
    assert!(cases >= 30, "{cases} kernels");
}
