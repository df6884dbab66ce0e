// Scratch memory, and how rows are dealt to workers and cut into tiles.
#pragma once

#include "../../problem.h"
#include "../../sizes.h"
#include "simd.h"

namespace mvae_fast::MVAE_FAST_ISA {

// Rows a worker carries through all layers and steps at a time. Large enough that a weight
// gradient's read and write is spread over many rows, small enough that the tile's activations stay
// in L2 beside the packed weights.
constexpr int64_t kTile = 48;

// Hands out 64-byte aligned pieces of a workspace; started at address 0 it only counts, up to
// kTooMany.
class Arena {
 public:
  explicit Arena(void* base) : base_(reinterpret_cast<uintptr_t>(base)) {}
  // A piece of a * b * c elements. Sizes that do not come from tensors of that size have to be
  // multiplied here, where that is checked.
  template <class U>
  U* take(int64_t a, int64_t b = 1, int64_t c = 1) {
    U* piece = reinterpret_cast<U*>(base_ + static_cast<uintptr_t>(used_));
    const int64_t n = size_product(size_product(a, b), c);
    const int64_t bytes = size_sum(size_product(n, sizeof(U)), 63);
    used_ = size_sum(used_, bytes < kTooMany ? bytes / 64 * 64 : kTooMany);
    return piece;
  }
  bool counting() const { return base_ == 0; }
  int64_t used() const { return used_; }

 private:
  uintptr_t base_;
  int64_t used_ = 0;
};

// Bytes of a workspace of what all workers share and what each has for itself.
static inline int64_t workspace_size(const Arena& shared, int64_t workers, const Arena& own) {
  return size_sum(shared.used(), size_product(workers, own.used()));
}

// Where part i of `parts` even shares of `total` begins.
static inline int64_t share(int64_t total, int64_t parts, int64_t i) {
  return total * i / parts;
}

// Tiles of the worker who has most.
static inline int64_t most_tiles(int64_t rows, int64_t workers) {
  return (rows / workers + 1 + kTile - 1) / kTile;
}

// f(begin, n) for every tile of `worker`'s rows, of at most kTile each and as even as they come.
template <class F>
static void for_each_tile(int64_t rows, int64_t workers, int64_t worker, F f) {
  const int64_t begin = share(rows, workers, worker);
  const int64_t mine = share(rows, workers, worker + 1) - begin;
  const int64_t tiles = (mine + kTile - 1) / kTile;
  for (int64_t i = 0; i < tiles; ++i) {
    const int64_t from = share(mine, tiles, i);
    f(begin + from, share(mine, tiles, i + 1) - from);
  }
}

// f(j) for every panel (two vectors of columns, starting at j) of `worker`'s share of n columns.
template <class T, class F>
static void for_each_panel(int64_t n, int64_t workers, int64_t worker, F f) {
  constexpr int64_t width = 2 * kLanes<T>;
  const int64_t panels = (n + width - 1) / width;
  for (int64_t i = share(panels, workers, worker); i < share(panels, workers, worker + 1); ++i)
    f(i * width);
}

// Runs f(worker) on every worker.
template <class F>
static void run_workers(const Threads& threads, const F& f) {
  threads.run(
      threads.n, [](void* context, int64_t worker) { (*static_cast<const F*>(context))(worker); },
      const_cast<F*>(&f));
}

}  // namespace mvae_fast::MVAE_FAST_ISA
