// The Jacobian of one hidden layer, J = A diag(phi') B with A = diag(G_2) W_2 and B = diag(G_1)
// W_1, in coordinates where half of the product is of zeros. With orthogonal P and Q,
//
//   |det(I + h J)| = |det(P Q + h (P A) diag(phi') (B Q))| ,
//
// exactly. Q makes the first rows of B Q lower triangular and P the last columns of P A upper
// triangular, from the last one on (docs/math.md, section 3).
#pragma once

#include <cmath>

#include "../net/layout.h"

namespace mvae_fast::MVAE_FAST_ISA {

template <class T>
struct Reduced {
  int64_t D, m, ld0, ld1;
  int64_t rows, columns;  // of B Q and of P A that are triangular
  // In double, rows of `ld`: (B Q)' and Q' beside it; P A, with its columns from the last one to
  // the first, and P Q beside it. The second parts begin at column `beside`.
  double *right, *left, *sums;
  int64_t beside, ld;
  T *left_factor, *right_factor, *start;  // P A (D, m), B Q packed, P Q (D, D)

  static Reduced take(const Solve<T>& s, Arena& arena) {
    Reduced x{};
    x.D = s.D;
    x.m = s.p->widths[1];
    x.ld0 = leading<T>(x.D);
    x.ld1 = leading<T>(x.m);
    x.rows = smaller(x.D, x.m / 2);
    x.columns = smaller(x.D, x.m - x.rows);
    x.beside = padded<double>(x.m);
    x.ld = x.beside + padded<double>(x.D);
    x.right = arena.take<double>(x.D, x.ld);
    x.left = arena.take<double>(x.D, x.ld);
    x.sums = arena.take<double>(x.ld);
    x.left_factor = arena.take<T>(x.D, x.ld1);
    x.right_factor = arena.take<T>(Products<T>::packed_size(false, x.m, x.D));
    x.start = arena.take<T>(x.D, x.ld0);
    return x;
  }
};

// x (D, ld) reflected in its rows t .. D - 1, so that column t has nothing below row t. Columns
// before t have nothing in these rows already.
static inline void reflect(int64_t t, int64_t D, double* x, int64_t ld, double* sums) {
  const int64_t from = t / kLanes<double> * kLanes<double>, width = ld - from;
  double most = 0, squares = 0;
  for (int64_t i = t; i < D; ++i) {
    const double size = std::fabs(x[i * ld + t]);
    if (size > most) most = size;
  }
  if (!(most > 0)) return;
  for (int64_t i = t; i < D; ++i) squares += (x[i * ld + t] / most) * (x[i * ld + t] / most);
  // v = column + sign(head) norm e_t; x -= v (v' x) 2 / |v|^2.
  const double head = x[t * ld + t], norm = most * std::sqrt(squares);
  const double scale = 1 / (norm * (norm + std::fabs(head)));
  const auto v = [&](int64_t i) {
    return i > t ? x[i * ld + t] : head < 0 ? head - norm : head + norm;
  };
  memset(sums + from, 0, width * sizeof(double));
  for (int64_t i = t; i < D; ++i)
    add_scaled_rows<double>(1, width, v(i), x + i * ld + from, 0, sums + from, 0);
  for (int64_t i = t; i < D; ++i) {
    add_scaled_rows<double>(1, width, -scale * v(i), sums + from, 0, x + i * ld + from, 0);
    if (i > t) x[i * ld + t] = 0;
  }
}

// f(t, j, W_l'[t, j]) for every element of a weight, from its packed form.
template <class T, class F>
static void for_each_weight(const Solve<T>& s, int64_t row, int64_t l, const F& f) {
  const int64_t m = s.layers[l].m, before = s.layers[l - 1].m;
  const T* packed = s.forward_weight(row, l);
  for (int64_t j = 0; j < m; j += 2 * kLanes<T>) {
    const int64_t width = panel_width<T>(m, j), full = smaller(width, m - j);
    for (int64_t t = 0; t < before; ++t, packed += width)
      for (int64_t i = 0; i < full; ++i) f(t, j + i, static_cast<double>(packed[i]));
  }
}

// B Q, for evaluation `row`. The gate of the hidden layer is left to phi'.
template <class T>
static void reduce_right(const Solve<T>& s, const Reduced<T>& x, int64_t row) {
  memset(x.right, 0, x.D * x.ld * sizeof(double));
  for_each_weight<T>(s, row, 1, [&](int64_t i, int64_t k, double w) { x.right[i * x.ld + k] = w; });
  for (int64_t i = 0; i < x.D; ++i) x.right[i * x.ld + x.beside + i] = 1;
  for (int64_t t = 0; t < x.rows; ++t) reflect(t, x.D, x.right, x.ld, x.sums);
  T* const rounded = x.left_factor;  // before it is needed
  for (int64_t i = 0; i < x.D; ++i)
    for (int64_t k = 0; k < x.m; ++k)
      rounded[i * x.ld1 + k] = static_cast<T>(x.right[i * x.ld + k]);
  Products<T>::pack(false, x.right_factor, x.m, x.D, rounded, 1, x.ld1, 1, 0);
}

// P A and P Q, for evaluation `row`.
template <class T>
static void reduce_left(const Solve<T>& s, const Reduced<T>& x, int64_t row) {
  const int64_t last = x.m - 1;
  const T* const gate = s.gates(row, 2);
  memset(x.left, 0, x.D * x.ld * sizeof(double));
  for_each_weight<T>(s, row, 2, [&](int64_t k, int64_t i, double w) {
    x.left[i * x.ld + last - k] = static_cast<double>(gate[i]) * w;
  });
  for (int64_t i = 0; i < x.D; ++i)
    for (int64_t j = 0; j < x.D; ++j)
      x.left[i * x.ld + x.beside + j] = x.right[j * x.ld + x.beside + i];
  for (int64_t t = 0; t < x.columns; ++t) reflect(t, x.D, x.left, x.ld, x.sums);
  memset(x.start, 0, x.D * x.ld0 * sizeof(T));
  memset(x.left_factor, 0, x.D * x.ld1 * sizeof(T));
  for (int64_t i = 0; i < x.D; ++i) {
    const double* const from = x.left + i * x.ld;
    for (int64_t k = 0; k < x.m; ++k) x.left_factor[i * x.ld1 + k] = static_cast<T>(from[last - k]);
    for (int64_t j = 0; j < x.D; ++j) x.start[i * x.ld0 + j] = static_cast<T>(from[x.beside + j]);
  }
}

// to (D, D) = scale P Q + (P A) diag(slopes) (B Q); `scaled` has room for kTileRows rows.
template <class T>
static void reduced_step(const Reduced<T>& x, T scale, const T* slopes, T* scaled, T* to) {
  for_each_block(x.D, [&](int64_t i, int64_t count) {
    // Terms that are zero in P A from row i on, and in B Q from column j on.
    const int64_t last = x.m - smaller(i, x.columns);
    scale_columns<T>(count, padded<T>(last), T(1), slopes, x.left_factor + i * x.ld1, x.ld1, scaled,
                     x.ld1);
    T* const rows = to + i * x.ld0;
    for (int64_t at = 0; at < count * x.ld0; at += kLanes<T>)
      store(rows + at, scale * load(x.start + i * x.ld0 + at));
    for (int64_t j = 0; j < padded<T>(x.D); j += 2 * kLanes<T>) {
      const int64_t width = panel_width<T>(x.D, j), first = smaller(j, x.rows);
      run_tile<Numbers<T>, false>(count, width, last - first, scaled + first, x.ld1,
                                  x.right_factor + j * x.m + first * width, width, rows + j, x.ld0,
                                  true);
    }
  });
}

}  // namespace mvae_fast::MVAE_FAST_ISA
