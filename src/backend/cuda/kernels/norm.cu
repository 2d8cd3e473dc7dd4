// Norms over rows, in f32.
//
// One block of 256 threads per row, four numbers per thread and iteration; width % 4 == 0.

__device__ __forceinline__ float sum_of_squares(float4 v) {
    return v.x * v.x + v.y * v.y + v.z * v.z + v.w * v.w;
}

// Returns four numbers times a common factor and their own weights, as bf16.
__device__ __forceinline__ uint2 scaled(float4 v, float factor, float4 weight) {
    return uint2{narrow2(v.x * factor * weight.x, v.y * factor * weight.y),
                 narrow2(v.z * factor * weight.z, v.w * factor * weight.w)};
}

// x (rows, width) f32 · weight (width) f32, 1 + w → out (rows, width) bf16
KERNEL __launch_bounds__(256) rms_norm(const float* x, const float* weight, float eps, u32 width,
                                       bf16* out) {
    SHARED_MEMORY(memory);
    float* scratch = reinterpret_cast<float*>(memory);
    wait_for_earlier_kernels();
    let_next_kernel_start();
    u64 first = static_cast<u64>(blockIdx.x) * width;
    const float4* row = reinterpret_cast<const float4*>(x + first);
    const float4* weights = reinterpret_cast<const float4*>(weight);
    uint2* to = reinterpret_cast<uint2*>(out + first);

    float squares = 0.0f;
    for (u32 idx = threadIdx.x; idx < width / 4; idx += blockDim.x) {
        squares += sum_of_squares(row[idx]);
    }
    float factor = 1.0f / sqrtf(block_sum(squares, scratch) / width + eps);
    for (u32 idx = threadIdx.x; idx < width / 4; idx += blockDim.x) {
        to[idx] = scaled(row[idx], factor, weights[idx]);
    }
}

// sum = residual + norm(branch, post); out = norm(sum, next). `sum` may be `residual`.
//
// residual, branch, sum (rows, width) f32 · post, next (width) f32, 1 + w → out (rows, width) bf16
KERNEL __launch_bounds__(256) add_norm_norm(const float* residual, const float* branch,
                                            const float* post, const float* next, float eps,
                                            u32 width, float* sum, bf16* out) {
    SHARED_MEMORY(memory);
    float* scratch = reinterpret_cast<float*>(memory);             // (warps)
    float4* sums = reinterpret_cast<float4*>(memory + 8 * 4);      // (width / 4)
    wait_for_earlier_kernels();
    let_next_kernel_start();
    u64 first = static_cast<u64>(blockIdx.x) * width;
    const float4* old = reinterpret_cast<const float4*>(residual + first);
    const float4* added = reinterpret_cast<const float4*>(branch + first);
    const float4* post_weights = reinterpret_cast<const float4*>(post);
    const float4* next_weights = reinterpret_cast<const float4*>(next);
    float4* sum_row = reinterpret_cast<float4*>(sum + first);
    uint2* to = reinterpret_cast<uint2*>(out + first);

    float squares = 0.0f;
    for (u32 idx = threadIdx.x; idx < width / 4; idx += blockDim.x) {
        squares += sum_of_squares(added[idx]);
    }
    float factor = 1.0f / sqrtf(block_sum(squares, scratch) / width + eps);

    squares = 0.0f;
    for (u32 idx = threadIdx.x; idx < width / 4; idx += blockDim.x) {
        float4 a = added[idx];
        float4 w = post_weights[idx];
        float4 v = old[idx];
        v.x += a.x * factor * w.x;
        v.y += a.y * factor * w.y;
        v.z += a.z * factor * w.z;
        v.w += a.w * factor * w.w;
        // A thread reads back only what it wrote itself.
        sums[idx] = v;
        sum_row[idx] = v;
        squares += sum_of_squares(v);
    }
    factor = 1.0f / sqrtf(block_sum(squares, scratch) / width + eps);
    for (u32 idx = threadIdx.x; idx < width / 4; idx += blockDim.x) {
        to[idx] = scaled(sums[idx], factor, next_weights[idx]);
    }
}

// (x − mean) / sqrt(variance + eps) · weight + bias
//
// x (rows, width) f32 · weight, bias (width) f32 → out (rows, width), f32 or bf16 by OUT_F32
KERNEL __launch_bounds__(256) layer_norm(const float* x, const float* weight, const float* bias,
                                         float eps, u32 width, void* out) {
    SHARED_MEMORY(memory);
    float* scratch = reinterpret_cast<float*>(memory);
    wait_for_earlier_kernels();
    let_next_kernel_start();
    u64 first = static_cast<u64>(blockIdx.x) * width;
    const float* row = x + first;

    float total = 0.0f;
    for (u32 idx = threadIdx.x; idx < width; idx += blockDim.x) {
        total += row[idx];
    }
    float mean = block_sum(total, scratch) / width;
    float squares = 0.0f;
    for (u32 idx = threadIdx.x; idx < width; idx += blockDim.x) {
        float centred = row[idx] - mean;
        squares += centred * centred;
    }
    float factor = 1.0f / sqrtf(block_sum(squares, scratch) / width + eps);
    for (u32 idx = threadIdx.x; idx < width; idx += blockDim.x) {
        float y = (row[idx] - mean) * factor * weight[idx] + bias[idx];
#ifdef OUT_F32
        static_cast<float*>(out)[first + idx] = y;
#else
        static_cast<bf16*>(out)[first + idx] = narrow(y);
#endif
    }
}
