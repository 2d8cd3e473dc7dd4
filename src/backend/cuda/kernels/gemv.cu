// A matmul for a few rows, limited by memory bandwidth: the weights are read once for all rows.
//
//   x (ROWS, width) bf16 · weight (out, width) bf16 → out (ROWS, out)
//
// Fixed at compile time:
//   ROWS      1 to 8
//   WARPS_K   warps of a block that share an output's sum: 1, 2, 4 or 8
//   PROLOGUE  0: x as given
//             1: x = norm(sum, next) with sum = residual + norm(branch, post), computed by every
//                block for itself; block 0 writes `sum`, which must not be `residual`
//   EPILOGUE  0: out f32    1: out bf16
//             2: weight is (2·out, width), gate first; out = gelu_tanh(gate) · up in bf16
//
// Blocks of 8 warps: 8 / WARPS_K groups of warps with COLUMNS weight rows each make a tile. Blocks
// loop over the tiles in strides of the grid. A lane reads 16 bytes of each of its weight rows at a
// time, AHEAD iterations early. The first of these reads are issued before it waits for earlier
// kernels, since weights never change.

constexpr u32 NUM_WARPS = 8;
constexpr u32 COLUMNS = 4;
constexpr u32 AHEAD = 2;
constexpr u32 WARPS_N = NUM_WARPS / WARPS_K;
// Number of outputs per group of warps and per tile.
constexpr u32 GROUP_OUT = EPILOGUE == 2 ? COLUMNS / 2 : COLUMNS;
constexpr u32 TILE_OUT = WARPS_N * GROUP_OUT;

struct Weights {
    const bf16* data;
    u32 width;
    u32 num_out;

    // The weight row that is a group's `column`-th, if the group's outputs begin at `first`. Past
    // the end it is the last one: its sum is computed and not stored.
    __device__ __forceinline__ u64 row(u32 first, u32 column) const {
        u32 within = EPILOGUE == 2 ? column % GROUP_OUT : column;
        u32 half = EPILOGUE == 2 ? column / GROUP_OUT : 0;
        return smaller(first + within, num_out - 1) + static_cast<u64>(half) * num_out;
    }

    __device__ __forceinline__ void load(uint4 (&loaded)[COLUMNS], u32 first, u32 chunk) const {
#pragma unroll
        for (u32 column = 0; column < COLUMNS; column++) {
            loaded[column] = chunk < width / 8
                                 ? load16_once(data + row(first, column) * width + chunk * 8)
                                 : uint4{0, 0, 0, 0};
        }
    }
};

// For each row: sum = residual + norm(branch, post); x = norm(sum, next), into shared memory.
__device__ __forceinline__ void add_norm_norm(const float* residual, const float* branch,
                                              const float* post, const float* next, float eps,
                                              u32 width, float* sum, bf16* x, float* scratch) {
    for (u32 row = 0; row < ROWS; row++) {
        const float* old = residual + row * width;
        const float* added = branch + row * width;
        float squares = 0.0f;
        for (u32 idx = threadIdx.x; idx < width; idx += blockDim.x) {
            squares += added[idx] * added[idx];
        }
        float factor = 1.0f / sqrtf(block_sum(squares, scratch) / width + eps);
        squares = 0.0f;
        for (u32 idx = threadIdx.x; idx < width; idx += blockDim.x) {
            float v = old[idx] + added[idx] * factor * post[idx];
            squares += v * v;
        }
        float next_factor = 1.0f / sqrtf(block_sum(squares, scratch) / width + eps);
        for (u32 idx = threadIdx.x; idx < width; idx += blockDim.x) {
            float v = old[idx] + added[idx] * factor * post[idx];
            if (blockIdx.x == 0) {
                sum[row * width + idx] = v;
            }
            x[row * width + idx] = narrow(v * next_factor * next[idx]);
        }
    }
    __syncthreads();
}

KERNEL __launch_bounds__(256) gemv(const bf16* given, const bf16* weight, u32 width, u32 num_out,
                                   const float* residual, const float* branch, const float* post,
                                   const float* next, float eps, float* sum, void* out) {
    SHARED_MEMORY(memory);
    // (NUM_WARPS, COLUMNS, ROWS) partial sums, then with PROLOGUE x (ROWS, width).
    float* partial = reinterpret_cast<float*>(memory);
    u32 warp = threadIdx.x / WARP;
    u32 lane = threadIdx.x % WARP;
    u32 warp_k = warp % WARPS_K;
    u32 warp_n = warp / WARPS_K;
    u32 first_chunk = warp_k * WARP + lane;
    constexpr u32 STRIDE = WARPS_K * WARP;
    u32 num_chunks = width / 8;
    u32 num_tiles = div_up(num_out, TILE_OUT);
    Weights weights{weight, width, num_out};

    uint4 loaded[AHEAD][COLUMNS];
    u32 first = blockIdx.x * TILE_OUT + warp_n * GROUP_OUT;
#pragma unroll
    for (u32 turn = 0; turn < AHEAD; turn++) {
        weights.load(loaded[turn], first, first_chunk + turn * STRIDE);
    }
    wait_for_earlier_kernels();
    let_next_kernel_start();
#if PROLOGUE == 1
    bf16* computed = reinterpret_cast<bf16*>(memory + NUM_WARPS * COLUMNS * ROWS * sizeof(float));
    add_norm_norm(residual, branch, post, next, eps, width, sum, computed, partial);
    const bf16* x = computed;
#else
    const bf16* x = given;
#endif

    for (u32 tile = blockIdx.x; tile < num_tiles; tile += gridDim.x) {
        float sums[COLUMNS][ROWS];
#pragma unroll
        for (u32 column = 0; column < COLUMNS; column++) {
#pragma unroll
            for (u32 row = 0; row < ROWS; row++) {
                sums[column][row] = 0.0f;
            }
        }
        u32 next_first = first + gridDim.x * TILE_OUT;
        for (u32 base = first_chunk; base < num_chunks; base += AHEAD * STRIDE) {
#pragma unroll
            for (u32 turn = 0; turn < AHEAD; turn++) {
                u32 chunk = base + turn * STRIDE;
                float w[COLUMNS][8];
#pragma unroll
                for (u32 column = 0; column < COLUMNS; column++) {
                    widen8(w[column], loaded[turn][column]);
                }
                weights.load(loaded[turn], first, chunk + AHEAD * STRIDE);
                if (chunk < num_chunks) {
#pragma unroll
                    for (u32 row = 0; row < ROWS; row++) {
                        float v[8];
                        widen8(v, load16(x + static_cast<u64>(row) * width + chunk * 8));
#pragma unroll
                        for (u32 column = 0; column < COLUMNS; column++) {
#pragma unroll
                            for (u32 idx = 0; idx < 8; idx++) {
                                sums[column][row] += w[column][idx] * v[idx];
                            }
                        }
                    }
                }
            }
        }
        // The next tile's first weights are loaded while this tile's sums are reduced.
        first = next_first;
        if (tile + gridDim.x < num_tiles) {
#pragma unroll
            for (u32 turn = 0; turn < AHEAD; turn++) {
                weights.load(loaded[turn], first, first_chunk + turn * STRIDE);
            }
        }
#pragma unroll
        for (u32 column = 0; column < COLUMNS; column++) {
#pragma unroll
            for (u32 row = 0; row < ROWS; row++) {
                float total = warp_sum(sums[column][row]);
                if (lane == 0) {
                    partial[(warp * COLUMNS + column) * ROWS + row] = total;
                }
            }
        }
        __syncthreads();
        for (u32 idx = threadIdx.x; idx < TILE_OUT * ROWS; idx += blockDim.x) {
            u32 row = idx / TILE_OUT;
            u32 within = idx % TILE_OUT;
            u32 column = within % GROUP_OUT;
            const float* group = partial + within / GROUP_OUT * WARPS_K * COLUMNS * ROWS + row;
            float total = 0.0f;
            float up = 0.0f;
            for (u32 part = 0; part < WARPS_K; part++) {
                total += group[(part * COLUMNS + column) * ROWS];
                if (EPILOGUE == 2) {
                    up += group[(part * COLUMNS + GROUP_OUT + column) * ROWS];
                }
            }
            u32 place = tile * TILE_OUT + within;
            if (place < num_out) {
                u64 to = static_cast<u64>(row) * num_out + place;
                if (EPILOGUE == 0) {
                    static_cast<float*>(out)[to] = total;
                } else {
                    static_cast<bf16*>(out)[to] = narrow(EPILOGUE == 2 ? gelu_tanh(total) * up : total);
                }
            }
        }
        __syncthreads();
    }
}
