// The backward sweep: the discrete adjoint of the steps, from the last to the first.
#pragma once

#include "adjoint.h"

namespace mvae_fast {
namespace MVAE_FAST_ISA {

// t.z_bar from the adjoint of the state after `step` to that of t.z before it.
template <class T>
static void backward_step(const Solve<T>& s, BackwardTile<T>& t, int64_t step, int64_t n) {
  const Problem<T>& p = *s.p;
  const int64_t ld0 = s.layers[0].ld, width = padded<T>(s.D), R = p.R;
  const T h = p.h[step];
  T dots[kTile] = {};  // per row, the adjoint of h
  if (R == 1) {
    backward_evaluation<T>(s, t, step, h, static_cast<T>(p.b[0]), t.z, t.z_bar, t.z_bar, dots, n);
  } else {
    step_inputs<T>(s, t, step, t.z, n);
    for (int64_t r = R - 1; r >= 0; --r) {
      // k_bar_r = b_r z_bar + sum_q>r a_qr input_bar_q
      scale_columns<T>(n, width, static_cast<T>(p.b[r]), s.ones, t.z_bar, ld0, t.k_bar, ld0);
      for (int64_t q = r + 1; q < R; ++q)
        if (p.a[q * R + r] != 0)
          add_scaled_rows<T>(n, width, static_cast<T>(p.a[q * R + r]), t.input_bar + q * t.slot0,
                             ld0, t.k_bar, ld0);
      T* into = t.input_bar + r * t.slot0;
      memset(into, 0, n * ld0 * sizeof(T));
      backward_evaluation<T>(s, t, step * R + r, h, static_cast<T>(p.b[r]), t.inputs + r * t.slot0,
                             t.k_bar, into, dots, n);
    }
    for (int64_t r = 0; r < R; ++r)
      add_scaled_rows<T>(n, width, T(1), t.input_bar + r * t.slot0, ld0, t.z_bar, ld0);
  }
  for (int64_t r = 0; r < n; ++r) t.sums.h[step] += dots[r];
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

template <class T>
static void backward_tile(const Solve<T>& s, const BackwardInputs<T>& in,
                          const BackwardOutputs<T>& out, BackwardTile<T>& t, int64_t begin,
                          int64_t n) {
  const Problem<T>& p = *s.p;
  const int64_t D = s.D, ld0 = s.layers[0].ld;
  memset(t.z_bar, 0, n * ld0 * sizeof(T));
  memset(t.logp_bar, 0, n * sizeof(T));
  if (p.K) {
    t.probes.load_tile(s, begin, n);
    memset(t.tangent_sum, 0, p.K * t.probes.rows * t.probes.ld1 * sizeof(T));
  }
  int64_t output = p.n_outputs - 1;
  for (int64_t step = p.S - 1; step >= 0; --step) {
    if (output >= 0 && p.outputs[output] == step + 1) {
      const int64_t at = output * p.B + begin;
      add_rows<T>(n, D, in.grad_z + at * D, D, t.z_bar, ld0);
      for (int64_t r = 0; r < n; ++r) t.logp_bar[r] += in.grad_logp[at + r];
      --output;
    }
    load_state<T>(s, in, t, step, begin, n);
    backward_step<T>(s, t, step, n);
  }
  if (p.K && s.L > 1 && s.weight_rows == 1 && t.sums.weight)
    for (int64_t k = 0; k < p.K; ++k)
      outer_product<T>(s.layers[1].m, D, smaller(t.probes.rows, n),
                       t.tangent_sum + k * t.probes.rows * t.probes.ld1, t.probes.ld1,
                       t.probes.eps_of(k), t.probes.ld0, t.sums.weight_of(s, 0, 1),
                       s.layers[1].gradient_ld);
  for (int64_t r = 0; r < n; ++r) memcpy(out.z + (begin + r) * D, t.z_bar + r * ld0, D * sizeof(T));
}

template <class T>
static int64_t backward_workspace(const Problem<T>& p, const BackwardOutputs<T>& out,
                                  int64_t workers) {
  Arena arena(nullptr);
  const Solve<T> s = lay_out(p, true, arena);
  Arena one(nullptr);
  BackwardTile<T>::take(s, out.weight != nullptr, one);
  return arena.used() + workers * one.used();
}

template <class T>
static void backward(const Problem<T>& p, const BackwardInputs<T>& in,
                     const BackwardOutputs<T>& out, const Threads& threads, void* workspace) {
  Arena arena(workspace);
  const Solve<T> s = lay_out(p, true, arena);
  prepare(s, threads);
  struct Context {
    const Solve<T>* s;
    const BackwardInputs<T>* in;
    const BackwardOutputs<T>* out;
    int64_t workers;
    char* scratch;
    int64_t scratch_size;

    BackwardTile<T> tile(int64_t worker) const {
      Arena arena(scratch + worker * scratch_size);
      return BackwardTile<T>::take(*s, out->weight != nullptr, arena);
    }
  } context{&s, &in, &out, threads.n, static_cast<char*>(workspace) + arena.used(), 0};
  Arena one(nullptr);
  BackwardTile<T>::take(s, out.weight != nullptr, one);
  context.scratch_size = one.used();
  threads.run(
      threads.n,
      [](void* opaque, int64_t worker) {
        const Context& c = *static_cast<Context*>(opaque);
        BackwardTile<T> tile = c.tile(worker);
        tile.sums.clear(*c.s);
        for_each_tile(c.s->p->B, c.workers, worker, [&](int64_t begin, int64_t n) {
          backward_tile<T>(*c.s, *c.in, *c.out, tile, begin, n);
        });
      },
      &context);
  threads.run(
      threads.n,
      [](void* opaque, int64_t worker) {
        const Context& c = *static_cast<Context*>(opaque);
        reduce<T>(*c.s, c.tile(0).sums, c.scratch_size / static_cast<int64_t>(sizeof(T)), *c.out,
                  c.workers, worker);
      },
      &context);
}

}  // namespace MVAE_FAST_ISA
}  // namespace mvae_fast
