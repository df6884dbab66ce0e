// The adjoint of the trace, by its closed form and by probes: its value to tau, the coefficients t
// of phi'', and its part of the tables' gradients (docs/math.md, sections 2 to 4).
#pragma once

#include "forward.h"
#include "tape.h"

namespace mvae_fast::cuda {

// Whether the coefficient of phi'' is tau_bar c: one hidden layer, and nothing adds to it.
template <class T>
MVAE_FAST_BOTH bool coefficient_is_table(const Plan<T>& p) {
  return p.exact && p.L == 2 && !p.second && !p.K;
}

// Tr J^2 = phi' . Q phi', Q symmetric: the step adds h^2/2 Tr J^2 to the log-density.
template <class M, class T = typename M::T>
MVAE_FAST_DEVICE void second_order_adjoint(const Tile<M>& t, const BackwardPlan<T>& p, int row,
                                           T h) {
  const T *d1 = t.hidden(p.tile.d1, 1), *logp_bar = t.at(p.tile.logp);
  T *times = t.at(p.tile.product), *second = t.at(p.tile.tau_second);
  T* coefficient = t.hidden(p.tile.t, 1);
  const int m = t.m(1), ld = t.ld(1);
  product(t, d1, ld, t.second_matrix(row), times, ld, false);
  T* factor = t.at(p.tile.factor);
  t.cta.each_row(p.rows, [&](int r, auto lanes) {
    const T bar = h * h * logp_bar[r];  // twice h^2/2: Q + Q' = 2 Q
    T sum = 0;
    lanes.each(m, [&](int c) {
      sum += times[r * ld + c] * d1[r * ld + c];
      coefficient[r * ld + c] += bar * times[r * ld + c];
    });
    sum = lanes.sum(sum);
    if (!lanes.first()) return;
    second[r] = sum;
    factor[r] = bar / 2;
  });
  record(t, d1, ld, m, tape_at(t, p, p.q_delta, m, row, 0, 1), factor);
  record(t, d1, ld, m, tape_at(t, p, p.q_y, m, row, 0, 1));
}

template <class M, class T = typename M::T>
MVAE_FAST_DEVICE void two_hidden_adjoint(const Tile<M>& t, const BackwardPlan<T>& p, int row) {
  const T *d1 = t.hidden(p.tile.d1, 1), *d1_second = t.hidden(p.tile.d1, 2);
  const T* tau_bar = t.at(p.tile.tau_bar);
  T *times = t.at(p.tile.product), *coefficient = t.hidden(p.tile.t, 2), *tau = t.at(p.tile.tau);
  const int m = t.m(2), ld = t.ld(2);
  product(t, d1, t.ld(1), t.trace_matrix(row), times, ld, false);
  t.cta.each_row(p.rows, [&](int r, auto lanes) {
    T sum = 0;
    lanes.each(m, [&](int c) {
      const int i = r * ld + c;
      sum += times[i] * d1_second[i];
      coefficient[i] += tau_bar[r] * times[i];
      times[i] = tau_bar[r] * d1_second[i];
    });
    sum = lanes.sum(sum);
    if (lanes.first()) tau[r] = sum;
  });
  product(t, times, ld, t.transposed_trace_matrix(row), t.hidden(p.tile.t, 1), t.ld(1), true);
  record(t, times, ld, m, tape_at(t, p, p.m_delta, m, row, 0, 1));
  record(t, d1, t.ld(1), t.m(1), tape_at(t, p, p.m_y, t.m(1), row, 0, 1));
}

template <class M, class T = typename M::T>
MVAE_FAST_DEVICE void closed_form_adjoint(const Tile<M>& t, const BackwardPlan<T>& p, int row,
                                          T h) {
  const T *table = p.trace + row * p.trace_stride, *tau_bar = t.at(p.tile.tau_bar);
  T* tau = t.at(p.tile.tau);
  if (p.L == 1) {
    t.cta.each(p.rows, [&](int r) { tau[r] = table[0]; });
    t.cta.each(p.trace_bar.parts ? 1 : 0, [&](int) {
      T sum = 0;
      for (int r = 0; r < p.rows; ++r) sum += tau_bar[r];
      add_to(t, p, p.trace_bar, row, 0, sum);
    });
    return;
  }
  if (p.L == 3) return two_hidden_adjoint(t, p, row);
  const T* d1 = t.hidden(p.tile.d1, 1);
  T* coefficient = coefficient_is_table(p) ? nullptr : t.hidden(p.tile.t, 1);
  const int m = t.m(1), ld = t.ld(1);
  t.cta.each_row(p.rows, [&](int r, auto lanes) {
    T sum = 0;
    lanes.each(m, [&](int c) {
      sum += d1[r * ld + c] * table[c];
      if (coefficient) coefficient[r * ld + c] += tau_bar[r] * table[c];
    });
    sum = lanes.sum(sum);
    if (lanes.first()) tau[r] = sum;
  });
  t.cta.each(p.trace_bar.parts ? m : 0, [&](int c) {
    T sum = 0;
    for (int r = 0; r < p.rows; ++r) sum += tau_bar[r] * d1[r * ld + c];
    add_to(t, p, p.trace_bar, row, c, sum);
  });
  if (p.second) second_order_adjoint(t, p, row, h);
}

// tau, dots and the adjoint of u_L = J eps: tau_bar eps for the trace, 2 h b bar u_L for |u_L|^2.
template <class M, class T = typename M::T>
MVAE_FAST_DEVICE void output_tangent_adjoint(const Tile<M>& t, const BackwardPlan<T>& p, int row,
                                             T h, T b) {
  const int ld = t.ld(0);
  t.cta.each_row(p.rows, [&](int r, auto lanes) {
    const T *eps = t.at(p.tile.eps), *u = t.at(p.tile.u), *tau_bar = t.at(p.tile.tau_bar);
    const T* bar = t.at(p.tile.penalty) + kFrobeniusRow * p.rows;
    T *u_bar = t.at(p.tile.u_bar), *tau = t.at(p.tile.tau), *dots = t.at(p.tile.dots);
    T dot = 0, square = 0;
    const T square_bar = p.frobenius ? b * bar[r] : T(0);
    const T trace_bar = p.probe_trace ? tau_bar[r] : T(0);
    lanes.each(p.D, [&](int c) {
      const T e = eps[r * ld + c], v = t.gate(row, p.L, c) * u[r * ld + c];
      const T total = p.residual ? v - e : v;
      dot += e * v;
      square += total * total;
      u_bar[r * ld + c] = T(2) * h * square_bar * total + trace_bar * e;
    });
    dot = lanes.sum(dot);
    square = lanes.sum(square);
    if (!lanes.first()) return;
    if (p.probe_trace) tau[r] += dot;
    dots[r] += square_bar * square;
  });
}

// From v_bar of layer l, in place, to its G u_bar; adds v_bar u to the coefficient of phi''.
template <class M, class T = typename M::T>
MVAE_FAST_DEVICE void tangent_adjoint(const Tile<M>& t, const BackwardPlan<T>& p, int row, int l,
                                      int set, T* v_bar) {
  const int m = t.m(l), ld = t.ld(l);
  typename M::Packed* tape = tape_at(t, p, p.layers[l].delta, m, row, set, 1 + p.K);
  t.cta.each(m, [&](int c) {
    const T *d1 = t.hidden(p.tile.d1, l), *w = t.hidden(p.tile.tangent_w, l);
    T* coefficient = t.hidden(p.tile.t, l);
    const T gate = t.gate(row, l, c);
    T sum = 0;
    for (int r = 0; r < p.rows; ++r) {
      const int i = r * ld + c;
      const T bar = v_bar[i], u_bar = d1[i] * bar;
      coefficient[i] += bar * gate * w[i];
      sum += u_bar * w[i];
      v_bar[i] = gate * u_bar;
      if (tape && r < t.n()) tape[r * tape_width(m) + c] = M::Operand::pack(gate * u_bar);
    }
    if (p.gate_bar.parts) add_to(t, p, p.gate_bar, row, p.layers[l].features + c, sum);
  });
}

template <class M, class T = typename M::T>
MVAE_FAST_DEVICE void probes_adjoint(const Tile<M>& t, const BackwardPlan<T>& p, int evaluation,
                                     T h, T b) {
  const auto input_of = [&](int l) {
    return l > 1 ? t.hidden(p.tile.tangent_v, l - 1) : t.at(p.tile.eps);
  };
  for (int k = 0; k < p.K; ++k) {
    const int row = here(evaluation);
    tangents(
        t, row, k, [&](int l) { return t.hidden(p.tile.tangent_w, l); },
        [&](int l) { return t.hidden(p.tile.tangent_v, l); });
    output_tangent_adjoint(t, p, row, h, b);
    T* const top = t.at(p.tile.top);
    const int ld = t.ld(0);
    typename M::Packed* tape = tape_at(t, p, p.layers[p.L].delta, p.D, row, 1 + k, 1 + p.K);
    t.cta.each(p.D, [&](int c) {
      const T *u = t.at(p.tile.u), *u_bar = t.at(p.tile.u_bar);
      const T gate = t.gate(row, p.L, c);
      T sum = 0;
      for (int r = 0; r < p.rows; ++r) {
        const int i = r * ld + c;
        sum += u_bar[i] * u[i];
        top[i] = gate * u_bar[i];
        if (tape && r < t.n()) tape[r * tape_width(p.D) + c] = M::Operand::pack(top[i]);
      }
      if (p.gate_bar.parts) add_to(t, p, p.gate_bar, row, p.layers[p.L].features + c, sum);
    });
    record_input(t, p, row, p.L, 1 + k, input_of(p.L));
    const T* bar = top;
    for (int l = p.L - 1; l >= 1; --l) {
      T* v_bar = t.at(p.tile.y_bar[l % 2]);
      const int again = here(evaluation);
      product(t, bar, t.ld(l + 1), t.transposed_weight(again, l + 1), v_bar, t.ld(l), false);
      tangent_adjoint(t, p, again, l, 1 + k, v_bar);
      record_input(t, p, again, l, 1 + k, input_of(l));
      bar = v_bar;
    }
  }
}

}  // namespace mvae_fast::cuda
