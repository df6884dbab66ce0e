// log |det A| of one square matrix by LU with partial pivoting, in blocks of columns: most of the
// work is the register tile's. Only the pivots are wanted, so L and U are not kept together.
#pragma once

#include <cmath>

#include "../simd/gemm.h"
#include "../simd/tiles.h"

namespace mvae_fast::MVAE_FAST_ISA {

// Columns that are eliminated before the rest of the matrix follows: a panel, held transposed, so
// that a column is a row of vectors.
constexpr int64_t kPanel = 16;

// 0, 1, 2, ..
template <class T>
MVAE_FAST_INLINE Vec<T> counted() {
  Vec<T> lane;
  for (int i = 0; i < kLanes<T>; ++i) lane[i] = static_cast<T>(i);
  return lane;
}

// An entry begin .. end - 1 of x, which is zero from `end` up to whole vectors, that is largest in
// magnitude; NaN is no larger than any, and if there is nothing else it is `begin`.
template <class T>
static int64_t largest(const T* x, int64_t begin, int64_t end) {
  constexpr int64_t lanes = kLanes<T>;
  int64_t i = begin / lanes * lanes;
  // Of every lane the largest magnitude, and in which vector it is.
  Vec<T> most = counted<T>() < splat(static_cast<T>(begin - i)) ? splat(T(-1))
                                                                : -minus_magnitude(load(x + i));
  Vec<T> at = splat(static_cast<T>(i));
  for (i += lanes; i < end; i += lanes) {
    const Vec<T> size = -minus_magnitude(load(x + i));
    at = size > most ? splat(static_cast<T>(i)) : at;
    most = maximum(size, most);
  }
  at += counted<T>();
  T sizes[lanes], places[lanes];
  memcpy(sizes, &most, sizeof(most));
  memcpy(places, &at, sizeof(at));
#pragma GCC unroll 8
  for (int64_t half = lanes / 2; half > 0; half /= 2)
#pragma GCC unroll 16
    for (int64_t j = 0; j < half; ++j) {
      const bool other = sizes[j + half] > sizes[j];
      sizes[j] = other ? sizes[j + half] : sizes[j];
      places[j] = other ? places[j + half] : places[j];
    }
  const int64_t place = static_cast<int64_t>(places[0]);
  return sizes[0] > 0 ? place : begin;
}

template <class T>
static void swap_entries(T& a, T& b) {
  const T kept = a;
  a = b;
  b = kept;
}

// Swaps two rows from column `begin`, the start of a vector, up to `end`.
template <class T>
static void swap_rows(int64_t begin, int64_t end, T* a, T* b) {
  for (int64_t j = begin; j < end; j += kLanes<T>) {
    const Vec<T> kept = load(a + j);
    store(a + j, load(b + j));
    store(b + j, kept);
  }
}

// Column k of a panel of `rows` rows: in place of what is below the pivot -L, above it and at it 0.
template <class T>
static void negative_factors(int64_t k, int64_t rows, T* column) {
  constexpr int64_t lanes = kLanes<T>;
  const T pivot = column[k];
  const Vec<T> divisor = splat(pivot == 0 ? T(1) : -pivot);  // of zero the column is all zeros
  for (int64_t i = k / lanes * lanes; i < rows; i += lanes) {
    const Vec<T> factors = load(column + i) / divisor;
    store(column + i, counted<T>() > splat(static_cast<T>(k - i)) ? factors : Vec<T>{});
  }
}

// Rows 1 .. kPanel - 1 of the block at `a`: times the inverse of the unit L, of which the panel has
// the negative.
template <class T>
static void solve_rows(const T* panel, int64_t ldp, int64_t width, T* a, int64_t ld) {
  for (int64_t j = 0; j < width; j += kLanes<T>) {
    Vec<T> x[kPanel];
#pragma GCC unroll 16
    for (int64_t r = 0; r < kPanel; ++r) x[r] = load(a + r * ld + j);
#pragma GCC unroll 16
    for (int64_t k = 0; k < kPanel; ++k)
#pragma GCC unroll 16
      for (int64_t r = k + 1; r < kPanel; ++r) x[r] += panel[k * ldp + r] * x[k];
#pragma GCC unroll 16
    for (int64_t r = 1; r < kPanel; ++r) store(a + r * ld + j, x[r]);
  }
}

// Numbers of a panel of an (n, n) matrix, whose columns are leading(n) apart.
template <class T>
static int64_t panel_size(int64_t n) {
  return round_up(kPanel, kLanes<T>) * leading<T>(n);
}

// Of A (n, n), with rows `ld` apart, which is overwritten; columns beyond n are zero up to whole
// vectors. `panel`: room of panel_size(n).
template <class T>
static double log_abs_det(int64_t n, T* A, int64_t ld, T* panel) {
  constexpr int64_t lanes = kLanes<T>;
  const int64_t ldp = leading<T>(n), end = padded<T>(n);
  double sum = 0;
  for (int64_t begin = 0; begin < n; begin += kPanel) {
    T* const a = A + begin * ld;  // the rows that are left
    const int64_t rows = n - begin, width = smaller(kPanel, rows), next = begin + kPanel;
    for (int64_t r = 0; r < rows; r += lanes)
      for (int64_t c = 0; c < width; c += lanes)
        transpose<T>(a + r * ld + begin + c, ld, smaller(lanes, rows - r), panel + c * ldp + r,
                     ldp);
    for (int64_t k = 0; k < width; ++k) {
      T* const column = panel + k * ldp;
      const int64_t pivot = largest<T>(column, k, rows);
      if (pivot != k) {
        for (int64_t c = 0; c < width; ++c)
          swap_entries(panel[c * ldp + k], panel[c * ldp + pivot]);
        swap_rows<T>(next, end, a + k * ld, a + pivot * ld);
      }
      sum += std::log(std::fabs(static_cast<double>(column[k])));
      negative_factors<T>(k, rows, column);
      for (int64_t c = k + 1; c < width; ++c) {
        T* const to = panel + c * ldp;
        const Vec<T> u = splat(to[k]);
        for (int64_t i = k / lanes * lanes; i < rows; i += lanes)
          store(to + i, load(to + i) + u * load(column + i));
      }
    }
    if (next >= n) break;
    solve_rows<T>(panel, ldp, end - next, a + next, ld);
    for (int64_t j = next; j < end; j += 2 * lanes) {
      const int64_t columns = smaller(2 * lanes, end - j);
      for_each_block(rows - kPanel, [&](int64_t i, int64_t count) {
        run_tile<Numbers<T>, true>(count, columns, kPanel, panel + kPanel + i, ldp, a + j, ld,
                                   a + (kPanel + i) * ld + j, ld, true);
      });
    }
  }
  return sum;
}

}  // namespace mvae_fast::MVAE_FAST_ISA
