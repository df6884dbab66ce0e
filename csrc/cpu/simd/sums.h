// Sums over rows: in T for a while, then in double.
#pragma once

#include <type_traits>

#include "tiles.h"

namespace mvae_fast::MVAE_FAST_ISA {

// Additions, each the sum of a tile's rows, that a float takes before it goes to a double. It is
// then about as far off as the tile's own sum of kTile products. Without a double, what is added to
// a float of a million rows rounds at that float's size: a gradient was off by 3e-2.
constexpr int64_t kAdditions = 64;

// One worker's sums that make a table (rows, size).
template <class T>
struct Sums {
  T* part;        // what was added since the last flush
  double* whole;  // what was flushed; null where no more than kAdditions come
  int64_t rows, size;

  static Sums take(int64_t rows, int64_t size, int64_t additions, Arena& arena) {
    Sums x{arena.take<T>(rows, size), nullptr, rows, size};
    if (std::is_same_v<T, float> && additions > kAdditions)
      x.whole = arena.take<double>(rows, size);
    return x;
  }
  void clear() const {
    memset(part, 0, rows * size * sizeof(T));
    if (whole) memset(whole, 0, rows * size * sizeof(double));
  }
  void flush() const {
    if (!whole) return;
    for (int64_t i = 0; i < rows * size; ++i) whole[i] += part[i];
    memset(part, 0, rows * size * sizeof(T));
  }
  T* row(int64_t i) const { return part + i * size; }
};

// to[i] = the sum over workers of element at + i, in worker order: the same bits for the same
// number of threads. Worker w's sums lie w * stride bytes after the first one's.
template <class T, class U>
static void add_workers(const Sums<T>& first, int64_t at, int64_t n, int64_t workers,
                        int64_t stride, U* to) {
  const auto of_worker = [&](auto* x, int64_t w) {
    return reinterpret_cast<decltype(x)>(reinterpret_cast<char*>(x) + w * stride) + at;
  };
  if (workers == 1 && !first.whole) {
    for (int64_t i = 0; i < n; ++i) to[i] = static_cast<U>(first.part[at + i]);
    return;
  }
  constexpr int64_t kBlock = 64;
  for (int64_t begin = 0; begin < n; begin += kBlock) {
    const int64_t count = smaller(kBlock, n - begin);
    double total[kBlock] = {};
    for (int64_t w = 0; w < workers; ++w) {
      const T* part = of_worker(first.part, w) + begin;
      for (int64_t i = 0; i < count; ++i) total[i] += part[i];
      if (!first.whole) continue;
      const double* whole = of_worker(first.whole, w) + begin;
      for (int64_t i = 0; i < count; ++i) total[i] += whole[i];
    }
    for (int64_t i = 0; i < count; ++i) to[begin + i] = static_cast<U>(total[i]);
  }
}

}  // namespace mvae_fast::MVAE_FAST_ISA
