// Looks up rows of the embedding table and scales them.
//
//   token_ids (rows) · table (vocab, width) bf16 → out (rows, width) f32
//
// One block per row, eight numbers per thread and iteration.

KERNEL __launch_bounds__(256) embed(const u32* token_ids, const bf16* table, float scale, u32 width,
                                    float* out) {
    wait_for_earlier_kernels();
    let_next_kernel_start();
    u64 row = blockIdx.x;
    const bf16* from = table + static_cast<u64>(token_ids[row]) * width;
    float* to = out + row * width;
    for (u32 column = threadIdx.x * 8; column < width; column += blockDim.x * 8) {
        float x[8];
        widen8(x, load16(from + column));
        for (u32 idx = 0; idx < 8; idx++) {
            to[column + idx] = x[idx] * scale;
        }
    }
}

// Copies tokens that the host has not seen: row pairs[i].x takes sample pairs[i].y of the previous
// step.
//
//   pairs (fed, 2) · samples (samples) → token_ids (rows)
//
// One thread per pair.
KERNEL __launch_bounds__(256) feed(const uint2* pairs, u32 num_pairs, const u32* sampled_tokens,
                                   u32* token_ids) {
    wait_for_earlier_kernels();
    let_next_kernel_start();
    u32 idx = blockIdx.x * blockDim.x + threadIdx.x;
    if (idx < num_pairs) {
        token_ids[pairs[idx].x] = sampled_tokens[pairs[idx].y];
    }
}
