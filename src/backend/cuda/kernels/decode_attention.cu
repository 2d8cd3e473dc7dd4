// Attention of single rows over the paged cache, limited by memory bandwidth.
//
//   q (rows, NUM_KV_HEADS·GROUP·HEAD_DIM) bf16 · pools → out, as q
//
// Fixed at compile time: HEAD_DIM (16, 32, 64, 128 or 256), GROUP query heads per key head,
// NUM_KV_HEADS, KV_BLOCK, and FUSED: 1 to take qkv as rope.cu does instead of q. Every block then
// applies norm and RoPE to its own query heads, and the block whose split ends with the row's own
// position writes the row's key and value into the cache before it reads them there. Every row must
// be the last of its sequence, so that no other row reads what is written.
//
// Pools and tables are as in rope.cu; row r sees the positions from key_ranges[r].x up to
// key_ranges[r].y. They are read here, so that a captured launch works for any length.
//
// Grid (splits, NUM_KV_HEADS, rows), blocks of 4 warps. A split is a part of the row's keys; a key
// is read once for its whole group of query heads. HEAD_DIM / 8 lanes hold one key, eight numbers
// each. With more than one split the last block to finish a (row, key head) combines them:
//   partial (rows, NUM_KV_HEADS, splits, GROUP, HEAD_DIM) f32, not yet divided by its sum
//   stats   (rows, NUM_KV_HEADS, splits, GROUP) of (largest score, sum)
//   counters (rows, NUM_KV_HEADS), zero before and after

constexpr u32 NUM_WARPS = 4;
constexpr u32 KEY_LANES = HEAD_DIM / 8;
// Keys that a warp holds at once, and how many groups of them it loads before it uses them.
constexpr u32 WARP_KEYS = WARP / KEY_LANES;
constexpr u32 TURNS = 4;

// Weight of a partial softmax when softmaxes over different keys are combined.
__device__ __forceinline__ float weight_of(float largest, float largest_of_all) {
    return largest == minus_infinity() ? 0.0f : expf(largest - largest_of_all);
}

KERNEL __launch_bounds__(128)
    decode_attention(const bf16* q, const float* qkv, const float* cos_sin, const float* query_norm,
                     const float* key_norm, float eps, bf16* keys, bf16* values,
                     const u32* sequence_of_row, const uint2* key_ranges, const u32* tables, u32 table_stride,
                     const u32* num_released, float scale, float* partial, float2* stats,
                     u32* counters, bf16* out) {
    SHARED_MEMORY(memory);
    float* warp_sums = reinterpret_cast<float*>(memory);                    // (NUM_WARPS, GROUP, HEAD_DIM)
    float2* warp_stats =
        reinterpret_cast<float2*>(warp_sums + NUM_WARPS * GROUP * HEAD_DIM);  // (NUM_WARPS, GROUP)
    u32* ticket = reinterpret_cast<u32*>(warp_stats + NUM_WARPS * GROUP);

    wait_for_earlier_kernels();
    let_next_kernel_start();
    u32 split = blockIdx.x;
    u32 num_splits = gridDim.x;
    u32 kv_head = blockIdx.y;
    u32 row = blockIdx.z;
    u32 warp = threadIdx.x / WARP;
    u32 lane = threadIdx.x % WARP;
    u32 column = lane % KEY_LANES * 8;
    u64 first_head = (static_cast<u64>(row) * NUM_KV_HEADS + kv_head) * GROUP;

    u32 sequence = sequence_of_row[row];
    const u32* table = tables + static_cast<u64>(sequence) * table_stride;
    u32 released = num_released[sequence];
    uint2 range = key_ranges[row];
    u32 share = div_up(range.y - range.x, num_splits);
    u32 begin = range.x + smaller(split * share, range.y - range.x);
    u32 end = smaller(begin + share, range.y);

#if FUSED
    constexpr u32 NUM_HEADS = NUM_KV_HEADS * GROUP;
    const float* row_qkv = qkv + static_cast<u64>(row) * (NUM_HEADS + 2 * NUM_KV_HEADS) * HEAD_DIM;
    const float* row_angles = cos_sin + static_cast<u64>(row) * HEAD_DIM;
    // (GROUP, HEAD_DIM), in the memory that holds the warps' sums later.
    bf16* queries = reinterpret_cast<bf16*>(memory);
    bool is_owner = begin < end && end == range.y;
    for (u32 head = warp; head < GROUP + (is_owner ? 2 : 0); head += NUM_WARPS) {
        if (head < GROUP) {
            bf16* to = queries + head * HEAD_DIM;
            norm_and_turn(row_qkv + (kv_head * GROUP + head) * HEAD_DIM, query_norm, eps, row_angles,
                          [&](u32 idx, float x) { to[idx] = narrow(x); });
        } else {
            bool is_value = head > GROUP;
            u32 position = range.y - 1;
            u64 block = table[position / KV_BLOCK - released];
            bf16* to = (is_value ? values : keys) +
                       ((block * NUM_KV_HEADS + kv_head) * KV_BLOCK + position % KV_BLOCK) * HEAD_DIM;
            u32 from = NUM_HEADS + (is_value ? NUM_KV_HEADS : 0) + kv_head;
            norm_and_turn(row_qkv + from * HEAD_DIM, is_value ? nullptr : key_norm, eps, row_angles,
                          [&](u32 idx, float x) { to[idx] = narrow(x); });
        }
    }
    __syncthreads();
    const bf16* own_queries = queries;
#else
    const bf16* own_queries = q + first_head * HEAD_DIM;
#endif

    float query[GROUP][8];
    float sums[GROUP][8];
    float largest[GROUP];
    float total[GROUP];
#pragma unroll
    for (u32 head = 0; head < GROUP; head++) {
        widen8(query[head], load16(own_queries + head * HEAD_DIM + column));
        largest[head] = minus_infinity();
        total[head] = 0.0f;
#pragma unroll
        for (u32 idx = 0; idx < 8; idx++) {
            query[head][idx] *= scale;
            sums[head][idx] = 0.0f;
        }
    }

#if FUSED
    __syncthreads();  // the queries are read, and their memory is free
#endif

    for (u32 base = begin + warp * WARP_KEYS * TURNS; base < end;
         base += NUM_WARPS * WARP_KEYS * TURNS) {
        uint4 key[TURNS];
        uint4 value[TURNS];
        bool valid[TURNS];
#pragma unroll
        for (u32 turn = 0; turn < TURNS; turn++) {
            u32 position = base + turn * WARP_KEYS + lane / KEY_LANES;
            valid[turn] = position < end;
            key[turn] = uint4{0, 0, 0, 0};
            value[turn] = uint4{0, 0, 0, 0};
            if (valid[turn]) {
                u64 block = table[position / KV_BLOCK - released];
                u64 place = ((block * NUM_KV_HEADS + kv_head) * KV_BLOCK + position % KV_BLOCK) *
                                HEAD_DIM +
                            column;
                key[turn] = load16(keys + place);
                value[turn] = load16(values + place);
            }
        }
#pragma unroll
        for (u32 head = 0; head < GROUP; head++) {
            float scores[TURNS];
            float best = largest[head];
#pragma unroll
            for (u32 turn = 0; turn < TURNS; turn++) {
                float k[8];
                widen8(k, key[turn]);
                float score = 0.0f;
#pragma unroll
                for (u32 idx = 0; idx < 8; idx++) {
                    score += query[head][idx] * k[idx];
                }
#pragma unroll
                for (u32 step = KEY_LANES / 2; step > 0; step /= 2) {
                    score += __shfl_xor_sync(ALL_LANES, score, step);
                }
                scores[turn] = valid[turn] ? score : minus_infinity();
                best = fmaxf(best, scores[turn]);
            }
            float kept = weight_of(largest[head], best);
            largest[head] = best;
            total[head] *= kept;
#pragma unroll
            for (u32 idx = 0; idx < 8; idx++) {
                sums[head][idx] *= kept;
            }
#pragma unroll
            for (u32 turn = 0; turn < TURNS; turn++) {
                float v[8];
                widen8(v, value[turn]);
                float share_of_key = weight_of(scores[turn], best);
                total[head] += share_of_key;
#pragma unroll
                for (u32 idx = 0; idx < 8; idx++) {
                    sums[head][idx] += share_of_key * v[idx];
                }
            }
        }
    }

    // Combine over the keys of a warp, then over the warps of the block.
#pragma unroll
    for (u32 head = 0; head < GROUP; head++) {
#pragma unroll
        for (u32 step = KEY_LANES; step < WARP; step *= 2) {
            float other = __shfl_xor_sync(ALL_LANES, largest[head], step);
            float best = fmaxf(largest[head], other);
            float mine = weight_of(largest[head], best);
            float theirs = weight_of(other, best);
            total[head] = total[head] * mine +
                          __shfl_xor_sync(ALL_LANES, total[head], step) * theirs;
#pragma unroll
            for (u32 idx = 0; idx < 8; idx++) {
                sums[head][idx] = sums[head][idx] * mine +
                                  __shfl_xor_sync(ALL_LANES, sums[head][idx], step) * theirs;
            }
            largest[head] = best;
        }
        if (lane < KEY_LANES) {
#pragma unroll
            for (u32 idx = 0; idx < 8; idx++) {
                warp_sums[(warp * GROUP + head) * HEAD_DIM + column + idx] = sums[head][idx];
            }
        }
        if (lane == 0) {
            warp_stats[warp * GROUP + head] = float2{largest[head], total[head]};
        }
    }
    __syncthreads();

    u64 place = static_cast<u64>(row) * NUM_KV_HEADS + kv_head;
    for (u32 idx = threadIdx.x; idx < GROUP * HEAD_DIM; idx += blockDim.x) {
        u32 head = idx / HEAD_DIM;
        float best = minus_infinity();
        for (u32 part = 0; part < NUM_WARPS; part++) {
            best = fmaxf(best, warp_stats[part * GROUP + head].x);
        }
        float sum = 0.0f;
        float all = 0.0f;
        for (u32 part = 0; part < NUM_WARPS; part++) {
            float w = weight_of(warp_stats[part * GROUP + head].x, best);
            sum += w * warp_sums[part * GROUP * HEAD_DIM + idx];
            all += w * warp_stats[part * GROUP + head].y;
        }
        if (num_splits == 1) {
            out[first_head * HEAD_DIM + idx] = narrow(sum / all);
        } else {
            partial[(place * num_splits + split) * GROUP * HEAD_DIM + idx] = sum;
            if (idx % HEAD_DIM == 0) {
                stats[(place * num_splits + split) * GROUP + head] = float2{best, all};
            }
        }
    }
    if (num_splits == 1) {
        return;
    }

    // This block's results must be visible before its counter increment.
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        *ticket = atomicAdd(&counters[place], 1u);
    }
    __syncthreads();
    if (*ticket != num_splits - 1) {
        return;
    }
    __threadfence();
    for (u32 idx = threadIdx.x; idx < GROUP * HEAD_DIM; idx += blockDim.x) {
        u32 head = idx / HEAD_DIM;
        const float2* mine = stats + place * num_splits * GROUP + head;
        float best = minus_infinity();
        for (u32 part = 0; part < num_splits; part++) {
            best = fmaxf(best, mine[part * GROUP].x);
        }
        float sum = 0.0f;
        float all = 0.0f;
        for (u32 part = 0; part < num_splits; part++) {
            float w = weight_of(mine[part * GROUP].x, best);
            sum += w * partial[(place * num_splits + part) * GROUP * HEAD_DIM + idx];
            all += w * mine[part * GROUP].y;
        }
        out[first_head * HEAD_DIM + idx] = narrow(sum / all);
    }
    if (threadIdx.x == 0) {
        counters[place] = 0;
    }
}
