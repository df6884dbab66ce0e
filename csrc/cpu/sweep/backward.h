// The backward sweep: the discrete adjoint of the steps, from the last to the first.
#pragma once

#include "../net/prepare.h"
#include "one_hidden.h"

namespace mvae_fast::MVAE_FAST_ISA {

template <class T>
static void evaluation_adjoint(const Solve<T>& s, BackwardTile<T>& t, int64_t row, T h, T b,
                               const T* z, T* k_bar, T* into, double* dots, int64_t n) {
  if (has_one_hidden_adjoint(s))
    one_hidden_evaluation<T>(s, t, row, h, b, z, k_bar, into, dots, n);
  else
    backward_evaluation<T>(s, t, row, h, b, z, k_bar, into, dots, n);
}

// t.z_bar from the adjoint of the state after `step` to that of t.z before it.
template <class T>
static void backward_step(const Solve<T>& s, BackwardTile<T>& t, int64_t step, int64_t n) {
  const Problem<T>& p = *s.p;
  const int64_t ld0 = s.layers[0].ld, width = padded<T>(s.D), R = p.R;
  const T h = p.h[step];
  double dots[kTile] = {};  // per row, the adjoint of h
  if (R == 1) {
    T* k_bar = t.z_bar;
    if (s.values) {  // they add to k_bar but not to z_bar
      k_bar = t.k_bar;
      scale_columns<T>(n, width, T(1), s.ones, t.z_bar, ld0, k_bar, ld0);
    }
    evaluation_adjoint<T>(s, t, step, h, static_cast<T>(p.b[0]), t.z, k_bar, t.z_bar, dots, n);
  } else {
    if (!s.kept) step_inputs<T>(s, t, step, t.z, n);
    for (int64_t r = R - 1; r >= 0; --r) {
      // k_bar_r = b_r z_bar + sum_q>r a_qr input_bar_q
      scale_columns<T>(n, width, static_cast<T>(p.b[r]), s.ones, t.z_bar, ld0, t.k_bar, ld0);
      for (int64_t q = r + 1; q < R; ++q)
        if (p.a[q * R + r] != 0)
          add_scaled_rows<T>(n, width, static_cast<T>(p.a[q * R + r]), t.input_bar + q * t.slot0,
                             ld0, t.k_bar, ld0);
      T* into = t.input_bar + r * t.slot0;
      memset(into, 0, n * ld0 * sizeof(T));
      const T* const input = !s.kept ? t.inputs + r * t.slot0
                             : r > 0 ? s.kept_argument(step * R + r, t.begin)
                                     : t.z;
      evaluation_adjoint<T>(s, t, step * R + r, h, static_cast<T>(p.b[r]), input, t.k_bar, into,
                            dots, n);
    }
    for (int64_t r = 0; r < R; ++r)
      add_scaled_rows<T>(n, width, T(1), t.input_bar + r * t.slot0, ld0, t.z_bar, ld0);
  }
  double total = 0;
  for (int64_t r = 0; r < n; ++r) total += dots[r];
  t.sums.h[step] += total;
}

// Loads z_s of step `step` into t.z: saved, or recomputed from the last checkpoint before it.
template <class T>
static void load_state(const Solve<T>& s, const BackwardInputs<T>& in, BackwardTile<T>& t,
                       int64_t step, int64_t begin, int64_t n) {
  const Problem<T>& p = *s.p;
  const int64_t D = s.D, ld0 = s.layers[0].ld, width = padded<T>(D), k = p.checkpoint;
  const int64_t within = step % k, segment = step / k;
  const T* saved = segment ? in.states + ((segment - 1) * p.B + begin) * D : p.z + begin * D;
  // Entering a segment from its end: recompute its states once, keep them for its other steps.
  if (k > 1 && (within == k - 1 || step == p.S - 1)) {
    copy_rows<T>(n, D, saved, D, t.z, ld0);
    for (int64_t i = 0; i < within; ++i) {
      T* next = t.path + i * t.slot0;
      next_state<T>(s, t, segment * k + i, i ? next - t.slot0 : t.z, n, next);
    }
  }
  if (within)
    scale_columns<T>(n, width, T(1), s.ones, t.path + (within - 1) * t.slot0, ld0, t.z, ld0);
  else
    copy_rows<T>(n, D, saved, D, t.z, ld0);
}

// The steps end .. begin of one tile of rows, backwards. Between windows z_bar rests in the output.
template <class T>
static void backward_tile(const Solve<T>& s, const BackwardInputs<T>& in,
                          const BackwardOutputs<T>& out, BackwardTile<T>& t, int64_t step_begin,
                          int64_t step_end, int64_t begin, int64_t n) {
  const Problem<T>& p = *s.p;
  const int64_t D = s.D, ld0 = s.layers[0].ld;
  t.begin = begin;
  memset(t.logp_bar, 0, n * sizeof(T));
  memset(t.penalty_bar, 0, kPenalties * kTile * sizeof(T));
  const auto add_scalars = [&](int64_t output) {
    for (int64_t r = 0; r < n; ++r) t.logp_bar[r] += in.grad_logp[output * p.B + begin + r];
    for_each_penalty(p.penalties, [&](int64_t index, int64_t count, int64_t kind) {
      const T* from = in.grad_penalty + (output * count + index) * p.B + begin;
      for (int64_t r = 0; r < n; ++r) penalty_row(t.penalty_bar, kind)[r] += from[r];
    });
  };
  int64_t output = p.n_outputs - 1;
  if (step_end == p.S) {
    memset(t.z_bar, 0, n * ld0 * sizeof(T));
    for (int64_t l = 1; out.context && l <= s.L; ++l)
      if (out.context[l - 1])
        memset(out.context[l - 1] + begin * s.layers[l].m, 0, n * s.layers[l].m * sizeof(T));
  } else {
    copy_rows<T>(n, D, out.z + begin * D, D, t.z_bar, ld0);
    for (; output >= 0 && p.outputs[output] > step_end; --output) add_scalars(output);
  }
  if (p.K) {
    t.probes.load_tile(s, begin, n);
    memset(t.tangent_sum, 0, p.K * t.probes.rows * t.probes.ld1 * sizeof(T));
  }
  for (int64_t step = step_end - 1; step >= step_begin; --step) {
    if (output >= 0 && p.outputs[output] == step + 1) {
      add_rows<T>(n, D, in.grad_z + (output * p.B + begin) * D, D, t.z_bar, ld0);
      add_scalars(output--);
    }
    load_state<T>(s, in, t, step, begin, n);
    backward_step<T>(s, t, step, n);
    t.sums.after_step(s);
  }
  if (p.K && s.L > 1 && s.weight_rows == 1 && t.sums.tables)
    for (int64_t k = 0; k < p.K; ++k)
      t.products.outer_product(s.layers[1].m, D, smaller(t.probes.rows, n),
                               t.tangent_sum + k * t.probes.rows * t.probes.ld1, t.probes.ld1,
                               t.probes.eps_of(k), t.probes.ld0, t.sums.weight_of(s, 0, 1),
                               s.layers[1].gradient_ld);
  t.sums.after_tile(s);
  for (int64_t r = 0; r < n; ++r) memcpy(out.z + (begin + r) * D, t.z_bar + r * ld0, D * sizeof(T));
}

template <class T>
static bool wants_tables(const BackwardOutputs<T>& out) {
  return out.weight || out.layers;
}

template <class T>
static int64_t backward_workspace(const Problem<T>& p, const BackwardOutputs<T>& out,
                                  int64_t workers) {
  Arena arena(nullptr), one(nullptr);
  const Solve<T> s = lay_out(p, Sweep::backward, wants_tables(out), workers, arena);
  BackwardTile<T>::take(s, wants_tables(out), one);
  return workspace_size(arena, workers, one);
}

template <class T>
static void backward(const Problem<T>& p, const BackwardInputs<T>& in,
                     const BackwardOutputs<T>& out, const Threads& threads, void* workspace) {
  Arena arena(workspace), one(nullptr);
  const bool tables = wants_tables(out);
  Solve<T> s = lay_out(p, Sweep::backward, tables, threads.n, arena);
  s.kept = const_cast<T*>(in.kept);  // read only
  BackwardTile<T>::take(s, tables, one);
  char* const scratch = static_cast<char*>(workspace) + arena.used();
  const auto tile_of = [&](int64_t worker) {
    Arena own(scratch + worker * one.used());
    return BackwardTile<T>::take(s, tables, own);
  };
  const auto trace_of = [&](int64_t worker) { return tile_of(worker).trace; };
  const int64_t workers = threads.n, stride = one.used();
  const RowSums<T> first = tile_of(0).sums;
  const auto sums_of = [&](int64_t worker) { return tile_of(worker).sums; };

  const int64_t windows = (p.S + s.span - 1) / s.span;
  for (int64_t w = windows - 1; w >= 0; --w) {
    const int64_t begin = w * s.span, end = smaller(begin + s.span, p.S);
    const bool start = end == p.S, finish = begin == 0;
    s.first = begin * p.R;
    prepare<T>(s, threads, start, trace_of);
    run_workers(threads, [&](int64_t worker) {
      BackwardTile<T> tile = tile_of(worker);
      tile.context_bar = out.context;
      tile.sums.clear(s, start);
      for_each_tile(p.B, workers, worker, [&](int64_t row, int64_t n) {
        backward_tile<T>(s, in, out, tile, begin, end, row, n);
      });
    });
    if (out.layers)
      trace_gradients<T>(s, threads, first, stride, finish, sums_of, trace_of);
    else if (out.weight)
      run_workers(threads, [&](int64_t worker) {
        reduce_large<T>(s, first, stride, out, finish, workers, worker);
        if (finish) reduce_small<T>(s, first, stride, out, workers, worker);
      });
  }
  const auto scalars = [&](double* sums, int64_t at, int64_t n, T* to) {
    add_workers(Sums<double>{sums, nullptr, 1, at + n}, at, n, workers, stride, to);
  };
  scalars(first.h, 0, p.S, out.h);
  if (!out.layers) return;
  run_workers(threads, [&](int64_t worker) {
    coefficient_gradients<T>(s, first, workers, stride, worker, out.layers, sums_of(worker).psi);
  });
  if (p.features)
    scalars(first.psi, 0, s.rows * p.F, out.time);
  else
    for (int64_t row = 0; row < s.rows; ++row) scalars(first.psi, 2 * row + 1, 1, out.time + row);
}

}  // namespace mvae_fast::MVAE_FAST_ISA
