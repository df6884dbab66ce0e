// The forward sweep: every worker carries its tiles of rows through all layers and all steps
// (docs/math.md, sections 2 and 3).
#pragma once

#include "solve.h"

namespace mvae_fast {
namespace MVAE_FAST_ISA {

template <class T>
struct ForwardTile {
  T *z, *hidden[2], *f, *d1, *tangent[2], *product, *tau, *logp;
  Probes<T> probes;

  static ForwardTile take(const Solve<T>& s, Arena& arena) {
    ForwardTile t{};
    const int64_t widest = kTile * s.widest;
    t.z = arena.take<T>(kTile * leading<T>(s.D));
    t.f = arena.take<T>(kTile * leading<T>(s.D));
    for (T*& hidden : t.hidden) hidden = arena.take<T>(widest);
    t.tau = arena.take<T>(kTile);
    t.logp = arena.take<T>(kTile);
    if (s.p->K || (s.p->trace && s.L == 3)) {
      t.d1 = arena.take<T>((s.L - 1) * widest);
      for (T*& tangent : t.tangent) tangent = arena.take<T>(widest);
    }
    t.probes = Probes<T>::take(s, arena);
    return t;
  }
};

// Adds the trace of step `step` to tau, from the slopes phi'(a_l) of all hidden layers.
template <class T>
static void add_probe_traces(const Solve<T>& s, const ForwardTile<T>& t, int64_t step, int64_t n) {
  const Probes<T>& probes = t.probes;
  for (int64_t k = 0; k < s.p->K; ++k) {
    const T* v = probes.eps_of(k);
    int64_t ldv = probes.stride(probes.ld0);
    const T* w = probes.x_of(k);
    int64_t ldw = probes.stride(probes.ld1);
    for (int64_t l = 1; l < s.L; ++l) {
      const Layer& layer = s.layers[l];
      if (l > 1) {
        rows_times<T>(n, layer.m, s.layers[l - 1].m, v, ldv, s.forward_weight(step, l),
                      t.tangent[l % 2], layer.ld, false);
        w = t.tangent[l % 2];
        ldw = layer.ld;
      }
      tangent<T>(n, padded<T>(layer.m), t.d1 + (l - 1) * kTile * s.widest, layer.ld,
                 s.gates(step, l), w, ldw, t.tangent[l % 2]);
      v = t.tangent[l % 2];
      ldv = layer.ld;
    }
    add_row_dots<T>(n, padded<T>(s.layers[s.L - 1].m), v, ldv, probes.q_of(k),
                    probes.stride(probes.ldq), T(1), t.tau);
  }
}

template <class T>
static void forward_tile(const Solve<T>& s, const ForwardOutputs<T>& out, ForwardTile<T>& t,
                         int64_t begin, int64_t n) {
  const Problem<T>& p = *s.p;
  const int64_t D = s.D, ld0 = s.layers[0].ld, slopes = kTile * s.widest;
  const bool traced = p.trace || p.K;
  const Activate<T> plain = activation<T, Keep::value>(p.nonlinearity);
  const Activate<T> with_slope = activation<T, Keep::value_slope>(p.nonlinearity);
  const Activate<T> with_trace = activation<T, Keep::value_trace>(p.nonlinearity);
  const Activate<T> pass = p.trace && s.L == 2 ? with_trace : t.d1 ? with_slope : plain;

  copy_rows<T>(n, D, p.z + begin * D, D, t.z, ld0);
  if (p.K) t.probes.load_tile(s, begin, n);
  for (int64_t r = 0; r < n; ++r) t.logp[r] = 0;
  int64_t output = 0;
  for (int64_t step = 0; step < p.S; ++step) {
    const T h = p.h[step];
    for (int64_t r = 0; r < n; ++r)
      t.tau[r] = p.trace && s.L == 1 ? s.trace_row(s.trace_forward, step)[0] : T(0);
    const T* y = t.z;
    int64_t ldy = ld0;
    for (int64_t l = 1; l < s.L; ++l) {
      const Layer& layer = s.layers[l];
      T* to = t.hidden[l % 2];
      rows_times<T>(n, layer.m, s.layers[l - 1].m, y, ldy, s.forward_weight(step, l), to, layer.ld,
                    false);
      pass({n, padded<T>(layer.m), layer.ld, to, s.gates(step, l), s.biases(step, l), to,
            t.d1 ? t.d1 + (l - 1) * slopes : nullptr, nullptr,
            s.trace_rows ? s.trace_row(s.trace_forward, step) : nullptr, t.tau});
      y = to;
      ldy = layer.ld;
    }
    if (p.trace && s.L == 3) {
      const int64_t m1 = s.layers[1].m, m2 = s.layers[2].m, ld2 = s.layers[2].ld;
      rows_times<T>(n, m2, m1, t.d1, s.layers[1].ld, s.trace_row(s.trace_forward, step),
                    t.tangent[0], ld2, false);
      add_row_dots<T>(n, padded<T>(m2), t.tangent[0], ld2, t.d1 + slopes, ld2, T(1), t.tau);
    }
    if (p.K) {
      t.probes.products(s, step, n, step == 0);
      add_probe_traces<T>(s, t, step, n);
    }
    rows_times<T>(n, D, s.layers[s.L - 1].m, y, ldy, s.forward_weight(step, s.L), t.f, ld0, false);
    advance<T>(n, padded<T>(D), p.residual ? T(1) - h : T(1), h, t.f, ld0, s.gates(step, s.L),
               s.biases(step, s.L), t.z, ld0);
    if (traced)
      for (int64_t r = 0; r < n; ++r) t.logp[r] -= h * t.tau[r];

    if (out.states && step + 1 < p.S)
      for (int64_t r = 0; r < n; ++r)
        memcpy(out.states + (step * p.B + begin + r) * D, t.z + r * ld0, D * sizeof(T));
    if (p.outputs[output] == step + 1) {
      const int64_t at = output * p.B + begin;
      for (int64_t r = 0; r < n; ++r) memcpy(out.z + (at + r) * D, t.z + r * ld0, D * sizeof(T));
      memcpy(out.logp + at, t.logp, n * sizeof(T));
      ++output;
    }
  }
}

template <class T>
static int64_t forward_workspace(const Problem<T>& p, int64_t workers) {
  Arena arena(nullptr);
  const Solve<T> s = lay_out(p, p.K > 0, arena);
  Arena one(nullptr);
  ForwardTile<T>::take(s, one);
  return arena.used() + workers * one.used();
}

template <class T>
static void forward(const Problem<T>& p, const ForwardOutputs<T>& out, const Threads& threads,
                    void* workspace) {
  Arena arena(workspace);
  const Solve<T> s = lay_out(p, p.K > 0, arena);
  prepare(s, threads);
  struct Context {
    const Solve<T>* s;
    const ForwardOutputs<T>* out;
    int64_t workers;
    char* scratch;
    int64_t scratch_size;
  } context{&s, &out, threads.n, static_cast<char*>(workspace) + arena.used(), 0};
  Arena one(nullptr);
  ForwardTile<T>::take(s, one);
  context.scratch_size = one.used();
  threads.run(
      threads.n,
      [](void* opaque, int64_t worker) {
        const Context& c = *static_cast<Context*>(opaque);
        Arena arena(c.scratch + worker * c.scratch_size);
        ForwardTile<T> tile = ForwardTile<T>::take(*c.s, arena);
        const int64_t begin = share(c.s->p->B, c.workers, worker),
                      end = share(c.s->p->B, c.workers, worker + 1);
        const int64_t tiles = (end - begin + kTile - 1) / kTile;
        for (int64_t i = 0; i < tiles; ++i) {
          const int64_t from = begin + share(end - begin, tiles, i),
                        to = begin + share(end - begin, tiles, i + 1);
          forward_tile<T>(*c.s, *c.out, tile, from, to - from);
        }
      },
      &context);
}

}  // namespace MVAE_FAST_ISA
}  // namespace mvae_fast
