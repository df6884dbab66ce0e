// The log-determinant of the steps, in place of the integral of the trace: a whole Jacobian of
// every row, step and stage, and an LU factorisation of every row and step (docs/math.md, section
// 3). The forward only: what wants gradients takes the reference.
#pragma once

#include "../net/prepare.h"
#include "lu.h"
#include "reduced.h"

namespace mvae_fast::MVAE_FAST_ISA {

// Whether a step's matrix is Reduced: of fewer rows its tables cost more than they save (measured:
// 0.45 ms a step for D = 128 and m = 256, and 17 us a row).
template <class T>
static bool reduces(const Problem<T>& p) {
  constexpr int64_t kEnoughRows = 32;
  return p.L == 2 && p.R == 1 && p.B >= kEnoughRows;
}

template <class T>
struct LogDetTile {
  T *z, *hidden[2], *f, *input, *k, *logp;  // as of ForwardTile
  T* slopes;                                // phi' of every stage and hidden layer
  // Of one row at a time: gate phi' of a layer, products (D, m_l), a matrix (D, D), one a stage.
  T *factors, *tangents[2], *matrix, *jacobians;
  T* panel;
  Products<T> products;

  static LogDetTile take(const Solve<T>& s, Arena& arena) {
    LogDetTile t{};
    const int64_t rows0 = kTile * leading<T>(s.D), widest = kTile * s.widest;
    for (T** piece : {&t.z, &t.f, &t.input}) *piece = arena.take<T>(rows0);
    for (T*& hidden : t.hidden) hidden = arena.take<T>(widest);
    t.k = arena.take<T>(s.p->R, rows0);
    t.logp = arena.take<T>(kTile);
    t.slopes = arena.take<T>(s.p->R, s.L - 1, widest);
    t.factors = arena.take<T>(s.widest);
    for (T*& tangent : t.tangents) tangent = arena.take<T>(s.D, s.widest);
    t.matrix = arena.take<T>(s.D, leading<T>(s.D));
    t.jacobians = arena.take<T>(s.p->R, s.D, leading<T>(s.D));
    t.panel = arena.take<T>(panel_size<T>(s.D));
    t.products = Products<T>::take(false, s.widest, arena);
    return t;
  }
  // phi' of hidden layer l in an evaluation, of all rows of the tile.
  T* slopes_of(const Solve<T>& s, int64_t e, int64_t l) const {
    return slopes + (e % s.p->R * (s.L - 1) + l - 1) * kTile * s.widest;
  }
};

// scale gate phi' of hidden layer l in evaluation e, of row r of the tile.
template <class T>
static const T* factors_of(const Solve<T>& s, const LogDetTile<T>& t, int64_t e, int64_t l,
                           int64_t r, T scale) {
  const Layer& layer = s.layers[l];
  scale_columns<T>(1, padded<T>(layer.m), scale, s.gates(e, l), t.slopes_of(s, e, l) + r * layer.ld,
                   0, t.factors, 0);
  return t.factors;
}

// Row i of `to` (D, D) = J x_i, with x_i row i of `x` or, of null, the i-th unit vector; J is that
// of the velocity in evaluation e, of row r of the tile.
template <class T>
static void jacobian(const Solve<T>& s, const LogDetTile<T>& t, int64_t e, int64_t r, const T* x,
                     T* to) {
  const int64_t D = s.D, ld0 = s.layers[0].ld;
  const T* v = x;
  int64_t ldv = ld0;
  for (int64_t l = 1; l <= s.L; ++l) {
    const Layer& layer = s.layers[l];
    const T* const packed = s.forward_weight(e, l);
    const T* const factors = l < s.L ? factors_of<T>(s, t, e, l, r, T(1)) : s.gates(e, l);
    T* const out = l < s.L ? t.tangents[l % 2] : to;
    if (!v) {  // W_1' itself, of which a panel of columns lies together
      for (int64_t j = 0; j < padded<T>(layer.m); j += 2 * kLanes<T>) {
        const int64_t width = panel_width<T>(layer.m, j);
        scale_columns<T>(D, width, T(1), factors + j, packed + j * D, width, out + j, layer.ld);
      }
    } else {
      t.products.rows_times(D, layer.m, s.layers[l - 1].m, v, ldv, packed, out, layer.ld, false);
      scale_columns<T>(D, padded<T>(layer.m), T(1), factors, out, layer.ld, out, layer.ld);
    }
    v = out;
    ldv = layer.ld;
  }
  if (!s.p->residual) return;
  for (int64_t i = 0; i < D; ++i) {
    if (x)
      add_scaled_rows<T>(1, padded<T>(D), T(-1), x + i * ld0, 0, to + i * ld0, 0);
    else
      to[i * ld0 + i] -= 1;
  }
}

// to = I + h sum_q weights[q] J_q over the first `stages` Jacobians.
template <class T>
static void combine_jacobians(const Solve<T>& s, const LogDetTile<T>& t, T h, const double* weights,
                              int64_t stages, T* to) {
  const int64_t D = s.D, ld0 = s.layers[0].ld;
  memset(to, 0, D * ld0 * sizeof(T));
  for (int64_t q = 0; q < stages; ++q)
    if (weights[q] != 0)
      add_scaled_rows<T>(D, padded<T>(D), h * static_cast<T>(weights[q]), t.jacobians + q * D * ld0,
                         ld0, to, ld0);
  for (int64_t i = 0; i < D; ++i) to[i * ld0 + i] += 1;
}

// The velocity of evaluation e at `z` to `k`, and phi' of the hidden layers.
template <class T>
static void evaluate_with_slopes(const Solve<T>& s, const LogDetTile<T>& t, int64_t e,
                                 int64_t begin, int64_t n, const T* z, T* k) {
  const Problem<T>& p = *s.p;
  const Activate<T> pass = activation<T, Keep::value_slope>(p.nonlinearity);
  const int64_t ld0 = s.layers[0].ld, width = padded<T>(s.D);
  const T* y = z;
  int64_t ldy = ld0;
  for (int64_t l = 1; l < s.L; ++l) {
    const Layer& layer = s.layers[l];
    T* const to = t.hidden[l % 2];
    layer_product<T>(s, t.products, e, l, begin, n, y, ldy, to);
    pass({n, padded<T>(layer.m), layer.ld, to, s.gates(e, l), s.biases(e, l), to,
          t.slopes_of(s, e, l), nullptr, nullptr, nullptr});
    y = to;
    ldy = layer.ld;
  }
  layer_product<T>(s, t.products, e, s.L, begin, n, y, ldy, t.f);
  scale_columns<T>(n, width, p.residual ? T(-1) : T(0), s.ones, z, ld0, k, ld0);
  advance<T>(n, width, false, T(1), t.f, ld0, s.gates(e, s.L), s.biases(e, s.L), k, ld0);
}

// log |det| of a step's map at row r of the tile, whose evaluations have been made.
template <class T>
static double row_log_det(const Solve<T>& s, const Reduced<T>& reduced, const LogDetTile<T>& t,
                          int64_t step, int64_t r) {
  const Problem<T>& p = *s.p;
  const int64_t ld0 = s.layers[0].ld, R = p.R;
  const T h = p.h[step];
  if (reduces(p)) {
    const T* const factors = factors_of<T>(s, t, step, 1, r, h);
    reduced_step<T>(reduced, p.residual ? 1 - h : T(1), factors, t.tangents[0], t.matrix);
  } else {
    for (int64_t q = 0; q < R; ++q) {
      const double* const weights = p.a + q * R;
      bool any = false;
      for (int64_t i = 0; i < q; ++i) any = any || weights[i] != 0;
      if (any) combine_jacobians<T>(s, t, h, weights, q, t.matrix);
      jacobian<T>(s, t, step * R + q, r, any ? t.matrix : nullptr, t.jacobians + q * s.D * ld0);
    }
    combine_jacobians<T>(s, t, h, p.b, R, t.matrix);
  }
  return log_abs_det<T>(s.D, t.matrix, ld0, t.panel);
}

// One step of a tile of rows, from and to the last output, and what is wanted after it.
template <class T>
static void log_det_tile(const Solve<T>& s, const Reduced<T>& reduced, const ForwardOutputs<T>& out,
                         const LogDetTile<T>& t, int64_t step, int64_t begin, int64_t n) {
  const Problem<T>& p = *s.p;
  const int64_t D = s.D, ld0 = s.layers[0].ld, slot = kTile * ld0;
  const int64_t last = (p.n_outputs - 1) * p.B + begin;
  copy_rows<T>(n, D, step ? out.z + last * D : p.z + begin * D, D, t.z, ld0);
  for (int64_t i = 0; i < n; ++i) t.logp[i] = step ? out.logp[last + i] : T(0);
  for (int64_t r = 0; r < p.R; ++r) {
    if (r) combine<T>(s, t.z, p.h[step], p.a + r * p.R, r, t.k, n, t.input);
    evaluate_with_slopes<T>(s, t, step * p.R + r, begin, n, r ? t.input : t.z, t.k + r * slot);
  }
  for (int64_t i = 0; i < n; ++i)
    t.logp[i] -= static_cast<T>(row_log_det<T>(s, reduced, t, step, i));
  combine<T>(s, t.z, p.h[step], p.b, p.R, t.k, n, t.z);
  const auto write = [&](int64_t at) {
    for (int64_t i = 0; i < n; ++i) memcpy(out.z + (at + i) * D, t.z + i * ld0, D * sizeof(T));
    memcpy(out.logp + at, t.logp, n * sizeof(T));
  };
  for (int64_t i = 0; i + 1 < p.n_outputs; ++i)
    if (p.outputs[i] == step + 1) write(i * p.B + begin);
  write(last);
}

template <class T>
static int64_t log_det_workspace(const Problem<T>& p, int64_t workers) {
  Arena arena(nullptr), one(nullptr);
  const Solve<T> s = lay_out(p, Sweep::forward, false, workers, arena);
  if (reduces(p)) Reduced<T>::take(s, arena);
  LogDetTile<T>::take(s, one);
  return workspace_size(arena, workers, one);
}

// All rows take a step before the next one, which may have tables of its own.
template <class T>
static void log_det(const Problem<T>& p, const ForwardOutputs<T>& out, const Threads& threads,
                    void* workspace) {
  Arena arena(workspace), one(nullptr);
  Solve<T> s = lay_out(p, Sweep::forward, false, threads.n, arena);
  const Reduced<T> reduced = reduces(p) ? Reduced<T>::take(s, arena) : Reduced<T>{};
  LogDetTile<T>::take(s, one);
  char* const scratch = static_cast<char*>(workspace) + arena.used();
  for (int64_t step = 0; step < p.S; ++step) {
    if (step % s.span == 0) {
      s.first = step * p.R;
      prepare<T>(s, threads, step == 0, [](int64_t) { return TraceScratch<T>{}; });
    }
    const bool anew = step == 0 || s.weight_rows > 1;
    if (reduces(p) && anew) reduce_right<T>(s, reduced, step);
    if (reduces(p) && (anew || s.gate_rows > 1)) reduce_left<T>(s, reduced, step);
    run_workers(threads, [&](int64_t worker) {
      Arena own(scratch + worker * one.used());
      const LogDetTile<T> tile = LogDetTile<T>::take(s, own);
      for_each_tile(p.B, threads.n, worker, [&](int64_t row, int64_t n) {
        log_det_tile<T>(s, reduced, out, tile, step, row, n);
      });
    });
  }
}

}  // namespace mvae_fast::MVAE_FAST_ISA
