// Matrix products on a tile of rows, from one register kernel.
//
//   rows:  C (rows, n) (+)= A (rows, k) B (k, n)    B packed: the forward and backward passes
//   through a layer outer: C (m, n)     +=  A (rows, m)' B (rows, n)          weight gradients
//
// The register tile is kTileRows x 2 vectors, fully unrolled, and kept out of line: inlined into a
// larger function it lost half its speed to spills. Epilogues therefore run as a second pass over
// the still-cached tile (elementwise.h).
#pragma once

#include "simd.h"

namespace mvae_fast::MVAE_FAST_ISA {

// The operands of a tile: numbers, which are multiplied as they are.
template <class T>
struct Numbers {
  using Sum = T;
  using Operand = T;
  using Row = Vec<T>;
  MVAE_FAST_INLINE Row row(const T* b) { return load(b); }
  MVAE_FAST_INLINE Row splat_of(T a) { return splat(a); }
  MVAE_FAST_INLINE Vec<T> multiply_add(Vec<T> sum, Row a, Row b) { return sum + a * b; }
};

// C[i, :] (+)= sum_k A(i, k) B[k, :], for MR rows and NV vectors. A(i, k) is a[i * lda + k], or a[i
// + k * lda] if Transposed.
template <class Of, int MR, int NV, bool Transposed>
__attribute__((noinline)) static void register_tile(int64_t k, const typename Of::Operand* a,
                                                    int64_t lda, const typename Of::Operand* b,
                                                    int64_t ldb, typename Of::Sum* c, int64_t ldc,
                                                    bool accumulate) {
  using V = Vec<typename Of::Sum>;
  using Row = typename Of::Row;
  constexpr int64_t n = kLanes<typename Of::Sum>;
  V x[MR][NV];
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) x[i][j] = V{};
  // Rows in groups of three around one pointer: x86 addresses base, base + lda and base + 2 lda
  // without further registers.
  const typename Of::Operand* base[(MR + 2) / 3];
#pragma GCC unroll 4
  for (int g = 0; g < (MR + 2) / 3; ++g) base[g] = Transposed ? a + 3 * g : a + 3 * g * lda;
  for (int64_t t = 0; t < k; ++t) {
    Row row[NV];
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) row[j] = Of::row(b + j * n);
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i) {
      const Row s = Of::splat_of(Transposed ? base[i / 3][i % 3] : base[i / 3][(i % 3) * lda]);
#pragma GCC unroll 4
      for (int j = 0; j < NV; ++j) x[i][j] = Of::multiply_add(x[i][j], s, row[j]);
    }
    b += ldb;
#pragma GCC unroll 4
    for (int g = 0; g < (MR + 2) / 3; ++g) base[g] += Transposed ? lda : 1;
  }
  if (accumulate) {
    // Last, not as the start of the sum: there each of the k terms would round at the size of C.
#pragma GCC unroll 16
    for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < NV; ++j) x[i][j] += load(c + i * ldc + j * n);
  }
#pragma GCC unroll 16
  for (int i = 0; i < MR; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < NV; ++j) store(c + i * ldc + j * n, x[i][j]);
}

template <class Of>
using RegisterTile = decltype(&register_tile<Of, 1, 1, false>);

// The kernel for `rows` (1 .. kTileRows) rows.
template <class Of, int NV, bool Transposed, int MR = kTileRows>
static inline RegisterTile<Of> tile_for(int64_t rows) {
  if constexpr (MR == 1) {
    return register_tile<Of, 1, NV, Transposed>;
  } else {
    return rows == MR ? register_tile<Of, MR, NV, Transposed>
                      : tile_for<Of, NV, Transposed, MR - 1>(rows);
  }
}

template <class Of, bool Transposed>
static inline void run_tile(int64_t rows, int64_t columns, int64_t k, const typename Of::Operand* a,
                            int64_t lda, const typename Of::Operand* b, int64_t ldb,
                            typename Of::Sum* c, int64_t ldc, bool accumulate) {
  const RegisterTile<Of> tile = columns > kLanes<typename Of::Sum>
                                    ? tile_for<Of, 2, Transposed>(rows)
                                    : tile_for<Of, 1, Transposed>(rows);
  tile(k, a, lda, b, ldb, c, ldc, accumulate);
}

// Panel starting at column j (a multiple of two vectors) of a packed operand with k rows.
template <class T>
static inline int64_t panel_width(int64_t n, int64_t j) {
  return smaller(2 * kLanes<T>, padded<T>(n) - j);
}

// Packs rows t_begin .. t_end of the panel at column j of B(t, j) = source[t * row_stride + j *
// column_stride] to `to`; columns beyond n are zero.
template <class T>
static void pack_panel(T* to, int64_t n, int64_t j, const T* source, int64_t row_stride,
                       int64_t column_stride, int64_t t_begin, int64_t t_end) {
  const int64_t width = panel_width<T>(n, j), full = smaller(width, n - j);
  source += j * column_stride;
  int64_t t = t_begin;
  if (row_stride == 1)
    for (; t + kLanes<T> <= t_end; t += kLanes<T>, to += kLanes<T> * width)
      for (int64_t i = 0; i < width; i += kLanes<T>)
        transpose<T>(source + t + i * column_stride, column_stride, full - i, to + i, width);
  for (; t < t_end; ++t, to += width) {
    const T* from = source + t * row_stride;
    for (int64_t i = 0; i < full; ++i) to[i] = from[i * column_stride];
    for (int64_t i = full; i < width; ++i) to[i] = 0;
  }
}

// f(i, n) for blocks of at most kTileRows rows, as even as they come: a block of one or two rows
// has too few sums under way to hide the latency of the multiply-adds.
template <class F>
static inline void for_each_block(int64_t rows, const F& f) {
  const int64_t blocks = (rows + kTileRows - 1) / kTileRows;
  for (int64_t b = 0; b < blocks; ++b) {
    const int64_t i = rows * b / blocks;
    f(i, rows * (b + 1) / blocks - i);
  }
}

// C (rows, n) (+)= A (rows, k) B, with B packed. C's columns are written up to the padded width.
template <class T>
static void rows_times(int64_t rows, int64_t n, int64_t k, const T* a, int64_t lda, const T* packed,
                       T* c, int64_t ldc, bool accumulate) {
  for (int64_t j = 0; j < padded<T>(n); j += 2 * kLanes<T>) {
    const int64_t width = panel_width<T>(n, j);
    for_each_block(rows, [&](int64_t i, int64_t count) {
      run_tile<Numbers<T>, false>(count, width, k, a + i * lda, lda, packed + j * k, width,
                                  c + i * ldc + j, ldc, accumulate);
    });
  }
}

}  // namespace mvae_fast::MVAE_FAST_ISA
