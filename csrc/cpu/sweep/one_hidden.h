// The adjoint of one evaluation of a net with one hidden layer, with a table's trace or none. Both
// its products are taken before phi is: so phi and its derivatives can be used where they are
// computed, in registers, and need not be stored.
#pragma once

#include "adjoint.h"

namespace mvae_fast::MVAE_FAST_ISA {

// With w = W_1 z, y_bar = W_2' (G_2 k_bar) over h, a = gate w + bias and the trace's row c:
//   a_bar = h phi' y_bar + phi'' tau_bar c     y = phi     g = gate a_bar
//   dots[r] += y_bar . y - logp_bar phi' . c    (the adjoint of h)
// and the sums over rows that are the tables' gradients, each of which may be null.
template <class T>
struct OneHiddenArgs {
  int64_t rows, width, ld;
  T h;
  const T *w, *y_bar, *gate, *bias, *table;
  const T *tau_bar, *logp_bar;  // per row; those of the step, times its weight
  T *y, *g;
  T *bias_sum, *gate_sum, *trace_sum;
  Vec<T>* dots;
};

template <class T, class Act, int count>
MVAE_FAST_INLINE void one_hidden_pack(const OneHiddenArgs<T>& x, int64_t f) {
  constexpr int64_t lanes = kLanes<T>;
  using V = Vec<T>;
  V bias_sum[count] = {}, gate_sum[count] = {}, trace_sum[count] = {};
  for (int64_t r = 0; r < x.rows; ++r) {
    const int64_t row = r * x.ld + f;
    const V tau_bar = splat(x.tau_bar[r]), logp_bar = splat(x.logp_bar[r]);
    Pack<T> a{};
#pragma GCC unroll 4
    for (int i = 0; i < count; ++i)
      a.v[i] =
          load(x.gate + f + i * lanes) * load(x.w + row + i * lanes) + load(x.bias + f + i * lanes);
    const Phi<T> phi = Act::at(a);
    V dot = x.dots[r];
#pragma GCC unroll 4
    for (int i = 0; i < count; ++i) {
      const int64_t at = row + i * lanes, column = f + i * lanes;
      const V y = phi.y.v[i], d1 = phi.d1.v[i], c = load(x.table + column);
      const V y_bar = load(x.y_bar + at), w = load(x.w + at);
      const V a_bar = x.h * d1 * y_bar + phi.d2.v[i] * (tau_bar * c);
      store(x.y + at, y);
      store(x.g + at, load(x.gate + column) * a_bar);
      dot += y_bar * y - logp_bar * (d1 * c);
      bias_sum[i] += a_bar;
      gate_sum[i] += a_bar * w;
      trace_sum[i] += tau_bar * d1;
    }
    x.dots[r] = dot;
  }
  const auto add = [f](T* sum, const V* part) __attribute__((always_inline)) {
    if (!sum) return;
    for (int i = 0; i < count; ++i) store(sum + f + i * lanes, load(sum + f + i * lanes) + part[i]);
  };
  add(x.bias_sum, bias_sum);
  add(x.gate_sum, gate_sum);
  add(x.trace_sum, trace_sum);
}

template <class T, class Act>
static void one_hidden_pass(const OneHiddenArgs<T>& args) {
  const OneHiddenArgs<T> x = args;
  int64_t f = 0;
  for (; f + 4 * kLanes<T> <= x.width; f += 4 * kLanes<T>) one_hidden_pack<T, Act, 4>(x, f);
  for (; f < x.width; f += kLanes<T>) one_hidden_pack<T, Act, 1>(x, f);
}

template <class T>
using OneHiddenPass = void (*)(const OneHiddenArgs<T>&);

// Whether one_hidden_evaluation does the backward of an evaluation.
template <class T>
static bool has_one_hidden_adjoint(const Solve<T>& s) {
  return s.L == 2 && !s.p->K && !s.p->second && !s.values;
}

// As backward_evaluation.
template <class T>
static void one_hidden_evaluation(const Solve<T>& s, const BackwardTile<T>& t, int64_t row, T h,
                                  T b, const T* z, const T* k_bar, T* into, double* dots,
                                  int64_t n) {
  const Layer& hidden = s.layers[1];
  const int64_t D = s.D, ld0 = s.layers[0].ld, width = padded<T>(hidden.m);
  const T* const table = s.exact ? s.trace_row(s.trace_forward, row) : s.ones;
  T logp_bar[kTile];
  for (int64_t r = 0; r < n; ++r) {
    logp_bar[r] = s.exact ? b * t.logp_bar[r] : T(0);
    t.tau_bar[r] = -h * logp_bar[r];
  }
  T *w = t.product(s, row, 1), *y = t.hidden(t.y, 1);
  if (!s.kept) layer_product<T>(s, t.products, row, 1, t.begin, n, z, ld0, w);
  output_adjoint<T>(s, t, row, z, k_bar, dots, n);
  Vec<T> row_dots[kTile] = {};
  const OneHiddenPass<T> pass = by_nonlinearity(
      s.p->nonlinearity,
      [](auto act) -> OneHiddenPass<T> { return one_hidden_pass<T, decltype(act)>; });
  pass({n, width, hidden.ld, h, w, t.y_bar, s.gates(row, 1), s.biases(row, 1), table, t.tau_bar,
        logp_bar, y, t.g, t.sums.bias_of(s, row, 1), t.sums.gate_of(s, row, 1),
        t.sums.trace_of(s, row), row_dots});
  for (int64_t r = 0; r < n; ++r) dots[r] += sum<T>(row_dots[r]);
  output_gradients<T>(s, t, row, h, k_bar, y, into, n);
  add_context_adjoint<T>(s, t, 1, T(1), t.g, n);
  if (T* weight = t.sums.weight_of(s, row, 1))
    t.products.outer_product(hidden.m, D, n, t.g, hidden.ld, z, ld0, weight, hidden.gradient_ld);
  t.products.rows_times(n, D, hidden.m, t.g, hidden.ld, s.backward_weight(row, 1), into, ld0, true);
}

}  // namespace mvae_fast::MVAE_FAST_ISA
