// The integrals along the path besides the log-density (csrc/cpu/sweep/penalties.h has the same).
#pragma once

#include "tile.h"

namespace mvae_fast::cuda {

// f(index among those wanted, row of the tile's (kPenalties, rows) array) for every wanted kind.
template <class F>
MVAE_FAST_DEVICE void for_each_penalty(int64_t wanted, const F& f) {
  int index = 0;
  for (int kind = 0; kind < kPenalties; ++kind)
    if (wanted >> kind & 1) f(index++, kind);
}

MVAE_FAST_BOTH int64_t penalty_count(int64_t wanted) {
  int64_t count = 0;
  for (int kind = 0; kind < kPenalties; ++kind) count += wanted >> kind & 1;
  return count;
}

enum PenaltyRow { kMagnitudeRow, kRootRow, kEnergyRow, kFrobeniusRow };

// Adds `scale` times the penalties of the velocities f.
template <class M, class T = typename M::T>
MVAE_FAST_DEVICE void add_value_penalties(const Tile<M>& t, const T* f, T scale) {
  const int D = t.p.D, ld = t.ld(0), rows = t.p.rows;
  T* penalty = t.at(t.p.tile.penalty);
  t.cta.each_row(rows, [&](int r, auto lanes) {
    T magnitude = 0, square = 0;
    lanes.each(D, [&](int c) {
      const T v = f[r * ld + c];
      magnitude += v < T(0) ? -v : v;
      square += v * v;
    });
    magnitude = lanes.sum(magnitude);
    square = lanes.sum(square);
    if (!lanes.first()) return;
    penalty[kMagnitudeRow * rows + r] += scale * magnitude / D;
    penalty[kRootRow * rows + r] += scale * sqrt(square / D);
    penalty[kEnergyRow * rows + r] += scale * square;
  });
}

// The adjoint of f from those of its penalties times b: added to k_bar. What the adjoint of h gets
// beyond k_bar . f goes to dots: magnitude and root are of degree one in f, the energy of two.
template <class M, class T = typename M::T>
MVAE_FAST_DEVICE void value_penalties_adjoint(const Tile<M>& t, const T* f, T b, T* k_bar) {
  const int D = t.p.D, ld = t.ld(0), rows = t.p.rows;
  const T* bar = t.at(t.p.tile.penalty);
  T* dots = t.at(t.p.tile.dots);
  t.cta.each_row(rows, [&](int r, auto lanes) {
    T square = 0;
    lanes.each(D, [&](int c) { square += f[r * ld + c] * f[r * ld + c]; });
    square = lanes.sum(square);
    const T energy_bar = b * bar[kEnergyRow * rows + r], root = sqrt(square * D);
    const T linear = T(2) * energy_bar + (root > T(0) ? b * bar[kRootRow * rows + r] / root : T(0));
    const T sign = b * bar[kMagnitudeRow * rows + r] / D;
    lanes.each(D, [&](int c) {
      const T v = f[r * ld + c];
      k_bar[r * ld + c] += linear * v + (v < T(0) ? -sign : v > T(0) ? sign : T(0));
    });
    if (lanes.first()) dots[r] -= energy_bar * square;
  });
}

}  // namespace mvae_fast::cuda
