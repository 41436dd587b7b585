//! The scheduler's interface; see `kernels/emulator/schedule.cpp`, `registry.cpp` and `memory.cpp`.

use std::ffi::{c_char, c_void};

unsafe extern "C" {
    pub fn adali_emulator_allocate(bytes: usize) -> *mut c_void;
    pub fn adali_emulator_free(at: *mut c_void);
    pub fn adali_emulator_host_wrote(at: *const c_void, bytes: usize) -> bool;
    pub fn adali_emulator_written(at: *const c_void, bytes: usize) -> usize;
    pub fn adali_emulator_set_yield(switch: unsafe extern "C-unwind" fn(*mut c_void));
    pub fn adali_emulator_kernel(name: *const u8, length: usize) -> *const c_void;
    pub fn adali_emulator_kernel_params(kernel: *const c_void) -> usize;
    pub fn adali_emulator_kernel_threads(kernel: *const c_void) -> u32;
    pub fn adali_emulator_kernel_name(i: usize) -> *const c_char;
    pub fn adali_emulator_layout(i: usize, size: *mut usize) -> *const c_char;
    pub fn adali_emulator_field(i: usize, field: usize, offset: *mut usize, size: *mut usize) -> *const c_char;
    pub fn adali_emulator_launch_begin(
        kernel: *const c_void,
        grid: *const u32,
        threads: *const u32,
        shared: usize,
        params: *const u8,
        seed: u64,
    ) -> *mut c_void;
    pub fn adali_emulator_launch_end(launch: *mut c_void, report: *mut c_char, size: usize);
    pub fn adali_emulator_block_begin(launch: *mut c_void, number: u32) -> *mut c_void;
    pub fn adali_emulator_block_next(block: *mut c_void) -> i32;
    pub fn adali_emulator_block_end(block: *mut c_void);
}
unsafe extern "C-unwind" {
    pub fn adali_emulator_thread(
        block: *mut c_void,
        index: u32,
        yielder: *mut c_void,
        stack_low: *const c_void,
        stack_high: *const c_void,
    );
}
