// Samples one token per row of logits, as backend/sampler.rs does: penalties, temperature, min-p,
// top-k, top-p, and an exponential race whose random numbers depend only on seed, position and
// token.
//
//   logits (rows, vocab) f32 · rows (rows) → samples (rows) u32
//
// `adjust` has a grid of (chunks of the vocabulary, rows); the others have one block of 1024
// threads per row, which reads the row several times from the L2 cache. What top-k leaves is moved
// to shared memory, so that only the top-k cut itself reads the whole row.

constexpr u32 NONE = 0xffffffffu;
constexpr u32 CHUNK = 4096;
constexpr u32 NUM_THREADS = 1024;
constexpr u32 MAX_TOP = 20;
constexpr u32 MAX_KEPT = 1024;
constexpr u32 IN_PROMPT = 0x80000000u;  // bit of a count: the token is in the prompt

// Row as packed by kernels/sampler.rs: 64 bytes.
struct Row {
    float inverse_temperature;  // 0 is greedy
    float top_p;                // 1 is off
    float log_min_p;            // −∞ is off
    u32 top_k;                  // 0 is off
    u64 stream;                 // the race's, from seed and position
    float presence;
    float frequency;
    float repetition;           // 1 is off
    u32 mask_row;               // row of `masks`, or NONE
    u32 first_seen;             // tokens with penalties
    u32 num_seen;
    u32 first_bias;
    u32 num_biases;
    u32 unused;
    u32 num_top;                // NONE: no log-probabilities
};

// Adjusts the model's logits as the request asks: mask, biases, penalties, in this order.
//
//   masks (…, ⌈vocab / 32⌉) a bit per allowed token, biases (…) of (token, bias as bits; −∞ is a
//   ban), seen (…) of (token, how often it was sampled, and IN_PROMPT) → adjusted (rows, vocab) f32
KERNEL __launch_bounds__(256)
    adjust(const float* logits, const Row* rows, u32 vocab, const u32* masks, const uint2* biases,
           const uint2* seen, float* adjusted) {
    SHARED_MEMORY(memory);
    float* chunk = reinterpret_cast<float*>(memory);  // (CHUNK)
    wait_for_earlier_kernels();
    let_next_kernel_start();
    const Row& row = rows[blockIdx.y];
    u32 first = blockIdx.x * CHUNK;
    u32 len = smaller(CHUNK, vocab - first);
    u64 place = static_cast<u64>(blockIdx.y) * vocab + first;
    for (u32 idx = threadIdx.x; idx < len; idx += blockDim.x) {
        u32 token = first + idx;
        float x = logits[place + idx];
        if (row.mask_row != NONE) {
            u32 word = masks[static_cast<u64>(row.mask_row) * div_up(vocab, 32) + token / 32];
            x = (word >> (token % 32) & 1) != 0 ? x : minus_infinity();
        }
        chunk[idx] = x;
    }
    __syncthreads();
    // Each token is in a list at most once, so no two threads write the same logit.
    for (u32 idx = threadIdx.x; idx < row.num_biases; idx += blockDim.x) {
        uint2 bias = biases[row.first_bias + idx];
        if (bias.x >= first && bias.x - first < len) {
            chunk[bias.x - first] += __uint_as_float(bias.y);
        }
    }
    __syncthreads();
    for (u32 idx = threadIdx.x; idx < row.num_seen; idx += blockDim.x) {
        uint2 token = seen[row.first_seen + idx];
        if (token.x >= first && token.x - first < len) {
            float x = chunk[token.x - first];
            x = x > 0.0f ? x / row.repetition : x * row.repetition;
            u32 sampled = token.y & ~IN_PROMPT;
            if (sampled != 0) {
                x -= row.frequency * static_cast<float>(sampled);
                x -= row.presence;
            }
            chunk[token.x - first] = x;
        }
    }
    __syncthreads();
    for (u32 idx = threadIdx.x; idx < len; idx += blockDim.x) {
        adjusted[place + idx] = chunk[idx];
    }
}

// ---- order -------------------------------------------------------------------------------------

// Larger for better tokens: by logit, equal ones by the smaller id. NaN is worst.
__device__ __forceinline__ u64 rank_of(float x, u32 token) {
    u32 bits = __float_as_uint(x);
    u32 key = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
    if (x != x) {
        key = 0;
    }
    return static_cast<u64>(key) << 32 | static_cast<u32>(~token);
}

__device__ __forceinline__ u32 token_of(u64 rank) { return ~static_cast<u32>(rank); }

// Returns the best rank in every thread; `scratch` holds one number per warp and may be reused at
// once.
__device__ __forceinline__ u64 block_best(u64 rank, u64* scratch) {
    for (u32 step = WARP / 2; step > 0; step /= 2) {
        u64 other = __shfl_xor_sync(ALL_LANES, rank, step);
        rank = other > rank ? other : rank;
    }
    if (threadIdx.x % WARP == 0) {
        scratch[threadIdx.x / WARP] = rank;
    }
    __syncthreads();
    for (u32 warp = 0; warp < NUM_THREADS / WARP; warp++) {
        rank = scratch[warp] > rank ? scratch[warp] : rank;
    }
    __syncthreads();
    return rank;
}

// ---- cuts --------------------------------------------------------------------------------------

constexpr u32 BINS = 256;

struct Cut {
    u64 sizes[BINS];
    u32 counts[BINS];
    // Result of the scan of the bins.
    u64 left;
    u32 bin;
    u32 is_exact;
    u64 scratch[WARP];
};

// Sizes of tokens as integers, so that sums do not depend on the order of threads.
__device__ __forceinline__ u64 size_of_share(float share) {
    return static_cast<u64>(share * 1099511627776.0f);  // 2⁴⁰: 2¹⁸ tokens stay far below 2⁶⁴
}

// Run by one warp: finds the best bins whose sizes reach `wanted`. Each lane has eight bins, best
// first.
__device__ __forceinline__ void find_bin(Cut& alloc, u64 wanted) {
    u32 lane = threadIdx.x;
    u64 sum = 0;
    for (u32 idx = 0; idx < 8; idx++) {
        sum += alloc.sizes[BINS - 1 - (lane * 8 + idx)];
    }
    u64 reached = sum;
    for (u32 step = 1; step < WARP; step *= 2) {
        u64 before = __shfl_up_sync(ALL_LANES, reached, step);
        reached += lane >= step ? before : 0;
    }
    u32 enough = __ballot_sync(ALL_LANES, reached >= wanted);
    // The first lane that reaches `wanted`, or the last one if rounding leaves none.
    u32 chosen = WARP - 1;
    for (u32 other = WARP; other > 0; other--) {
        if ((enough >> (other - 1) & 1) != 0) {
            chosen = other - 1;
        }
    }
    if (lane == chosen) {
        u64 before = reached - sum;
        for (u32 idx = 0; idx < 8; idx++) {
            u32 bin = BINS - 1 - (lane * 8 + idx);
            u64 after = before + alloc.sizes[bin];
            if (after >= wanted || idx == 7) {
                alloc.bin = bin;
                alloc.left = wanted > before ? wanted - before : 0;
                alloc.is_exact = after == wanted || alloc.counts[bin] <= 1;
                break;
            }
            before = after;
        }
    }
}

// Finds the lowest rank to keep so that the kept sizes reach `wanted`, digit by digit. `visit(f)`
// calls f(rank, size) for each of this thread's candidates.
template <class Visit>
__device__ __forceinline__ u64 cut_at(Cut& alloc, u64 wanted, Visit visit) {
    u64 prefix = 0;
    for (u32 shift = 64; shift > 0;) {
        shift -= 8;
        for (u32 bin = threadIdx.x; bin < BINS; bin += NUM_THREADS) {
            alloc.sizes[bin] = 0;
            alloc.counts[bin] = 0;
        }
        __syncthreads();
        visit([&](u64 rank, u64 size) {
            // The first digit has no prefix; shifting by 64 is undefined.
            bool inside = shift == 56 || rank >> (shift + 8) == prefix >> (shift + 8);
            if (inside) {
                u32 bin = static_cast<u32>(rank >> shift) % BINS;
                atomicAdd(&alloc.counts[bin], 1u);
                if (size != 0) {
                    atomicAdd(&alloc.sizes[bin], size);
                }
            }
        });
        __syncthreads();
        if (threadIdx.x < WARP) {
            find_bin(alloc, wanted);
        }
        __syncthreads();
        prefix |= static_cast<u64>(alloc.bin) << shift;
        wanted = alloc.left;
        bool is_exact = alloc.is_exact != 0;
        __syncthreads();
        if (is_exact) {
            break;
        }
    }
    return prefix;
}

// ---- random numbers ----------------------------------------------------------------------------

// SplitMix64's step and finaliser.
__device__ __forceinline__ u64 mix(u64 state) {
    u64 z = state + 0x9e3779b97f4a7c15ull;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ z >> 27) * 0x94d049bb133111ebull;
    return z ^ z >> 31;
}

// Returns an exponentially distributed number of rate 1 for this token.
__device__ __forceinline__ float waiting_time(u64 stream, u32 token) {
    float bits = static_cast<float>(static_cast<u32>(mix(stream + token) >> 32));
    float uniform = (bits + 0.5f) * (1.0f / 4294967296.0f);
    return -log1pf(-fminf(uniform, 0.99999994f));
}

// A token that may still be sampled.
struct Candidate {
    float scaled;
    u32 token;
};

// logits (rows, vocab), adjusted if needed → samples (2, rows): the tokens, and 1 if softmax of the
// logits is a distribution, else 0. The token is always one of the vocabulary, since the next step
// may look it up before the host has seen it.
KERNEL __launch_bounds__(1024)
    sample(const float* logits, const Row* rows, u32 vocab, u32* sampled_tokens) {
    SHARED_MEMORY(memory);
    Cut& alloc = *reinterpret_cast<Cut*>(memory);
    Candidate* kept = reinterpret_cast<Candidate*>(memory + sizeof(Cut));  // (MAX_KEPT)
    u32* num_kept = reinterpret_cast<u32*>(kept + MAX_KEPT);
    wait_for_earlier_kernels();
    let_next_kernel_start();
    const Row row = rows[blockIdx.x];
    const float* x = logits + static_cast<u64>(blockIdx.x) * vocab;

    bool is_greedy = row.inverse_temperature == 0.0f;
    float inverse = is_greedy ? 1.0f : row.inverse_temperature;
    u64 best_rank = 0;
    float num_nan = 0.0f;
    for (u32 token = threadIdx.x; token < vocab; token += NUM_THREADS) {
        // + 0 makes −0 and +0 equal.
        u64 rank = rank_of(x[token] * inverse + 0.0f, token);
        best_rank = rank > best_rank ? rank : best_rank;
        num_nan += x[token] != x[token] ? 1.0f : 0.0f;
    }
    num_nan = block_sum(num_nan, reinterpret_cast<float*>(alloc.scratch));
    best_rank = block_best(best_rank, alloc.scratch);
    u32 winner = token_of(best_rank);

    if (!is_greedy) {
        float best = x[winner] * inverse;
        float floor = best + row.log_min_p;
        u64 threshold = 0;
        bool is_gathered = false;
        // Calls `action` for each of this thread's candidates with its probability relative to the
        // best one's.
        auto visit_candidates = [&](auto action) {
            if (is_gathered) {
                for (u32 idx = threadIdx.x; idx < *num_kept; idx += NUM_THREADS) {
                    u64 rank = rank_of(kept[idx].scaled, kept[idx].token);
                    if (rank >= threshold) {
                        action(rank, kept[idx].scaled);
                    }
                }
                return;
            }
            for (u32 token = threadIdx.x; token < vocab; token += NUM_THREADS) {
                float scaled = x[token] * inverse;
                u64 rank = rank_of(scaled, token);
                if (scaled >= floor && scaled > minus_infinity() && rank >= threshold) {
                    action(rank, scaled);
                }
            }
        };
        if (row.top_k != 0 && row.top_k < vocab) {
            threshold = cut_at(alloc, row.top_k, [&](auto put) {
                visit_candidates([&](u64 rank, float) { put(rank, static_cast<u64>(1)); });
            });
            if (row.top_k <= MAX_KEPT) {
                if (threadIdx.x == 0) {
                    *num_kept = 0;
                }
                __syncthreads();
                visit_candidates([&](u64 rank, float scaled) {
                    kept[atomicAdd(num_kept, 1u)] = Candidate{scaled, token_of(rank)};
                });
                __syncthreads();
                is_gathered = true;
            }
        }
        if (row.top_p < 1.0f) {
            if (threadIdx.x == 0) {
                alloc.left = 0;
            }
            __syncthreads();
            u64 mine = 0;
            visit_candidates([&](u64, float scaled) { mine += size_of_share(expf(scaled - best)); });
            atomicAdd(&alloc.left, mine);
            __syncthreads();
            u64 all = alloc.left;
            __syncthreads();
            u64 wanted = static_cast<u64>(static_cast<double>(row.top_p) * static_cast<double>(all));
            u64 nucleus = cut_at(alloc, wanted > 0 ? wanted : 1, [&](auto put) {
                visit_candidates([&](u64 rank, float scaled) {
                    put(rank, size_of_share(expf(scaled - best)));
                });
            });
            threshold = nucleus > threshold ? nucleus : threshold;
        }
        u64 first = 0;
        visit_candidates([&](u64 rank, float scaled) {
            u32 token = token_of(rank);
            u64 finish = rank_of(scaled - logf(waiting_time(row.stream, token)), token);
            first = finish > first ? finish : first;
        });
        first = block_best(first, alloc.scratch);
        // A row of NaN leaves no candidate.
        winner = first != 0 ? token_of(first) : winner;
    }
    if (threadIdx.x == 0) {
        sampled_tokens[blockIdx.x] = winner;
        float best = x[winner];
        bool is_finite = best > minus_infinity() && best < -minus_infinity();
        sampled_tokens[gridDim.x + blockIdx.x] = num_nan == 0.0f && is_finite ? 1 : 0;
    }
}

// Log-probabilities of the model's own distribution: of the samples, and of the best tokens.
//
//   logits (rows, vocab), not adjusted · samples (rows) → chosen (rows) f32, ranks (rows) (count
//   of tokens at least as probable), top_tokens (rows, MAX_TOP) u32, top (rows, MAX_TOP) f32;
//   best first, as many as the row requests
KERNEL __launch_bounds__(1024)
    log_probabilities(const float* logits, const Row* rows, u32 vocab, const u32* sampled_tokens,
                      float* chosen, u32* ranks, u32* top_tokens, float* top) {
    SHARED_MEMORY(memory);
    Cut& alloc = *reinterpret_cast<Cut*>(memory);
    u64* found = reinterpret_cast<u64*>(memory + sizeof(Cut));  // (MAX_TOP)
    u32* num_found = reinterpret_cast<u32*>(found + MAX_TOP);
    wait_for_earlier_kernels();
    let_next_kernel_start();
    u32 num_top = rows[blockIdx.x].num_top;
    if (num_top == NONE) {
        return;
    }
    num_top = smaller(smaller(num_top, MAX_TOP), vocab);
    const float* x = logits + static_cast<u64>(blockIdx.x) * vocab;
    float* scratch = reinterpret_cast<float*>(alloc.scratch);

    float best = minus_infinity();
    for (u32 token = threadIdx.x; token < vocab; token += NUM_THREADS) {
        best = fmaxf(best, x[token]);
    }
    best = block_max(best, scratch);
    float own = x[sampled_tokens[blockIdx.x]];
    float sum = 0.0f;
    float rank = 0.0f;  // exact: below 2²⁴
    for (u32 token = threadIdx.x; token < vocab; token += NUM_THREADS) {
        sum += expf(x[token] - best);
        rank += x[token] >= own ? 1.0f : 0.0f;
    }
    float log_sum = best + logf(block_sum(sum, scratch));
    rank = block_sum(rank, scratch);
    if (threadIdx.x == 0) {
        chosen[blockIdx.x] = own - log_sum;
        ranks[blockIdx.x] = static_cast<u32>(rank);
        *num_found = 0;
    }
    if (num_top == 0) {
        return;
    }
    auto visit_all = [&](auto action) {
        for (u32 token = threadIdx.x; token < vocab; token += NUM_THREADS) {
            action(rank_of(x[token], token), static_cast<u64>(1));
        }
    };
    u64 threshold = cut_at(alloc, num_top, visit_all);
    visit_all([&](u64 rank, u64) {
        if (rank >= threshold) {
            found[atomicAdd(num_found, 1u)] = rank;
        }
    });
    __syncthreads();
    if (threadIdx.x < num_top) {
        u64 mine = found[threadIdx.x];
        u32 place = 0;
        for (u32 idx = 0; idx < num_top; idx++) {
            place += found[idx] > mine;
        }
        u32 to = blockIdx.x * MAX_TOP + place;
        top_tokens[to] = token_of(mine);
        top[to] = x[token_of(mine)] - log_sum;
    }
}
