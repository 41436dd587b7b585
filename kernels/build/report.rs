//! What ptxas reports of each kernel.

use crate::tools::KERNELS;
use std::collections::BTreeMap;

/// Kernels with this in their name may spill and keep arrays on the stack.
pub const MAY_SPILL: &str = "_naive";

/// Printed as the `kernels::Resources` of `src/kernels.rs`.
#[derive(Clone, Debug, Default)]
pub struct Resources {
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

/// Parses the output of `ptxas -v` followed by `nvcc::ptx_bounds`. Functions that were not inlined follow the kernel
/// that calls them and count towards it.
pub fn parse_report(module: &str, text: &str) -> Vec<Resources> {
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
    pub fn complaint(&self) -> Option<String> {
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
