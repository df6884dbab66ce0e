// The gradients that are summed over rows: each worker sums its own, then all workers' are added up
// in a fixed order.
#pragma once

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

}  // namespace MVAE_FAST_ISA
}  // namespace mvae_fast
