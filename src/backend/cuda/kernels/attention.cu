// Attention of many rows on the tensor cores, with an online softmax.
//
// Fixed at compile time: HEAD_DIM (a multiple of 8), GROUP query heads per key head, NUM_KV_HEADS,
// and PAGED:
//   1  keys and values in the cache's pools as in rope.cu, KV_BLOCK = 32 positions per block.
//      tiles (tiles, 2): first row and number of rows, at most 64, all of one sequence; row r sees
//      the positions from key_ranges[r].x up to key_ranges[r].y; the host computes these ranges
//      from windows and images.
//      q (rows, NUM_KV_HEADS·GROUP·HEAD_DIM) bf16 → out, as q
//   0  images: qkv (images·num_keys, 3, heads·HEAD_DIM) bf16; each row sees its whole image.
//      → out (images·num_keys, heads·HEAD_DIM) bf16
//
// Grid (row tiles, query heads, images), 4 warps with 16 rows each. Shared memory holds the tile's
// q (64 rows) and 32 keys and values, rows ROW numbers apart so that the eight rows of a matrix are
// in different banks; the numbers from HEAD_DIM to PADDED are zeros.

constexpr u32 NUM_WARPS = 4;
constexpr u32 NUM_THREADS = NUM_WARPS * WARP;
constexpr u32 TILE_ROWS = 64;
constexpr u32 TILE_KEYS = 32;
constexpr u32 PADDED = (HEAD_DIM + 15) / 16 * 16;
constexpr u32 ROW = PADDED + 8;
constexpr u32 NUM_HEADS = NUM_KV_HEADS * GROUP;

__device__ __forceinline__ float weight_of(float largest, float largest_of_all) {
    return largest == minus_infinity() ? 0.0f : expf(largest - largest_of_all);
}

// Maximum and sum over the four lanes that share a row of a fragment.
__device__ __forceinline__ float row_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 1));
    return fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 2));
}

__device__ __forceinline__ float row_sum(float x) {
    x += __shfl_xor_sync(ALL_LANES, x, 1);
    return x + __shfl_xor_sync(ALL_LANES, x, 2);
}

// Loads `num_rows` rows of HEAD_DIM numbers, `stride` apart, of which those from `begin` up to
// `end` exist; the others become zeros.
__device__ __forceinline__ void load_rows(bf16* to, const bf16* from, u64 stride, u32 num_rows,
                                          u32 begin, u32 end) {
    constexpr u32 CHUNKS = PADDED / 8;
    for (u32 idx = threadIdx.x; idx < num_rows * CHUNKS; idx += NUM_THREADS) {
        u32 row = idx / CHUNKS;
        u32 column = idx % CHUNKS * 8;
        bool valid = row >= begin && row < end && column < HEAD_DIM;
        copy16_async(to + row * ROW + column, from + (valid ? row * stride + column : 0), valid);
    }
}

KERNEL __launch_bounds__(128)
    attention(const bf16* q, const bf16* keys, const bf16* values, const uint2* tiles,
              const u32* sequence_of_row, const uint2* key_ranges, const u32* tables,
              u32 table_stride, const u32* num_released, u32 num_keys, float scale, bf16* out) {
    SHARED_MEMORY(memory);
    bf16* queries = reinterpret_cast<bf16*>(memory);        // (TILE_ROWS, ROW)
    bf16* tile_keys = queries + TILE_ROWS * ROW;            // (TILE_KEYS, ROW)
    bf16* tile_values = tile_keys + TILE_KEYS * ROW;        // (TILE_KEYS, ROW)
    wait_for_earlier_kernels();
    let_next_kernel_start();
    u32 warp = threadIdx.x / WARP;
    u32 lane = threadIdx.x % WARP;
    u32 head = blockIdx.y;
    u32 kv_head = head / GROUP;

    // Determines the rows of this tile, the keys that any of them sees, and those of this thread's
    // two rows.
    u64 first_row;
    u32 num_rows;
    u32 begin;
    u32 end;
    uint2 ranges[2];
    u32 my_row = warp * 16 + lane / 4;
#if PAGED
    uint2 tile = tiles[blockIdx.x];
    first_row = tile.x;
    num_rows = tile.y;
    begin = 0xffffffffu;
    end = 0;
    for (u32 row = lane; row < num_rows; row += WARP) {
        uint2 range = key_ranges[first_row + row];
        begin = smaller(begin, range.x);
        end = larger(end, range.y);
    }
    for (u32 step = WARP / 2; step > 0; step /= 2) {
        begin = smaller(begin, __shfl_xor_sync(ALL_LANES, begin, step));
        end = larger(end, __shfl_xor_sync(ALL_LANES, end, step));
    }
    for (u32 half = 0; half < 2; half++) {
        u32 row = my_row + half * 8;
        ranges[half] = row < num_rows ? key_ranges[first_row + row] : uint2{0, 0};
    }
    u32 sequence = sequence_of_row[first_row];
    const u32* table = tables + static_cast<u64>(sequence) * table_stride;
    u32 released = num_released[sequence];
    constexpr u64 QUERY_STRIDE = NUM_HEADS * HEAD_DIM;
    constexpr u64 KEY_STRIDE = HEAD_DIM;
#else
    u64 image = static_cast<u64>(blockIdx.z) * num_keys;
    u32 first_in_image = blockIdx.x * TILE_ROWS;
    first_row = image + first_in_image;
    num_rows = smaller(TILE_ROWS, num_keys - first_in_image);
    begin = 0;
    end = num_keys;
    for (u32 half = 0; half < 2; half++) {
        ranges[half] = my_row + half * 8 < num_rows ? uint2{0, num_keys} : uint2{0, 0};
    }
    constexpr u64 QUERY_STRIDE = 3 * NUM_HEADS * HEAD_DIM;
    constexpr u64 KEY_STRIDE = QUERY_STRIDE;
#endif

    // Returns the start of the 32 positions from `position` on.
    auto place_of = [&](u32 position) -> u64 {
#if PAGED
        u64 block = table[position / KV_BLOCK - released];
        return (block * NUM_KV_HEADS + kv_head) * KV_BLOCK * HEAD_DIM;
#else
        return (image + position) * KEY_STRIDE + kv_head * HEAD_DIM;
#endif
    };
    auto load_tile = [&](bf16* to, const bf16* pool, u32 position) {
        u32 first = larger(begin, position) - position;
        load_rows(to, pool + place_of(position), KEY_STRIDE, TILE_KEYS, first, end - position);
    };

    u32 first_tile = begin / TILE_KEYS;
    u32 end_tile = div_up(end, TILE_KEYS);
    load_rows(queries, q + first_row * QUERY_STRIDE + head * HEAD_DIM, QUERY_STRIDE, TILE_ROWS, 0,
              num_rows);
    load_tile(tile_keys, keys, first_tile * TILE_KEYS);
    copies_commit();

    float sums[PADDED / 8][4];
#pragma unroll
    for (u32 n = 0; n < PADDED / 8; n++) {
#pragma unroll
        for (u32 k = 0; k < 4; k++) {
            sums[n][k] = 0.0f;
        }
    }
    float largest[2] = {minus_infinity(), minus_infinity()};
    float total[2] = {0.0f, 0.0f};

    for (u32 key_tile = first_tile; key_tile < end_tile; key_tile++) {
        u32 position = key_tile * TILE_KEYS;
        load_tile(tile_values, values, position);
        copies_commit();
        copies_wait<1>();  // q and these keys are loaded; the values are still in flight
        __syncthreads();

        float scores[TILE_KEYS / 8][4];
#pragma unroll
        for (u32 n = 0; n < TILE_KEYS / 8; n++) {
#pragma unroll
            for (u32 k = 0; k < 4; k++) {
                scores[n][k] = 0.0f;
            }
        }
#pragma unroll
        for (u32 k = 0; k < PADDED; k += 16) {
            u32 a[4];
            load_matrices(a, queries + (warp * 16 + lane % 16) * ROW + k + lane / 16 * 8);
#pragma unroll
            for (u32 n = 0; n < TILE_KEYS / 8; n += 2) {
                u32 b[4];
                load_matrices(b, tile_keys + (n * 8 + lane / 16 * 8 + lane % 8) * ROW + k +
                                     lane / 8 % 2 * 8);
                multiply_add(scores[n], a, b[0], b[1]);
                multiply_add(scores[n + 1], a, b[2], b[3]);
            }
        }
        __syncthreads();  // these keys are no longer needed
        if (key_tile + 1 < end_tile) {
            load_tile(tile_keys, keys, position + TILE_KEYS);
        }
        copies_commit();

        float best[2] = {largest[0], largest[1]};
#pragma unroll
        for (u32 n = 0; n < TILE_KEYS / 8; n++) {
#pragma unroll
            for (u32 k = 0; k < 4; k++) {
                u32 key = position + n * 8 + lane % 4 * 2 + k % 2;
                bool seen = key >= ranges[k / 2].x && key < ranges[k / 2].y;
                scores[n][k] = seen ? scores[n][k] * scale : minus_infinity();
                best[k / 2] = fmaxf(best[k / 2], scores[n][k]);
            }
        }
#pragma unroll
        for (u32 half = 0; half < 2; half++) {
            best[half] = row_max(best[half]);
            float kept = weight_of(largest[half], best[half]);
            largest[half] = best[half];
            total[half] *= kept;
#pragma unroll
            for (u32 n = 0; n < PADDED / 8; n++) {
                sums[n][half * 2] *= kept;
                sums[n][half * 2 + 1] *= kept;
            }
        }
#pragma unroll
        for (u32 n = 0; n < TILE_KEYS / 8; n++) {
#pragma unroll
            for (u32 k = 0; k < 4; k++) {
                scores[n][k] = weight_of(scores[n][k], best[k / 2]);
                total[k / 2] += scores[n][k];
            }
        }

        copies_wait<1>();  // the values are loaded; the next keys are in flight
        __syncthreads();
#pragma unroll
        for (u32 k = 0; k < TILE_KEYS / 16; k++) {
            // Two adjacent fragments of scores are one operand of the next matmul.
            u32 a[4] = {narrow2(scores[2 * k][0], scores[2 * k][1]),
                        narrow2(scores[2 * k][2], scores[2 * k][3]),
                        narrow2(scores[2 * k + 1][0], scores[2 * k + 1][1]),
                        narrow2(scores[2 * k + 1][2], scores[2 * k + 1][3])};
#pragma unroll
            for (u32 n = 0; n < PADDED / 8; n += 2) {
                u32 b[4];
                load_matrices_transposed(
                    b, tile_values + (k * 16 + lane % 16) * ROW + n * 8 + lane / 16 * 8);
                multiply_add(sums[n], a, b[0], b[1]);
                multiply_add(sums[n + 1], a, b[2], b[3]);
            }
        }
        __syncthreads();  // these values are no longer needed
    }

#pragma unroll
    for (u32 half = 0; half < 2; half++) {
        float all = row_sum(total[half]);
        u32 row = my_row + half * 8;
        if (row < num_rows) {
            bf16* to = out + (first_row + row) * (NUM_HEADS * HEAD_DIM) + head * HEAD_DIM;
#pragma unroll
            for (u32 n = 0; n < PADDED / 8; n++) {
                u32 column = n * 8 + lane % 4 * 2;
                if (column < HEAD_DIM) {
                    *reinterpret_cast<u32*>(to + column) =
                        narrow2(sums[n][half * 2] / all, sums[n][half * 2 + 1] / all);
                }
            }
        }
    }
}
