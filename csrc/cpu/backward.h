// The backward sweep: the discrete adjoint of the steps (docs/math.md, section 4). Only the
// states z_s were saved; each step recomputes its hidden layers, but not the last one: both
// gradients that would need f come out of other products (h_bar from y . W'z_bar, the last gate's
// from its weight's).
#pragma once

#include <initializer_list>

#include "solve.h"

namespace mvae_fast {
namespace MVAE_FAST_ISA {

// One worker's share of the gradients that are summed over rows.
template <class T>
struct RowSums {
  T *h, *weight, *gate, *bias, *trace, *second;

  static RowSums take(const Solve<T>& s, bool tables, Arena& arena) {
    RowSums x{};
    x.h = arena.take<T>(s.p->S);
    if (!tables) return x;
    x.weight = arena.take<T>(s.weight_rows * s.gradient_size);
    x.gate = arena.take<T>(s.gate_rows * s.padded_features);
    x.bias = arena.take<T>(s.bias_rows * s.padded_features);
    x.trace = arena.take<T>(s.trace_rows * s.trace_gradient_size);
    x.second = arena.take<T>(s.second_rows * s.second_gradient_size);
    return x;
  }
  void clear(const Solve<T>& s) const {
    memset(h, 0, s.p->S * sizeof(T));
    if (!weight) return;
    memset(weight, 0, s.weight_rows * s.gradient_size * sizeof(T));
    memset(gate, 0, s.gate_rows * s.padded_features * sizeof(T));
    memset(bias, 0, s.bias_rows * s.padded_features * sizeof(T));
    memset(trace, 0, s.trace_rows * s.trace_gradient_size * sizeof(T));
    memset(second, 0, s.second_rows * s.second_gradient_size * sizeof(T));
  }
  T* weight_of(const Solve<T>& s, int64_t row, int64_t l) const {
    return weight ? weight + (s.weight_rows > 1 ? row : 0) * s.gradient_size + s.layers[l].gradient
                  : nullptr;
  }
  T* gate_of(const Solve<T>& s, int64_t row, int64_t l) const {
    return weight && s.gate_rows ? gate + (s.gate_rows > 1 ? row : 0) * s.padded_features +
                                       s.layers[l].padded_features
                                 : nullptr;
  }
  T* bias_of(const Solve<T>& s, int64_t row, int64_t l) const {
    return weight ? bias + (s.bias_rows > 1 ? row : 0) * s.padded_features +
                        s.layers[l].padded_features
                  : nullptr;
  }
  T* trace_of(const Solve<T>& s, int64_t row) const {
    return weight && s.trace_rows ? trace + (s.trace_rows > 1 ? row : 0) * s.trace_gradient_size
                                  : nullptr;
  }
  T* second_of(const Solve<T>& s, int64_t row) const {
    return weight ? second + (s.second_rows > 1 ? row : 0) * s.second_gradient_size : nullptr;
  }
};

template <class T>
struct BackwardTile {
  int64_t slot, slot0;       // elements of one hidden layer's tile, of one state's
  T *z, *z_bar;              // z_s and the adjoint of z_{s+1}, in turn that of z_s
  T *scaled, *top;           // h k_bar; G_L k_bar
  T *w, *y, *d1, *d2, *t;    // per hidden layer: W y, phi, phi', phi'', coefficient of phi''
  T *g, *y_bar;              // G_l a_bar_l and W_l' of it
  T *tangent_w, *tangent_v;  // per hidden layer: W v and v of one probe
  T* tangent_sum;            // per probe: G_1 u_bar_1 summed over steps
  T *tau, *tau_second, *tau_bar, *logp_bar;
  T *inputs, *k, *k_bar, *input_bar;  // more than one stage: per stage; k_bar of one
  T* path;                            // the states between two checkpoints
  bool coupled;                       // whether t holds this evaluation's trace
  Probes<T> probes;
  RowSums<T> sums;

  static BackwardTile take(const Solve<T>& s, bool tables, Arena& arena) {
    BackwardTile x{};
    const int64_t hidden = s.L - 1, stages = s.p->R > 1 ? s.p->R : 0;
    x.slot = kTile * s.widest;
    x.slot0 = kTile * leading<T>(s.D);
    for (T** piece : {&x.z, &x.z_bar, &x.scaled, &x.top}) *piece = arena.take<T>(x.slot0);
    for (T** piece : {&x.w, &x.y, &x.d1, &x.d2}) *piece = arena.take<T>(hidden * x.slot);
    x.g = arena.take<T>(x.slot);
    x.y_bar = arena.take<T>(x.slot);
    for (T** piece : {&x.tau, &x.tau_second, &x.tau_bar, &x.logp_bar})
      *piece = arena.take<T>(kTile);
    if (s.p->K || s.p->trace) x.t = arena.take<T>(hidden * x.slot);
    for (T** piece : {&x.inputs, &x.k, &x.input_bar}) *piece = arena.take<T>(stages * x.slot0);
    x.k_bar = arena.take<T>(stages ? x.slot0 : 0);
    x.path = arena.take<T>((s.p->checkpoint - 1) * x.slot0);
    x.probes = Probes<T>::take(s, arena);
    if (s.p->K) {
      x.tangent_w = arena.take<T>(hidden * x.slot);
      x.tangent_v = arena.take<T>(hidden * x.slot);
      x.tangent_sum = arena.take<T>(s.p->K * x.probes.rows * x.probes.ld1);
    }
    x.sums = RowSums<T>::take(s, tables, arena);
    return x;
  }
  T* hidden(T* base, int64_t l) const { return base + (l - 1) * slot; }
};

// Recomputes w, y, phi' and phi'' of every hidden layer at the state z.
template <class T>
static void recompute(const Solve<T>& s, const BackwardTile<T>& t, int64_t row, const T* z,
                      int64_t n) {
  const Activate<T> all = activation<T, Keep::all>(s.p->nonlinearity);
  const T* y = z;
  for (int64_t l = 1; l < s.L; ++l) {
    const Layer& layer = s.layers[l];
    T* w = t.hidden(t.w, l);
    rows_times<T>(n, layer.m, s.layers[l - 1].m, y, s.layers[l - 1].ld, s.forward_weight(row, l), w,
                  layer.ld, false);
    all({n, padded<T>(layer.m), layer.ld, w, s.gates(row, l), s.biases(row, l), t.hidden(t.y, l),
         t.hidden(t.d1, l), t.hidden(t.d2, l), nullptr, nullptr});
    y = t.hidden(t.y, l);
  }
}

// k = the velocity of evaluation `row` at z.
template <class T>
static void velocity(const Solve<T>& s, const BackwardTile<T>& t, int64_t row, const T* z,
                     int64_t n, T* k) {
  const Activate<T> plain = activation<T, Keep::value>(s.p->nonlinearity);
  const int64_t ld0 = s.layers[0].ld, width0 = padded<T>(s.D);
  const T* y = z;
  for (int64_t l = 1; l < s.L; ++l) {
    const Layer& layer = s.layers[l];
    T* to = t.hidden(t.y, l);
    rows_times<T>(n, layer.m, s.layers[l - 1].m, y, s.layers[l - 1].ld, s.forward_weight(row, l),
                  to, layer.ld, false);
    plain({n, padded<T>(layer.m), layer.ld, to, s.gates(row, l), s.biases(row, l), to, nullptr,
           nullptr, nullptr, nullptr});
    y = to;
  }
  rows_times<T>(n, s.D, s.layers[s.L - 1].m, y, s.layers[s.L - 1].ld, s.forward_weight(row, s.L),
                t.top, ld0, false);
  scale_columns<T>(n, width0, s.p->residual ? T(-1) : T(0), s.ones, z, ld0, k, ld0);
  advance<T>(n, width0, T(1), T(1), t.top, ld0, s.gates(row, s.L), s.biases(row, s.L), k, ld0);
}

// The arguments of all stages of `step` from the state z to t.inputs, all velocities but the last
// to t.k.
template <class T>
static void step_inputs(const Solve<T>& s, const BackwardTile<T>& t, int64_t step, const T* z,
                        int64_t n) {
  const Problem<T>& p = *s.p;
  for (int64_t r = 0; r < p.R; ++r) {
    T* input = t.inputs + r * t.slot0;
    combine<T>(s, z, p.h[step], p.a + r * p.R, r, t.k, n, input);
    if (r + 1 < p.R) velocity<T>(s, t, step * p.R + r, input, n, t.k + r * t.slot0);
  }
}

// to = the state after `step` from z before it.
template <class T>
static void next_state(const Solve<T>& s, const BackwardTile<T>& t, int64_t step, const T* z,
                       int64_t n, T* to) {
  const Problem<T>& p = *s.p;
  const double euler = 1;
  if (p.R == 1) {
    velocity<T>(s, t, step, z, n, t.scaled);
    combine<T>(s, z, p.h[step], &euler, 1, t.scaled, n, to);
    return;
  }
  step_inputs<T>(s, t, step, z, n);
  velocity<T>(s, t, step * p.R + p.R - 1, t.inputs + (p.R - 1) * t.slot0, n,
              t.k + (p.R - 1) * t.slot0);
  combine<T>(s, z, p.h[step], p.b, p.R, t.k, n, to);
}

// Tr J^2 = phi' . Q phi' of one hidden layer, Q symmetric: its value (over n rows to tau_second)
// and its share of t_1 and of Q's gradient; the step adds h^2/2 Tr J^2 to the log-density.
template <class T>
static void second_order_trace(const Solve<T>& s, const BackwardTile<T>& t, int64_t row, T h,
                               int64_t n) {
  const Layer& hidden = s.layers[1];
  const int64_t width = padded<T>(hidden.m);
  const T* d1 = t.hidden(t.d1, 1);
  rows_times<T>(n, hidden.m, hidden.m, d1, hidden.ld, s.second_row(row), t.y_bar, hidden.ld, false);
  memset(t.tau_second, 0, n * sizeof(T));
  add_row_dots<T>(n, width, t.y_bar, hidden.ld, d1, hidden.ld, T(1), t.tau_second);
  T weight[kTile];                                                    // adjoint of Tr J^2
  for (int64_t r = 0; r < n; ++r) weight[r] = h * h * t.logp_bar[r];  // twice h^2/2: Q + Q' = 2 Q
  scale_rows<T>(n, width, weight, t.y_bar, hidden.ld, t.y_bar, hidden.ld);
  add_scaled_rows<T>(n, width, T(1), t.y_bar, hidden.ld, t.hidden(t.t, 1), hidden.ld);
  if (T* gradient = t.sums.second_of(s, row)) {
    for (int64_t r = 0; r < n; ++r) weight[r] /= 2;
    scale_rows<T>(n, width, weight, d1, hidden.ld, t.g, hidden.ld);
    outer_product<T>(hidden.m, hidden.m, n, t.g, hidden.ld, d1, hidden.ld, gradient, width);
  }
}

// tau, the coefficients t of phi'' and the table's own gradient, for an exact trace in closed form.
template <class T>
static void closed_form_trace(const Solve<T>& s, const BackwardTile<T>& t, int64_t row, T h,
                              int64_t n) {
  const T* table = s.trace_row(s.trace_forward, row);
  T* gradient = t.sums.trace_of(s, row);
  if (s.L == 1) {
    for (int64_t r = 0; r < n; ++r) {
      t.tau[r] = table[0];
      if (gradient) gradient[0] += t.tau_bar[r];
    }
    return;
  }
  const Layer& first = s.layers[1];
  const T* d1 = t.hidden(t.d1, 1);
  if (s.L == 2) {
    add_row_dots<T>(n, padded<T>(first.m), d1, first.ld, table, 0, T(1), t.tau);
    scale_rows<T>(n, padded<T>(first.m), t.tau_bar, table, 0, t.hidden(t.t, 1), first.ld);
    if (gradient)
      add_scaled_column_sums<T>(n, padded<T>(first.m), t.tau_bar, d1, first.ld, gradient);
    if (s.p->second) second_order_trace<T>(s, t, row, h, n);
    return;
  }
  const Layer& second = s.layers[2];
  const T* d1_second = t.hidden(t.d1, 2);
  T *t1 = t.hidden(t.t, 1), *t2 = t.hidden(t.t, 2);
  rows_times<T>(n, second.m, first.m, d1, first.ld, table, t2, second.ld, false);
  add_row_dots<T>(n, padded<T>(second.m), t2, second.ld, d1_second, second.ld, T(1), t.tau);
  scale_rows<T>(n, padded<T>(second.m), t.tau_bar, t2, second.ld, t2, second.ld);
  scale_rows<T>(n, padded<T>(second.m), t.tau_bar, d1_second, second.ld, t.g, second.ld);
  rows_times<T>(n, first.m, second.m, t.g, second.ld, s.trace_row(s.trace_backward, row), t1,
                first.ld, false);
  if (gradient)
    outer_product<T>(second.m, first.m, n, t.g, second.ld, d1, first.ld, gradient,
                     padded<T>(first.m));
}

// The last layer's weight and gate gradients from the adjoint of its output (before the gate, over
// `scale`).
template <class T>
static void last_layer_gradients(const Solve<T>& s, const BackwardTile<T>& t, int64_t row,
                                 int64_t n, const T* a, int64_t lda, T scale, const T* scaled,
                                 const T* y, int64_t ldy) {
  T* weight = t.sums.weight_of(s, row, s.L);
  if (!weight) return;
  const int64_t before = s.layers[s.L - 1].m, ld = s.layers[s.L].gradient_ld;
  if (T* gate = t.sums.gate_of(s, row, s.L))
    gated_outer_product<T>(s.D, before, n, a, lda, y, ldy, scale, s.gates(row, s.L),
                           s.backward_weight(row, s.L), gate, weight, ld);
  else
    outer_product<T>(s.D, before, n, scaled, lda, y, ldy, weight, ld);
}

// The tangent streams of all probes: tau, the coefficients t of phi'', and their part of the
// tables' gradients.
template <class T>
static void probe_traces(const Solve<T>& s, const BackwardTile<T>& t, int64_t row, int64_t n) {
  const Probes<T>& probes = t.probes;
  const int64_t ld0 = s.layers[0].ld;
  for (int64_t k = 0; k < s.p->K; ++k) {
    const T* v = probes.eps_of(k);
    int64_t ldv = probes.stride(probes.ld0);
    for (int64_t l = 1; l < s.L; ++l) {
      const Layer& layer = s.layers[l];
      const T* w = probes.x_of(k);
      int64_t ldw = probes.stride(probes.ld1);
      if (l > 1) {
        rows_times<T>(n, layer.m, s.layers[l - 1].m, v, ldv, s.forward_weight(row, l),
                      t.hidden(t.tangent_w, l), layer.ld, false);
        w = t.hidden(t.tangent_w, l);
        ldw = layer.ld;
      }
      tangent<T>(n, padded<T>(layer.m), t.hidden(t.d1, l), layer.ld, s.gates(row, l), w, ldw,
                 t.hidden(t.tangent_v, l));
      v = t.hidden(t.tangent_v, l);
      ldv = layer.ld;
    }
    const Layer& last = s.layers[s.L - 1];
    add_row_dots<T>(n, padded<T>(last.m), v, ldv, probes.q_of(k), probes.stride(probes.ldq), T(1),
                    t.tau);
    scale_rows<T>(n, padded<T>(s.D), t.tau_bar, probes.eps_of(k), probes.stride(probes.ld0),
                  t.scaled, ld0);
    last_layer_gradients<T>(s, t, row, n, t.scaled, ld0, T(1), t.scaled, v, ldv);
    if (s.L > 1)
      scale_rows<T>(n, padded<T>(last.m), t.tau_bar, probes.q_of(k), probes.stride(probes.ldq),
                    t.y_bar, last.ld);
    for (int64_t l = s.L - 1; l >= 1; --l) {
      const Layer& layer = s.layers[l];
      const T* w = l > 1 ? t.hidden(t.tangent_w, l) : probes.x_of(k);
      const int64_t ldw = l > 1 ? layer.ld : probes.stride(probes.ld1);
      tangent_adjoint<T>(n, padded<T>(layer.m), layer.ld, t.hidden(t.d1, l), s.gates(row, l), w,
                         ldw, t.y_bar, k == 0, t.hidden(t.t, l), t.g, t.sums.gate_of(s, row, l));
      T* weight = t.sums.weight_of(s, row, l);
      if (l > 1) {
        const Layer& below = s.layers[l - 1];
        if (weight)
          outer_product<T>(layer.m, below.m, n, t.g, layer.ld, t.hidden(t.tangent_v, l - 1),
                           below.ld, weight, layer.gradient_ld);
        rows_times<T>(n, below.m, layer.m, t.g, layer.ld, s.backward_weight(row, l), t.y_bar,
                      below.ld, false);
      } else if (weight && s.weight_rows > 1) {
        outer_product<T>(layer.m, s.D, n, t.g, layer.ld, probes.eps_of(k),
                         probes.stride(probes.ld0), weight, layer.gradient_ld);
      } else if (weight) {
        // W_1's part is sum_s (G_1 u_bar_1)' eps: eps does not change, so sum over the steps first.
        T* total = t.tangent_sum + k * probes.rows * probes.ld1;
        if (probes.rows > 1)
          add_rows<T>(n, padded<T>(layer.m), t.g, layer.ld, total, probes.ld1);
        else
          add_column_sums<T>(n, padded<T>(layer.m), T(1), t.g, layer.ld, total);
      }
    }
  }
}

// The main stream of one evaluation at the state z: from k_bar, the adjoint of the velocity over h,
// to that of z, added to `into` (which may be k_bar itself: Euler's step keeps z_bar in place).
// Adds every table's gradient, and k_bar . f to dots.
template <class T>
static void adjoint_evaluation(const Solve<T>& s, const BackwardTile<T>& t, int64_t row, T h,
                               const T* z, const T* k_bar, T* into, T* dots, int64_t n) {
  const Problem<T>& p = *s.p;
  const int64_t D = s.D, ld0 = s.layers[0].ld;
  const Layer& last = s.layers[s.L - 1];
  const T* y = s.L > 1 ? t.hidden(t.y, s.L - 1) : z;
  const int64_t width0 = padded<T>(D);

  // k_bar . f = (W_L' G_L k_bar) . y + k_bar . C_L [- k_bar . z]
  scale_columns<T>(n, width0, T(1), s.gates(row, s.L), k_bar, ld0, t.top, ld0);
  rows_times<T>(n, last.m, D, t.top, ld0, s.backward_weight(row, s.L), t.y_bar, last.ld, false);
  add_row_dots<T>(n, padded<T>(last.m), t.y_bar, last.ld, y, last.ld, T(1), dots);
  add_row_dots<T>(n, width0, k_bar, ld0, s.biases(row, s.L), 0, T(1), dots);
  if (p.residual) add_row_dots<T>(n, width0, k_bar, ld0, z, ld0, T(-1), dots);

  if (T* bias = t.sums.bias_of(s, row, s.L)) add_column_sums<T>(n, width0, h, k_bar, ld0, bias);
  scale_columns<T>(n, width0, h, s.ones, k_bar, ld0, t.scaled, ld0);
  last_layer_gradients<T>(s, t, row, n, k_bar, ld0, h, t.scaled, y, last.ld);

  if (p.residual) add_scaled_rows<T>(n, width0, T(-1), t.scaled, ld0, into, ld0);
  if (s.L == 1) {
    add_scaled_rows<T>(n, width0, h, t.y_bar, ld0, into, ld0);
    return;
  }
  for (int64_t l = s.L - 1; l >= 1; --l) {
    const Layer &layer = s.layers[l], &below = s.layers[l - 1];
    adjoint<T>(n, padded<T>(layer.m), layer.ld, l == s.L - 1 ? h : T(1), t.hidden(t.d1, l), t.y_bar,
               t.hidden(t.d2, l), t.coupled ? t.hidden(t.t, l) : nullptr, s.gates(row, l),
               t.hidden(t.w, l), t.g, t.sums.bias_of(s, row, l), t.sums.gate_of(s, row, l));
    if (T* weight = t.sums.weight_of(s, row, l))
      outer_product<T>(layer.m, below.m, n, t.g, layer.ld, l > 1 ? t.hidden(t.y, l - 1) : z,
                       below.ld, weight, layer.gradient_ld);
    rows_times<T>(n, below.m, layer.m, t.g, layer.ld, s.backward_weight(row, l),
                  l > 1 ? t.y_bar : into, below.ld, l == 1);
  }
}

// The backward of evaluation `row`, of weight b in its step: traces first, then the main stream.
template <class T>
static void backward_evaluation(const Solve<T>& s, BackwardTile<T>& t, int64_t row, T h, T b,
                                const T* z, const T* k_bar, T* into, T* dots, int64_t n) {
  const Problem<T>& p = *s.p;
  recompute<T>(s, t, row, z, n);
  t.coupled = (p.trace || p.K) && b != 0;
  if (t.coupled) {
    for (int64_t r = 0; r < n; ++r) {
      t.tau[r] = 0;
      t.tau_bar[r] = -h * b * t.logp_bar[r];
    }
    if (p.trace) closed_form_trace<T>(s, t, row, h, n);
    if (p.K) {
      t.probes.products(s, row, n);
      probe_traces<T>(s, t, row, n);
    }
    for (int64_t r = 0; r < n; ++r) dots[r] -= b * t.logp_bar[r] * t.tau[r];
    if (p.second)
      for (int64_t r = 0; r < n; ++r) dots[r] += h * t.logp_bar[r] * t.tau_second[r];
  }
  adjoint_evaluation<T>(s, t, row, h, z, k_bar, into, dots, n);
}

// t.z_bar from the adjoint of the state after `step` to that of t.z before it.
template <class T>
static void backward_step(const Solve<T>& s, BackwardTile<T>& t, int64_t step, int64_t n) {
  const Problem<T>& p = *s.p;
  const int64_t ld0 = s.layers[0].ld, width = padded<T>(s.D), R = p.R;
  const T h = p.h[step];
  T dots[kTile] = {};  // per row, the adjoint of h
  if (R == 1) {
    backward_evaluation<T>(s, t, step, h, static_cast<T>(p.b[0]), t.z, t.z_bar, t.z_bar, dots, n);
  } else {
    step_inputs<T>(s, t, step, t.z, n);
    for (int64_t r = R - 1; r >= 0; --r) {
      // k_bar_r = b_r z_bar + sum_q>r a_qr input_bar_q
      scale_columns<T>(n, width, static_cast<T>(p.b[r]), s.ones, t.z_bar, ld0, t.k_bar, ld0);
      for (int64_t q = r + 1; q < R; ++q)
        if (p.a[q * R + r] != 0)
          add_scaled_rows<T>(n, width, static_cast<T>(p.a[q * R + r]), t.input_bar + q * t.slot0,
                             ld0, t.k_bar, ld0);
      T* into = t.input_bar + r * t.slot0;
      memset(into, 0, n * ld0 * sizeof(T));
      backward_evaluation<T>(s, t, step * R + r, h, static_cast<T>(p.b[r]), t.inputs + r * t.slot0,
                             t.k_bar, into, dots, n);
    }
    for (int64_t r = 0; r < R; ++r)
      add_scaled_rows<T>(n, width, T(1), t.input_bar + r * t.slot0, ld0, t.z_bar, ld0);
  }
  for (int64_t r = 0; r < n; ++r) t.sums.h[step] += dots[r];
}

// Loads z_s of step `step` into t.z: saved, or recomputed from the last checkpoint before it.
template <class T>
static void load_state(const Solve<T>& s, const BackwardInputs<T>& in, BackwardTile<T>& t,
                       int64_t step, int64_t begin, int64_t n) {
  const Problem<T>& p = *s.p;
  const int64_t D = s.D, ld0 = s.layers[0].ld, width = padded<T>(D), k = p.checkpoint;
  const int64_t within = step % k, segment = step / k;
  const T* saved = segment ? in.states + ((segment - 1) * p.B + begin) * D : p.z + begin * D;
  // Entering a segment from its end: recompute its states once, keep them for its other steps.
  if (k > 1 && (within == k - 1 || step == p.S - 1)) {
    copy_rows<T>(n, D, saved, D, t.z, ld0);
    for (int64_t i = 0; i < within; ++i) {
      T* next = t.path + i * t.slot0;
      next_state<T>(s, t, segment * k + i, i ? next - t.slot0 : t.z, n, next);
    }
  }
  if (within)
    scale_columns<T>(n, width, T(1), s.ones, t.path + (within - 1) * t.slot0, ld0, t.z, ld0);
  else
    copy_rows<T>(n, D, saved, D, t.z, ld0);
}

template <class T>
static void backward_tile(const Solve<T>& s, const BackwardInputs<T>& in,
                          const BackwardOutputs<T>& out, BackwardTile<T>& t, int64_t begin,
                          int64_t n) {
  const Problem<T>& p = *s.p;
  const int64_t D = s.D, ld0 = s.layers[0].ld;
  memset(t.z_bar, 0, n * ld0 * sizeof(T));
  memset(t.logp_bar, 0, n * sizeof(T));
  if (p.K) {
    t.probes.load_tile(s, begin, n);
    memset(t.tangent_sum, 0, p.K * t.probes.rows * t.probes.ld1 * sizeof(T));
  }
  int64_t output = p.n_outputs - 1;
  for (int64_t step = p.S - 1; step >= 0; --step) {
    if (output >= 0 && p.outputs[output] == step + 1) {
      const int64_t at = output * p.B + begin;
      add_rows<T>(n, D, in.grad_z + at * D, D, t.z_bar, ld0);
      for (int64_t r = 0; r < n; ++r) t.logp_bar[r] += in.grad_logp[at + r];
      --output;
    }
    load_state<T>(s, in, t, step, begin, n);
    backward_step<T>(s, t, step, n);
  }
  if (p.K && s.L > 1 && s.weight_rows == 1 && t.sums.weight)
    for (int64_t k = 0; k < p.K; ++k)
      outer_product<T>(s.layers[1].m, D, smaller(t.probes.rows, n),
                       t.tangent_sum + k * t.probes.rows * t.probes.ld1, t.probes.ld1,
                       t.probes.eps_of(k), t.probes.ld0, t.sums.weight_of(s, 0, 1),
                       s.layers[1].gradient_ld);
  for (int64_t r = 0; r < n; ++r) memcpy(out.z + (begin + r) * D, t.z_bar + r * ld0, D * sizeof(T));
}

// to[i] = sum over workers of from[i], in worker order: the same bits for the same number of
// threads.
template <class T>
static void add_workers(int64_t n, const T* from, int64_t workers, int64_t worker_stride, T* to) {
  for (int64_t i = 0; i < n; ++i) to[i] = from[i];
  for (int64_t w = 1; w < workers; ++w)
    for (int64_t i = 0; i < n; ++i) to[i] += from[w * worker_stride + i];
}

// One worker's part of the sum of all workers' gradients, from their padded layout into the
// caller's.
template <class T>
static void reduce(const Solve<T>& s, const RowSums<T>& first, int64_t stride,
                   const BackwardOutputs<T>& out, int64_t workers, int64_t worker) {
  if (worker == 0) add_workers<T>(s.p->S, first.h, workers, stride, out.h);
  if (!out.weight) return;
  const auto features = [&](int64_t rows, const T* from, T* to) {
    for (int64_t step = 0; step < rows; ++step)
      for (int64_t l = 1; l <= s.L; ++l)
        add_workers<T>(s.layers[l].m, from + step * s.padded_features + s.layers[l].padded_features,
                       workers, stride, to + step * s.features + s.layers[l].features);
  };
  if (worker == 0) {
    features(s.bias_rows, first.bias, out.bias);
    if (out.gate) features(s.gate_rows, first.gate, out.gate);
  }
  for (int64_t step = 0; step < s.weight_rows; ++step)
    for (int64_t l = 1; l <= s.L; ++l) {
      const Layer& layer = s.layers[l];
      const int64_t before = s.layers[l - 1].m;
      for (int64_t i = share(layer.m, workers, worker); i < share(layer.m, workers, worker + 1);
           ++i)
        add_workers<T>(
            before, first.weight + step * s.gradient_size + layer.gradient + i * layer.gradient_ld,
            workers, stride, out.weight + step * s.weights + layer.weight + i * before);
    }
  if (out.second) {
    const int64_t m1 = s.layers[1].m, ld = padded<T>(m1);
    for (int64_t row = 0; row < s.second_rows; ++row)
      for (int64_t i = share(m1, workers, worker); i < share(m1, workers, worker + 1); ++i)
        add_workers<T>(m1, first.second + row * s.second_gradient_size + i * ld, workers, stride,
                       out.second + (row * m1 + i) * m1);
  }
  if (!out.trace) return;
  const int64_t rows = s.L == 3 ? s.layers[2].m : 1, columns = s.L == 1 ? 1 : s.layers[1].m;
  for (int64_t step = 0; step < s.trace_rows; ++step)
    for (int64_t i = share(rows, workers, worker); i < share(rows, workers, worker + 1); ++i)
      add_workers<T>(columns, first.trace + step * s.trace_gradient_size + i * padded<T>(columns),
                     workers, stride, out.trace + (step * rows + i) * columns);
}

template <class T>
static int64_t backward_workspace(const Problem<T>& p, const BackwardOutputs<T>& out,
                                  int64_t workers) {
  Arena arena(nullptr);
  const Solve<T> s = lay_out(p, true, arena);
  Arena one(nullptr);
  BackwardTile<T>::take(s, out.weight != nullptr, one);
  return arena.used() + workers * one.used();
}

template <class T>
static void backward(const Problem<T>& p, const BackwardInputs<T>& in,
                     const BackwardOutputs<T>& out, const Threads& threads, void* workspace) {
  Arena arena(workspace);
  const Solve<T> s = lay_out(p, true, arena);
  prepare(s, threads);
  struct Context {
    const Solve<T>* s;
    const BackwardInputs<T>* in;
    const BackwardOutputs<T>* out;
    int64_t workers;
    char* scratch;
    int64_t scratch_size;

    BackwardTile<T> tile(int64_t worker) const {
      Arena arena(scratch + worker * scratch_size);
      return BackwardTile<T>::take(*s, out->weight != nullptr, arena);
    }
  } context{&s, &in, &out, threads.n, static_cast<char*>(workspace) + arena.used(), 0};
  Arena one(nullptr);
  BackwardTile<T>::take(s, out.weight != nullptr, one);
  context.scratch_size = one.used();
  threads.run(
      threads.n,
      [](void* opaque, int64_t worker) {
        const Context& c = *static_cast<Context*>(opaque);
        BackwardTile<T> tile = c.tile(worker);
        tile.sums.clear(*c.s);
        const int64_t begin = share(c.s->p->B, c.workers, worker),
                      end = share(c.s->p->B, c.workers, worker + 1);
        const int64_t tiles = (end - begin + kTile - 1) / kTile;
        for (int64_t i = 0; i < tiles; ++i) {
          const int64_t from = begin + share(end - begin, tiles, i),
                        to = begin + share(end - begin, tiles, i + 1);
          backward_tile<T>(*c.s, *c.in, *c.out, tile, from, to - from);
        }
      },
      &context);
  threads.run(
      threads.n,
      [](void* opaque, int64_t worker) {
        const Context& c = *static_cast<Context*>(opaque);
        reduce<T>(*c.s, c.tile(0).sums, c.scratch_size / static_cast<int64_t>(sizeof(T)), *c.out,
                  c.workers, worker);
      },
      &context);
}

}  // namespace MVAE_FAST_ISA
}  // namespace mvae_fast
