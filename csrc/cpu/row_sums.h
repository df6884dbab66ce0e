// The gradients that are summed over rows: each worker sums its own, then all workers' are added up
// in a fixed order.
#pragma once

#include "tables.h"

namespace mvae_fast {
namespace MVAE_FAST_ISA {

// One worker's share of the gradients that are summed over rows. Those of large tables that vary
// with time are held for the present window only.
template <class T>
struct RowSums {
  T *h, *t, *weight, *gate, *bias, *trace, *second;

  static int64_t trace_slots(const Solve<T>& s) {
    return s.large_trace() ? s.window_rows(s.trace_rows) : s.trace_rows;
  }
  static RowSums take(const Solve<T>& s, bool tables, Arena& arena) {
    RowSums x{};
    x.h = arena.take<T>(s.p->S);
    if (!tables) return x;
    x.t = arena.take<T>(s.p->net ? s.rows : 0);
    x.weight = arena.take<T>(s.window_rows(s.weight_rows), s.gradient_size);
    x.gate = arena.take<T>(s.gate_rows, s.padded_features);
    x.bias = arena.take<T>(s.bias_rows, s.padded_features);
    x.trace = arena.take<T>(trace_slots(s), s.trace_gradient_size);
    x.second = arena.take<T>(s.window_rows(s.second_rows), s.second_gradient_size);
    return x;
  }
  // Before the first window all, before another those that it begins anew.
  void clear(const Solve<T>& s, bool all) const {
    const auto zero = [](T* x, int64_t n) { memset(x, 0, n * sizeof(T)); };
    if (all) zero(h, s.p->S);
    if (!weight) return;
    if (all || s.weight_rows > 1) zero(weight, s.window_rows(s.weight_rows) * s.gradient_size);
    if (all || (s.large_trace() && s.trace_rows > 1))
      zero(trace, trace_slots(s) * s.trace_gradient_size);
    if (all || s.second_rows > 1)
      zero(second, s.window_rows(s.second_rows) * s.second_gradient_size);
    if (!all) return;
    zero(t, s.p->net ? s.rows : 0);
    zero(gate, s.gate_rows * s.padded_features);
    zero(bias, s.bias_rows * s.padded_features);
  }
  T* weight_of(const Solve<T>& s, int64_t row, int64_t l) const {
    return weight
               ? weight + s.in_window(s.weight_rows, row) * s.gradient_size + s.layers[l].gradient
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
    return weight && s.trace_rows ? trace + s.trace_index(row) * s.trace_gradient_size : nullptr;
  }
  T* second_of(const Solve<T>& s, int64_t row) const {
    return weight ? second + s.in_window(s.second_rows, row) * s.second_gradient_size : nullptr;
  }
};

// to[i] = sum over workers of from[i], in worker order: the same bits for the same number of
// threads.
template <class T>
static void add_workers(int64_t n, const T* from, int64_t workers, int64_t worker_stride, T* to) {
  for (int64_t i = 0; i < n; ++i) to[i] = from[i];
  for (int64_t w = 1; w < workers; ++w)
    for (int64_t i = 0; i < n; ++i) to[i] += from[w * worker_stride + i];
}

// One worker's part of the sum over all workers of the gradients of the small tables, from their
// padded layout into the caller's.
template <class T>
static void reduce_small(const Solve<T>& s, const RowSums<T>& first, int64_t stride,
                         const BackwardOutputs<T>& out, int64_t workers, int64_t worker) {
  const auto rows = [&](int64_t n, const auto& f) {
    for (int64_t row = share(n, workers, worker); row < share(n, workers, worker + 1); ++row)
      f(row);
  };
  const auto features = [&](int64_t n, const T* from, T* to) {
    rows(n, [&](int64_t row) {
      for (int64_t l = 1; l <= s.L; ++l)
        add_workers<T>(s.layers[l].m, from + row * s.padded_features + s.layers[l].padded_features,
                       workers, stride, to + row * s.features + s.layers[l].features);
    });
  };
  features(s.bias_rows, first.bias, out.bias);
  features(s.gate_rows, first.gate, out.gate);
  if (!s.large_trace()) {
    const int64_t n = s.L == 2 ? s.layers[1].m : 1;
    rows(s.trace_rows, [&](int64_t row) {
      add_workers<T>(n, first.trace + row * s.trace_gradient_size, workers, stride,
                     out.trace + row * n);
    });
  }
}

// As reduce_small, of the present window of the large tables or, if `constant`, of those without
// windows too.
template <class T>
static void reduce_large(const Solve<T>& s, const RowSums<T>& first, int64_t stride,
                         const BackwardOutputs<T>& out, bool constant, int64_t workers,
                         int64_t worker) {
  const auto matrix = [&](int64_t rows, int64_t columns, const T* from, T* to) {
    const int64_t ld = padded<T>(columns);
    for (int64_t i = share(rows, workers, worker); i < share(rows, workers, worker + 1); ++i)
      add_workers<T>(columns, from + i * ld, workers, stride, to + i * columns);
  };
  for_window(s, s.weight_rows, constant, [&](int64_t i, int64_t row) {
    for (int64_t l = 1; l <= s.L; ++l)
      matrix(s.layers[l].m, s.layers[l - 1].m,
             first.weight + i * s.gradient_size + s.layers[l].gradient,
             out.weight + row * s.weights + s.layers[l].weight);
  });
  if (s.large_trace())
    for_window(s, s.trace_rows, constant, [&](int64_t i, int64_t row) {
      const int64_t m1 = s.layers[1].m, m2 = s.layers[2].m;
      matrix(m2, m1, first.trace + i * s.trace_gradient_size, out.trace + row * m1 * m2);
    });
  for_window(s, s.second_rows, constant, [&](int64_t i, int64_t row) {
    const int64_t m1 = s.layers[1].m;
    matrix(m1, m1, first.second + i * s.second_gradient_size, out.second + row * m1 * m1);
  });
}

}  // namespace MVAE_FAST_ISA
}  // namespace mvae_fast
