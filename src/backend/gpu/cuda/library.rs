//! The driver's library: whether there is one, and whether it has every function that is called here.
#![allow(unsafe_code)]

use anyhow::{Result, bail};
use cudarc::driver::sys;
use libloading::Library;

/// What tells how old the driver is, which decides what else it may lack.
pub(super) const VERSION: &[&str] = &["cuDriverGetVersion", "cuGetErrorString"];

/// What is called besides. `tests/drivers/nothing.c` has these functions and no others, so a training or a benchmark on
/// it finds one that is missing here.
pub(super) const ALL: &[&str] = &[
    "cuCtxGetCurrent",
    "cuCtxSetCurrent",
    "cuCtxSynchronize",
    "cuDeviceGet",
    "cuDeviceGetAttribute",
    "cuDeviceGetCount",
    "cuDeviceGetName",
    "cuDevicePrimaryCtxRelease_v2",
    "cuDevicePrimaryCtxRetain",
    "cuEventCreate",
    "cuEventDestroy_v2",
    "cuEventElapsedTime",
    "cuEventQuery",
    "cuEventRecord",
    "cuEventSynchronize",
    "cuFuncGetAttribute",
    "cuFuncSetAttribute",
    "cuGraphDestroy",
    "cuGraphExecDestroy",
    "cuGraphInstantiateWithFlags",
    "cuGraphLaunch",
    "cuGraphUpload",
    "cuInit",
    "cuLaunchKernel",
    "cuMemAllocAsync",
    "cuMemAlloc_v2",
    "cuMemFreeAsync",
    "cuMemFreeHost",
    "cuMemFree_v2",
    "cuMemGetInfo_v2",
    "cuMemHostAlloc",
    "cuMemcpyDtoHAsync_v2",
    "cuMemcpyHtoDAsync_v2",
    "cuMemsetD8Async",
    "cuModuleGetFunction",
    "cuModuleLoadData",
    "cuModuleUnload",
    "cuStreamBeginCapture_v2",
    "cuStreamCreate",
    "cuStreamDestroy_v2",
    "cuStreamEndCapture",
    "cuStreamSynchronize",
    "cuStreamWaitEvent",
];

/// Whether the driver's library is there.
///
/// # Errors
/// Where it is there and cannot be loaded: why.
pub(super) fn find() -> Result<bool> {
    // SAFETY: it opens the driver's library, whose initialisers are NVIDIA's own.
    if unsafe { sys::is_culib_present() } {
        return Ok(true);
    }
    for name in cudarc::get_lib_name_candidates("cuda") {
        // SAFETY: as above.
        if let Err(error) = unsafe { Library::new(&name) } {
            let why = std::error::Error::source(&error).map_or(error.to_string(), |source| source.to_string());
            if !absent(&name, &why) {
                bail!(
                    "the NVIDIA driver's library cannot be loaded: {why}; install the driver again, or start \
                     the container with its cards (docker run --gpus all)"
                );
            }
        }
    }
    Ok(false)
}

/// Whether the loader says that there is no such file, rather than that it, or one that it needs, is of no use.
fn absent(name: &str, why: &str) -> bool {
    let (glibc, musl) = (format!("{name}: cannot open"), format!("Error loading shared library {name}:"));
    cfg!(windows) || ((why.starts_with(&glibc) || why.starts_with(&musl)) && why.contains("No such file"))
}

/// Checks that the library, which was found, has these functions: cudarc would panic where one is called that it lacks.
///
/// # Errors
/// Names one that is missing.
pub(super) fn demand(functions: &[&str]) -> Result<()> {
    // SAFETY: it opens the library that was found before.
    let library = unsafe { sys::culib() };
    for &function in functions {
        // SAFETY: the address is looked up, and not used.
        if unsafe { library.get::<*const ()>(function) }.is_err() {
            bail!(
                "the NVIDIA driver's library lacks the function {function}; install the driver again, or a newer one"
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_missing_library_is_not_a_broken_one() {
        let name = "libcuda.so.1";
        assert!(absent(name, "libcuda.so.1: cannot open shared object file: No such file or directory"));
        assert!(absent(name, "Error loading shared library libcuda.so.1: No such file or directory"));
        if cfg!(not(windows)) {
            assert!(!absent(name, "libnvidia-x.so.1: cannot open shared object file: No such file or directory"));
            assert!(!absent(name, "/usr/lib/libcuda.so.1: file too short"));
            assert!(!absent(name, "libcuda.so.1: cannot open shared object file: Permission denied"));
        }
    }

    #[test]
    fn the_driver_that_does_nothing_has_these_functions_and_no_others() {
        let source = include_str!("../../../../tests/drivers/nothing.c");
        let defined = source.lines().filter_map(|line| line.strip_prefix("Result ")?.split('(').next());
        let named = VERSION.iter().chain(ALL).copied();
        assert_eq!(named.collect::<BTreeSet<_>>(), defined.collect());
    }
}
