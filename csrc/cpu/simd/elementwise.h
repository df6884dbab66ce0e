// The second pass over a tile after a product: gates, biases, nonlinearities, traces and their
// adjoints. A tile is (rows, width) with row length `ld`, its width padded to whole vectors. Tables
// (gate, bias, trace) are padded with zeros, so that padding columns never reach a sum. A row
// stride of 0 broadcasts one row.
#pragma once

#include "activation.h"

namespace mvae_fast::MVAE_FAST_ISA {

// What an activation pass leaves behind.
enum class Keep {
  value,        // y
  value_slope,  // y, phi'
  value_trace,  // y, tau[r] += phi'(a) . table: the exact trace of one hidden layer, without
                // storing phi'
  all,          // y, phi', phi''
};

template <class T>
struct ActivateArgs {
  int64_t rows, width, ld;
  const T *w, *gate, *bias;  // a = gate * w + bias
  T *y, *d1, *d2;
  const T* table;
  T* tau;
};

template <class T, class Act, Keep keep, int count>
MVAE_FAST_INLINE void activate_pack(const ActivateArgs<T>& x, int64_t at, int64_t f, Pack<T>& tau) {
  Pack<T> a{};
#pragma GCC unroll 4
  for (int i = 0; i < count; ++i) {
    const int64_t j = i * kLanes<T>;
    a.v[i] = load(x.gate + f + j) * load(x.w + at + j) + load(x.bias + f + j);
  }
  const Phi<T> phi = Act::at(a);
#pragma GCC unroll 4
  for (int i = 0; i < count; ++i) {
    const int64_t j = i * kLanes<T>;
    store(x.y + at + j, phi.y.v[i]);
    if constexpr (keep == Keep::value_slope || keep == Keep::all) store(x.d1 + at + j, phi.d1.v[i]);
    if constexpr (keep == Keep::all) store(x.d2 + at + j, phi.d2.v[i]);
    if constexpr (keep == Keep::value_trace) tau.v[i] += phi.d1.v[i] * load(x.table + f + j);
  }
}

template <class T, class Act, Keep keep>
static void activate(const ActivateArgs<T>& args) {
  const ActivateArgs<T> x = args;
  for (int64_t r = 0; r < x.rows; ++r) {
    Pack<T> tau{};
    int64_t f = 0;
    for (; f + 4 * kLanes<T> <= x.width; f += 4 * kLanes<T>)
      activate_pack<T, Act, keep, 4>(x, r * x.ld + f, f, tau);
    for (; f < x.width; f += kLanes<T>) activate_pack<T, Act, keep, 1>(x, r * x.ld + f, f, tau);
    if constexpr (keep == Keep::value_trace)
      x.tau[r] += sum<T>((tau.v[0] + tau.v[1]) + (tau.v[2] + tau.v[3]));
  }
}

template <class T>
using Activate = void (*)(const ActivateArgs<T>&);

template <class T, Keep keep>
static Activate<T> activation(Nonlinearity nonlinearity) {
  return by_nonlinearity(nonlinearity,
                         [](auto act) -> Activate<T> { return activate<T, decltype(act), keep>; });
}

// out[r] += scale * a[r, :] . b[r, :]; `out` may be in double.
template <class T, class Out>
static void add_row_dots(int64_t rows, int64_t width, const T* a, int64_t lda, const T* b,
                         int64_t ldb, T scale, Out* out) {
  for (int64_t r = 0; r < rows; ++r) {
    Vec<T> dot{};
    for (int64_t f = 0; f < width; f += kLanes<T>)
      dot += load(a + r * lda + f) * load(b + r * ldb + f);
    out[r] += scale * sum<T>(dot);
  }
}

// out[r, :] = scale[r] * a[r, :]
template <class T>
static void scale_rows(int64_t rows, int64_t width, const T* scale, const T* a, int64_t lda, T* out,
                       int64_t ld) {
  for (int64_t r = 0; r < rows; ++r) {
    const Vec<T> s = splat(scale[r]);
    for (int64_t f = 0; f < width; f += kLanes<T>)
      store(out + r * ld + f, s * load(a + r * lda + f));
  }
}

// out[r, :] = scale * table * a[r, :]
template <class T>
static void scale_columns(int64_t rows, int64_t width, T scale, const T* table, const T* a,
                          int64_t lda, T* out, int64_t ld) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t f = 0; f < width; f += kLanes<T>)
      store(out + r * ld + f, scale * load(table + f) * load(a + r * lda + f));
}

// out[:] += sum_r scale[r] * a[r, :]
template <class T>
static void add_scaled_column_sums(int64_t rows, int64_t width, const T* scale, const T* a,
                                   int64_t lda, T* out) {
  for (int64_t f = 0; f < width; f += kLanes<T>) {
    Vec<T> total{};  // not of `out`: each term would round at its size
    for (int64_t r = 0; r < rows; ++r) total += scale[r] * load(a + r * lda + f);
    store(out + f, load(out + f) + total);
  }
}

// out[:] += scale * sum_r a[r, :]
template <class T>
static void add_column_sums(int64_t rows, int64_t width, T scale, const T* a, int64_t lda, T* out) {
  for (int64_t f = 0; f < width; f += kLanes<T>) {
    Vec<T> total{};
    for (int64_t r = 0; r < rows; ++r) total += load(a + r * lda + f);
    store(out + f, load(out + f) + scale * total);
  }
}

// out[:] += sum_r a[r, :] * b[r, :]
template <class T>
static void add_column_dots(int64_t rows, int64_t width, const T* a, int64_t lda, const T* b,
                            int64_t ldb, T* out) {
  for (int64_t f = 0; f < width; f += kLanes<T>) {
    Vec<T> total{};
    for (int64_t r = 0; r < rows; ++r) total += load(a + r * lda + f) * load(b + r * ldb + f);
    store(out + f, load(out + f) + total);
  }
}

// z += scale * (gate * w + bias [- z]): the Euler update, of a residual field with its -z. Not as
// (1 - scale) z: the rounding of that factor would be that of z, in every step the same.
template <class T>
static void advance(int64_t rows, int64_t width, bool residual, T scale, const T* w, int64_t ldw,
                    const T* gate, const T* bias, T* z, int64_t ld) {
  for (int64_t f = 0; f < width; f += kLanes<T>) {
    const Vec<T> g = load(gate + f), c = load(bias + f);
    for (int64_t r = 0; r < rows; ++r) {
      T* to = z + r * ld + f;
      const Vec<T> before = load(to), velocity = g * load(w + r * ldw + f) + c;
      store(to, before + scale * (residual ? velocity - before : velocity));
    }
  }
}

// v = phi' * gate * w: the tangent through one layer.
template <class T>
static void tangent(int64_t rows, int64_t width, const T* d1, int64_t ld, const T* gate, const T* w,
                    int64_t ldw, T* v) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t f = 0; f < width; f += kLanes<T>)
      store(v + r * ld + f, load(d1 + r * ld + f) * (load(gate + f) * load(w + r * ldw + f)));
}

// Adjoint of the tangent stream at one hidden layer, from that of v: u_bar = phi' v_bar;
// t (+)= v_bar u, the coefficient of phi'' in a_bar; g = gate u_bar; gate_gradient += sum_r u_bar
// w.
template <class T>
static void tangent_adjoint(int64_t rows, int64_t width, int64_t ld, const T* d1, const T* gate,
                            const T* w, int64_t ldw, const T* v_bar, bool first, T* t, T* g,
                            T* gate_gradient) {
  using V = Vec<T>;
  for (int64_t f = 0; f < width; f += kLanes<T>) {
    const V gf = load(gate + f);
    V total{};
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t at = r * ld + f;
      const V vb = load(v_bar + at), wr = load(w + r * ldw + f), ub = load(d1 + at) * vb;
      const V coefficient = vb * gf * wr;
      store(t + at, first ? coefficient : load(t + at) + coefficient);
      store(g + at, gf * ub);
      total += ub * wr;
    }
    if (gate_gradient) store(gate_gradient + f, load(gate_gradient + f) + total);
  }
}

// Adjoint at one hidden layer: a_bar = scale phi' y_bar + phi'' t; g = gate a_bar; bias_gradient +=
// sum_r a_bar; gate_gradient += sum_r a_bar w. `t` (no trace), `bias_gradient` (no table gradients)
// and `gate_gradient` may be null.
template <class T>
static void adjoint(int64_t rows, int64_t width, int64_t ld, T scale, const T* d1, const T* y_bar,
                    const T* d2, const T* t, const T* gate, const T* w, T* g, T* bias_gradient,
                    T* gate_gradient) {
  using V = Vec<T>;
  for (int64_t f = 0; f < width; f += kLanes<T>) {
    const V gf = load(gate + f);
    V bias_total{}, gate_total{};
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t at = r * ld + f;
      V a_bar = scale * load(d1 + at) * load(y_bar + at);
      if (t) a_bar += load(d2 + at) * load(t + at);
      store(g + at, gf * a_bar);
      bias_total += a_bar;
      gate_total += a_bar * load(w + at);
    }
    if (bias_gradient) store(bias_gradient + f, load(bias_gradient + f) + bias_total);
    if (gate_gradient) store(gate_gradient + f, load(gate_gradient + f) + gate_total);
  }
}

// Copies (rows, width) into a tile, padding columns with zeros.
template <class T>
static void copy_rows(int64_t rows, int64_t width, const T* from, int64_t ld_from, T* to,
                      int64_t ld) {
  for (int64_t r = 0; r < rows; ++r) {
    memcpy(to + r * ld, from + r * ld_from, width * sizeof(T));
    memset(to + r * ld + width, 0, (padded<T>(width) - width) * sizeof(T));
  }
}

// to[r, :] += scale * from[r, :]
template <class T>
static void add_scaled_rows(int64_t rows, int64_t width, T scale, const T* from, int64_t ld_from,
                            T* to, int64_t ld) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t f = 0; f < width; f += kLanes<T>)
      store(to + r * ld + f, load(to + r * ld + f) + scale * load(from + r * ld_from + f));
}

// to[r, :] += from[r, :]
template <class T>
static void add_rows(int64_t rows, int64_t width, const T* from, int64_t ld_from, T* to,
                     int64_t ld) {
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t f = 0; f < width; ++f) to[r * ld + f] += from[r * ld_from + f];
}

// to (columns, rows) += from (rows, columns) transposed.
template <class T>
static void add_transposed(int64_t rows, int64_t columns, const T* from, int64_t ld_from, T* to,
                           int64_t ld) {
  constexpr int64_t n = kLanes<T>;
  T square[n * n];
  for (int64_t r = 0; r < rows; r += n)
    for (int64_t c = 0; c < columns; c += n) {
      const int64_t height = smaller(n, rows - r), width = smaller(n, columns - c);
      if (width == n) {
        transpose<T>(from + r * ld_from + c, ld_from, height, square, n);
      } else {
        for (int64_t i = 0; i < height; ++i)
          for (int64_t j = 0; j < width; ++j) square[j * n + i] = from[(r + i) * ld_from + c + j];
      }
      for (int64_t j = 0; j < width; ++j)
        for (int64_t i = 0; i < height; ++i) to[(c + j) * ld + r + i] += square[j * n + i];
    }
}

}  // namespace mvae_fast::MVAE_FAST_ISA
