// The beginning of every kernel's source: number types, reductions over a warp and a block, and the
// PTX instructions that the kernels use, each in a small wrapper. No header is included, so that
// NVRTC compiles it anywhere. With EMULATED defined, the tests' emulator provides the wrappers.
//
// Conventions: bf16 values are passed as their bits; every address that is read 16 bytes at a time
// is 16-byte aligned, which the launchers check; all shared memory is dynamic (SHARED_MEMORY).

typedef unsigned char u8;
typedef unsigned short bf16;
typedef unsigned int u32;
typedef unsigned long long u64;

#define KERNEL extern "C" __global__ void

constexpr u32 WARP = 32;
constexpr u32 ALL_LANES = 0xffffffffu;

// ---- PTX ---------------------------------------------------------------------------------------

#ifndef EMULATED

#define SHARED_MEMORY(name) extern __shared__ __align__(16) u8 name[]

// Rounds to nearest even.
__device__ __forceinline__ bf16 narrow(float x) {
    bf16 bits;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
    return bits;
}

// Packs two numbers in one register, `low` at the lower address.
__device__ __forceinline__ u32 narrow2(float low, float high) {
    u32 bits;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
    return bits;
}

__device__ __forceinline__ u32 shared_address(const void* pointer) {
    u32 address;
    asm("{ .reg .u64 wide; cvta.to.shared.u64 wide, %1; cvt.u32.u64 %0, wide; }"
        : "=r"(address)
        : "l"(pointer));
    return address;
}

// Weights are read once, so they should not evict anything from the L1 cache.
__device__ __forceinline__ uint4 load16_once(const void* from) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(from));
    return v;
}

__device__ __forceinline__ uint4 load16(const void* from) {
    return *static_cast<const uint4*>(from);
}

__device__ __forceinline__ void store16(void* to, uint4 v) { *static_cast<uint4*>(to) = v; }

// Copies 16 bytes from global to shared memory, or 16 zeros; complete after the group's wait.
__device__ __forceinline__ void copy16_async(void* to, const void* from, bool valid) {
    u32 num_bytes = valid ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"(shared_address(to)), "l"(from), "r"(num_bytes)
                 : "memory");
}

__device__ __forceinline__ void copies_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

// Waits until at most NUM_PENDING of this thread's groups are in flight.
template <int NUM_PENDING>
__device__ __forceinline__ void copies_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(NUM_PENDING) : "memory");
}

// Loads four 8×8 matrices of bf16; lanes 8i to 8i + 7 give the rows of matrix i. Lane l gets
// elements 2·(l % 4) and the next of row l / 4.
__device__ __forceinline__ void load_matrices(u32 (&m)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// Like load_matrices, with each matrix transposed.
__device__ __forceinline__ void load_matrices_transposed(u32 (&m)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(m[0]), "=r"(m[1]), "=r"(m[2]), "=r"(m[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// d (16, 8) += a (16, 16) · b (16, 8). With g = lane / 4 and t = lane % 4, pairs of columns:
//   a[0] row g, columns 2t      a[1] row g + 8      a[2] row g, columns 2t + 8      a[3] both
//   b[0] column g, rows 2t      b[1] column g, rows 2t + 8
//   d[0..2] row g, columns 2t   d[2..4] row g + 8
__device__ __forceinline__ void multiply_add(float (&d)[4], const u32 (&a)[4], u32 b0, u32 b1) {
    asm volatile(
        "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
}

// Programmatic dependent launch: nothing that an earlier kernel writes may be read before this.
__device__ __forceinline__ void wait_for_earlier_kernels() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}

// Lets the next kernel's blocks be scheduled; it still waits for this kernel's end before it reads.
__device__ __forceinline__ void let_next_kernel_start() {
#if __CUDA_ARCH__ >= 900
    asm volatile("griddepcontrol.launch_dependents;" ::: "memory");
#endif
}

#endif  // EMULATED

// ---- numbers -----------------------------------------------------------------------------------

__device__ __forceinline__ float minus_infinity() { return __uint_as_float(0xff800000u); }

__device__ __forceinline__ float widen(bf16 bits) {
    return __uint_as_float(static_cast<u32>(bits) << 16);
}

__device__ __forceinline__ float widen_low(u32 pair) { return __uint_as_float(pair << 16); }
__device__ __forceinline__ float widen_high(u32 pair) { return __uint_as_float(pair & 0xffff0000u); }

// Converts 16 loaded bytes to eight numbers.
__device__ __forceinline__ void widen8(float (&x)[8], uint4 v) {
    x[0] = widen_low(v.x);
    x[1] = widen_high(v.x);
    x[2] = widen_low(v.y);
    x[3] = widen_high(v.y);
    x[4] = widen_low(v.z);
    x[5] = widen_high(v.z);
    x[6] = widen_low(v.w);
    x[7] = widen_high(v.w);
}

__device__ __forceinline__ uint4 narrow8(const float (&x)[8]) {
    return uint4{narrow2(x[0], x[1]), narrow2(x[2], x[3]), narrow2(x[4], x[5]), narrow2(x[6], x[7])};
}

// gelu_pytorch_tanh
__device__ __forceinline__ float gelu_tanh(float x) {
    float inner = 0.7978845608028654f * (x + 0.044715f * x * x * x);
    return 0.5f * x * (1.0f + tanhf(inner));
}

__device__ __forceinline__ u32 round_up(u32 x, u32 to) { return (x + to - 1) / to * to; }
__device__ __forceinline__ u32 div_up(u32 x, u32 by) { return (x + by - 1) / by; }
__device__ __forceinline__ u32 smaller(u32 a, u32 b) { return a < b ? a : b; }
__device__ __forceinline__ u32 larger(u32 a, u32 b) { return a > b ? a : b; }

// ---- reductions --------------------------------------------------------------------------------

__device__ __forceinline__ float warp_sum(float x) {
    for (u32 step = WARP / 2; step > 0; step /= 2) {
        x += __shfl_xor_sync(ALL_LANES, x, step);
    }
    return x;
}

__device__ __forceinline__ float warp_max(float x) {
    for (u32 step = WARP / 2; step > 0; step /= 2) {
        x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, step));
    }
    return x;
}

// Returns the sum over a block of whole warps, in every thread; `scratch` holds one number per warp
// and may be reused at once.
__device__ __forceinline__ float block_sum(float x, float* scratch) {
    u32 num_warps = blockDim.x / WARP;
    x = warp_sum(x);
    if (threadIdx.x % WARP == 0) {
        scratch[threadIdx.x / WARP] = x;
    }
    __syncthreads();
    float sum = 0.0f;
    for (u32 warp = 0; warp < num_warps; warp++) {
        sum += scratch[warp];
    }
    __syncthreads();
    return sum;
}

__device__ __forceinline__ float block_max(float x, float* scratch) {
    u32 num_warps = blockDim.x / WARP;
    x = warp_max(x);
    if (threadIdx.x % WARP == 0) {
        scratch[threadIdx.x / WARP] = x;
    }
    __syncthreads();
    float best = minus_infinity();
    for (u32 warp = 0; warp < num_warps; warp++) {
        best = fmaxf(best, scratch[warp]);
    }
    __syncthreads();
    return best;
}

// ---- heads -------------------------------------------------------------------------------------

#ifdef HEAD_DIM

constexpr u32 HALF_HEAD = HEAD_DIM / 2;

// Run by one warp: applies the norm with `norm (HEAD_DIM)`, 1 + w, and RoPE with `angles (2,
// HEAD_DIM / 2)`, first half against second half, to a head's numbers `from (HEAD_DIM)`. With
// `norm` null they are unchanged. Calls put(idx, number) for each.
template <class Put>
__device__ __forceinline__ void norm_and_turn(const float* from, const float* norm, float eps,
                                              const float* cos_sin, Put put) {
    constexpr u32 TURNS = (HALF_HEAD + WARP - 1) / WARP;
    u32 lane = threadIdx.x % WARP;
    float first[TURNS];
    float second[TURNS];
    float squares = 0.0f;
#pragma unroll
    for (u32 turn = 0; turn < TURNS; turn++) {
        u32 idx = turn * WARP + lane;
        first[turn] = idx < HALF_HEAD ? from[idx] : 0.0f;
        second[turn] = idx < HALF_HEAD ? from[HALF_HEAD + idx] : 0.0f;
        squares += first[turn] * first[turn] + second[turn] * second[turn];
    }
    float factor = 1.0f / sqrtf(warp_sum(squares) / HEAD_DIM + eps);
#pragma unroll
    for (u32 turn = 0; turn < TURNS; turn++) {
        u32 idx = turn * WARP + lane;
        if (idx < HALF_HEAD) {
            float a = first[turn];
            float b = second[turn];
            if (norm != nullptr) {
                float c = cos_sin[idx];
                float s = cos_sin[HALF_HEAD + idx];
                float x = a * factor * norm[idx];
                float y = b * factor * norm[HALF_HEAD + idx];
                a = x * c - y * s;
                b = y * c + x * s;
            }
            put(idx, a);
            put(HALF_HEAD + idx, b);
        }
    }
}

#endif  // HEAD_DIM
