// Brings the caller's tables into the kernels' own form.
#pragma once

#include "layout.h"

namespace mvae_fast::MVAE_FAST_ISA {

// The small tables of all evaluations, each worker a share of them.
template <class T>
static void prepare_small_tables(const Solve<T>& x, int64_t workers, int64_t worker) {
  const Problem<T>& p = *x.p;
  const auto rows = [&](int64_t n, const auto& f) {
    for (int64_t row = share(n, workers, worker); row < share(n, workers, worker + 1); ++row)
      f(row);
  };
  const auto pad = [&](int64_t n, const T* from, T* to) { copy_rows<T>(1, n, from, 0, to, 0); };
  const auto features = [&](int64_t n, const T* from, T* to) {
    rows(n, [&](int64_t row) {
      for (int64_t l = 1; l <= x.L; ++l)
        pad(x.layers[l].m, from + row * x.features + x.layers[l].features,
            to + row * x.padded_features + x.layers[l].padded_features);
    });
  };
  features(x.gate_rows, p.gate, x.gate);
  features(x.bias_rows, p.bias, x.bias);
  if (!x.large_trace()) {
    const int64_t n = x.L == 2 ? p.widths[1] : 1;
    rows(x.trace_rows,
         [&](int64_t row) { pad(n, p.trace + row * n, x.trace_forward + row * x.trace_size); });
  }
}

// A row-major matrix (m, before), packed for the products of both passes as far as they are there.
template <class T>
static void pack_both(const Solve<T>& x, int64_t m, int64_t before, const T* w, int64_t ld,
                      T* forward, T* backward, int64_t workers, int64_t worker) {
  if (forward) Products<T>::pack(x.bf16, forward, before, m, w, 1, ld, workers, worker);
  if (backward) Products<T>::pack(x.bf16, backward, m, before, w, ld, 1, workers, worker);
}

// f(index in the window, row) for every row of a large table to be prepared or reduced now: those
// of the window, or in the pass where `constant` is set the only one.
template <class T, class F>
static void for_window(const Solve<T>& x, int64_t table_rows, bool constant, const F& f) {
  if (table_rows == 1 && constant) f(0, 0);
  if (table_rows > 1)
    for (int64_t i = 0; i < smaller(x.span * x.p->R, table_rows - x.first); ++i) f(i, x.first + i);
}

// The large tables of the present window, each worker a share of their columns.
template <class T>
static void prepare_large_tables(const Solve<T>& x, bool constant, int64_t workers,
                                 int64_t worker) {
  const Problem<T>& p = *x.p;
  for_window(x, x.weight_rows, constant, [&](int64_t i, int64_t row) {
    for (int64_t l = 1; l <= x.L; ++l) {
      const Layer& layer = x.layers[l];
      const int64_t before = x.layers[l - 1].m;
      pack_both(x, layer.m, before, p.weight + row * x.weights + layer.weight, before,
                x.evaluates(l) ? x.forward + i * x.forward_size + layer.forward : nullptr,
                x.backward ? x.backward + i * x.backward_size + layer.backward : nullptr, workers,
                worker);
    }
  });
  if (x.large_trace())
    for_window(x, x.trace_rows, constant, [&](int64_t i, int64_t row) {
      const int64_t m1 = p.widths[1], m2 = p.widths[2];
      pack_both(x, m2, m1, p.trace + row * m1 * m2, m1, x.trace_forward + i * x.trace_size,
                x.trace_backward ? x.trace_backward + i * x.trace_size : nullptr, workers, worker);
    });
  for_window(x, x.second_rows, constant, [&](int64_t i, int64_t row) {
    const int64_t m1 = p.widths[1];
    Products<T>::pack(x.bf16, x.second + i * x.second_size, m1, m1, p.second + row * m1 * m1, m1, 1,
                      workers, worker);
  });
}

}  // namespace mvae_fast::MVAE_FAST_ISA
