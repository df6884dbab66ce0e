// The adjoint of one evaluation of the net and of its trace (docs/math.md, section 4).
#pragma once

#include "trace_adjoint.h"

namespace mvae_fast::cuda {

// Recomputes phi, phi' and phi'' of every hidden layer at the state z, and with gates keeps W y.
template <class M, class T = typename M::T>
MVAE_FAST_DEVICE void recompute(const Tile<M>& t, int row, const T* z) {
  const Plan<T>& p = t.p;
  const T* input = z;
  for (int l = 1; l < p.L; ++l) {
    T *w = t.hidden(p.tile.w, l), *y = t.hidden(p.tile.y, l);
    T *d1 = t.hidden(p.tile.d1, l), *d2 = t.hidden(p.tile.d2, l);
    product(t, input, t.ld(l - 1), t.weight(row, l), w, t.ld(l), false);
    const int m = t.m(l), ld = t.ld(l);
    by_nonlinearity(p.nonlinearity, [&](auto act) {
      t.cta.each_row(p.rows, [&](int r, auto lanes) {
        lanes.each(m, [&](int c) {
          const int i = r * ld + c;
          const auto phi = act.at(t.gate(row, l, c) * w[i] + t.bias(row, l, c));
          y[i] = phi.y;
          d1[i] = phi.d1;
          d2[i] = phi.d2;
        });
      });
    });
    input = y;
  }
}

// to = the velocity of evaluation `row` at z, from the last hidden layer's y.
template <class M, class T = typename M::T>
MVAE_FAST_DEVICE void velocity_from(const Tile<M>& t, int row, const T* z, const T* y, T* to) {
  product(t, y, t.ld(t.p.L - 1), t.weight(row, t.p.L), to, t.ld(0), false);
  finish_velocity(t, row, z, to);
}

// From k_bar, the adjoint of the velocity over h, to that of the last hidden layer (over h) in
// y_bar: the last layer's gradients, the residual's part of `into`, and k_bar . f to dots, for
// which the output itself is not needed: it is k_bar . C and y_bar . y.
template <class M, class T = typename M::T>
MVAE_FAST_DEVICE void output_adjoint(const Tile<M>& t, const BackwardPlan<T>& p, int row, T h,
                                     const T* z, const T* y, const T* k_bar, T* into, T* y_bar) {
  T *top = t.at(p.tile.top), *u = t.at(p.tile.u), *dots = t.at(p.tile.dots);
  const int ld = t.ld(0), before = t.ld(p.L - 1);
  const int64_t features = p.layers[p.L].features;
  if (p.gate_bar.parts) product(t, y, before, t.weight(row, p.L), u, ld, false);
  t.cta.each_row(p.rows, [&](int r, auto lanes) {
    T sum = 0;
    lanes.each(p.D, [&](int c) {
      const T bias = t.bias(row, p.L, c);
      sum += k_bar[r * ld + c] * (p.residual ? bias - z[r * ld + c] : bias);
    });
    sum = lanes.sum(sum);
    if (lanes.first()) dots[r] += sum;
  });
  typename M::Packed* tape = tape_at(t, p, p.layers[p.L].delta, p.D, row, 0, 1 + p.K);
  t.cta.each(p.D, [&](int c) {
    const T gate = t.gate(row, p.L, c);
    T bias_sum = 0, gate_sum = 0;
    for (int r = 0; r < p.rows; ++r) {
      const int i = r * ld + c;
      const T bar = k_bar[i], scaled = h * bar;
      top[i] = gate * bar;
      bias_sum += scaled;
      if (p.gate_bar.parts) gate_sum += scaled * u[i];
      if (tape && r < t.n()) tape[r * tape_width(p.D) + c] = M::Operand::pack(gate * scaled);
      if (p.residual) into[i] -= scaled;
    }
    if (p.bias_bar.parts) add_to(t, p, p.bias_bar, row, features + c, bias_sum);
    if (p.gate_bar.parts) add_to(t, p, p.gate_bar, row, features + c, gate_sum);
  });
  record_input(t, p, row, p.L, 0, y);
  product(t, top, ld, t.transposed_weight(row, p.L), y_bar, before, false);
  row_dots(t, t.m(p.L - 1), before, y_bar, y, dots, true);
}

// From y_bar of layer l over `scale`, in place, to G a_bar, and the gradients of G and C.
template <class M, class T = typename M::T>
MVAE_FAST_DEVICE void layer_adjoint(const Tile<M>& t, const BackwardPlan<T>& p, int row, int l,
                                    T scale, bool coupled, T* y_bar) {
  const T *d1 = t.hidden(p.tile.d1, l), *d2 = t.hidden(p.tile.d2, l), *w = t.hidden(p.tile.w, l);
  const T* tau_bar = t.at(p.tile.tau_bar);
  const bool from_table = coupled && coefficient_is_table(p);
  const T* coefficients = coupled && !from_table ? t.hidden(p.tile.t, l) : nullptr;
  const T* table = from_table ? p.trace + row * p.trace_stride : nullptr;
  const int m = t.m(l), ld = t.ld(l);
  const int64_t features = p.layers[l].features;
  typename M::Packed* tape = tape_at(t, p, p.layers[l].delta, m, row, 0, 1 + p.K);
  t.cta.each(m, [&](int c) {
    const T gate = t.gate(row, l, c), trace = table ? table[c] : T(0);
    T bias_sum = 0, gate_sum = 0;
    for (int r = 0; r < p.rows; ++r) {
      const int i = r * ld + c;
      const T coefficient = coefficients ? coefficients[i] : table ? tau_bar[r] * trace : T(0);
      const T bar = scale * y_bar[i] * d1[i] + coefficient * d2[i];
      y_bar[i] = gate * bar;
      bias_sum += bar;
      if (p.gate_bar.parts) gate_sum += bar * w[i];
      if (tape && r < t.n()) tape[r * tape_width(m) + c] = M::Operand::pack(gate * bar);
    }
    if (p.bias_bar.parts) add_to(t, p, p.bias_bar, row, features + c, bias_sum);
    if (p.gate_bar.parts) add_to(t, p, p.gate_bar, row, features + c, gate_sum);
  });
}

// The backward of evaluation `row`, of weight b in its step, at the state z: penalties and traces
// first, then the main stream. k_bar becomes the whole adjoint of the velocity over h; that of z is
// added to `into`, which may be k_bar itself: Euler's step keeps z_bar in place. All three are
// offsets in the arena, which take half an address's registers.
template <class M, class T = typename M::T>
MVAE_FAST_DEVICE void evaluation_adjoint(const Tile<M>& t, const BackwardPlan<T>& p, int row, T h,
                                         T b, int z, int k_bar, int into) {
  const auto input_of = [&](int l) { return l > 1 ? t.hidden(p.tile.y, l - 1) : t.at(z); };
  recompute(t, row, t.at(z));
  if (p.values && b != T(0)) {
    velocity_from(t, row, t.at(z), input_of(p.L), t.at(p.tile.top));
    value_penalties_adjoint(t, t.at(p.tile.top), b, t.at(k_bar));
  }
  const bool coupled = (p.exact || p.K) && b != T(0);
  if (coupled) {
    t.cta.each(p.rows, [&](int r) {
      t.at(p.tile.tau)[r] = 0;
      t.at(p.tile.tau_bar)[r] = -h * b * t.at(p.tile.logp)[r];
    });
    if (!coefficient_is_table(p)) fill(t, t.at(p.tile.t), (p.L - 1) * p.tile.slot);
    if (p.exact) closed_form_adjoint(t, p, row, h);
    if (M::kProbes && p.K) probes_adjoint(t, p, row, h, b);
    t.cta.each(p.rows, [&](int r) {
      const T logp_bar = t.at(p.tile.logp)[r];
      T sum = t.at(p.tile.dots)[r] - b * logp_bar * t.at(p.tile.tau)[r];
      if (p.second) sum += h * logp_bar * t.at(p.tile.tau_second)[r];
      t.at(p.tile.dots)[r] = sum;
    });
  }
  output_adjoint(t, p, row, h, t.at(z), input_of(p.L), t.at(k_bar), t.at(into),
                 t.at(p.tile.y_bar[(p.L - 1) % 2]));
  if (p.L == 1) {
    t.cta.each(p.tile.slot0, [&](int i) { t.at(into)[i] += h * t.at(p.tile.y_bar[0])[i]; });
    return;
  }
  for (int l = p.L - 1; l >= 1; --l) {
    T* const y_bar = t.at(p.tile.y_bar[l % 2]);
    layer_adjoint(t, p, row, l, l == p.L - 1 ? h : T(1), coupled, y_bar);
    record_input(t, p, row, l, 0, input_of(l));
    product(t, y_bar, t.ld(l), t.transposed_weight(row, l),
            l > 1 ? t.at(p.tile.y_bar[(l - 1) % 2]) : t.at(into), t.ld(l - 1), l == 1);
  }
}

}  // namespace mvae_fast::cuda
