// The machine's peak as the engine can reach it: the register tile alone, on operands that stay in
// L1.
#pragma once

#include "../../problem.h"
#include "gemm.h"

namespace mvae_fast::MVAE_FAST_ISA {

template <class T>
static int64_t peak(int64_t repeats, const Threads& threads) {
  static constexpr int64_t kDepth = 128, kColumns = 2 * kLanes<T>;
  threads.run(
      threads.n,
      [](void* context, int64_t) {
        alignas(64) T a[kTileRows * kDepth] = {}, b[kDepth * kColumns] = {},
                                    c[kTileRows * kColumns];
        for (int64_t i = 0; i < *static_cast<int64_t*>(context); ++i) {
          register_tile<Numbers<T>, kTileRows, 2, false>(kDepth, a, kDepth, b, kColumns, c,
                                                         kColumns, false);
          asm volatile("" : : "r"(c) : "memory");  // the result is wanted, as far as anyone knows
        }
      },
      &repeats);
  return threads.n * repeats * kTileRows * kDepth * kColumns;
}

}  // namespace mvae_fast::MVAE_FAST_ISA
