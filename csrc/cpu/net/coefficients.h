// The small tables of a velocity from the coefficients of its layers, and the coefficients'
// gradients from the tables' (docs/math.md, section 1): what mvae_fast/core/tables.py does in
// PyTorch, without its dispatches, which for one step cost more than the integration.
#pragma once

#include <initializer_list>

#include "../simd/activation.h"
#include "row_sums.h"

namespace mvae_fast::MVAE_FAST_ISA {

// Units whose gradients are summed at a time.
constexpr int64_t kGradientBlock = 32;

// The features of time of all evaluations.
template <class T>
static void time_features(const Solve<T>& x) {
  const Problem<T>& p = *x.p;
  if (p.features) {
    memcpy(x.psi, p.time, x.rows * p.F * sizeof(T));
    return;
  }
  for (int64_t row = 0; row < x.rows; ++row) {
    x.psi[2 * row] = 1;
    x.psi[2 * row + 1] = p.time[row];
  }
}

// to[i] += sum_f columns[f][i] psi[f]
template <class T>
static void add_features(int64_t m, int64_t F, const Column<const T>* columns, const T* psi,
                         T* to) {
  for (int64_t f = 0; f < F; ++f)
    if (columns[f].data)
      for (int64_t i = 0; i < m; ++i) to[i] += columns[f].data[i * columns[f].stride] * psi[f];
}

// to[i] = sigmoid(to[i]) for i < m, as the kernels' nonlinearities do it.
template <class T>
static void sigmoid_row(int64_t m, T* to) {
  constexpr int64_t width = Pack<T>::n * kLanes<T>;
  alignas(64) T buffer[width] = {};
  for (int64_t i = 0; i < m; i += width) {
    const int64_t count = smaller(width, m - i);
    memcpy(buffer, to + i, count * sizeof(T));
    Pack<T> a;
    for (int j = 0; j < Pack<T>::n; ++j) a.v[j] = load(buffer + j * kLanes<T>);
    const Pack<T> gate = Softplus::at(a).d1;
    for (int j = 0; j < Pack<T>::n; ++j) store(buffer + j * kLanes<T>, gate.v[j]);
    memcpy(to + i, buffer, count * sizeof(T));
  }
}

// Gates and biases of all evaluations.
template <class T>
static void small_tables(const Solve<T>& x) {
  const int64_t F = x.p->F;
  time_features<T>(x);
  if (x.gate_rows) memset(x.gate, 0, x.gate_rows * x.padded_features * sizeof(T));
  memset(x.bias, 0, x.bias_rows * x.padded_features * sizeof(T));
  for (int64_t row = 0; row < x.bias_rows; ++row) {
    const T* psi = x.psi + row * F;
    for (int64_t l = 1; l <= x.L; ++l) {
      const Coefficients<const T>& layer = x.p->layers[l - 1];
      const int64_t m = x.layers[l].m, at = row * x.padded_features + x.layers[l].padded_features;
      T *bias = x.bias + at, *gate = x.gate + at;
      add_features<T>(m, F, layer.bias, psi, bias);
      if (layer.gate) {
        add_features<T>(m, F, layer.gate, psi, gate);
        sigmoid_row<T>(m, gate);
        for (int64_t i = 0; i < m; ++i) bias[i] *= gate[i];
      } else if (x.gate_rows) {
        for (int64_t i = 0; i < m; ++i) gate[i] = 1;
      }
      add_features<T>(m, F, layer.late_bias, psi, bias);
    }
  }
}

// The weights, packed.
template <class T>
static void pack_weights(const Solve<T>& x, int64_t workers, int64_t worker) {
  for (int64_t l = 1; l <= x.L; ++l) {
    const Coefficients<const T>& q = x.p->layers[l - 1];
    const Layer& layer = x.layers[l];
    pack_both<T>(x, layer.m, x.layers[l - 1].m, q.weight, q.ld,
                 x.evaluates(l) ? x.forward + layer.forward : nullptr,
                 x.backward ? x.backward + layer.backward : nullptr, workers, worker);
  }
}

// Of one layer's columns, units `begin` to `begin + n`: adds bar psi to their gradients and, to
// psi's, bar times what they are.
template <class T>
static void feature_gradients(int64_t begin, int64_t n, int64_t F, const Column<const T>* columns,
                              const T* psi, const double* bar, double (*sums)[kGradientBlock],
                              double* psi_bar) {
  for (int64_t f = 0; f < F; ++f) {
    if (!columns[f].data) continue;
    const T* from = columns[f].data + begin * columns[f].stride;
    double total = 0;
    for (int64_t i = 0; i < n; ++i) {
      sums[f][i] += bar[i] * psi[f];
      total += bar[i] * from[i * columns[f].stride];
    }
    psi_bar[f] += total;
  }
}

// From the sums of a layer's gate and bias gradients over rows of the batch to its coefficients'
// and to the features', units begin .. end. Adds the workers' sums up first, in their order; sums
// over evaluations are taken in double, too.
template <class T>
static void unit_gradients(const Solve<T>& x, const RowSums<T>& first, int64_t workers,
                           int64_t stride, int64_t l, int64_t begin, int64_t end,
                           const Coefficients<T>& out, double* psi_bar) {
  constexpr int64_t kBlock = kGradientBlock;
  const Coefficients<const T>& q = x.p->layers[l - 1];
  const int64_t F = x.p->F;
  for (; begin < end; begin += kBlock) {
    const int64_t n = smaller(kBlock, end - begin);
    double bias[kMostFeatures][kBlock], gate[kMostFeatures][kBlock], late[kMostFeatures][kBlock];
    double c_bar[kBlock], g_bar[kBlock];
    for (auto* sums : {bias, gate, late}) memset(sums, 0, F * kBlock * sizeof(double));
    for (int64_t row = 0; row < x.bias_rows; ++row) {
      const int64_t at = row * x.padded_features + x.layers[l].padded_features + begin;
      const T* psi = x.psi + row * F;
      double* to = psi_bar + row * F;
      add_workers(first.bias, at, n, workers, stride, c_bar);
      feature_gradients<T>(begin, n, F, q.late_bias, psi, c_bar, late, to);
      if (q.gate) {
        T inner[kBlock] = {};  // B psi
        for (int64_t f = 0; f < F; ++f)
          if (q.bias[f].data)
            for (int64_t i = 0; i < n; ++i)
              inner[i] += q.bias[f].data[(begin + i) * q.bias[f].stride] * psi[f];
        add_workers(first.gate, at, n, workers, stride, g_bar);
        for (int64_t i = 0; i < n; ++i) {
          const double g = x.gate[at + i];
          g_bar[i] = (g_bar[i] + c_bar[i] * inner[i]) * (g * (1 - g));
          c_bar[i] *= g;
        }
        feature_gradients<T>(begin, n, F, q.gate, psi, g_bar, gate, to);
      }
      feature_gradients<T>(begin, n, F, q.bias, psi, c_bar, bias, to);
    }
    const auto write = [&](const Column<T>* columns, const double (*sums)[kBlock]) {
      for (int64_t f = 0; columns && f < F; ++f)
        if (columns[f].data)
          for (int64_t i = 0; i < n; ++i)
            columns[f].data[(begin + i) * columns[f].stride] = static_cast<T>(sums[f][i]);
    };
    write(out.bias, bias);
    write(out.gate, gate);
    write(out.late_bias, late);
  }
}

// One worker's share of all coefficients' gradients; `psi_bar` is its own.
template <class T>
static void coefficient_gradients(const Solve<T>& x, const RowSums<T>& first, int64_t workers,
                                  int64_t stride, int64_t worker, const Coefficients<T>* out,
                                  double* psi_bar) {
  for (int64_t l = 1; l <= x.L; ++l) {
    const int64_t m = x.layers[l].m, before = x.layers[l - 1].m;
    const int64_t begin = share(m, workers, worker), end = share(m, workers, worker + 1);
    const Coefficients<T>& to = out[l - 1];
    for (int64_t i = begin; i < end; ++i)
      add_workers(first.weight, x.layers[l].gradient + i * x.layers[l].gradient_ld, before, workers,
                  stride, to.weight + i * to.ld);
    unit_gradients<T>(x, first, workers, stride, l, begin, end, to, psi_bar);
  }
}

}  // namespace mvae_fast::MVAE_FAST_ISA
