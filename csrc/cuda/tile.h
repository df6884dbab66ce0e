// A tile of rows of the batch, in the hands of one thread block: its arena, its weights, and the
// one product that all layers are made of.
#pragma once

#include "plan.h"

namespace mvae_fast::cuda {

template <class M>
struct Matrix {
  const typename M::Packed* data;
  int n, k;  // outputs and inputs
};

template <class M>
struct Tile {
  using T = typename M::T;
  using Packed = typename M::Packed;

  const typename M::Cta& cta;
  const Plan<T>& p;
  T* arena;
  const Packed* shared_weights;
  int tile;

  // Its first row of the batch, and how many of its rows the batch has.
  MVAE_FAST_DEVICE int64_t begin() const { return int64_t{tile} * p.rows; }
  MVAE_FAST_DEVICE int n() const {
    const int64_t left = p.B - begin();
    return left < p.rows ? static_cast<int>(left) : p.rows;
  }

  MVAE_FAST_DEVICE T* at(int offset) const { return here(arena) + offset; }
  MVAE_FAST_DEVICE T* hidden(int offset, int l) const {
    return here(arena) + offset + (l - 1) * p.tile.slot;
  }
  MVAE_FAST_DEVICE T* stage(int offset, int r) const {
    return here(arena) + offset + r * p.tile.slot0;
  }
  MVAE_FAST_DEVICE int ld(int l) const { return p.layers[l].ld; }
  MVAE_FAST_DEVICE int m(int l) const { return p.layers[l].m; }

  MVAE_FAST_DEVICE const Packed* packed(const Block& block, int row, int64_t offset,
                                        int64_t size) const {
    const int64_t at = block.offset + (here(row) - p.first) * block.stride + offset;
    const Packed* global = static_cast<const Packed*>(p.packed);
    return (at + size <= p.resident ? shared_weights : global) + at;
  }
  // W_l, to go from layer l - 1 to l; W_l', to go back.
  MVAE_FAST_DEVICE Matrix<M> weight(int row, int l) const {
    const Layer &layer = p.layers[l], &below = p.layers[l - 1];
    return {packed(p.weights, row, layer.forward, packed_size(layer.m, below.m)), layer.m, below.m};
  }
  MVAE_FAST_DEVICE Matrix<M> transposed_weight(int row, int l) const {
    const Layer &layer = p.layers[l], &below = p.layers[l - 1];
    return {packed(p.weights, row, layer.backward, packed_size(below.m, layer.m)), below.m,
            layer.m};
  }
  // M (m_2, m_1) of the exact trace of two hidden layers, M', and the symmetric Q of Tr J^2.
  MVAE_FAST_DEVICE Matrix<M> trace_matrix(int row) const {
    return {packed(p.m, row, 0, packed_size(m(2), m(1))), m(2), m(1)};
  }
  MVAE_FAST_DEVICE Matrix<M> transposed_trace_matrix(int row) const {
    return {packed(p.m, row, p.trace_backward, packed_size(m(1), m(2))), m(1), m(2)};
  }
  MVAE_FAST_DEVICE Matrix<M> second_matrix(int row) const {
    return {packed(p.q, row, 0, packed_size(m(1), m(1))), m(1), m(1)};
  }
  MVAE_FAST_DEVICE T gate(int row, int l, int c) const {
    return p.gated ? p.gate[row * p.gate_stride + p.layers[l].features + c] : T(1);
  }
  MVAE_FAST_DEVICE T bias(int row, int l, int c) const {
    return p.bias[row * p.bias_stride + p.layers[l].features + c];
  }
};

// out (+)= x W', of kM x kN tiles of 16 x 8 at a time, which the warps share out among themselves.
template <class M, int kM, int kN, class T = typename M::T>
MVAE_FAST_DEVICE void product_by(int rows, const T* x, int ldx, const Matrix<M>& w, T* out, int ldo,
                                 bool add) {
  const int tiles = (w.n + 15) / 16 * 2, steps = (w.k + 15) / 16;
  const int across = (tiles + kN - 1) / kN, units = rows / (16 * kM) * across;
  M::Cta::each_warp([&](const typename M::Warp& warp) {
    for (int unit = warp.index; unit < units; unit += kWarps) {
      const int row = unit / across * 16 * kM, tile = unit % across * kN;
      const typename M::Packed* column[kN];
      MVAE_FAST_UNROLL
      for (int j = 0; j < kN; ++j)  // past the end the last column serves, and is not stored
        column[j] = w.data + int64_t{tile + j < tiles ? tile + j : tiles - 1} * steps * 128;
      typename M::template Accumulators<kM, kN> sums;
      const T* from = x + row * ldx;
      for (int step = 0; step < steps; ++step) {
        sums.multiply_add(warp, from, ldx, column);
        from += 16;
        MVAE_FAST_UNROLL
        for (int j = 0; j < kN; ++j) column[j] += 128;
      }
      T* to = out + row * ldo + tile * 8;
      sums.for_each(warp, [&](int r, int c, T value) {
        if (tile * 8 + c >= tiles * 8) return;
        T& element = to[r * ldo + c];
        element = add ? element + value : value;
      });
    }
  });
}

// A function of its own, with its arguments by value: it is a fifth of the code of a sweep, which
// calls it up to fifteen times.
template <class M, class T = typename M::T>
MVAE_FAST_CALL void product_of(int rows, const T* x, int ldx, Matrix<M> w, T* out, int ldo,
                               bool add) {
  // Large units reuse operands in registers more; small ones keep all warps busy.
  if (rows % 32 == 0 && rows / 32 * ((w.n + 31) / 32) >= kWarps)
    product_by<M, 2, 4>(rows, x, ldx, w, out, ldo, add);
  else
    product_by<M, 1, 2>(rows, x, ldx, w, out, ldo, add);
}

// out (rows, n) = x (rows, k) W', or, with `add`, its sum with that. Both are in the arena.
template <class M, class T = typename M::T>
MVAE_FAST_DEVICE void product(const Tile<M>& t, const T* x, int ldx, const Matrix<M>& w, T* out,
                              int ldo, bool add) {
  product_of<M>(t.p.rows, x, ldx, w, out, ldo, add);
}

// to = a row of the batch for every row of the tile, zeros past the batch and the width.
template <class M, class T = typename M::T>
MVAE_FAST_DEVICE void load_rows(const Tile<M>& t, const T* from, int64_t stride, T* to, bool add) {
  const int D = t.p.D, ld = t.ld(0);
  t.cta.each_row(t.p.rows, [&](int r, auto lanes) {
    lanes.each(ld, [&](int c) {
      const T value = r < t.n() && c < D ? from[(t.begin() + r) * stride + c] : T(0);
      to[r * ld + c] = add ? to[r * ld + c] + value : value;
    });
  });
}

template <class M, class T = typename M::T>
MVAE_FAST_DEVICE void store_rows(const Tile<M>& t, const T* from, T* to) {
  const int D = t.p.D, ld = t.ld(0);
  t.cta.each_row(t.n(), [&](int r, auto lanes) {
    lanes.each(D, [&](int c) { to[(t.begin() + r) * D + c] = from[r * ld + c]; });
  });
}

// to = z + h sum_q weights[q] k_q over the first `stages` velocities.
template <class M, class T = typename M::T>
MVAE_FAST_DEVICE void combine(const Tile<M>& t, const T* z, T h, const T* weights, int stages,
                              const T* k, T* to) {
  const int slot0 = t.p.tile.slot0;
  t.cta.each(slot0, [&](int i) {
    T value = z[i];
    for (int q = 0; q < stages; ++q)
      if (weights[q] != T(0)) value += h * weights[q] * k[q * slot0 + i];
    to[i] = value;
  });
}

template <class M, class T = typename M::T>
MVAE_FAST_DEVICE void fill(const Tile<M>& t, T* to, int n) {
  t.cta.each(n, [&](int i) { to[i] = T(0); });
}

}  // namespace mvae_fast::cuda
