//! Parameter structs: the host's and the kernels' layouts are the same.

use adali::backend::gpu::emulator::Emulator;
use adali::backend::gpu::{params, tile};
use adali::kernels::{COMPILER, REPORT};

#[test]
fn parameter_structs_are_laid_out_alike() {
    let (layouts, structs) = (Emulator::layouts(), params::all());
    for layout in &layouts {
        let host = structs.iter().find(|(name, ..)| *name == layout.name);
        let (_, size, fields) = host.unwrap_or_else(|| panic!("the host has no struct {}", layout.name));
        let fields: Vec<_> = fields.iter().map(|&(name, offset, size)| (name.to_string(), offset, size)).collect();
        assert_eq!((layout.size, &layout.fields), (*size, &fields), "{}", layout.name);
    }
    assert_eq!(layouts.len(), structs.len(), "every struct of the host is a kernel's");
}

#[test]
fn convolutions_declare_no_more_shared_memory_than_is_planned_for() {
    if COMPILER.is_none() {
        eprintln!("SKIPPED: built without nvcc, so the kernels' own shared memory is not known");
        return;
    }
    let mut cases = 0;
    for kernel in REPORT.iter().filter(|kernel| kernel.kernel.starts_with("conv_")) {
        let most = if kernel.kernel.starts_with("conv_input_grad") { 0 } else { tile::STATIC_SHARED };
        assert!(kernel.shared as usize <= most, "{} declares {} bytes", kernel.kernel, kernel.shared);
        cases += 1;
    }
    assert!(cases >= 30, "{cases} kernels");
}
