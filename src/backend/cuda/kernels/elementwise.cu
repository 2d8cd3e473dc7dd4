// Element-wise kernels: activations, sums, row copies, pooling.
//
// Unless a kernel says otherwise: blocks of 256 threads, one number per thread and iteration, as
// many blocks as cover `count`.

#define FOR_EACH(idx, count)                                                        \
    for (u64 idx = static_cast<u64>(blockIdx.x) * blockDim.x + threadIdx.x;         \
         idx < (count);                                                             \
         idx += static_cast<u64>(gridDim.x) * blockDim.x)

// gate_up (rows, 2·width) f32, gate first → gelu_tanh(gate) · up (rows, width) bf16
KERNEL __launch_bounds__(256) geglu(const float* gate_up, u64 count, u32 width, bf16* out) {
    wait_for_earlier_kernels();
    let_next_kernel_start();
    FOR_EACH(idx, count) {
        u64 row = idx / width;
        u64 column = idx - row * width;
        const float* gate = gate_up + row * 2 * width + column;
        out[idx] = narrow(gelu_tanh(gate[0]) * gate[width]);
    }
}

// x (count) f32 → gelu_tanh(x) (count) bf16
KERNEL __launch_bounds__(256) gelu(const float* x, u64 count, bf16* out) {
    wait_for_earlier_kernels();
    let_next_kernel_start();
    FOR_EACH(idx, count) { out[idx] = narrow(gelu_tanh(x[idx])); }
}

// out = a + b, f32; `out` may be either.
KERNEL __launch_bounds__(256) add(const float* a, const float* b, u64 count, float* out) {
    wait_for_earlier_kernels();
    let_next_kernel_start();
    FOR_EACH(idx, count) { out[idx] = a[idx] + b[idx]; }
}

// x (count) f32 → (count) bf16
KERNEL __launch_bounds__(256) to_bf16(const float* x, u64 count, bf16* out) {
    wait_for_earlier_kernels();
    let_next_kernel_start();
    FOR_EACH(idx, count) { out[idx] = narrow(x[idx]); }
}

// x (count) bf16 → (count) f32
KERNEL __launch_bounds__(256) to_f32(const bf16* x, u64 count, float* out) {
    wait_for_earlier_kernels();
    let_next_kernel_start();
    FOR_EACH(idx, count) { out[idx] = widen(x[idx]); }
}

// Copies the given rows, in order: x (…, row_chunks) · rows (selected) → out (selected,
// row_chunks), in chunks of 16 bytes, for any number type.
KERNEL __launch_bounds__(256) select_rows(const uint4* x, const u32* rows, u64 count,
                                          u32 row_chunks, uint4* out) {
    wait_for_earlier_kernels();
    let_next_kernel_start();
    FOR_EACH(idx, count) {
        u64 row = idx / row_chunks;
        u64 chunk = idx - row * row_chunks;
        store16(out + idx, load16(x + static_cast<u64>(rows[row]) * row_chunks + chunk));
    }
}

// Mean over kernel × kernel patches: x (images·grid², width) f32 →
// out (images·(grid/kernel)², width) f32
KERNEL __launch_bounds__(256) average_pool(const float* x, u64 count, u32 grid, u32 kernel,
                                           u32 width, float* out) {
    wait_for_earlier_kernels();
    let_next_kernel_start();
    u32 pooled = grid / kernel;
    FOR_EACH(idx, count) {
        u64 row = idx / width;
        u64 column = idx - row * width;
        u64 image = row / (pooled * pooled);
        u64 place = row - image * pooled * pooled;
        u64 top = place / pooled * kernel;
        u64 left = place % pooled * kernel;
        float sum = 0.0f;
        for (u32 y = 0; y < kernel; y++) {
            for (u32 z = 0; z < kernel; z++) {
                sum += x[((image * grid + top + y) * grid + left + z) * width + column];
            }
        }
        out[idx] = sum / (kernel * kernel);
    }
}

// Normalised patches, channel first: rgb (size, size, 3) u8 → out (grid², padded) bf16, where a
// row holds 3·patch² numbers and then zeros.
KERNEL __launch_bounds__(256) patches(const u8* rgb, u64 count, u32 size, u32 patch, u32 padded,
                                      bf16* out) {
    wait_for_earlier_kernels();
    let_next_kernel_start();
    u32 grid = size / patch;
    FOR_EACH(idx, count) {
        u32 row = static_cast<u32>(idx / padded);
        u32 column = static_cast<u32>(idx - static_cast<u64>(row) * padded);
        float x = 0.0f;
        if (column < 3 * patch * patch) {
            u32 channel = column / (patch * patch);
            u32 place = column - channel * patch * patch;
            u32 y = row / grid * patch + place / patch;
            u32 z = row % grid * patch + place % patch;
            u8 level = rgb[(static_cast<u64>(y) * size + z) * 3 + channel];
            x = (static_cast<float>(level) - 127.5f) / 127.5f;
        }
        out[idx] = narrow(x);
    }
}
