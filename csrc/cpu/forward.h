// The forward sweep: every worker carries its tiles of rows through all layers and all steps
// (docs/math.md, sections 2 and 3).
#pragma once

#include "solve.h"

namespace mvae_fast {
namespace MVAE_FAST_ISA {

template <class T>
struct ForwardTile {
  T *z, *hidden[2], *f, *d1, *tangent[2], *tau, *tau_second, *logp;
  T *input, *k;  // with more than one stage: the stage's argument, all stages' velocities
  Probes<T> probes;

  static ForwardTile take(const Solve<T>& s, Arena& arena) {
    ForwardTile t{};
    const int64_t widest = kTile * s.widest, rows0 = kTile * leading<T>(s.D);
    t.z = arena.take<T>(rows0);
    t.f = arena.take<T>(rows0);
    for (T*& hidden : t.hidden) hidden = arena.take<T>(widest);
    t.tau = arena.take<T>(kTile);
    t.tau_second = arena.take<T>(kTile);
    t.logp = arena.take<T>(kTile);
    if (s.p->K || (s.p->trace && s.L == 3) || s.p->second) {
      t.d1 = arena.take<T>((s.L - 1) * widest);
      for (T*& tangent : t.tangent) tangent = arena.take<T>(widest);
    }
    if (s.p->R > 1) {
      t.input = arena.take<T>(rows0);
      t.k = arena.take<T>(s.p->R * rows0);
    }
    t.probes = Probes<T>::take(s, arena);
    return t;
  }
};

// The traces of all probes, from the slopes phi'(a_l) of all hidden layers.
template <class T>
static void add_probe_traces(const Solve<T>& s, const ForwardTile<T>& t, int64_t row, int64_t n) {
  const Probes<T>& probes = t.probes;
  for (int64_t k = 0; k < s.p->K; ++k) {
    const T* v = probes.eps_of(k);
    int64_t ldv = probes.stride(probes.ld0);
    const T* w = probes.x_of(k);
    int64_t ldw = probes.stride(probes.ld1);
    for (int64_t l = 1; l < s.L; ++l) {
      const Layer& layer = s.layers[l];
      if (l > 1) {
        rows_times<T>(n, layer.m, s.layers[l - 1].m, v, ldv, s.forward_weight(row, l),
                      t.tangent[l % 2], layer.ld, false);
        w = t.tangent[l % 2];
        ldw = layer.ld;
      }
      tangent<T>(n, padded<T>(layer.m), t.d1 + (l - 1) * kTile * s.widest, layer.ld,
                 s.gates(row, l), w, ldw, t.tangent[l % 2]);
      v = t.tangent[l % 2];
      ldv = layer.ld;
    }
    add_row_dots<T>(n, padded<T>(s.layers[s.L - 1].m), v, ldv, probes.q_of(k),
                    probes.stride(probes.ldq), T(1), t.tau);
  }
}

// Evaluation `row` of the net at `z`: the last layer's product (before gate and bias) to t.f, and,
// where a trace is wanted, tau.
template <class T>
static void evaluate(const Solve<T>& s, ForwardTile<T>& t, int64_t row, const T* z, int64_t n,
                     bool traced) {
  const Problem<T>& p = *s.p;
  const int64_t ld0 = s.layers[0].ld, slopes = kTile * s.widest;
  const bool sums_trace = traced && p.trace && s.L == 2 && !p.second;
  const Activate<T> pass = sums_trace       ? activation<T, Keep::value_trace>(p.nonlinearity)
                           : traced && t.d1 ? activation<T, Keep::value_slope>(p.nonlinearity)
                                            : activation<T, Keep::value>(p.nonlinearity);
  const T* table = p.trace ? s.trace_row(s.trace_forward, row) : nullptr;
  for (int64_t r = 0; r < n; ++r) t.tau[r] = table && s.L == 1 ? table[0] : T(0);
  const T* y = z;
  int64_t ldy = ld0;
  for (int64_t l = 1; l < s.L; ++l) {
    const Layer& layer = s.layers[l];
    T* to = t.hidden[l % 2];
    rows_times<T>(n, layer.m, s.layers[l - 1].m, y, ldy, s.forward_weight(row, l), to, layer.ld,
                  false);
    pass({n, padded<T>(layer.m), layer.ld, to, s.gates(row, l), s.biases(row, l), to,
          t.d1 ? t.d1 + (l - 1) * slopes : nullptr, nullptr, table, t.tau});
    y = to;
    ldy = layer.ld;
  }
  if (traced && p.trace && s.L == 3) {
    const Layer &first = s.layers[1], &second = s.layers[2];
    rows_times<T>(n, second.m, first.m, t.d1, first.ld, table, t.tangent[0], second.ld, false);
    add_row_dots<T>(n, padded<T>(second.m), t.tangent[0], second.ld, t.d1 + slopes, second.ld, T(1),
                    t.tau);
  }
  if (traced && p.second) {
    const Layer& hidden = s.layers[1];
    const int64_t width = padded<T>(hidden.m);
    add_row_dots<T>(n, width, t.d1, hidden.ld, table, 0, T(1), t.tau);
    rows_times<T>(n, hidden.m, hidden.m, t.d1, hidden.ld, s.second_row(row), t.tangent[0],
                  hidden.ld, false);
    memset(t.tau_second, 0, n * sizeof(T));
    add_row_dots<T>(n, width, t.tangent[0], hidden.ld, t.d1, hidden.ld, T(1), t.tau_second);
  }
  if (traced && p.K) add_probe_traces<T>(s, t, row, n);
  rows_times<T>(n, s.D, s.layers[s.L - 1].m, y, ldy, s.forward_weight(row, s.L), t.f, ld0, false);
}

// One step: t.z to the next state, t.logp to its log-density change.
template <class T>
static void forward_step(const Solve<T>& s, ForwardTile<T>& t, int64_t step, int64_t n) {
  const Problem<T>& p = *s.p;
  const int64_t ld0 = s.layers[0].ld, width = padded<T>(s.D), slot = kTile * ld0;
  const bool traced = p.trace || p.K;
  const T h = p.h[step];
  for (int64_t r = 0; r < p.R; ++r) {
    const int64_t row = step * p.R + r;
    const T weight = static_cast<T>(p.b[r]);
    const bool adds_trace = traced && weight != 0;
    const T* input = t.z;
    if (r > 0) {
      combine<T>(s, t.z, h, p.a + r * p.R, r, t.k, n, t.input);
      input = t.input;
    }
    if (p.K && adds_trace) t.probes.products(s, row, n);
    evaluate<T>(s, t, row, input, n, adds_trace);
    if (adds_trace)
      for (int64_t i = 0; i < n; ++i) t.logp[i] -= h * weight * t.tau[i];
    if (p.second)
      for (int64_t i = 0; i < n; ++i) t.logp[i] += h * h / 2 * t.tau_second[i];
    if (p.R == 1) {
      advance<T>(n, width, p.residual ? T(1) - h : T(1), h, t.f, ld0, s.gates(row, s.L),
                 s.biases(row, s.L), t.z, ld0);
      return;
    }
    // k_r = G f + C [- input]
    T* k = t.k + r * slot;
    scale_columns<T>(n, width, p.residual ? T(-1) : T(0), s.ones, input, ld0, k, ld0);
    advance<T>(n, width, T(1), T(1), t.f, ld0, s.gates(row, s.L), s.biases(row, s.L), k, ld0);
  }
  combine<T>(s, t.z, h, p.b, p.R, t.k, n, t.z);
}

template <class T>
static void forward_tile(const Solve<T>& s, const ForwardOutputs<T>& out, ForwardTile<T>& t,
                         int64_t begin, int64_t n) {
  const Problem<T>& p = *s.p;
  const int64_t D = s.D, ld0 = s.layers[0].ld;
  copy_rows<T>(n, D, p.z + begin * D, D, t.z, ld0);
  if (p.K) t.probes.load_tile(s, begin, n);
  for (int64_t r = 0; r < n; ++r) t.logp[r] = 0;
  int64_t output = 0;
  for (int64_t step = 0; step < p.S; ++step) {
    forward_step<T>(s, t, step, n);
    const int64_t done = step + 1;
    if (out.states && done < p.S && done % p.checkpoint == 0) {
      T* to = out.states + ((done / p.checkpoint - 1) * p.B + begin) * D;
      for (int64_t r = 0; r < n; ++r) memcpy(to + r * D, t.z + r * ld0, D * sizeof(T));
    }
    if (p.outputs[output] == done) {
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
        for_each_tile(c.s->p->B, c.workers, worker, [&](int64_t begin, int64_t n) {
          forward_tile<T>(*c.s, *c.out, tile, begin, n);
        });
      },
      &context);
}

}  // namespace MVAE_FAST_ISA
}  // namespace mvae_fast
