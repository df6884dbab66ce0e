// The gradients that are summed over rows: each worker sums its own, then all workers' are added up
// in a fixed order.
#pragma once

#include "../simd/sums.h"
#include "tables.h"

namespace mvae_fast::MVAE_FAST_ISA {

// One worker's share of the gradients that are summed over rows. Those of large tables that vary
// with time are held for the present window only.
template <class T>
struct RowSums {
  double *h, *psi;
  bool tables;  // whether there are those below
  Sums<T> weight, gate, bias, trace, second;
  int64_t added[2];  // since the last flush: to each table of one row, of a row for each evaluation

  static RowSums take(const Solve<T>& s, bool tables, Arena& arena) {
    RowSums x{};
    x.h = arena.take<double>(s.p->S);
    x.tables = tables;
    if (!tables) return x;
    x.psi = arena.take<double>(s.p->layers ? s.rows : 0, s.p->F);
    const int64_t additions = size_product(s.tiles, 1 + s.p->K);
    const auto sums = [&](int64_t rows, int64_t held, int64_t size) {
      const int64_t evaluations = rows > 1 ? 1 : s.rows;
      return Sums<T>::take(held, size, size_product(additions, evaluations), arena);
    };
    const int64_t traces = s.large_trace() ? s.window_rows(s.trace_rows) : s.trace_rows;
    x.weight = sums(s.weight_rows, s.window_rows(s.weight_rows), s.gradient_size);
    x.gate = sums(s.gate_rows, s.gate_rows, s.padded_features);
    x.bias = sums(s.bias_rows, s.bias_rows, s.padded_features);
    x.trace = sums(s.trace_rows, traces, s.trace_gradient_size);
    x.second = sums(s.second_rows, s.window_rows(s.second_rows), s.second_gradient_size);
    return x;
  }
  // Before the first window all, before another those that it begins anew.
  void clear(const Solve<T>& s, bool all) const {
    if (all) memset(h, 0, s.p->S * sizeof(double));
    if (!tables) return;
    if (all || s.weight_rows > 1) weight.clear();
    if (all || (s.large_trace() && s.trace_rows > 1)) trace.clear();
    if (all || s.second_rows > 1) second.clear();
    if (!all) return;
    if (s.p->layers) memset(psi, 0, s.rows * s.p->F * sizeof(double));
    gate.clear();
    bias.clear();
  }
  // After the evaluations of a step, and after those of all steps, of one tile.
  void after_step(const Solve<T>& s) { after(s, false, s.p->R * (1 + s.p->K)); }
  void after_tile(const Solve<T>& s) { after(s, true, 1 + s.p->K); }

  T* weight_of(const Solve<T>& s, int64_t row, int64_t l) const {
    return tables ? weight.row(s.in_window(s.weight_rows, row)) + s.layers[l].gradient : nullptr;
  }
  T* gate_of(const Solve<T>& s, int64_t row, int64_t l) const {
    return tables && s.gate_rows ? gate.row(s.gate_rows > 1 ? row : 0) + s.layers[l].padded_features
                                 : nullptr;
  }
  T* bias_of(const Solve<T>& s, int64_t row, int64_t l) const {
    return tables ? bias.row(s.bias_rows > 1 ? row : 0) + s.layers[l].padded_features : nullptr;
  }
  T* trace_of(const Solve<T>& s, int64_t row) const {
    return tables && s.trace_rows ? trace.row(s.trace_index(row)) : nullptr;
  }
  T* second_of(const Solve<T>& s, int64_t row) const {
    return tables ? second.row(s.in_window(s.second_rows, row)) : nullptr;
  }

 private:
  void after(const Solve<T>& s, bool varying, int64_t additions) {
    if (!tables || (added[varying] += additions) < kAdditions) return;
    added[varying] = 0;
    const auto flush = [varying](int64_t rows, const Sums<T>& sums) {
      if ((rows > 1) == varying) sums.flush();
    };
    flush(s.weight_rows, weight);
    flush(s.gate_rows, gate);
    flush(s.bias_rows, bias);
    flush(s.trace_rows, trace);
    flush(s.second_rows, second);
  }
};

// One worker's part of the sum over all workers of the gradients of the small tables, from their
// padded layout into the caller's.
template <class T>
static void reduce_small(const Solve<T>& s, const RowSums<T>& first, int64_t stride,
                         const BackwardOutputs<T>& out, int64_t workers, int64_t worker) {
  const auto rows = [&](int64_t n, const auto& f) {
    for (int64_t row = share(n, workers, worker); row < share(n, workers, worker + 1); ++row)
      f(row);
  };
  const auto features = [&](int64_t n, const Sums<T>& from, T* to) {
    rows(n, [&](int64_t row) {
      for (int64_t l = 1; l <= s.L; ++l)
        add_workers(from, row * from.size + s.layers[l].padded_features, s.layers[l].m, workers,
                    stride, to + row * s.features + s.layers[l].features);
    });
  };
  features(s.bias_rows, first.bias, out.bias);
  features(s.gate_rows, first.gate, out.gate);
  if (!s.large_trace()) {
    const int64_t n = s.L == 2 ? s.layers[1].m : 1;
    rows(s.trace_rows, [&](int64_t row) {
      add_workers(first.trace, row * s.trace_gradient_size, n, workers, stride,
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
  const auto matrix = [&](int64_t rows, int64_t columns, const Sums<T>& from, int64_t at, T* to) {
    const int64_t ld = padded<T>(columns);
    for (int64_t i = share(rows, workers, worker); i < share(rows, workers, worker + 1); ++i)
      add_workers(from, at + i * ld, columns, workers, stride, to + i * columns);
  };
  for_window(s, s.weight_rows, constant, [&](int64_t i, int64_t row) {
    for (int64_t l = 1; l <= s.L; ++l)
      matrix(s.layers[l].m, s.layers[l - 1].m, first.weight,
             i * s.gradient_size + s.layers[l].gradient,
             out.weight + row * s.weights + s.layers[l].weight);
  });
  if (s.large_trace())
    for_window(s, s.trace_rows, constant, [&](int64_t i, int64_t row) {
      const int64_t m1 = s.layers[1].m, m2 = s.layers[2].m;
      matrix(m2, m1, first.trace, i * s.trace_gradient_size, out.trace + row * m1 * m2);
    });
  for_window(s, s.second_rows, constant, [&](int64_t i, int64_t row) {
    const int64_t m1 = s.layers[1].m;
    matrix(m1, m1, first.second, i * s.second_gradient_size, out.second + row * m1 * m1);
  });
}

}  // namespace mvae_fast::MVAE_FAST_ISA
