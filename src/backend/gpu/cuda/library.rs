//! The driver's library: whether it exists, and whether it has every function called here.
#![allow(unsafe_code)]

use anyhow::{Result, bail};
use cudarc::driver::sys;
use libloading::Library;

/// Functions that tell the driver's version, which decides what else it may lack.
pub(super) const VERSION: &[&str] = &["cuDriverGetVersion", "cuGetErrorString"];

/// The other functions that are called. `tests/drivers/nothing.c` has these and no others, so that a training or a benchmark
/// on it finds any that is missing here.
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

/// Whether the driver's library exists.
///
/// # Errors
/// If it exists but cannot be loaded, with the reason.
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

/// Whether the loader reports that there is no such file, rather than that the file, or one that it needs, is unusable.
fn absent(name: &str, why: &str) -> bool {
    let (glibc, musl) = (format!("{name}: cannot open"), format!("Error loading shared library {name}:"));
    cfg!(windows) || ((why.starts_with(&glibc) || why.starts_with(&musl)) && why.contains("No such file"))
}

/// Checks that the library, once found, has these functions: cudarc would panic on calling one that is missing.
///
/// # Errors
/// If a function is missing, with its name.
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
