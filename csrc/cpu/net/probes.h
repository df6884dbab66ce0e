// The trace probes of one tile of rows.
#pragma once

#include "layout.h"

namespace mvae_fast::MVAE_FAST_ISA {

// The probes and the two products that do not change with the state: x = W_1 eps and q = W_L' (G_L
// eps). With eps . u_L = q . v_{L-1}, a Hutchinson trace costs no product with W_1 or W_L per step
// unless those vary.
template <class T>
struct Probes {
  int64_t rows;  // 1: one probe for every row of the tile
  bool fresh;    // the tile's products are still to be computed
  T *eps, *x, *q, *gated;
  int64_t ld0, ld1, ldq;

  static Probes take(const Solve<T>& s, Arena& arena) {
    Probes out{};
    const Problem<T>& p = *s.p;
    if (!p.K) return out;
    out.rows = p.probe_row_stride ? kTile : 1;
    out.ld0 = leading<T>(p.widths[0]);
    out.ld1 = leading<T>(p.widths[1]);
    out.ldq = leading<T>(p.widths[p.L - 1]);
    out.eps = arena.take<T>(p.K, out.rows, out.ld0);
    out.x = arena.take<T>(p.K, out.rows, out.ld1);
    out.q = arena.take<T>(p.K, out.rows, out.ldq);
    out.gated = arena.take<T>(out.rows, out.ld0);
    return out;
  }
  const T* eps_of(int64_t k) const { return eps + k * rows * ld0; }
  const T* x_of(int64_t k) const { return x + k * rows * ld1; }
  const T* q_of(int64_t k) const { return q + k * rows * ldq; }
  int64_t stride(int64_t ld) const { return rows > 1 ? ld : 0; }

  void load_tile(const Solve<T>& s, int64_t begin, int64_t n) {
    const Problem<T>& p = *s.p;
    fresh = true;
    for (int64_t k = 0; k < p.K; ++k)
      copy_rows<T>(smaller(rows, n), s.D,
                   p.probes + k * p.probe_stride + begin * p.probe_row_stride, p.probe_row_stride,
                   eps + k * rows * ld0, ld0);
  }
  // The products for evaluation `row`, as far as an earlier evaluation's do not serve.
  void evaluate(const Solve<T>& s, const Products<T>& products, int64_t row, int64_t n) {
    const int64_t count = smaller(rows, n);
    for (int64_t k = 0; k < s.p->K; ++k) {
      if (s.L > 1 && (fresh || s.weight_rows > 1))
        products.rows_times(count, s.layers[1].m, s.D, eps_of(k), ld0, s.forward_weight(row, 1),
                            x + k * rows * ld1, ld1, false);
      if (s.probe_trace && (fresh || s.weight_rows > 1 || s.gate_rows > 1)) {
        scale_columns<T>(count, padded<T>(s.D), T(1), s.gates(row, s.L), eps_of(k), ld0, gated,
                         ld0);
        products.rows_times(count, s.layers[s.L - 1].m, s.D, gated, ld0,
                            s.backward_weight(row, s.L), q + k * rows * ldq, ldq, false);
      }
    }
    fresh = false;
  }
};

}  // namespace mvae_fast::MVAE_FAST_ISA
