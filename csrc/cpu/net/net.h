// The small tables of a net from the parameters of its time-conditioned layers, and the parameters'
// gradients from the tables' (docs/math.md, section 1): what mvae_fast/core/tables.py does in
// PyTorch, without its dispatches, which for one step cost more than the integration.
#pragma once

#include "../simd/activation.h"
#include "row_sums.h"

namespace mvae_fast {
namespace MVAE_FAST_ISA {

// to[f] = sigmoid(slope[f] t + intercept[f]), zero in the padding.
template <class T>
static void gate_row(int64_t m, T t, const T* slope, const T* intercept, T* to) {
  constexpr int64_t width = Pack<T>::n * kLanes<T>;
  alignas(64) T buffer[width];
  for (int64_t f = 0; f < m; f += width) {
    const int64_t count = smaller(width, m - f);
    for (int64_t i = 0; i < count; ++i) buffer[i] = slope[f + i] * t + intercept[f + i];
    for (int64_t i = count; i < width; ++i) buffer[i] = 0;
    Pack<T> a;
    for (int i = 0; i < Pack<T>::n; ++i) a.v[i] = load(buffer + i * kLanes<T>);
    const Pack<T> gate = Softplus::at(a).d1;
    for (int i = 0; i < Pack<T>::n; ++i) store(buffer + i * kLanes<T>, gate.v[i]);
    memcpy(to + f, buffer, count * sizeof(T));
  }
  memset(to + m, 0, (padded<T>(m) - m) * sizeof(T));
}

// Gates and biases of all evaluations.
template <class T>
static void net_small_tables(const Solve<T>& x) {
  const Problem<T>& p = *x.p;
  for (int64_t row = 0; row < x.bias_rows; ++row) {
    const T t = p.t[row];
    for (int64_t l = 1; l <= x.L; ++l) {
      const LayerParameters<const T>& layer = p.net[l - 1];
      const int64_t m = x.layers[l].m, at = row * x.padded_features + x.layers[l].padded_features;
      T* bias = x.bias + at;
      copy_rows<T>(1, m, layer.bias, 0, bias, 0);
      if (x.gate_rows) {
        gate_row<T>(m, t, layer.gate_slope, layer.gate_bias, x.gate + at);
        for (int64_t f = 0; f < m; ++f) bias[f] *= x.gate[at + f];
      }
      if (layer.bias_slope)
        for (int64_t f = 0; f < m; ++f)
          bias[f] += layer.bias_slope[f * layer.bias_slope_stride] * t;
    }
  }
}

// The weights, packed.
template <class T>
static void net_weights(const Solve<T>& x, int64_t workers, int64_t worker) {
  for (int64_t l = 1; l <= x.L; ++l) {
    const LayerParameters<const T>& q = x.p->net[l - 1];
    const Layer& layer = x.layers[l];
    pack_both<T>(x, layer.m, x.layers[l - 1].m, q.weight, q.ld,
                 x.evaluates(l) ? x.forward + layer.forward : nullptr,
                 x.backward ? x.backward + layer.backward : nullptr, workers, worker);
  }
}

// From the sums of a layer's gate and bias gradients over rows of the batch to its parameters' and
// to the times', features f_begin .. f_end. Adds the workers' sums up first, in their order; sums
// over evaluations are taken in double, too.
template <class T>
static void net_feature_gradients(const Solve<T>& x, const RowSums<T>& first, int64_t workers,
                                  int64_t stride, int64_t l, int64_t f_begin, int64_t f_end,
                                  const LayerParameters<T>& out, double* t_bar) {
  constexpr int64_t kBlock = 64;
  const LayerParameters<const T>& q = x.p->net[l - 1];
  for (int64_t begin = f_begin; begin < f_end; begin += kBlock) {
    const int64_t n = smaller(kBlock, f_end - begin);
    double bias[kBlock] = {}, bias_slope[kBlock] = {}, gate_bias[kBlock] = {};
    double gate_slope[kBlock] = {}, c_bar[kBlock], g_bar[kBlock];
    for (int64_t row = 0; row < x.bias_rows; ++row) {
      const int64_t at = row * x.padded_features + x.layers[l].padded_features + begin;
      const T t = x.p->t[row];
      add_workers(first.bias, at, n, workers, stride, c_bar);
      double total = 0;  // of the adjoint of t
      if (out.bias_slope)
        for (int64_t f = 0; f < n; ++f) {
          bias_slope[f] += c_bar[f] * t;
          total += c_bar[f] * q.bias_slope[(begin + f) * q.bias_slope_stride];
        }
      if (!x.gate_rows) {
        for (int64_t f = 0; f < n; ++f) bias[f] += c_bar[f];
      } else {
        add_workers(first.gate, at, n, workers, stride, g_bar);
        for (int64_t f = 0; f < n; ++f) {
          const double g = x.gate[at + f];
          bias[f] += g * c_bar[f];
          const double argument_bar = (g_bar[f] + c_bar[f] * q.bias[begin + f]) * (g * (1 - g));
          gate_slope[f] += argument_bar * t;
          gate_bias[f] += argument_bar;
          total += argument_bar * q.gate_slope[begin + f];
        }
      }
      t_bar[row] += total;
    }
    for (int64_t f = 0; f < n; ++f) {
      out.bias[begin + f] = static_cast<T>(bias[f]);
      if (out.bias_slope)
        out.bias_slope[(begin + f) * out.bias_slope_stride] = static_cast<T>(bias_slope[f]);
      if (!out.gate_slope) continue;
      out.gate_slope[begin + f] = static_cast<T>(gate_slope[f]);
      out.gate_bias[begin + f] = static_cast<T>(gate_bias[f]);
    }
  }
}

// One worker's share of all parameters' gradients; `t_bar` is its own.
template <class T>
static void net_gradients(const Solve<T>& x, const RowSums<T>& first, int64_t workers,
                          int64_t stride, int64_t worker, const LayerParameters<T>* out,
                          double* t_bar) {
  for (int64_t l = 1; l <= x.L; ++l) {
    const int64_t m = x.layers[l].m, before = x.layers[l - 1].m;
    const int64_t begin = share(m, workers, worker), end = share(m, workers, worker + 1);
    const LayerParameters<T>& to = out[l - 1];
    for (int64_t i = begin; i < end; ++i)
      add_workers(first.weight, x.layers[l].gradient + i * x.layers[l].gradient_ld, before, workers,
                  stride, to.weight + i * to.ld);
    net_feature_gradients<T>(x, first, workers, stride, l, begin, end, to, t_bar);
  }
}

}  // namespace MVAE_FAST_ISA
}  // namespace mvae_fast
