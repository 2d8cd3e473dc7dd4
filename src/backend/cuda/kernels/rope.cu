// Applies norm and RoPE to q and k, and writes k and v into the cache's blocks.
//
// Fixed at compile time: HEAD_DIM, NUM_HEADS, NUM_KV_HEADS, KV_BLOCK (positions per block).
// Pools: (blocks, NUM_KV_HEADS, KV_BLOCK, HEAD_DIM) bf16.

// Computes cosines and sines of a step: positions (rows) · inv_freq (HALF) → angles (rows, 2, HALF)
// f32
//
// One block per row.
KERNEL __launch_bounds__(128) cos_sin(const u32* positions, const float* inv_freq, float* out) {
    wait_for_earlier_kernels();
    let_next_kernel_start();
    u64 row = blockIdx.x;
    float position = static_cast<float>(positions[row]);
    for (u32 idx = threadIdx.x; idx < HALF_HEAD; idx += blockDim.x) {
        float angle = position * inv_freq[idx];
        out[row * HEAD_DIM + idx] = cosf(angle);
        out[row * HEAD_DIM + HALF_HEAD + idx] = sinf(angle);
    }
}

// qkv (rows, (NUM_HEADS + 2·NUM_KV_HEADS)·HEAD_DIM) f32, angles as above, norms (HEAD_DIM) f32,
// 1 + w → q (rows, NUM_HEADS·HEAD_DIM) bf16, and k, v in the pools where `tables` says:
// position p of sequence s lies in block tables[s·table_stride + p / KV_BLOCK − num_released[s]].
//
// One warp per head of a row; blocks of 4 warps; grid (rows, all heads / 4).
KERNEL __launch_bounds__(128)
    rope_and_cache(const float* qkv, const float* cos_sin, const float* query_norm,
                     const float* key_norm, float eps, const u32* positions,
                     const u32* sequence_of_row, const u32* tables, u32 table_stride,
                     const u32* num_released, bf16* q, bf16* keys, bf16* values) {
    constexpr u32 ALL_HEADS = NUM_HEADS + 2 * NUM_KV_HEADS;
    wait_for_earlier_kernels();
    let_next_kernel_start();
    u64 row = blockIdx.x;
    u32 head = blockIdx.y * 4 + threadIdx.x / WARP;
    if (head >= ALL_HEADS) {
        return;  // a whole warp, and no other warp waits for it
    }
    bool is_value = head >= NUM_HEADS + NUM_KV_HEADS;
    bool is_query = head < NUM_HEADS;
    bf16* to;
    if (is_query) {
        to = q + (row * NUM_HEADS + head) * HEAD_DIM;
    } else {
        u32 position = positions[row];
        u32 sequence = sequence_of_row[row];
        u64 block = tables[static_cast<u64>(sequence) * table_stride + position / KV_BLOCK -
                           num_released[sequence]];
        u32 kv_head = head - NUM_HEADS - (is_value ? NUM_KV_HEADS : 0);
        to = (is_value ? values : keys) +
             ((block * NUM_KV_HEADS + kv_head) * KV_BLOCK + position % KV_BLOCK) * HEAD_DIM;
    }
    const float* norm = is_value ? nullptr : is_query ? query_norm : key_norm;
    norm_and_turn(qkv + (row * ALL_HEADS + head) * HEAD_DIM, norm, eps, cos_sin + row * HEAD_DIM,
                  [&](u32 idx, float x) { to[idx] = narrow(x); });
}
