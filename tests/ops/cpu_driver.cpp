// A CUDA driver for the CPU: the calls that sam2_hq/ops/cuda_module.py makes, over the kernels of KERNELS
// compiled as C++. Threads of a launch run in a shuffled order, on as many CPU threads as asked for.

#include <algorithm>
#include <cstring>
#include <numeric>
#include <random>
#include <thread>
#include <vector>

struct Index {
    unsigned x;
};
static thread_local Index blockIdx, threadIdx, blockDim;

#define __global__
#define __device__

static int atomicMin(int* place, int value) {
    int seen = __atomic_load_n(place, __ATOMIC_SEQ_CST);
    while (seen > value && !__atomic_compare_exchange_n(place, &seen, value, false, __ATOMIC_SEQ_CST,
                                                        __ATOMIC_SEQ_CST)) {
    }
    return seen;
}

static int atomicAdd(int* place, int value) { return __atomic_fetch_add(place, value, __ATOMIC_SEQ_CST); }

#include KERNELS

template <typename T>
static T argument(void** arguments, int position) {
    return *static_cast<T*>(arguments[position]);
}

using Mask = const unsigned char*;
enum Kernel { START = 1, JOIN, FLATTEN, WRITE };

static void run(Kernel kernel, void** a) {
    switch (kernel) {
        case START:
            return start_trees(argument<Mask>(a, 0), argument<int*>(a, 1), argument<int*>(a, 2),
                               argument<int>(a, 3), argument<int>(a, 4), argument<int>(a, 5));
        case JOIN:
            return join_neighbours(argument<Mask>(a, 0), argument<int*>(a, 1), argument<int>(a, 2),
                                   argument<int>(a, 3), argument<int>(a, 4));
        case FLATTEN:
            return flatten_trees(argument<Mask>(a, 0), argument<int*>(a, 1), argument<int*>(a, 2),
                                 argument<int>(a, 3), argument<int>(a, 4), argument<int>(a, 5));
        case WRITE:
            return write_labels(argument<Mask>(a, 0), argument<const int*>(a, 1), argument<const int*>(a, 2),
                                argument<int*>(a, 3), argument<int*>(a, 4), argument<int>(a, 5),
                                argument<int>(a, 6), argument<int>(a, 7));
    }
}

static unsigned seed = 0;
static unsigned workers = 1;

extern "C" {

void set_order(unsigned new_seed, unsigned new_workers) {
    seed = new_seed;
    workers = new_workers;
}

int cuCtxGetCurrent(void**) { return 0; }

int cuCtxSetCurrent(void*) { return 0; }

int cuModuleLoadData(void** module, const void* image) {
    *module = nullptr;
    return std::strcmp(static_cast<const char*>(image), "broken") == 0 ? 209 : 0;
}

int cuModuleGetFunction(void** function, void*, const char* name) {
    static const char* const names[] = {"start_trees", "join_neighbours", "flatten_trees", "write_labels"};
    for (int i = 0; i < 4; ++i) {
        if (std::strcmp(name, names[i]) != 0) continue;
        *function = reinterpret_cast<void*>(static_cast<long>(i + 1));
        return 0;
    }
    return 500;
}

int cuLaunchKernel(void* function, unsigned grid_x, unsigned, unsigned, unsigned block_x, unsigned, unsigned,
                   unsigned, void*, void** arguments, void**) {
    const auto kernel = static_cast<Kernel>(reinterpret_cast<long>(function));
    std::vector<unsigned> order(grid_x * block_x);
    std::iota(order.begin(), order.end(), 0u);
    if (seed) std::shuffle(order.begin(), order.end(), std::mt19937(seed));
    const auto work = [&](unsigned worker) {
        blockDim.x = block_x;
        for (size_t i = worker; i < order.size(); i += workers) {
            blockIdx.x = order[i] / block_x;
            threadIdx.x = order[i] % block_x;
            run(kernel, arguments);
        }
    };
    std::vector<std::thread> threads;
    for (unsigned worker = 1; worker < workers; ++worker) threads.emplace_back(work, worker);
    work(0);
    for (auto& thread : threads) thread.join();
    return 0;
}

int cuGetErrorString(int status, const char** text) {
    *text = status == 209 ? "no kernel image is available" : "named symbol not found";
    return 0;
}
}
