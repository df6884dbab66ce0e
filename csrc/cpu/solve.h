// What every worker of one solve shares: the layout, and the tables in the kernels' own form
// (packed once per solve).
#pragma once

#include "../problem.h"
#include "elementwise.h"
#include "gemm.h"

namespace mvae_fast {
namespace MVAE_FAST_ISA {

// Rows a worker carries through all layers and steps at a time. Large enough that a weight
// gradient's read and write is spread over many rows, small enough that the tile's activations stay
// in L2 beside the packed weights.
constexpr int64_t kTile = 48;

// Hands out 64-byte aligned pieces of a workspace; started at address 0 it only counts.
class Arena {
 public:
  explicit Arena(void* base) : base_(reinterpret_cast<uintptr_t>(base)), at_(base_) {}
  template <class U>
  U* take(int64_t n) {
    U* piece = reinterpret_cast<U*>(at_);
    at_ += round_up(n * static_cast<int64_t>(sizeof(U)), 64);
    return piece;
  }
  bool counting() const { return base_ == 0; }
  int64_t used() const { return static_cast<int64_t>(at_ - base_); }

 private:
  uintptr_t base_, at_;
};

// Sizes and offsets of layer l = 1 .. L (widths also for l = 0).
struct Layer {
  int64_t m, ld;            // width, row length of its tiles
  int64_t features;         // offset in a gate or bias row of the caller
  int64_t padded_features;  // offset in a padded gate or bias row
  int64_t weight;           // offset in the caller's weight row
  int64_t forward;          // offset of W' packed for the forward product
  int64_t backward;         // offset of W packed for the backward product
  int64_t gradient;         // offset in a worker's weight gradient, rows of length gradient_ld
  int64_t gradient_ld;
};

template <class T>
struct Solve {
  const Problem<T>* p;
  int64_t L, D, rows;  // rows: S * R, the evaluations of the velocity
  Layer* layers;       // 0 .. L
  int64_t widest;      // longest tile row
  int64_t features, padded_features, weights, forward_size, backward_size, gradient_size;
  // Rows of a table: 1, or S * R where it varies with time; 0: absent.
  int64_t weight_rows, gate_rows, bias_rows, trace_rows, second_rows;
  int64_t trace_size, trace_gradient_size;  // one row, packed / padded
  int64_t second_size, second_gradient_size;
  T *forward, *backward;  // packed weights, weight_rows of each; backward may be null
  T *gate, *bias, *ones;
  T *trace_forward,
      *trace_backward;  // L <= 2: the padded row; L = 3: M packed in both orientations
  T* second;            // symmetric: packed in one orientation

  const T* forward_weight(int64_t s, int64_t l) const {
    return forward + (weight_rows > 1 ? s : 0) * forward_size + layers[l].forward;
  }
  const T* backward_weight(int64_t s, int64_t l) const {
    return backward + (weight_rows > 1 ? s : 0) * backward_size + layers[l].backward;
  }
  const T* gates(int64_t s, int64_t l) const {
    return gate_rows ? gate + (gate_rows > 1 ? s : 0) * padded_features + layers[l].padded_features
                     : ones;
  }
  const T* biases(int64_t s, int64_t l) const {
    return bias + (bias_rows > 1 ? s : 0) * padded_features + layers[l].padded_features;
  }
  const T* trace_row(const T* base, int64_t s) const {
    return base + (trace_rows > 1 ? s : 0) * trace_size;
  }
  const T* second_row(int64_t s) const { return second + (second_rows > 1 ? s : 0) * second_size; }
};

// Lays out a solve in `arena`. `with_backward`: also W packed for the backward products (probes
// need it in the forward).
template <class T>
static Solve<T> lay_out(const Problem<T>& p, bool with_backward, Arena& arena) {
  Solve<T> x{};
  x.p = &p;
  x.L = p.L;
  x.D = p.widths[0];
  x.layers = arena.take<Layer>(p.L + 1);
  const auto rows = [&p](const T* table, int64_t stride) {
    return table ? (stride ? p.S * p.R : int64_t{1}) : int64_t{0};
  };
  x.weight_rows = rows(p.weight, p.weight_stride);
  x.gate_rows = rows(p.gate, p.gate_stride);
  x.bias_rows = rows(p.bias, p.bias_stride);
  x.trace_rows = rows(p.trace, p.trace_stride);
  x.second_rows = rows(p.second, p.second_stride);
  const bool write = !arena.counting();
  int64_t before = p.widths[0];
  x.widest = leading<T>(before);
  if (write) x.layers[0] = Layer{before, leading<T>(before), 0, 0, 0, 0, 0, 0, 0};
  for (int64_t l = 1; l <= p.L; ++l) {
    const int64_t m = p.widths[l];
    if (write)
      x.layers[l] = Layer{m,
                          leading<T>(m),
                          x.features,
                          x.padded_features,
                          x.weights,
                          x.forward_size,
                          x.backward_size,
                          x.gradient_size,
                          padded<T>(before)};
    x.features += m;
    x.padded_features += padded<T>(m);
    x.weights += m * before;
    x.forward_size += packed_size<T>(before, m);
    x.backward_size += packed_size<T>(m, before);
    x.gradient_size += m * padded<T>(before);
    x.widest = larger(x.widest, leading<T>(m));
    before = m;
  }
  x.forward = arena.take<T>(x.weight_rows * x.forward_size);
  if (with_backward) x.backward = arena.take<T>(x.weight_rows * x.backward_size);
  x.gate = arena.take<T>(x.gate_rows * x.padded_features);
  x.bias = arena.take<T>(x.bias_rows * x.padded_features);
  x.ones = arena.take<T>(x.widest);
  if (p.trace) {
    if (p.L == 3) {
      const int64_t m1 = p.widths[1], m2 = p.widths[2];
      x.trace_size = larger(packed_size<T>(m1, m2), packed_size<T>(m2, m1));
      x.trace_gradient_size = m2 * padded<T>(m1);
      x.trace_backward = with_backward ? arena.take<T>(x.trace_rows * x.trace_size) : nullptr;
    } else {
      x.trace_size = x.trace_gradient_size = padded<T>(p.L == 2 ? p.widths[1] : 1);
    }
    x.trace_forward = arena.take<T>(x.trace_rows * x.trace_size);
  }
  if (p.second) {
    const int64_t m1 = p.widths[1];
    x.second_size = packed_size<T>(m1, m1);
    x.second_gradient_size = m1 * padded<T>(m1);
    x.second = arena.take<T>(x.second_rows * x.second_size);
  }
  return x;
}

template <class T>
static void pad_row(int64_t n, const T* from, T* to) {
  copy_rows<T>(1, n, from, 0, to, 0);
}

// Fills the shared tables: jobs are dealt to the workers in turn.
template <class T>
static void prepare(const Solve<T>& x, const Threads& threads) {
  struct Context {
    const Solve<T>* x;
    int64_t workers;
  } context{&x, threads.n};
  threads.run(
      threads.n,
      [](void* opaque, int64_t worker) {
        const Context& c = *static_cast<Context*>(opaque);
        const Solve<T>& x = *c.x;
        const Problem<T>& p = *x.p;
        int64_t job = 0;
        const auto mine = [&] { return job++ % c.workers == worker; };
        for (int64_t s = 0; s < x.weight_rows; ++s)
          for (int64_t l = 1; l <= x.L; ++l) {
            const Layer& layer = x.layers[l];
            const int64_t before = x.layers[l - 1].m;
            const T* w = p.weight + s * x.weights + layer.weight;
            if (mine())
              pack<T>(x.forward + s * x.forward_size + layer.forward, before, layer.m, w, 1,
                      before);
            if (x.backward && mine())
              pack<T>(x.backward + s * x.backward_size + layer.backward, layer.m, before, w, before,
                      1);
          }
        for (int64_t s = 0; s < x.trace_rows; ++s) {
          T* to = x.trace_forward + s * x.trace_size;
          if (x.L == 3) {
            const int64_t m1 = p.widths[1], m2 = p.widths[2];
            const T* m = p.trace + s * m1 * m2;
            if (mine()) pack<T>(to, m1, m2, m, 1, m1);
            if (x.trace_backward && mine())
              pack<T>(x.trace_backward + s * x.trace_size, m2, m1, m, m1, 1);
          } else if (mine()) {
            const int64_t n = x.L == 2 ? p.widths[1] : 1;
            pad_row(n, p.trace + s * n, to);
          }
        }
        for (int64_t s = 0; s < x.second_rows; ++s) {
          const int64_t m1 = p.widths[1];
          if (mine()) pack<T>(x.second + s * x.second_size, m1, m1, p.second + s * m1 * m1, m1, 1);
        }
        if (mine()) {
          for (int64_t i = 0; i < x.widest; ++i) x.ones[i] = 1;
          for (int64_t l = 1; l <= x.L; ++l) {
            const Layer& layer = x.layers[l];
            for (int64_t s = 0; s < x.gate_rows; ++s)
              pad_row(layer.m, p.gate + s * x.features + layer.features,
                      x.gate + s * x.padded_features + layer.padded_features);
            for (int64_t s = 0; s < x.bias_rows; ++s)
              pad_row(layer.m, p.bias + s * x.features + layer.features,
                      x.bias + s * x.padded_features + layer.padded_features);
          }
        }
      },
      &context);
}

// to = z + h sum_q weights[q] k_q over the first `stages` velocities.
template <class T>
static void combine(const Solve<T>& s, const T* z, T h, const double* weights, int64_t stages,
                    const T* k, int64_t n, T* to) {
  const int64_t ld0 = s.layers[0].ld, width = padded<T>(s.D), slot = kTile * ld0;
  scale_columns<T>(n, width, T(1), s.ones, z, ld0, to, ld0);
  for (int64_t q = 0; q < stages; ++q)
    if (weights[q] != 0)
      add_scaled_rows<T>(n, width, h * static_cast<T>(weights[q]), k + q * slot, ld0, to, ld0);
}

// Where part i of `parts` even shares of `total` begins.
static inline int64_t share(int64_t total, int64_t parts, int64_t i) {
  return total * i / parts;
}

// f(begin, n) for every tile of `worker`'s rows, of at most kTile each and as even as they come.
template <class F>
static void for_each_tile(int64_t rows, int64_t workers, int64_t worker, F f) {
  const int64_t begin = share(rows, workers, worker);
  const int64_t mine = share(rows, workers, worker + 1) - begin;
  const int64_t tiles = (mine + kTile - 1) / kTile;
  for (int64_t i = 0; i < tiles; ++i) {
    const int64_t from = share(mine, tiles, i);
    f(begin + from, share(mine, tiles, i + 1) - from);
  }
}

// The trace probes of one tile and the two products that do not change with the state: x = W_1 eps
// and q = W_L' (G_L eps). With eps . u_L = q . v_{L-1}, a Hutchinson trace costs no product with
// W_1 or W_L per step unless those vary.
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
    out.eps = arena.take<T>(p.K * out.rows * out.ld0);
    out.x = arena.take<T>(p.K * out.rows * out.ld1);
    out.q = arena.take<T>(p.K * out.rows * out.ldq);
    out.gated = arena.take<T>(out.rows * out.ld0);
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
  // Products for evaluation `row`, as far as an earlier evaluation's do not serve.
  void products(const Solve<T>& s, int64_t row, int64_t n) {
    const int64_t count = smaller(rows, n);
    for (int64_t k = 0; k < s.p->K; ++k) {
      if (s.L > 1 && (fresh || s.weight_rows > 1))
        rows_times<T>(count, s.layers[1].m, s.D, eps_of(k), ld0, s.forward_weight(row, 1),
                      x + k * rows * ld1, ld1, false);
      if (fresh || s.weight_rows > 1 || s.gate_rows > 1) {
        scale_columns<T>(count, padded<T>(s.D), T(1), s.gates(row, s.L), eps_of(k), ld0, gated,
                         ld0);
        rows_times<T>(count, s.layers[s.L - 1].m, s.D, gated, ld0, s.backward_weight(row, s.L),
                      q + k * rows * ldq, ldq, false);
      }
    }
    fresh = false;
  }
};

}  // namespace MVAE_FAST_ISA
}  // namespace mvae_fast
