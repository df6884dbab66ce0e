// What every worker of one solve shares: the layout, and the tables in the kernels' own form.
#pragma once

#include "../simd/products.h"

namespace mvae_fast::MVAE_FAST_ISA {

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
  int64_t kept;  // offset of W_l y in what is kept of an evaluation, over B
};

// The tables are small (a vector a layer: gates, biases, traces of up to one hidden layer), and
// held for all evaluations, or large (a matrix: weights, M of two hidden layers, Q of the second
// order). Large tables that vary with time are held for a window of `span` steps only, which all
// rows go through before the next one: that bounds their memory, and each is read from cache by
// every tile of rows.
template <class T>
struct Solve {
  const Problem<T>* p;
  int64_t L, D, rows;                                // rows: S * R, the evaluations of the velocity
  bool bf16, exact, probe_trace, frobenius, values;  // values: penalties of f are wanted
  bool evaluates_output;  // whether W_L y is computed: not in every backward
  int64_t tiles;          // that one worker has, at most
  Layer* layers;          // 0 .. L
  int64_t widest;         // longest tile row
  int64_t features, padded_features, weights, forward_size, backward_size, gradient_size;
  // Rows of a table: 1, or S * R where it varies with time; 0: absent.
  int64_t weight_rows, gate_rows, bias_rows, trace_rows, second_rows;
  int64_t span;                             // steps in a window: S if no large table varies
  int64_t first;                            // the evaluation at which the present window begins
  int64_t trace_size, trace_gradient_size;  // one row, packed / padded
  int64_t second_size, second_gradient_size;
  T *forward, *backward;  // packed weights; backward may be null
  T *gate, *bias, *ones;
  T* psi;  // (S * R, F), the features of time of coefficients
  T *trace_forward,
      *trace_backward;   // L <= 2: the padded rows; L = 3: M packed in both orientations
  T* second;             // symmetric: packed in one orientation
  T *third, *third_bar;  // W_3' (m_2, D) and its gradient, for M from the coefficients
  T* loop;               // M / W_2 / G_1 of the window, kept for its gradients
  T* kept;               // see kept_numbers; null: nothing is kept
  int64_t kept_size;

  bool evaluates(int64_t l) const { return l < L || evaluates_output; }
  // A piece of what is kept of an evaluation: of the rows from `begin` on, which are `ld` apart.
  T* kept_piece(int64_t row, int64_t offset, int64_t begin, int64_t ld) const {
    return kept + p->B * (row * kept_size + offset) + begin * ld;
  }
  T* kept_product(int64_t row, int64_t l, int64_t begin) const {
    return kept_piece(row, layers[l].kept, begin, layers[l].ld);
  }
  T* kept_trace(int64_t row, int64_t begin) const {
    return kept_piece(row, layers[L].kept, begin, layers[2].ld);
  }
  T* kept_tangent(int64_t row, int64_t k, int64_t l, int64_t begin) const {
    const int64_t start = layers[L].kept + (exact && L == 3 ? layers[2].ld : 0);
    const int64_t probe = layers[L].kept - layers[2].kept;
    return kept_piece(row, start + k * probe + layers[l].kept - layers[2].kept, begin,
                      layers[l].ld);
  }
  T* kept_argument(int64_t row, int64_t begin) const {
    return kept_piece(row, kept_size - layers[0].ld, begin, layers[0].ld);
  }
  bool large_trace() const { return L == 3; }
  int64_t window_rows(int64_t table_rows) const {
    return table_rows > 1 ? span * p->R : table_rows;
  }
  int64_t in_window(int64_t table_rows, int64_t row) const {
    return table_rows > 1 ? row - first : 0;
  }
  // u of layer l, (B, m), or null.
  const T* context(int64_t l) const { return p->context ? p->context[l - 1] : nullptr; }
  const T* forward_weight(int64_t row, int64_t l) const {
    return forward + in_window(weight_rows, row) * forward_size + layers[l].forward;
  }
  const T* backward_weight(int64_t row, int64_t l) const {
    return backward + in_window(weight_rows, row) * backward_size + layers[l].backward;
  }
  const T* gates(int64_t row, int64_t l) const {
    return gate_rows
               ? gate + (gate_rows > 1 ? row : 0) * padded_features + layers[l].padded_features
               : ones;
  }
  const T* biases(int64_t row, int64_t l) const {
    return bias + (bias_rows > 1 ? row : 0) * padded_features + layers[l].padded_features;
  }
  int64_t trace_index(int64_t row) const {
    return large_trace() ? in_window(trace_rows, row) : trace_rows > 1 ? row : 0;
  }
  const T* trace_row(const T* base, int64_t row) const {
    return base + trace_index(row) * trace_size;
  }
  const T* second_row(int64_t row) const {
    return second + in_window(second_rows, row) * second_size;
  }
};

template <class T>
static int64_t table_rows(const Problem<T>& p, const T* table, int64_t stride) {
  return table ? (stride ? p.S * p.R : int64_t{1}) : int64_t{0};
}

template <class T>
static bool any_gate(const Problem<T>& p) {
  for (int64_t l = 0; l < p.L; ++l)
    if (p.layers[l].gate) return true;
  return false;
}

// Whether biases without gates depend on time: by more than the feature 1.
template <class T>
static bool bias_varies(const Problem<T>& p) {
  for (int64_t l = 0; l < p.L; ++l)
    for (int64_t f = p.features ? 0 : 1; f < p.F; ++f)
      if (p.layers[l].bias[f].data || p.layers[l].late_bias[f].data) return true;
  return false;
}

enum class Sweep { forward, backward };

// Lays out a solve in `arena`. `gradients`: also what the gradients of coefficients need.
template <class T>
static Solve<T> lay_out(const Problem<T>& p, Sweep sweep, bool gradients, int64_t workers,
                        Arena& arena) {
  const bool with_backward = sweep == Sweep::backward || p.K > 0;  // hoisting takes W_L'

  Solve<T> x{};
  x.p = &p;
  x.L = p.L;
  x.D = p.widths[0];
  x.rows = p.S * p.R;
  x.tiles = most_tiles(p.B, workers);
  x.bf16 = kMultipliesBf16 && p.operands == Operands::bf16;  // else float32 is faster, and exact
  x.exact = p.layers ? p.exact : p.trace != nullptr;
  x.probe_trace = p.K && !x.exact;
  x.frobenius = p.K && (p.penalties & kFrobenius);
  x.values = p.penalties & ~kFrobenius;
  x.evaluates_output =
      sweep == Sweep::forward || p.R > 1 || p.checkpoint > 1 || x.values || x.frobenius;
  x.layers = arena.take<Layer>(p.L + 1);
  x.kept_size = kept_numbers(p);
  if (p.layers) {
    const bool gated = any_gate(p);
    x.weight_rows = 1;
    x.gate_rows = gated ? x.rows : 0;
    x.bias_rows = gated || bias_varies(p) ? x.rows : 1;
    x.trace_rows = !p.exact ? 0 : gated ? x.rows : 1;
    x.psi = arena.take<T>(x.rows, p.F);
  } else {
    x.weight_rows = table_rows(p, p.weight, p.weight_stride);
    x.gate_rows = table_rows(p, p.gate, p.gate_stride);
    x.bias_rows = table_rows(p, p.bias, p.bias_stride);
    x.trace_rows = table_rows(p, p.trace, p.trace_stride);
    x.second_rows = table_rows(p, p.second, p.second_stride);
  }
  const bool varies =
      x.weight_rows > 1 || x.second_rows > 1 || (x.large_trace() && x.trace_rows > 1);
  // Whole checkpoint intervals: the backward recomputes the states of one from its first.
  x.span = varies ? smaller(p.checkpoint, p.S) : p.S;

  const bool write = !arena.counting();
  int64_t before = p.widths[0];
  x.widest = leading<T>(before);
  if (write) x.layers[0] = Layer{before, leading<T>(before), 0, 0, 0, 0, 0, 0, 0, 0};
  int64_t kept = 0;
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
                          padded<T>(before),
                          kept};
    kept += leading<T>(m);
    x.features += m;
    x.padded_features += padded<T>(m);
    x.weights += m * before;
    x.forward_size += Products<T>::packed_size(x.bf16, before, m);
    x.backward_size += Products<T>::packed_size(x.bf16, m, before);
    x.gradient_size += m * padded<T>(before);
    x.widest = larger(x.widest, leading<T>(m));
    before = m;
  }
  x.forward = arena.take<T>(x.window_rows(x.weight_rows), x.forward_size);
  if (with_backward) x.backward = arena.take<T>(x.window_rows(x.weight_rows), x.backward_size);
  x.gate = arena.take<T>(x.gate_rows, x.padded_features);
  x.bias = arena.take<T>(x.bias_rows, x.padded_features);
  x.ones = arena.take<T>(x.widest);
  if (x.exact) {
    int64_t held = x.trace_rows;
    if (x.large_trace()) {
      const int64_t m1 = p.widths[1], m2 = p.widths[2];
      held = x.window_rows(x.trace_rows);
      x.trace_size = larger(Products<T>::packed_size(x.bf16, m1, m2),
                            Products<T>::packed_size(x.bf16, m2, m1));
      x.trace_gradient_size = m2 * padded<T>(m1);
      x.trace_backward = with_backward ? arena.take<T>(held, x.trace_size) : nullptr;
      if (p.layers) x.third = arena.take<T>(m2, padded<T>(x.D));
      if (p.layers && gradients) {
        x.third_bar = arena.take<T>(m2, padded<T>(x.D));
        x.loop = arena.take<T>(held, m2, padded<T>(m1));
      }
    } else {
      x.trace_size = x.trace_gradient_size = padded<T>(p.L == 2 ? p.widths[1] : 1);
    }
    x.trace_forward = arena.take<T>(held, x.trace_size);
  }
  if (p.second) {
    const int64_t m1 = p.widths[1];
    x.second_size = Products<T>::packed_size(x.bf16, m1, m1);
    x.second_gradient_size = m1 * padded<T>(m1);
    x.second = arena.take<T>(x.window_rows(x.second_rows), x.second_size);
  }
  return x;
}

// W_l y of evaluation `row` for the rows of the batch from `begin` on, with what their context
// adds.
template <class T>
static void layer_product(const Solve<T>& s, const Products<T>& products, int64_t row, int64_t l,
                          int64_t begin, int64_t n, const T* y, int64_t ldy, T* to) {
  const Layer& layer = s.layers[l];
  const T* const u = s.context(l);
  if (u) copy_rows<T>(n, layer.m, u + begin * layer.m, layer.m, to, layer.ld);
  products.rows_times(n, layer.m, s.layers[l - 1].m, y, ldy, s.forward_weight(row, l), to, layer.ld,
                      u != nullptr);
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

}  // namespace mvae_fast::MVAE_FAST_ISA
