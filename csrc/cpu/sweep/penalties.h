// The integrals along the path besides the log-density: FFJORD's and RNODE's regularisers
// (mvae_fast/ode/regularization.py).
#pragma once

#include <cmath>

#include "../net/layout.h"

namespace mvae_fast::MVAE_FAST_ISA {

// f(index among those wanted, their number, kind) for every kind of penalty that is wanted.
template <class F>
static void for_each_penalty(int64_t wanted, const F& f) {
  int64_t count = 0, index = 0;
  for (int64_t kind = 1; kind <= kFrobenius; kind *= 2) count += (wanted & kind) != 0;
  for (int64_t kind = 1; kind <= kFrobenius; kind *= 2)
    if (wanted & kind) f(index++, count, kind);
}

// A kind's row of a (kPenalties, kTile) tile.
template <class T>
static T* penalty_row(T* penalty, int64_t kind) {
  return penalty + kTile * (kind == kMeanMagnitude    ? 0
                            : kind == kRootMeanSquare ? 1
                            : kind == kKineticEnergy  ? 2
                                                      : 3);
}

// Row r of f: its sum of magnitudes and of squares.
template <class T>
static void magnitudes(int64_t width, const T* f, T& sum_of_magnitudes, T& sum_of_squares) {
  Vec<T> absolute{}, square{};
  for (int64_t i = 0; i < width; i += kLanes<T>) {
    const Vec<T> v = load(f + i);
    absolute += v < T(0) ? -v : v;
    square += v * v;
  }
  sum_of_magnitudes = sum<T>(absolute);
  sum_of_squares = sum<T>(square);
}

// Adds `scale` times the penalties of the velocities f to t.
template <class T>
static void add_value_penalties(const Solve<T>& s, int64_t n, const T* f, T scale, T* penalty) {
  const int64_t ld0 = s.layers[0].ld;
  const T D = static_cast<T>(s.D);
  for (int64_t r = 0; r < n; ++r) {
    T absolute, square;
    magnitudes<T>(padded<T>(s.D), f + r * ld0, absolute, square);
    penalty_row(penalty, kMeanMagnitude)[r] += scale * absolute / D;
    penalty_row(penalty, kRootMeanSquare)[r] += scale * std::sqrt(square / D);
    penalty_row(penalty, kKineticEnergy)[r] += scale * square;
  }
}

// The adjoint of f from those of its penalties, bar (kPenalties, kTile), times b: added to k_bar.
// What the adjoint of h gets, v - f . dv/df beyond k_bar . f, goes to dots.
template <class T>
static void value_penalties_adjoint(const Solve<T>& s, int64_t n, const T* f, T b, T* bar, T* k_bar,
                                    double* dots) {
  const int64_t ld0 = s.layers[0].ld, width = padded<T>(s.D);
  const T D = static_cast<T>(s.D);
  for (int64_t r = 0; r < n; ++r) {
    const T* from = f + r * ld0;
    T absolute, square;
    magnitudes<T>(width, from, absolute, square);
    const T energy_bar = b * penalty_row(bar, kKineticEnergy)[r];
    const T root = std::sqrt(square * D);
    const T linear =
        2 * energy_bar + (root > 0 ? b * penalty_row(bar, kRootMeanSquare)[r] / root : T(0));
    const Vec<T> sign = splat(b * penalty_row(bar, kMeanMagnitude)[r] / D);
    for (int64_t i = 0; i < width; i += kLanes<T>) {
      const Vec<T> v = load(from + i);
      const Vec<T> slope = v < T(0) ? -sign : v > T(0) ? sign : Vec<T>{};
      store(k_bar + r * ld0 + i, load(k_bar + r * ld0 + i) + (linear * v + slope));
    }
    // Magnitude and root are of degree one in f, the energy of degree two.
    dots[r] -= energy_bar * square;
  }
}

// u = J eps = G_L (W_L v) [- eps], from the tangent v of the last hidden layer.
template <class T>
static void velocity_tangent(const Solve<T>& s, const Products<T>& products, int64_t row, int64_t n,
                             const T* v, int64_t ldv, const T* eps, int64_t lde, T* u) {
  const int64_t ld0 = s.layers[0].ld, width = padded<T>(s.D);
  products.rows_times(n, s.D, s.layers[s.L - 1].m, v, ldv, s.forward_weight(row, s.L), u, ld0,
                      false);
  scale_columns<T>(n, width, T(1), s.gates(row, s.L), u, ld0, u, ld0);
  if (s.p->residual) add_scaled_rows<T>(n, width, T(-1), eps, lde, u, ld0);
}

// u = J eps becomes its own adjoint from that of |u|^2, bar (kPenalties, kTile); dots as above.
template <class T>
static void frobenius_adjoint(const Solve<T>& s, int64_t n, T h, T b, T* bar, T* u, double* dots) {
  const int64_t ld0 = s.layers[0].ld, width = padded<T>(s.D);
  for (int64_t r = 0; r < n; ++r) {
    T* row = u + r * ld0;
    const T square_bar = b * penalty_row(bar, kFrobenius)[r];
    add_row_dots<T>(1, width, row, ld0, row, ld0, square_bar, dots + r);
    scale_columns<T>(1, width, 2 * h * square_bar, s.ones, row, ld0, row, ld0);
  }
}

}  // namespace mvae_fast::MVAE_FAST_ISA
