//! Parameter structs: the host's and the kernels' layouts are the same.

use adali::backend::gpu::emulator::Emulator;
use adali::backend::gpu::params;

#[test]
fn parameter_structs_are_laid_out_alike() {
    let layouts = Emulator::layouts();
    for layout in &layouts {
        let host = params::ALL.iter().find(|(name, ..)| *name == layout.name);
        let (_, size, fields) = host.unwrap_or_else(|| panic!("the host has no struct {}", layout.name));
        let fields: Vec<_> = fields.iter().map(|&(name, offset, size)| (name.to_string(), offset, size)).collect();
        assert_eq!((layout.size, &layout.fields), (*size, &fields), "{}", layout.name);
    }
    assert_eq!(layouts.len(), params::ALL.len(), "every struct of the host is a kernel's");
}
