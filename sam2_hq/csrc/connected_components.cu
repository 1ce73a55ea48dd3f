// 8-connected components of a batch of masks, by union-find over 2x2 blocks.
//
// All foreground pixels of a 2x2 block touch each other, so a block is one node and the forest has a
// quarter of the pixels. Blocks are numbered row by row within their image; the root of a tree is always
// its smallest block, which makes the result independent of the order in which threads run.
//
// Plain kernels without includes: nvcc, NVRTC and (with a shim) a C++ compiler for the CPU take this file.
// Launched by ops/connected_components.py, one after another on one stream, one thread per block of the
// whole batch. Sizes are checked there: every image has fewer than 2^31 pixels.

struct Block {
    int image;   // position in the batch
    int number;  // row * blocks across + column
    int row;
    int column;
};

// The block of this thread; false for the threads that pad the last launch row.
__device__ inline bool my_block(int images, int blocks_down, int blocks_across, Block* block) {
    const long long per_image = (long long)blocks_down * blocks_across;
    const long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (thread >= images * per_image) return false;
    block->image = (int)(thread / per_image);
    block->number = (int)(thread % per_image);
    block->row = block->number / blocks_across;
    block->column = block->number % blocks_across;
    return true;
}

// Foreground of a block as bits: 1 top left, 2 top right, 4 bottom left, 8 bottom right.
__device__ inline int read_block(const unsigned char* mask, int height, int width, int row, int column) {
    const int y = 2 * row;
    const int x = 2 * column;
    const unsigned char* pixel = mask + (long long)y * width + x;
    const bool has_right = x + 1 < width;
    int bits = pixel[0] ? 1 : 0;
    if (has_right && pixel[1]) bits |= 2;
    if (y + 1 < height) {
        if (pixel[width]) bits |= 4;
        if (has_right && pixel[width + 1]) bits |= 8;
    }
    return bits;
}

// Volatile: other threads re-hang nodes meanwhile. A stale parent is still an ancestor, so the walk ends.
__device__ inline int find_root(const int* parents, int node) {
    const volatile int* fresh = parents;
    int parent = fresh[node];
    while (parent != node) {
        node = parent;
        parent = fresh[node];
    }
    return node;
}

__device__ inline void join(int* parents, int first, int second) {
    int low = find_root(parents, first);
    int high = find_root(parents, second);
    while (low != high) {
        if (low > high) {
            const int larger = low;
            low = high;
            high = larger;
        }
        const int before = atomicMin(&parents[high], low);
        if (before == high) return;
        // Another thread hung `high` elsewhere first: its tree and ours still have to meet.
        high = find_root(parents, before);
        low = find_root(parents, low);
    }
}

extern "C" __global__ void start_trees(
    const unsigned char* masks, int* parents, int* areas, int images, int height, int width) {
    const int blocks_down = (height + 1) / 2;
    const int blocks_across = (width + 1) / 2;
    Block block;
    if (!my_block(images, blocks_down, blocks_across, &block)) return;
    const unsigned char* mask = masks + (long long)block.image * height * width;
    const long long node = (long long)block.image * blocks_down * blocks_across + block.number;
    const int bits = read_block(mask, height, width, block.row, block.column);
    parents[node] = bits ? block.number : -1;
    areas[node] = 0;
}

extern "C" __global__ void join_neighbours(
    const unsigned char* masks, int* parents, int images, int height, int width) {
    const int blocks_down = (height + 1) / 2;
    const int blocks_across = (width + 1) / 2;
    Block block;
    if (!my_block(images, blocks_down, blocks_across, &block)) return;
    const unsigned char* mask = masks + (long long)block.image * height * width;
    int* trees = parents + (long long)block.image * blocks_down * blocks_across;
    const int row = block.row;
    const int column = block.column;
    const int bits = read_block(mask, height, width, row, column);
    if (!bits) return;
    // Half of the neighbours is enough: the other half looks at this block.
    if (column > 0 && (bits & 5) && (read_block(mask, height, width, row, column - 1) & 10))
        join(trees, block.number, block.number - 1);
    if (row == 0) return;
    const int above = block.number - blocks_across;
    if ((bits & 3) && (read_block(mask, height, width, row - 1, column) & 12))
        join(trees, block.number, above);
    if (column > 0 && (bits & 1) && (read_block(mask, height, width, row - 1, column - 1) & 8))
        join(trees, block.number, above - 1);
    if (column + 1 < blocks_across && (bits & 2) &&
        (read_block(mask, height, width, row - 1, column + 1) & 4))
        join(trees, block.number, above + 1);
}

// Every block points straight at its root, and gives the root its pixels.
extern "C" __global__ void flatten_trees(
    const unsigned char* masks, int* parents, int* areas, int images, int height, int width) {
    const int blocks_down = (height + 1) / 2;
    const int blocks_across = (width + 1) / 2;
    Block block;
    if (!my_block(images, blocks_down, blocks_across, &block)) return;
    const unsigned char* mask = masks + (long long)block.image * height * width;
    const long long first = (long long)block.image * blocks_down * blocks_across;
    const int bits = read_block(mask, height, width, block.row, block.column);
    if (!bits) return;
    const int root = find_root(parents + first, block.number);
    parents[first + block.number] = root;
    const int pixels = (bits & 1) + (bits >> 1 & 1) + (bits >> 2 & 1) + (bits >> 3 & 1);
    atomicAdd(&areas[first + root], pixels);
}

// A label is 1 + the index of the top left pixel of the component's first block.
extern "C" __global__ void write_labels(
    const unsigned char* masks, const int* parents, const int* areas, int* labels_out, int* areas_out,
    int images, int height, int width) {
    const int blocks_down = (height + 1) / 2;
    const int blocks_across = (width + 1) / 2;
    Block block;
    if (!my_block(images, blocks_down, blocks_across, &block)) return;
    const long long first_pixel = (long long)block.image * height * width;
    const long long first = (long long)block.image * blocks_down * blocks_across;
    const int bits = read_block(masks + first_pixel, height, width, block.row, block.column);
    const int root = bits ? parents[first + block.number] : 0;
    const int label = 1 + 2 * (root / blocks_across) * width + 2 * (root % blocks_across);
    const int area = bits ? areas[first + root] : 0;
    for (int corner = 0; corner < 4; ++corner) {
        const int y = 2 * block.row + corner / 2;
        const int x = 2 * block.column + corner % 2;
        if (y >= height || x >= width) continue;
        const bool is_foreground = bits >> corner & 1;
        const long long pixel = first_pixel + (long long)y * width + x;
        labels_out[pixel] = is_foreground ? label : 0;
        areas_out[pixel] = is_foreground ? area : 0;
    }
}
