// A libcuda.so.1 whose calls succeed and whose kernels do nothing: device memory is the host's and stays as it was set.
// What the program says of such a device is tested in tests/bench.rs; of one that cannot be used, which the settings below
// make of it, in tests/drivers.rs.
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef int Result;
typedef uint64_t Pointer;

enum { OK = 0, INVALID_DEVICE = 101, OUT_OF_MEMORY = 2 };

#ifndef VERSION
#define VERSION 99000
#endif
#ifndef INIT
#define INIT OK
#endif
#ifndef CARDS
#define CARDS 1
#endif
#ifndef LOAD
#define LOAD OK
#endif

static int context;
static __thread void *current;

Result cuInit(unsigned flags) { return INIT; }
Result cuDriverGetVersion(int *version) { *version = VERSION; return OK; }
Result cuGetErrorString(Result error, const char **text) { *text = "an error of the stand-in"; return OK; }
Result cuDeviceGet(int *device, int ordinal) { *device = ordinal; return ordinal == 0 ? OK : INVALID_DEVICE; }
Result cuDeviceGetCount(int *count) { *count = CARDS; return OK; }
Result cuDeviceGetName(char *name, int length, int device) { snprintf(name, length, "a card that does nothing"); return OK; }
Result cuDeviceGetAttribute(int *value, int attribute, int device) {
    switch (attribute) {
        case 13: *value = 1980000; break; // clock in kHz
        case 16: *value = 132; break;    // multiprocessors
        case 36: *value = 3201000; break; // memory clock
        case 75: *value = 9; break;      // compute capability 9.0
        case 97: *value = 232448; break; // shared memory of a block
        default: *value = attribute == 115; break; // memory pools
    }
    return OK;
}
Result cuDevicePrimaryCtxRetain(void **made, int device) { *made = &context; return OK; }
Result cuDevicePrimaryCtxRelease_v2(int device) { return OK; }
Result cuCtxGetCurrent(void **which) { *which = current; return OK; }
Result cuCtxSetCurrent(void *which) { current = which; return OK; }
Result cuCtxSynchronize(void) { return OK; }

Result cuModuleLoadData(void **module, const void *image) { *module = &context; return LOAD; }
Result cuModuleUnload(void *module) { return OK; }
Result cuModuleGetFunction(void **function, void *module, const char *name) { *function = &context; return OK; }
Result cuFuncGetAttribute(int *value, int attribute, void *function) { *value = attribute == 4 ? 64 : 0; return OK; }
Result cuFuncSetAttribute(void *function, int attribute, int value) { return OK; }
Result cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                      unsigned shared, void *stream, void **arguments, void **extra) {
    return OK;
}

Result cuMemAllocAsync(Pointer *memory, size_t bytes, void *stream) {
    *memory = (Pointer)(uintptr_t)calloc(bytes ? bytes : 1, 1);
    return *memory ? OK : OUT_OF_MEMORY;
}
Result cuMemAlloc_v2(Pointer *memory, size_t bytes) { return cuMemAllocAsync(memory, bytes, 0); }
Result cuMemFree_v2(Pointer memory) { free((void *)(uintptr_t)memory); return OK; }
Result cuMemFreeAsync(Pointer memory, void *stream) { free((void *)(uintptr_t)memory); return OK; }
Result cuMemGetInfo_v2(size_t *free, size_t *total) { *free = *total = (size_t)8 << 30; return OK; }
Result cuMemHostAlloc(void **memory, size_t bytes, unsigned flags) {
    *memory = calloc(bytes ? bytes : 1, 1);
    return *memory ? OK : OUT_OF_MEMORY;
}
Result cuMemFreeHost(void *memory) { free(memory); return OK; }
Result cuMemcpyHtoDAsync_v2(Pointer to, const void *from, size_t bytes, void *stream) {
    memcpy((void *)(uintptr_t)to, from, bytes);
    return OK;
}
Result cuMemcpyDtoHAsync_v2(void *to, Pointer from, size_t bytes, void *stream) {
    memcpy(to, (const void *)(uintptr_t)from, bytes);
    return OK;
}
Result cuMemsetD8Async(Pointer memory, unsigned char value, size_t bytes, void *stream) {
    memset((void *)(uintptr_t)memory, value, bytes);
    return OK;
}

Result cuStreamCreate(void **stream, unsigned flags) { *stream = malloc(1); return OK; }
Result cuStreamDestroy_v2(void *stream) { free(stream); return OK; }
Result cuStreamSynchronize(void *stream) { return OK; }
Result cuStreamWaitEvent(void *stream, void *event, unsigned flags) { return OK; }
Result cuStreamBeginCapture_v2(void *stream, int mode) { return OK; }
Result cuStreamEndCapture(void *stream, void **graph) { *graph = &context; return OK; }
Result cuEventCreate(void **event, unsigned flags) { *event = malloc(1); return OK; }
Result cuEventDestroy_v2(void *event) { free(event); return OK; }
Result cuEventRecord(void *event, void *stream) { return OK; }
Result cuEventQuery(void *event) { return OK; }
Result cuEventSynchronize(void *event) { return OK; }
Result cuEventElapsedTime(float *milliseconds, void *from, void *to) { *milliseconds = 30.0f; return OK; }
Result cuGraphInstantiateWithFlags(void **made, void *graph, unsigned long long flags) { *made = &context; return OK; }
Result cuGraphUpload(void *graph, void *stream) { return OK; }
Result cuGraphLaunch(void *graph, void *stream) { return OK; }
Result cuGraphDestroy(void *graph) { return OK; }
Result cuGraphExecDestroy(void *graph) { return OK; }
