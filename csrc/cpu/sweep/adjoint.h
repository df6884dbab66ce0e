// The adjoint of one evaluation of the net and of its trace (docs/math.md, section 4). The last
// layer is not recomputed: both gradients that would need its output come out of other products
// (h_bar from y . W'z_bar, the last gate's from its weight's).
#pragma once

#include "backward_tile.h"

namespace mvae_fast::MVAE_FAST_ISA {

// Tr J^2 = phi' . Q phi' of one hidden layer, Q symmetric: its value (over n rows to tau_second)
// and its share of t_1 and of Q's gradient; the step adds h^2/2 Tr J^2 to the log-density.
template <class T>
static void second_order_trace(const Solve<T>& s, const BackwardTile<T>& t, int64_t row, T h,
                               int64_t n) {
  const Layer& hidden = s.layers[1];
  const int64_t width = padded<T>(hidden.m);
  const T* d1 = t.hidden(t.d1, 1);
  t.products.rows_times(n, hidden.m, hidden.m, d1, hidden.ld, s.second_row(row), t.y_bar, hidden.ld,
                        false);
  memset(t.tau_second, 0, n * sizeof(T));
  add_row_dots<T>(n, width, t.y_bar, hidden.ld, d1, hidden.ld, T(1), t.tau_second);
  T weight[kTile];                                                    // adjoint of Tr J^2
  for (int64_t r = 0; r < n; ++r) weight[r] = h * h * t.logp_bar[r];  // twice h^2/2: Q + Q' = 2 Q
  scale_rows<T>(n, width, weight, t.y_bar, hidden.ld, t.y_bar, hidden.ld);
  add_scaled_rows<T>(n, width, T(1), t.y_bar, hidden.ld, t.hidden(t.t, 1), hidden.ld);
  if (T* gradient = t.sums.second_of(s, row)) {
    for (int64_t r = 0; r < n; ++r) weight[r] /= 2;
    scale_rows<T>(n, width, weight, d1, hidden.ld, t.g, hidden.ld);
    t.products.outer_product(hidden.m, hidden.m, n, t.g, hidden.ld, d1, hidden.ld, gradient, width);
  }
}

// tau, the coefficients t of phi'' and the table's own gradient, for an exact trace in closed form.
template <class T>
static void closed_form_trace(const Solve<T>& s, const BackwardTile<T>& t, int64_t row, T h,
                              int64_t n) {
  const T* table = s.trace_row(s.trace_forward, row);
  T* gradient = t.sums.trace_of(s, row);
  if (s.L == 1) {
    double total = 0;
    for (int64_t r = 0; r < n; ++r) {
      t.tau[r] = table[0];
      total += t.tau_bar[r];
    }
    if (gradient) gradient[0] += static_cast<T>(total);
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
  T* const product = s.kept ? s.kept_trace(row, t.begin) : t2;
  if (!s.kept)
    t.products.rows_times(n, second.m, first.m, d1, first.ld, table, product, second.ld, false);
  add_row_dots<T>(n, padded<T>(second.m), product, second.ld, d1_second, second.ld, T(1), t.tau);
  scale_rows<T>(n, padded<T>(second.m), t.tau_bar, product, second.ld, t2, second.ld);
  scale_rows<T>(n, padded<T>(second.m), t.tau_bar, d1_second, second.ld, t.g, second.ld);
  t.products.rows_times(n, first.m, second.m, t.g, second.ld, s.trace_row(s.trace_backward, row),
                        t1, first.ld, false);
  if (gradient)
    t.products.outer_product(second.m, first.m, n, t.g, second.ld, d1, first.ld, gradient,
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
    t.products.gated_outer_product(s.D, before, n, a, lda, y, ldy, scale, s.gates(row, s.L),
                                   s.backward_weight(row, s.L), gate, weight, ld);
  else
    t.products.outer_product(s.D, before, n, scaled, lda, y, ldy, weight, ld);
}

// The tangent streams of all probes: tau, the coefficients t of phi'', and their part of the
// tables' gradients and, for |J eps|^2, of dots.
template <class T>
static void probe_traces(const Solve<T>& s, const BackwardTile<T>& t, int64_t row, T h, T b,
                         double* dots, int64_t n) {
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
        T* const to = t.tangent_product(s, row, k, l);
        if (!s.kept)
          t.products.rows_times(n, layer.m, s.layers[l - 1].m, v, ldv, s.forward_weight(row, l), to,
                                layer.ld, false);
        w = to;
        ldw = layer.ld;
      }
      tangent<T>(n, padded<T>(layer.m), t.hidden(t.d1, l), layer.ld, s.gates(row, l), w, ldw,
                 t.hidden(t.tangent_v, l));
      v = t.hidden(t.tangent_v, l);
      ldv = layer.ld;
    }
    const Layer& last = s.layers[s.L - 1];
    // The adjoint of u_L = J eps is tau_bar eps for the trace, and 2 h b bar u_L for |u_L|^2.
    T* const u_bar = s.frobenius ? t.u_bar : t.scaled;
    if (s.frobenius) {
      velocity_tangent<T>(s, t.products, row, n, v, ldv, probes.eps_of(k),
                          probes.stride(probes.ld0), u_bar);
      frobenius_adjoint<T>(s, n, h, b, t.penalty_bar, u_bar, dots);
    }
    if (s.probe_trace) {
      add_row_dots<T>(n, padded<T>(last.m), v, ldv, probes.q_of(k), probes.stride(probes.ldq), T(1),
                      t.tau);
      scale_rows<T>(n, padded<T>(s.D), t.tau_bar, probes.eps_of(k), probes.stride(probes.ld0),
                    t.scaled, ld0);
      if (s.frobenius) add_scaled_rows<T>(n, padded<T>(s.D), T(1), t.scaled, ld0, u_bar, ld0);
    }
    last_layer_gradients<T>(s, t, row, n, u_bar, ld0, T(1), u_bar, v, ldv);
    if (s.L > 1 && s.frobenius) {
      scale_columns<T>(n, padded<T>(s.D), T(1), s.gates(row, s.L), u_bar, ld0, t.top, ld0);
      t.products.rows_times(n, last.m, s.D, t.top, ld0, s.backward_weight(row, s.L), t.y_bar,
                            last.ld, false);
    } else if (s.L > 1) {
      scale_rows<T>(n, padded<T>(last.m), t.tau_bar, probes.q_of(k), probes.stride(probes.ldq),
                    t.y_bar, last.ld);
    }
    for (int64_t l = s.L - 1; l >= 1; --l) {
      const Layer& layer = s.layers[l];
      const T* w = l > 1 ? t.tangent_product(s, row, k, l) : probes.x_of(k);
      const int64_t ldw = l > 1 ? layer.ld : probes.stride(probes.ld1);
      tangent_adjoint<T>(n, padded<T>(layer.m), layer.ld, t.hidden(t.d1, l), s.gates(row, l), w,
                         ldw, t.y_bar, k == 0 && !s.exact, t.hidden(t.t, l), t.g,
                         t.sums.gate_of(s, row, l));
      T* weight = t.sums.weight_of(s, row, l);
      if (l > 1) {
        const Layer& below = s.layers[l - 1];
        if (weight)
          t.products.outer_product(layer.m, below.m, n, t.g, layer.ld, t.hidden(t.tangent_v, l - 1),
                                   below.ld, weight, layer.gradient_ld);
        t.products.rows_times(n, below.m, layer.m, t.g, layer.ld, s.backward_weight(row, l),
                              t.y_bar, below.ld, false);
      } else if (weight && s.weight_rows > 1) {
        t.products.outer_product(layer.m, s.D, n, t.g, layer.ld, probes.eps_of(k),
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

// t.y_bar = W_L' G_L k_bar, and to dots the part of k_bar . f that is not t.y_bar . y.
template <class T>
static void output_adjoint(const Solve<T>& s, const BackwardTile<T>& t, int64_t row, const T* z,
                           const T* k_bar, double* dots, int64_t n) {
  const int64_t ld0 = s.layers[0].ld, width0 = padded<T>(s.D);
  const Layer& last = s.layers[s.L - 1];
  scale_columns<T>(n, width0, T(1), s.gates(row, s.L), k_bar, ld0, t.top, ld0);
  t.products.rows_times(n, last.m, s.D, t.top, ld0, s.backward_weight(row, s.L), t.y_bar, last.ld,
                        false);
  add_row_dots<T>(n, width0, k_bar, ld0, s.biases(row, s.L), 0, T(1), dots);
  if (s.p->residual) add_row_dots<T>(n, width0, k_bar, ld0, z, ld0, T(-1), dots);
  if (const T* u = s.context(s.L)) {
    copy_rows<T>(n, s.D, u + t.begin * s.D, s.D, t.context, ld0);
    add_row_dots<T>(n, width0, t.top, ld0, t.context, ld0, T(1), dots);
  }
}

// The adjoint of a layer's u: `scale` times that of its product with the gate in it.
template <class T>
static void add_context_adjoint(const Solve<T>& s, const BackwardTile<T>& t, int64_t l, T scale,
                                const T* a_bar, int64_t n) {
  if (!s.context(l) || !t.context_bar) return;
  const Layer& layer = s.layers[l];
  T* to = t.context_bar[l - 1] + t.begin * layer.m;
  for (int64_t r = 0; r < n; ++r)
    for (int64_t f = 0; f < layer.m; ++f) to[r * layer.m + f] += scale * a_bar[r * layer.ld + f];
}

// The last layer's gradients, and the residual's part of the state's.
template <class T>
static void output_gradients(const Solve<T>& s, const BackwardTile<T>& t, int64_t row, T h,
                             const T* k_bar, const T* y, T* into, int64_t n) {
  const int64_t ld0 = s.layers[0].ld, width0 = padded<T>(s.D);
  if (T* bias = t.sums.bias_of(s, row, s.L)) add_column_sums<T>(n, width0, h, k_bar, ld0, bias);
  scale_columns<T>(n, width0, h, s.ones, k_bar, ld0, t.scaled, ld0);
  last_layer_gradients<T>(s, t, row, n, k_bar, ld0, h, t.scaled, y, s.layers[s.L - 1].ld);
  if (s.context(s.L)) {
    add_context_adjoint<T>(s, t, s.L, h, t.top, n);
    if (T* gate = t.sums.gate_of(s, row, s.L))
      add_column_dots<T>(n, width0, t.scaled, ld0, t.context, ld0, gate);
  }
  if (s.p->residual) add_scaled_rows<T>(n, width0, T(-1), t.scaled, ld0, into, ld0);
}

// The main stream of one evaluation at the state z: from k_bar, the adjoint of the velocity over h,
// to that of z, added to `into` (which may be k_bar itself: Euler's step keeps z_bar in place).
// Adds every table's gradient, and k_bar . f to dots.
template <class T>
static void adjoint_evaluation(const Solve<T>& s, const BackwardTile<T>& t, int64_t row, T h,
                               const T* z, const T* k_bar, T* into, double* dots, int64_t n) {
  const int64_t ld0 = s.layers[0].ld, width0 = padded<T>(s.D);
  const Layer& last = s.layers[s.L - 1];
  const T* y = s.L > 1 ? t.hidden(t.y, s.L - 1) : z;
  output_adjoint<T>(s, t, row, z, k_bar, dots, n);
  add_row_dots<T>(n, padded<T>(last.m), t.y_bar, last.ld, y, last.ld, T(1), dots);
  output_gradients<T>(s, t, row, h, k_bar, y, into, n);
  if (s.L == 1) {
    add_scaled_rows<T>(n, width0, h, t.y_bar, ld0, into, ld0);
    return;
  }
  for (int64_t l = s.L - 1; l >= 1; --l) {
    const Layer &layer = s.layers[l], &below = s.layers[l - 1];
    adjoint<T>(n, padded<T>(layer.m), layer.ld, l == s.L - 1 ? h : T(1), t.hidden(t.d1, l), t.y_bar,
               t.hidden(t.d2, l), t.coupled ? t.hidden(t.t, l) : nullptr, s.gates(row, l),
               t.product(s, row, l), t.g, t.sums.bias_of(s, row, l), t.sums.gate_of(s, row, l));
    add_context_adjoint<T>(s, t, l, T(1), t.g, n);
    if (T* weight = t.sums.weight_of(s, row, l))
      t.products.outer_product(layer.m, below.m, n, t.g, layer.ld, l > 1 ? t.hidden(t.y, l - 1) : z,
                               below.ld, weight, layer.gradient_ld);
    t.products.rows_times(n, below.m, layer.m, t.g, layer.ld, s.backward_weight(row, l),
                          l > 1 ? t.y_bar : into, below.ld, l == 1);
  }
}

// The backward of evaluation `row`, of weight b in its step: penalties and traces first, then the
// main stream. k_bar becomes the whole adjoint of the velocity over h.
template <class T>
static void backward_evaluation(const Solve<T>& s, BackwardTile<T>& t, int64_t row, T h, T b,
                                const T* z, T* k_bar, T* into, double* dots, int64_t n) {
  const Problem<T>& p = *s.p;
  recompute<T>(s, t, row, z, n);
  if (s.values && b != 0) {
    const T* y = s.L > 1 ? t.hidden(t.y, s.L - 1) : z;
    velocity_from<T>(s, t, row, z, y, n, t.velocity);
    value_penalties_adjoint<T>(s, n, t.velocity, b, t.penalty_bar, k_bar, dots);
  }
  t.coupled = (s.exact || p.K) && b != 0;
  if (t.coupled) {
    for (int64_t r = 0; r < n; ++r) {
      t.tau[r] = 0;
      t.tau_bar[r] = -h * b * t.logp_bar[r];
    }
    if (s.exact) closed_form_trace<T>(s, t, row, h, n);
    if (p.K) {
      t.probes.evaluate(s, t.products, row, n);
      probe_traces<T>(s, t, row, h, b, dots, n);
    }
    for (int64_t r = 0; r < n; ++r) dots[r] -= b * t.logp_bar[r] * t.tau[r];
    if (p.second)
      for (int64_t r = 0; r < n; ++r) dots[r] += h * t.logp_bar[r] * t.tau_second[r];
  }
  adjoint_evaluation<T>(s, t, row, h, z, k_bar, into, dots, n);
}

}  // namespace mvae_fast::MVAE_FAST_ISA
