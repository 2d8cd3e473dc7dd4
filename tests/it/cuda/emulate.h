// The execution model of a CUDA kernel for an ordinary C++ compiler, enough of it to test kernels
// without a GPU. Included before a kernel's source; the emulator appends the entry points.
//
// A block's threads are fibers that run until they must wait for each other, so a barrier that is
// missing shows: the first thread reads what the second has not yet written. Blocks run one after
// another in a shuffled order. Shared memory starts as NaNs and is guarded on both sides. Copies
// marked asynchronous happen at once or at their wait, by the launch's seed. A warp's matrix
// instructions follow the lane layouts of the PTX ISA.

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>
#include <vector>
#include <sys/mman.h>

#define EMULATED 1
#define __global__
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct alignas(16) uint4 { unsigned x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) float2 { float x, y; };
struct Dim3 { unsigned x, y, z; };

static Dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulated {

constexpr unsigned LANES = 32;
constexpr std::size_t STACK_BYTES = 128 * 1024;
constexpr std::size_t GUARD_BYTES = 4096;
constexpr unsigned char POISON = 0xff;
constexpr unsigned char GUARD = 0xa5;
// More turns without anybody getting on than any block has threads, several times over.
constexpr unsigned MAX_IDLE_TURNS = 1u << 16;

struct Copy {
    void* to;
    const void* from;
    unsigned num_bytes;
    unsigned group;
};

struct Fiber {
    void* stack_pointer;
    Dim3 index;
    bool done;
    unsigned num_groups;
    std::vector<Copy> copies;
};

// What the lanes of a warp bring to an instruction that they execute together.
struct Operands {
    unsigned words[6];
    float sums[4];
    const void* address;
    unsigned long long number;
};

struct Warp {
    Operands lanes[2][LANES];
    unsigned generation;
    unsigned num_arrived;
    unsigned num_live;
};

struct Block {
    std::vector<Fiber> fibers;
    std::vector<Warp> warps;
    unsigned current;
    unsigned num_arrived;
    unsigned num_live;
    unsigned generation;
    unsigned num_idle_turns;
    void* main_stack_pointer;
    unsigned char* shared;
    unsigned num_shared_bytes;
    bool copies_are_late;
    bool failed;
    char message[256];
    void (*body)(void*);
    void* body_argument;
};

static Block block;

extern "C" __attribute__((visibility("hidden"))) void emulated_switch(void** save, void* load);

#if defined(__x86_64__)
asm(".text\n"
    ".globl emulated_switch\n"
    ".hidden emulated_switch\n"
    ".type emulated_switch, @function\n"
    "emulated_switch:\n"
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp, (%rdi)\n"
    "  movq %rsi, %rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n"
    "  ret\n"
    ".size emulated_switch, .-emulated_switch\n");

static void* fresh_stack(unsigned char* top, void (*entry)()) {
    // At a function's first instruction the stack is 8 short of a multiple of 16.
    void** stack = reinterpret_cast<void**>(reinterpret_cast<std::uintptr_t>(top) & ~std::uintptr_t(15)) - 1;
    *--stack = reinterpret_cast<void*>(entry);
    for (int saved = 0; saved < 6; saved++) {
        *--stack = nullptr;
    }
    return stack;
}
#elif defined(__aarch64__)
asm(".text\n"
    ".globl emulated_switch\n"
    ".hidden emulated_switch\n"
    ".type emulated_switch, %function\n"
    "emulated_switch:\n"
    "  sub sp, sp, #160\n"
    "  stp x19, x20, [sp, #0]\n  stp x21, x22, [sp, #16]\n  stp x23, x24, [sp, #32]\n"
    "  stp x25, x26, [sp, #48]\n  stp x27, x28, [sp, #64]\n  stp x29, x30, [sp, #80]\n"
    "  stp d8, d9, [sp, #96]\n  stp d10, d11, [sp, #112]\n"
    "  stp d12, d13, [sp, #128]\n  stp d14, d15, [sp, #144]\n"
    "  mov x9, sp\n  str x9, [x0]\n  mov sp, x1\n"
    "  ldp x19, x20, [sp, #0]\n  ldp x21, x22, [sp, #16]\n  ldp x23, x24, [sp, #32]\n"
    "  ldp x25, x26, [sp, #48]\n  ldp x27, x28, [sp, #64]\n  ldp x29, x30, [sp, #80]\n"
    "  ldp d8, d9, [sp, #96]\n  ldp d10, d11, [sp, #112]\n"
    "  ldp d12, d13, [sp, #128]\n  ldp d14, d15, [sp, #144]\n"
    "  add sp, sp, #160\n"
    "  ret\n"
    ".size emulated_switch, .-emulated_switch\n");

static void* fresh_stack(unsigned char* top, void (*entry)()) {
    void** stack = reinterpret_cast<void**>(reinterpret_cast<std::uintptr_t>(top) & ~std::uintptr_t(15)) - 20;
    std::memset(stack, 0, 160);
    stack[11] = reinterpret_cast<void*>(entry);  // x30
    return stack;
}
#else
#error "the emulator knows how to switch stacks on x86-64 and AArch64 only"
#endif

static void go_to(unsigned next) {
    unsigned from = block.current;
    if (next == from) {
        return;
    }
    block.current = next;
    threadIdx = block.fibers[next].index;
    emulated_switch(&block.fibers[from].stack_pointer, block.fibers[next].stack_pointer);
}

static void leave() {
    void* unused;
    emulated_switch(&unused, block.main_stack_pointer);
    std::abort();  // nobody comes back to a fiber that has left
}

[[gnu::noinline]] static void fail(const char* what) {
    std::snprintf(block.message, sizeof block.message, "block (%u, %u, %u) thread %u: %s",
                  blockIdx.x, blockIdx.y, blockIdx.z, block.current, what);
    block.failed = true;
    leave();
}

static void expect(bool holds, const char* what) {
    if (!holds) {
        fail(what);
    }
}

static unsigned next_live(unsigned first, unsigned count, unsigned current) {
    for (unsigned step = 1; step <= count; step++) {
        unsigned candidate = first + (current - first + step) % count;
        if (!block.fibers[candidate].done) {
            return candidate;
        }
    }
    return current;
}

static unsigned lane() { return block.current % LANES; }
static Warp& warp() { return block.warps[block.current / LANES]; }

static void idle_turn() {
    if (++block.num_idle_turns > MAX_IDLE_TURNS) {
        fail("threads wait for others that never come: a barrier or a warp's instruction diverged");
    }
}

static void yield_in_warp() {
    idle_turn();
    unsigned first = block.current / LANES * LANES;
    unsigned count = static_cast<unsigned>(block.fibers.size()) - first;
    unsigned next = next_live(first, count < LANES ? count : LANES, block.current);
    if (next == block.current) {
        fail("a lane waits for lanes that have ended");
    }
    go_to(next);
}

static void yield_in_block() {
    idle_turn();
    go_to(next_live(0, static_cast<unsigned>(block.fibers.size()), block.current));
}

static void release_warp(Warp& w) {
    w.num_arrived = 0;
    w.generation++;
    block.num_idle_turns = 0;
}

static void release_block() {
    block.num_arrived = 0;
    block.generation++;
    block.num_idle_turns = 0;
}

// Every lane brings `mine`; the last to arrive runs `work` over what all have brought. A lane can
// be at most one instruction ahead of the others, so two sets of operands suffice.
template <class Work>
static Operands together(const Operands& mine, Work work) {
    Warp& w = warp();
    unsigned generation = w.generation;
    Operands(&set)[LANES] = w.lanes[generation % 2];
    unsigned me = lane();
    set[me] = mine;
    if (++w.num_arrived == w.num_live) {
        expect(w.num_live == LANES, "a warp's instruction misses lanes");
        work(set);
        release_warp(w);
    } else {
        while (w.generation == generation) {
            yield_in_warp();
        }
    }
    return set[me];
}

// As `together`, then the value of another lane.
static unsigned long long exchange(unsigned long long value, unsigned from) {
    Warp& w = warp();
    unsigned generation = w.generation;
    Operands mine{};
    mine.number = value;
    together(mine, [](Operands(&)[LANES]) {});
    return w.lanes[generation % 2][from % LANES].number;
}

static void fiber_main() {
    block.body(block.body_argument);
    Fiber& me = block.fibers[block.current];
    me.done = true;
    Warp& w = warp();
    w.num_live--;
    if (w.num_live > 0 && w.num_arrived == w.num_live) {
        release_warp(w);
    }
    block.num_live--;
    if (block.num_live == 0) {
        leave();
    }
    if (block.num_arrived == block.num_live) {
        release_block();
    }
    go_to(next_live(0, static_cast<unsigned>(block.fibers.size()), block.current));
    std::abort();  // nobody comes back to a fiber that has ended
}

static unsigned char* stacks() {
    static unsigned char* memory = static_cast<unsigned char*>(
        mmap(nullptr, STACK_BYTES * 1024, PROT_READ | PROT_WRITE,
             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
    return memory;
}

static void run_block() {
    unsigned num_threads = blockDim.x * blockDim.y * blockDim.z;
    unsigned num_warps = (num_threads + LANES - 1) / LANES;
    block.fibers.resize(num_threads);
    block.warps.resize(num_warps);
    for (unsigned idx = 0; idx < num_warps; idx++) {
        unsigned rest = num_threads - idx * LANES;
        block.warps[idx].generation = 0;
        block.warps[idx].num_arrived = 0;
        block.warps[idx].num_live = rest < LANES ? rest : LANES;
    }
    for (unsigned idx = 0; idx < num_threads; idx++) {
        Fiber& fiber = block.fibers[idx];
        fiber.stack_pointer = fresh_stack(stacks() + (idx + 1) * STACK_BYTES, fiber_main);
        fiber.index = {idx % blockDim.x, idx / blockDim.x % blockDim.y, idx / (blockDim.x * blockDim.y)};
        fiber.done = false;
        fiber.num_groups = 0;
        fiber.copies.clear();
    }
    block.num_arrived = 0;
    block.num_live = num_threads;
    block.generation = 0;
    block.num_idle_turns = 0;
    std::memset(block.shared, POISON, block.num_shared_bytes);
    block.current = 0;
    threadIdx = block.fibers[0].index;
    emulated_switch(&block.main_stack_pointer, block.fibers[0].stack_pointer);
}

// A launch as the emulator passes it.
struct Launch {
    unsigned grid[3];
    unsigned block[3];
    unsigned num_shared_bytes;
    unsigned seed;
    const unsigned long long* args;
    unsigned num_args;
    char* message;  // 256 bytes
};

template <class T>
struct Argument {
    static T of(unsigned long long bits) { return static_cast<T>(bits); }
};
template <class T>
struct Argument<T*> {
    static T* of(unsigned long long bits) { return reinterpret_cast<T*>(static_cast<std::uintptr_t>(bits)); }
};
template <>
struct Argument<float> {
    static float of(unsigned long long bits) {
        unsigned word = static_cast<unsigned>(bits);
        float x;
        std::memcpy(&x, &word, 4);
        return x;
    }
};

template <class... Parameters>
struct Call {
    void (*kernel)(Parameters...);
    const unsigned long long* args;

    template <std::size_t... Index>
    void with(std::index_sequence<Index...>) const {
        kernel(Argument<Parameters>::of(args[Index])...);
    }
    static void body(void* self) {
        static_cast<const Call*>(self)->with(std::index_sequence_for<Parameters...>{});
    }
};

static unsigned gcd(unsigned a, unsigned b) { return b == 0 ? a : gcd(b, a % b); }

template <class... Parameters>
static int run(void (*kernel)(Parameters...), const Launch& launch) {
    block.failed = false;
    if (launch.num_args != sizeof...(Parameters)) {
        std::snprintf(launch.message, 256, "takes %u arguments and was given %u",
                      static_cast<unsigned>(sizeof...(Parameters)), launch.num_args);
        return 1;
    }
    Call<Parameters...> call{kernel, launch.args};
    block.body = Call<Parameters...>::body;
    block.body_argument = &call;
    gridDim = {launch.grid[0], launch.grid[1], launch.grid[2]};
    blockDim = {launch.block[0], launch.block[1], launch.block[2]};
    block.copies_are_late = launch.seed % 2 == 0;

    std::size_t shared = launch.num_shared_bytes;
    std::vector<unsigned char> memory(shared + 2 * GUARD_BYTES + 128, GUARD);
    std::uintptr_t start = (reinterpret_cast<std::uintptr_t>(memory.data()) + GUARD_BYTES + 127) & ~std::uintptr_t(127);
    block.shared = reinterpret_cast<unsigned char*>(start);
    block.num_shared_bytes = launch.num_shared_bytes;

    unsigned num_blocks = gridDim.x * gridDim.y * gridDim.z;
    unsigned stride = num_blocks / 2 + 1 + launch.seed % 7;
    while (gcd(stride, num_blocks) != 1) {
        stride++;
    }
    unsigned index = launch.seed % num_blocks;
    for (unsigned count = 0; count < num_blocks; count++) {
        blockIdx = {index % gridDim.x, index / gridDim.x % gridDim.y, index / (gridDim.x * gridDim.y)};
        run_block();
        if (block.failed) {
            std::memcpy(launch.message, block.message, 256);
            return 1;
        }
        for (unsigned offset = 1; offset <= GUARD_BYTES; offset++) {
            if (block.shared[-static_cast<std::ptrdiff_t>(offset)] != GUARD ||
                (offset <= GUARD_BYTES - 128 && block.shared[shared + offset - 1] != GUARD)) {
                std::snprintf(launch.message, 256, "block (%u, %u, %u) wrote outside its %u bytes of shared memory",
                              blockIdx.x, blockIdx.y, blockIdx.z, launch.num_shared_bytes);
                return 1;
            }
        }
        index = static_cast<unsigned>((static_cast<unsigned long long>(index) + stride) % num_blocks);
    }
    return 0;
}

static void expect_shared(const void* pointer, unsigned num_bytes) {
    const unsigned char* first = static_cast<const unsigned char*>(pointer);
    expect(first >= block.shared && first + num_bytes <= block.shared + block.num_shared_bytes,
           "an address outside shared memory");
    expect((first - block.shared) % 16 == 0, "an address in shared memory that is not 16-byte aligned");
}

static void expect_aligned(const void* pointer) {
    expect(reinterpret_cast<std::uintptr_t>(pointer) % 16 == 0, "an address that is not 16-byte aligned");
}

static float widen_bits(unsigned bits) {
    unsigned word = bits << 16;
    float x;
    std::memcpy(&x, &word, 4);
    return x;
}

static void multiply_matrices(Operands(&lanes)[LANES]) {
    float a[16][16], b[16][8];
    for (unsigned l = 0; l < LANES; l++) {
        unsigned g = l / 4, t = l % 4;
        for (unsigned high = 0; high < 2; high++) {
            for (unsigned reg = 0; reg < 4; reg++) {
                a[g + reg % 2 * 8][2 * t + reg / 2 * 8 + high] = widen_bits(lanes[l].words[reg] >> (16 * high) & 0xffff);
            }
            for (unsigned reg = 0; reg < 2; reg++) {
                b[2 * t + reg * 8 + high][g] = widen_bits(lanes[l].words[4 + reg] >> (16 * high) & 0xffff);
            }
        }
    }
    for (unsigned l = 0; l < LANES; l++) {
        unsigned g = l / 4, t = l % 4;
        for (unsigned idx = 0; idx < 4; idx++) {
            unsigned row = g + idx / 2 * 8, column = 2 * t + idx % 2;
            float sum = 0.0f;
            for (unsigned k = 0; k < 16; k++) {
                sum += a[row][k] * b[k][column];
            }
            lanes[l].sums[idx] += sum;
        }
    }
}

template <bool TRANSPOSED>
static void read_matrices(Operands(&lanes)[LANES]) {
    unsigned words[LANES][4];
    for (unsigned l = 0; l < LANES; l++) {
        for (unsigned matrix = 0; matrix < 4; matrix++) {
            unsigned short pair[2];
            for (unsigned high = 0; high < 2; high++) {
                unsigned row = TRANSPOSED ? 2 * (l % 4) + high : l / 4;
                unsigned column = TRANSPOSED ? l / 4 : 2 * (l % 4) + high;
                pair[high] = static_cast<const unsigned short*>(lanes[matrix * 8 + row].address)[column];
            }
            words[l][matrix] = pair[0] | static_cast<unsigned>(pair[1]) << 16;
        }
    }
    for (unsigned l = 0; l < LANES; l++) {
        std::memcpy(lanes[l].words, words[l], sizeof words[l]);
    }
}

static void finish_copies(unsigned num_pending) {
    Fiber& me = block.fibers[block.current];
    std::vector<Copy> left;
    for (const Copy& copy : me.copies) {
        if (copy.group + num_pending < me.num_groups) {
            if (copy.from == nullptr) {
                std::memset(copy.to, 0, copy.num_bytes);
            } else {
                std::memcpy(copy.to, copy.from, copy.num_bytes);
            }
        } else {
            left.push_back(copy);
        }
    }
    me.copies.swap(left);
}

}  // namespace emulated

// ---- what a kernel's source calls ----------------------------------------------------------------

#define SHARED_MEMORY(name) unsigned char* name = emulated::block.shared

static void __syncthreads() {
    using namespace emulated;
    unsigned generation = block.generation;
    if (++block.num_arrived == block.num_live) {
        release_block();
    } else {
        while (block.generation == generation) {
            yield_in_block();
        }
    }
}

static void __syncwarp() {
    emulated::together(emulated::Operands{}, [](emulated::Operands(&)[emulated::LANES]) {});
}

static void __threadfence() {}

template <class T>
static T emulated_exchange(unsigned mask, T value, unsigned from) {
    static_assert(sizeof(T) <= 8, "a lane passes at most 8 bytes");
    emulated::expect(mask == 0xffffffffu, "a warp's instruction without all lanes");
    unsigned long long bits = 0;
    std::memcpy(&bits, &value, sizeof value);
    bits = emulated::exchange(bits, from);
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

template <class T>
static T __shfl_xor_sync(unsigned mask, T value, unsigned other) {
    return emulated_exchange(mask, value, emulated::lane() ^ other);
}

template <class T>
static T __shfl_sync(unsigned mask, T value, unsigned from) {
    return emulated_exchange(mask, value, from);
}

template <class T>
static T __shfl_up_sync(unsigned mask, T value, unsigned by) {
    unsigned me = emulated::lane();
    return emulated_exchange(mask, value, me >= by ? me - by : me);
}

static unsigned __ballot_sync(unsigned mask, bool holds) {
    emulated::expect(mask == 0xffffffffu, "a warp's instruction without all lanes");
    emulated::Operands mine{};
    mine.words[0] = holds;
    return emulated::together(mine, [](emulated::Operands(&lanes)[emulated::LANES]) {
        unsigned bits = 0;
        for (unsigned l = 0; l < emulated::LANES; l++) {
            bits |= lanes[l].words[0] << l;
        }
        for (unsigned l = 0; l < emulated::LANES; l++) {
            lanes[l].words[0] = bits;
        }
    }).words[0];
}

template <class T>
static T atomicAdd(T* at, T by) {
    T before = *at;
    *at = before + by;
    return before;
}

template <class T>
static T atomicMax(T* at, T value) {
    T before = *at;
    *at = value > before ? value : before;
    return before;
}

static unsigned __float_as_uint(float x) {
    unsigned bits;
    std::memcpy(&bits, &x, 4);
    return bits;
}

static float __uint_as_float(unsigned bits) {
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}

static int __popc(unsigned x) { return __builtin_popcount(x); }
static float rsqrtf(float x) { return 1.0f / std::sqrt(x); }

static unsigned short narrow(float x) {
    unsigned bits = __float_as_uint(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) {
        return 0x7fff;
    }
    return static_cast<unsigned short>((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}

static unsigned narrow2(float low, float high) {
    return narrow(low) | static_cast<unsigned>(narrow(high)) << 16;
}

static uint4 load16(const void* from) {
    emulated::expect_aligned(from);
    uint4 v;
    std::memcpy(&v, from, 16);
    return v;
}

static uint4 load16_once(const void* from) { return load16(from); }

static void store16(void* to, uint4 v) {
    emulated::expect_aligned(to);
    std::memcpy(to, &v, 16);
}

static void copy16_async(void* to, const void* from, bool valid) {
    emulated::expect_shared(to, 16);
    emulated::expect_aligned(from);
    emulated::Fiber& me = emulated::block.fibers[emulated::block.current];
    me.copies.push_back({to, valid ? from : nullptr, 16, me.num_groups});
    if (!emulated::block.copies_are_late) {
        const emulated::Copy& copy = me.copies.back();
        if (copy.from == nullptr) {
            std::memset(copy.to, 0, 16);
        } else {
            std::memcpy(copy.to, copy.from, 16);
        }
        me.copies.pop_back();
    }
}

static void copies_commit() { emulated::block.fibers[emulated::block.current].num_groups++; }

template <int NUM_PENDING>
static void copies_wait() {
    emulated::finish_copies(NUM_PENDING);
}

static void load_matrices(unsigned (&m)[4], const void* row) {
    emulated::expect_shared(row, 16);
    emulated::Operands mine{};
    mine.address = row;
    mine = emulated::together(mine, emulated::read_matrices<false>);
    std::memcpy(m, mine.words, sizeof m);
}

static void load_matrices_transposed(unsigned (&m)[4], const void* row) {
    emulated::expect_shared(row, 16);
    emulated::Operands mine{};
    mine.address = row;
    mine = emulated::together(mine, emulated::read_matrices<true>);
    std::memcpy(m, mine.words, sizeof m);
}

static void multiply_add(float (&d)[4], const unsigned (&a)[4], unsigned b0, unsigned b1) {
    emulated::Operands mine{};
    std::memcpy(mine.words, a, sizeof a);
    mine.words[4] = b0;
    mine.words[5] = b1;
    std::memcpy(mine.sums, d, sizeof d);
    mine = emulated::together(mine, emulated::multiply_matrices);
    std::memcpy(d, mine.sums, sizeof d);
}

static void wait_for_earlier_kernels() {}
static void let_next_kernel_start() {}
