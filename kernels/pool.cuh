// A spike pool: its extents, and the pixels that each of its windows covers.
#pragma once
#include "device.cuh"

enum PoolKind : uint32_t { NO_POOL, MAX_POOL, AVG_POOL };

struct Pool {
    uint32_t input_h, input_w, output_h, output_w;
    uint32_t kernel_h, kernel_w, stride_h, stride_w, padding_h, padding_w;
    uint32_t kind;  // PoolKind
    uint32_t padding;
};

// The part of a window that lies in the image: rows top … bottom - 1, columns left … right - 1.
struct PoolWindow {
    uint32_t top, bottom, left, right;

    // Windows are numbered in row-major order.
    DEVICE PoolWindow(const Pool& pool, uint32_t window) {
        const uint32_t y = window / pool.output_w * pool.stride_h, x = window % pool.output_w * pool.stride_w;
        top = clip(y, pool.padding_h, pool.input_h);
        bottom = clip(y + pool.kernel_h, pool.padding_h, pool.input_h);
        left = clip(x, pool.padding_w, pool.input_w);
        right = clip(x + pool.kernel_w, pool.padding_w, pool.input_w);
    }

private:
    static DEVICE uint32_t clip(uint32_t at, uint32_t padding, uint32_t extent) {
        return min(max(at, padding) - padding, extent);
    }
};
