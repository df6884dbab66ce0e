// What a tile of the backward sweep leaves for the kernels after it: operands of the gradients that
// are products over rows, and its share of those that are sums.
#pragma once

#include "tile.h"

namespace mvae_fast::cuda {

// Where row 0 of the tile lies among the rows of `width` m at `offset` of the tape, for evaluation
// `row` and set 0 .. sets - 1 of its rows; null without a tape.
template <class M, class T = typename M::T>
MVAE_FAST_DEVICE typename M::Packed* tape_at(const Tile<M>& t, const BackwardPlan<T>& p,
                                             int64_t offset, int m, int row, int set, int sets) {
  if (!p.tape) return nullptr;
  const int64_t evaluation = here(row) - p.step_begin * p.R;
  const int64_t at = (evaluation * sets + set) * p.B + t.begin();
  return static_cast<typename M::Packed*>(p.tape) + offset + at * tape_width(m);
}

// Copies the tile's rows x, times a factor each where there is one, to the tape if there is one.
template <class M, class T = typename M::T>
MVAE_FAST_DEVICE void record(const Tile<M>& t, const T* x, int ld, int m, typename M::Packed* to,
                             const T* factor = nullptr) {
  if (!to) return;
  t.cta.each_row(t.n(), [&](int r, auto lanes) {
    const T scale = factor ? factor[r] : T(1);
    lanes.each(m,
               [&](int c) { to[r * tape_width(m) + c] = M::Operand::pack(scale * x[r * ld + c]); });
  });
}

// The second operand of layer l's weight gradient, y_{l-1} or, of probe `set` - 1, v_{l-1}.
template <class M, class T = typename M::T>
MVAE_FAST_DEVICE void record_input(const Tile<M>& t, const BackwardPlan<T>& p, int row, int l,
                                   int set, const T* y) {
  const int m = t.m(l - 1);
  record(t, y, t.ld(l - 1), m, tape_at(t, p, p.layers[l].y, m, row, set, 1 + p.K));
}

// Adds to column c of a sum. One thread has a column of a tile: no atomics.
template <class M, class T = typename M::T>
MVAE_FAST_DEVICE void add_to(const Tile<M>& t, const BackwardPlan<T>& p, const ColumnSums<T>& sums,
                             int row, int64_t c, T value) {
  const int64_t evaluation = row - p.step_begin * p.R;
  sums.parts[evaluation * sums.stride + t.tile * sums.tile + c] += value;
}

}  // namespace mvae_fast::cuda
