// A matmul for any number of rows, on the tensor cores.
//
//   x (rows, width) bf16 · weight (out, width) bf16 → out (rows, out)
//
// Fixed at compile time:
//   BLOCK_M, BLOCK_N  rows and weight rows of a block's tile, multiples of 32
//   BLOCK_K, STAGES   columns of a slice, a multiple of 16, and how many slices are in flight
//   EPILOGUE  0: out f32    1: out bf16    3: gelu_tanh in bf16
//             2: weight is (2·out, width), gate first; out = gelu_tanh(gate) · up in bf16
//   BIAS      1: bias (out) f32 is added to the sums
//   ADDEND    1: addend (period, out) f32 is added too, row r taking row r % period
//
// Grid (out tiles, row tiles, splits), 4 warps as 2 × 2, each with a quarter of the tile. Shared
// memory holds STAGES slices of BLOCK_K columns of both operands; rows there are ROW numbers apart,
// so that the eight rows of a matrix are in different banks. Values past an edge are zero.
//
// Few rows with a narrow weight give few tiles. Several splits then share a tile's columns, and the
// last of them to finish adds all their sums, in the order of the splits:
//   partial  (tiles, splits, numbers per thread, threads) f32
//   counters (tiles), zero before and after

constexpr u32 NUM_WARPS = 4;
constexpr u32 NUM_THREADS = NUM_WARPS * WARP;
constexpr u32 ROW = BLOCK_K + 8;
constexpr u32 WARP_M = BLOCK_M / 2;
constexpr u32 WARP_N = BLOCK_N / 2;
constexpr u32 FRAGMENTS_M = WARP_M / 16;
constexpr u32 FRAGMENTS_N = WARP_N / 8;
constexpr u32 STAGE_NUMBERS = (BLOCK_M + BLOCK_N) * ROW;
// Number of sums per thread.
constexpr u32 THREAD_NUMBERS = FRAGMENTS_M * FRAGMENTS_N * 4;
// Number of outputs per tile.
constexpr u32 TILE_OUT = EPILOGUE == 2 ? BLOCK_N / 2 : BLOCK_N;

// Output that a tile's weight row `idx` belongs to. For GeGLU, eight gate rows are followed by
// their eight up rows, so that fragments of gate and up are in the same thread.
__device__ __forceinline__ u32 output_of(u32 idx) {
    return EPILOGUE == 2 ? idx / 16 * 8 + idx % 8 : idx;
}

__device__ __forceinline__ void load_slice(const bf16* x, const bf16* weight, u32 num_rows,
                                           u32 width, u32 num_out, u32 first_row, u32 first_out,
                                           u32 first_column, bf16* stage) {
    constexpr u32 CHUNKS = BLOCK_K / 8;
    for (u32 idx = threadIdx.x; idx < (BLOCK_M + BLOCK_N) * CHUNKS; idx += NUM_THREADS) {
        u32 tile_row = idx / CHUNKS;
        u32 column = first_column + idx % CHUNKS * 8;
        bool valid = column < width;
        const bf16* from;
        if (tile_row < BLOCK_M) {
            u32 row = first_row + tile_row;
            valid = valid && row < num_rows;
            from = x + (valid ? static_cast<u64>(row) * width + column : 0);
        } else {
            u32 weight_row = tile_row - BLOCK_M;
            u32 output = first_out + output_of(weight_row);
            valid = valid && output < num_out;
            u64 row = output;
            if (EPILOGUE == 2 && weight_row / 8 % 2 == 1) {
                row += num_out;
            }
            from = weight + (valid ? row * width + column : 0);
        }
        copy16_async(stage + tile_row * ROW + idx % CHUNKS * 8, from, valid);
    }
}

__device__ __forceinline__ void store(void* out, u64 at, float value) {
    if (EPILOGUE == 0) {
        static_cast<float*>(out)[at] = value;
    } else {
        static_cast<bf16*>(out)[at] = narrow(EPILOGUE == 3 ? gelu_tanh(value) : value);
    }
}

// For every number that a thread accumulates: action(row fragment, output fragment, index in it).
template <class Action>
__device__ __forceinline__ void for_each_sum(Action action) {
#pragma unroll
    for (u32 i = 0; i < FRAGMENTS_M; i++) {
#pragma unroll
        for (u32 j = 0; j < FRAGMENTS_N; j++) {
#pragma unroll
            for (u32 k = 0; k < 4; k++) {
                action(i, j, k);
            }
        }
    }
}

KERNEL __launch_bounds__(128) gemm(const bf16* x, const bf16* weight, u32 num_rows, u32 width,
                                   u32 num_out, const float* bias, const float* addend, u32 period,
                                   float* partial, u32* counters, void* out) {
    SHARED_MEMORY(memory);
    bf16* stages = reinterpret_cast<bf16*>(memory);
    wait_for_earlier_kernels();
    let_next_kernel_start();
    u32 warp = threadIdx.x / WARP;
    u32 lane = threadIdx.x % WARP;
    u32 warp_row = warp / 2 * WARP_M;
    u32 warp_column = warp % 2 * WARP_N;
    u32 first_row = blockIdx.y * BLOCK_M;
    u32 first_out = blockIdx.x * TILE_OUT;
    u32 num_slices = div_up(width, BLOCK_K);
    u32 num_splits = gridDim.z;
    u32 share = div_up(num_slices, num_splits);
    u32 begin = smaller(blockIdx.z * share, num_slices);
    u32 end = smaller(begin + share, num_slices);

    float sums[FRAGMENTS_M][FRAGMENTS_N][4];
    for_each_sum([&](u32 i, u32 j, u32 k) { sums[i][j][k] = 0.0f; });

    // One group of copies per slice, an empty one past the end, so that copies_wait counts
    // correctly.
    for (u32 slice = begin; slice < begin + STAGES - 1; slice++) {
        if (slice < end) {
            load_slice(x, weight, num_rows, width, num_out, first_row, first_out, slice * BLOCK_K,
                       stages + slice % STAGES * STAGE_NUMBERS);
        }
        copies_commit();
    }
    for (u32 slice = begin; slice < end; slice++) {
        copies_wait<STAGES - 2>();
        // This slice is loaded for all threads, and no thread reads the previous one any more.
        __syncthreads();
        u32 next = slice + STAGES - 1;
        if (next < end) {
            load_slice(x, weight, num_rows, width, num_out, first_row, first_out, next * BLOCK_K,
                       stages + next % STAGES * STAGE_NUMBERS);
        }
        copies_commit();

        const bf16* rows = stages + slice % STAGES * STAGE_NUMBERS + warp_row * ROW;
        const bf16* columns =
            stages + slice % STAGES * STAGE_NUMBERS + (BLOCK_M + warp_column) * ROW;
#pragma unroll
        for (u32 k = 0; k < BLOCK_K; k += 16) {
            u32 a[FRAGMENTS_M][4];
#pragma unroll
            for (u32 i = 0; i < FRAGMENTS_M; i++) {
                load_matrices(a[i], rows + (i * 16 + lane % 16) * ROW + k + lane / 16 * 8);
            }
#pragma unroll
            for (u32 j = 0; j < FRAGMENTS_N; j += 2) {
                u32 b[4];
                load_matrices(b, columns + (j * 8 + lane / 16 * 8 + lane % 8) * ROW + k +
                                     lane / 8 % 2 * 8);
#pragma unroll
                for (u32 i = 0; i < FRAGMENTS_M; i++) {
                    multiply_add(sums[i][j], a[i], b[0], b[1]);
                    multiply_add(sums[i][j + 1], a[i], b[2], b[3]);
                }
            }
        }
    }

    if (num_splits > 1) {
        u64 tile = static_cast<u64>(blockIdx.y) * gridDim.x + blockIdx.x;
        float* tile_partial = partial + tile * num_splits * THREAD_NUMBERS * NUM_THREADS;
        auto place_of = [&](u32 split, u32 i, u32 j, u32 k) -> float& {
            u32 number = (i * FRAGMENTS_N + j) * 4 + k;
            return tile_partial[(split * THREAD_NUMBERS + number) * NUM_THREADS + threadIdx.x];
        };
        for_each_sum([&](u32 i, u32 j, u32 k) { place_of(blockIdx.z, i, j, k) = sums[i][j][k]; });
        // This block's sums must be visible before its counter increment.
        __threadfence();
        __syncthreads();
        u32* ticket = reinterpret_cast<u32*>(memory);  // slices are no longer needed
        if (threadIdx.x == 0) {
            *ticket = atomicAdd(&counters[tile], 1u);
        }
        __syncthreads();
        if (*ticket != num_splits - 1) {
            return;
        }
        __threadfence();
        for_each_sum([&](u32 i, u32 j, u32 k) { sums[i][j][k] = 0.0f; });
#pragma unroll 1
        for (u32 split = 0; split < num_splits; split++) {
            for_each_sum([&](u32 i, u32 j, u32 k) { sums[i][j][k] += place_of(split, i, j, k); });
        }
        if (threadIdx.x == 0) {
            counters[tile] = 0;
        }
    }

#pragma unroll
    for (u32 i = 0; i < FRAGMENTS_M; i++) {
#pragma unroll
        for (u32 j = 0; j < FRAGMENTS_N; j += EPILOGUE == 2 ? 2 : 1) {
#pragma unroll
            for (u32 k = 0; k < 4; k++) {
                u32 row = first_row + warp_row + i * 16 + lane / 4 + k / 2 * 8;
                u32 output =
                    first_out + output_of(warp_column + j * 8) + lane % 4 * 2 + k % 2;
                if (row < num_rows && output < num_out) {
                    float value = sums[i][j][k];
                    if (EPILOGUE == 2) {
                        value = gelu_tanh(value) * sums[i][j + 1][k];
                    }
                    if (BIAS) {
                        value += bias[output];
                    }
                    if (ADDEND) {
                        value += addend[static_cast<u64>(row % period) * num_out + output];
                    }
                    store(out, static_cast<u64>(row) * num_out + output, value);
                }
            }
        }
    }
}
