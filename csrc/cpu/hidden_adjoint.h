// The adjoint of one step in hidden space, between its two products: phi and its derivatives are
// recomputed, used and forgotten in registers. Against passes over stored derivatives
// (elementwise.h) that took 15 % off the backward at m = 64, and 4 % at m = 256.
#pragma once

#include "elementwise.h"

namespace mvae_fast {
namespace MVAE_FAST_ISA {

// With w = A' u_bar the product of the step (its adjoint u_bar that of the state after it):
//   q = w + total_bar     a_bar = h phi' q + phi'' tau_bar c     next = u_bar + G a_bar
//   dots[r] += q . y + u_bar . d - logp_bar phi' . c             (the adjoint of h)
// and the sums over rows that are the tables' gradients. c is a table's row, or G e with the
// coefficients e of each row, whose adjoint e_bar then grows, too.
template <class T>
struct HiddenAdjointArgs {
  int64_t rows, width, ld;
  T h;
  const T *u, *w, *total_bar, *u_bar;
  const T *gate, *bias, *drift, *table;
  const T *e, *tau_bar, *logp_bar;
  T *hy, *next, *e_bar;                            // hy = h phi(a), for A's gradient
  T *bias_sum, *gate_sum, *drift_sum, *trace_sum;  // those of gate and trace may be null
  Vec<T>* dots;
};

template <class T, class Act, bool per_row, int count>
MVAE_FAST_INLINE void hidden_adjoint_pack(const HiddenAdjointArgs<T>& x, int64_t f) {
  constexpr int64_t lanes = kLanes<T>;
  using V = Vec<T>;
  V bias_sum[count] = {}, gate_sum[count] = {}, drift_sum[count] = {}, trace_sum[count] = {};
  for (int64_t r = 0; r < x.rows; ++r) {
    const int64_t row = r * x.ld + f;
    const V tau_bar = splat(x.tau_bar[r]), logp_bar = splat(x.logp_bar[r]);
    Pack<T> a{};
#pragma GCC unroll 4
    for (int i = 0; i < count; ++i)
      a.v[i] =
          load(x.gate + f + i * lanes) * load(x.u + row + i * lanes) + load(x.bias + f + i * lanes);
    const Phi<T> phi = Act::at(a);
    V dot = x.dots[r];
#pragma GCC unroll 4
    for (int i = 0; i < count; ++i) {
      const int64_t at = row + i * lanes, column = f + i * lanes;
      const V gate = load(x.gate + column), u_bar = load(x.u_bar + at);
      const V q = load(x.w + at) + load(x.total_bar + at);
      const V y = phi.y.v[i], d1 = phi.d1.v[i];
      const V c = per_row ? gate * load(x.e + at) : load(x.table + column);
      const V a_bar = x.h * d1 * q + phi.d2.v[i] * (tau_bar * c);
      store(x.hy + at, x.h * y);
      store(x.next + at, u_bar + gate * a_bar);
      dot += q * y + u_bar * load(x.drift + column) - logp_bar * (d1 * c);
      bias_sum[i] += a_bar;
      gate_sum[i] += a_bar * load(x.u + at);
      drift_sum[i] += u_bar;
      const V slope_bar = tau_bar * d1;  // the adjoint of c
      if constexpr (per_row) {
        gate_sum[i] += slope_bar * load(x.e + at);
        store(x.e_bar + at, load(x.e_bar + at) + gate * slope_bar);
      } else {
        trace_sum[i] += slope_bar;
      }
    }
    x.dots[r] = dot;
  }
  const auto add = [f](T* sum, const V* part, T scale) __attribute__((always_inline)) {
    if (!sum) return;
    for (int i = 0; i < count; ++i)
      store(sum + f + i * lanes, load(sum + f + i * lanes) + scale * part[i]);
  };
  add(x.bias_sum, bias_sum, T(1));
  add(x.gate_sum, gate_sum, T(1));
  add(x.drift_sum, drift_sum, x.h);
  add(x.trace_sum, trace_sum, T(1));
}

template <class T, class Act, bool per_row>
static void hidden_adjoint(const HiddenAdjointArgs<T>& args) {
  const HiddenAdjointArgs<T> x = args;
  int64_t f = 0;
  for (; f + 4 * kLanes<T> <= x.width; f += 4 * kLanes<T>)
    hidden_adjoint_pack<T, Act, per_row, 4>(x, f);
  for (; f < x.width; f += kLanes<T>) hidden_adjoint_pack<T, Act, per_row, 1>(x, f);
}

template <class T>
using HiddenAdjoint = void (*)(const HiddenAdjointArgs<T>&);

template <class T, bool per_row>
static HiddenAdjoint<T> hidden_adjoint_of(Nonlinearity nonlinearity) {
  return by_nonlinearity(nonlinearity, [](auto act) -> HiddenAdjoint<T> {
    return hidden_adjoint<T, decltype(act), per_row>;
  });
}

}  // namespace MVAE_FAST_ISA
}  // namespace mvae_fast
