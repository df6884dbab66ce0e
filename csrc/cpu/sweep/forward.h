// The forward sweep: every worker carries its tiles of rows through all layers and all steps
// (docs/math.md, sections 2 and 3).
#pragma once

#include "../net/prepare.h"
#include "../net/probes.h"
#include "penalties.h"

namespace mvae_fast::MVAE_FAST_ISA {

template <class T>
struct ForwardTile {
  int64_t begin;  // its first row
  T *z, *hidden[2], *f, *d1, *tangent[2], *tau, *tau_second, *logp;
  T *input, *k;  // the stage's argument, all stages' velocities; null where f is added to z
  T *penalty, *velocity_tangent;  // (kPenalties, rows); J eps
  Probes<T> probes;
  Products<T> products;
  TraceScratch<T> trace;

  static ForwardTile take(const Solve<T>& s, Arena& arena) {
    ForwardTile t{};
    const int64_t widest = kTile * s.widest, rows0 = kTile * leading<T>(s.D);
    t.z = arena.take<T>(rows0);
    t.f = arena.take<T>(rows0);
    for (T*& hidden : t.hidden) hidden = arena.take<T>(widest);
    t.tau = arena.take<T>(kTile);
    t.tau_second = arena.take<T>(kTile);
    t.logp = arena.take<T>(kTile);
    if (s.p->K || (s.exact && s.L == 3) || s.p->second) {
      t.d1 = arena.take<T>(s.L - 1, widest);
      for (T*& tangent : t.tangent) tangent = arena.take<T>(widest);
    }
    if (s.p->R > 1 || s.values) {
      t.input = arena.take<T>(rows0);
      t.k = arena.take<T>(s.p->R, rows0);
    }
    t.penalty = arena.take<T>(kPenalties, kTile);
    if (s.frobenius) t.velocity_tangent = arena.take<T>(rows0);
    t.probes = Probes<T>::take(s, arena);
    t.products = Products<T>::take(s.bf16, s.widest, arena);
    t.trace = TraceScratch<T>::take(s, arena);
    return t;
  }
};

// The traces of all probes and their |J eps|^2, times `scale`, from the slopes phi'(a_l) of all
// hidden layers.
template <class T>
static void add_probe_traces(const Solve<T>& s, const ForwardTile<T>& t, int64_t row, T scale,
                             int64_t n) {
  const Probes<T>& probes = t.probes;
  double traces[kTile] = {}, norms[kTile] = {};  // sums over probes, up to D of them
  for (int64_t k = 0; k < s.p->K; ++k) {
    const T* v = probes.eps_of(k);
    int64_t ldv = probes.stride(probes.ld0);
    const T* w = probes.x_of(k);
    int64_t ldw = probes.stride(probes.ld1);
    for (int64_t l = 1; l < s.L; ++l) {
      const Layer& layer = s.layers[l];
      if (l > 1) {
        T* to = s.kept ? s.kept_tangent(row, k, l, t.begin) : t.tangent[l % 2];
        t.products.rows_times(n, layer.m, s.layers[l - 1].m, v, ldv, s.forward_weight(row, l), to,
                              layer.ld, false);
        w = to;
        ldw = layer.ld;
      }
      tangent<T>(n, padded<T>(layer.m), t.d1 + (l - 1) * kTile * s.widest, layer.ld,
                 s.gates(row, l), w, ldw, t.tangent[l % 2]);
      v = t.tangent[l % 2];
      ldv = layer.ld;
    }
    if (s.probe_trace)
      add_row_dots<T>(n, padded<T>(s.layers[s.L - 1].m), v, ldv, probes.q_of(k),
                      probes.stride(probes.ldq), T(1), traces);
    if (s.frobenius) {
      velocity_tangent<T>(s, t.products, row, n, v, ldv, probes.eps_of(k),
                          probes.stride(probes.ld0), t.velocity_tangent);
      add_row_dots<T>(n, padded<T>(s.D), t.velocity_tangent, s.layers[0].ld, t.velocity_tangent,
                      s.layers[0].ld, T(1), norms);
    }
  }
  T* const penalty = penalty_row(t.penalty, kFrobenius);
  for (int64_t r = 0; r < n; ++r) {
    t.tau[r] += static_cast<T>(traces[r]);
    penalty[r] += scale * static_cast<T>(norms[r]);
  }
}

// Evaluation `row` of the net at `z`: the last layer's product (before gate and bias) to t.f, and,
// where a trace is wanted, tau. `scale`: that of the penalties, h b.
template <class T>
static void evaluate(const Solve<T>& s, ForwardTile<T>& t, int64_t row, T scale, const T* z,
                     int64_t n, bool traced) {
  const Problem<T>& p = *s.p;
  const int64_t ld0 = s.layers[0].ld, slopes = kTile * s.widest;
  const bool traced_by_table = traced && s.exact && s.L == 2;
  const Activate<T> pass = traced_by_table && !t.d1
                               ? activation<T, Keep::value_trace>(p.nonlinearity)
                           : traced && t.d1 ? activation<T, Keep::value_slope>(p.nonlinearity)
                                            : activation<T, Keep::value>(p.nonlinearity);
  const T* table = s.exact ? s.trace_row(s.trace_forward, row) : nullptr;
  for (int64_t r = 0; r < n; ++r) t.tau[r] = table && s.L == 1 ? table[0] : T(0);
  const T* y = z;
  int64_t ldy = ld0;
  for (int64_t l = 1; l < s.L; ++l) {
    const Layer& layer = s.layers[l];
    T* const to = t.hidden[l % 2];
    T* const w = s.kept ? s.kept_product(row, l, t.begin) : to;
    layer_product<T>(s, t.products, row, l, t.begin, n, y, ldy, w);
    pass({n, padded<T>(layer.m), layer.ld, w, s.gates(row, l), s.biases(row, l), to,
          t.d1 ? t.d1 + (l - 1) * slopes : nullptr, nullptr, table, t.tau});
    y = to;
    ldy = layer.ld;
  }
  if (traced && s.exact && s.L == 3) {
    const Layer &first = s.layers[1], &second = s.layers[2];
    T* const product = s.kept ? s.kept_trace(row, t.begin) : t.tangent[0];
    t.products.rows_times(n, second.m, first.m, t.d1, first.ld, table, product, second.ld, false);
    add_row_dots<T>(n, padded<T>(second.m), product, second.ld, t.d1 + slopes, second.ld, T(1),
                    t.tau);
  }
  if (traced_by_table && t.d1)
    add_row_dots<T>(n, padded<T>(s.layers[1].m), t.d1, s.layers[1].ld, table, 0, T(1), t.tau);
  if (p.second) {
    const Layer& hidden = s.layers[1];
    const int64_t width = padded<T>(hidden.m);
    t.products.rows_times(n, hidden.m, hidden.m, t.d1, hidden.ld, s.second_row(row), t.tangent[0],
                          hidden.ld, false);
    memset(t.tau_second, 0, n * sizeof(T));
    add_row_dots<T>(n, width, t.tangent[0], hidden.ld, t.d1, hidden.ld, T(1), t.tau_second);
  }
  if (traced && p.K) add_probe_traces<T>(s, t, row, scale, n);
  layer_product<T>(s, t.products, row, s.L, t.begin, n, y, ldy, t.f);
}

// One step: t.z to the next state, t.logp to its log-density change.
template <class T>
static void forward_step(const Solve<T>& s, ForwardTile<T>& t, int64_t step, int64_t n) {
  const Problem<T>& p = *s.p;
  const int64_t ld0 = s.layers[0].ld, width = padded<T>(s.D), slot = kTile * ld0;
  const T h = p.h[step];
  for (int64_t r = 0; r < p.R; ++r) {
    const int64_t row = step * p.R + r;
    const T scale = h * static_cast<T>(p.b[r]);
    const bool traced = (s.exact || p.K) && p.b[r] != 0;
    const T* input = t.z;
    if (r > 0) {
      T* const argument = s.kept ? s.kept_argument(row, t.begin) : t.input;
      combine<T>(s, t.z, h, p.a + r * p.R, r, t.k, n, argument);
      input = argument;
    }
    if (p.K && traced) t.probes.evaluate(s, t.products, row, n);
    evaluate<T>(s, t, row, scale, input, n, traced);
    if (traced)
      for (int64_t i = 0; i < n; ++i) t.logp[i] -= scale * t.tau[i];
    if (p.second)
      for (int64_t i = 0; i < n; ++i) t.logp[i] += h * h / 2 * t.tau_second[i];
    if (!t.k) {
      advance<T>(n, width, p.residual, h, t.f, ld0, s.gates(row, s.L), s.biases(row, s.L), t.z,
                 ld0);
      return;
    }
    // k_r = G f + C [- input]
    T* k = t.k + r * slot;
    scale_columns<T>(n, width, p.residual ? T(-1) : T(0), s.ones, input, ld0, k, ld0);
    advance<T>(n, width, false, T(1), t.f, ld0, s.gates(row, s.L), s.biases(row, s.L), k, ld0);
    if (s.values && p.b[r] != 0) add_value_penalties<T>(s, n, k, scale, t.penalty);
  }
  combine<T>(s, t.z, h, p.b, p.R, t.k, n, t.z);
}

// The steps begin .. end of one tile of rows. Between windows its state rests in the last output.
template <class T>
static void forward_tile(const Solve<T>& s, const ForwardOutputs<T>& out, ForwardTile<T>& t,
                         int64_t step_begin, int64_t step_end, int64_t begin, int64_t n) {
  const Problem<T>& p = *s.p;
  const int64_t D = s.D, ld0 = s.layers[0].ld, last = p.n_outputs - 1;
  const auto write = [&](int64_t output) {
    const int64_t at = output * p.B + begin;
    for (int64_t r = 0; r < n; ++r) memcpy(out.z + (at + r) * D, t.z + r * ld0, D * sizeof(T));
    memcpy(out.logp + at, t.logp, n * sizeof(T));
    for_each_penalty(p.penalties, [&](int64_t index, int64_t count, int64_t kind) {
      memcpy(out.penalty + (output * count + index) * p.B + begin, penalty_row(t.penalty, kind),
             n * sizeof(T));
    });
  };
  t.begin = begin;
  if (step_begin == 0) {
    copy_rows<T>(n, D, p.z + begin * D, D, t.z, ld0);
    for (int64_t r = 0; r < n; ++r) t.logp[r] = 0;
    memset(t.penalty, 0, kPenalties * kTile * sizeof(T));
  } else {
    const int64_t at = last * p.B + begin;
    copy_rows<T>(n, D, out.z + at * D, D, t.z, ld0);
    memcpy(t.logp, out.logp + at, n * sizeof(T));
    for_each_penalty(p.penalties, [&](int64_t index, int64_t count, int64_t kind) {
      memcpy(penalty_row(t.penalty, kind), out.penalty + (last * count + index) * p.B + begin,
             n * sizeof(T));
    });
  }
  if (p.K) t.probes.load_tile(s, begin, n);
  int64_t output = 0;
  while (p.outputs[output] <= step_begin) ++output;
  for (int64_t step = step_begin; step < step_end; ++step) {
    forward_step<T>(s, t, step, n);
    const int64_t done = step + 1;
    if (out.states && done < p.S && done % p.checkpoint == 0) {
      T* to = out.states + ((done / p.checkpoint - 1) * p.B + begin) * D;
      for (int64_t r = 0; r < n; ++r) memcpy(to + r * D, t.z + r * ld0, D * sizeof(T));
    }
    if (p.outputs[output] == done) write(output++);
  }
  if (step_end < p.S) write(last);
}

template <class T>
static int64_t forward_workspace(const Problem<T>& p, int64_t workers) {
  Arena arena(nullptr), one(nullptr);
  const Solve<T> s = lay_out(p, Sweep::forward, false, workers, arena);
  ForwardTile<T>::take(s, one);
  return workspace_size(arena, workers, one);
}

template <class T>
static void forward(const Problem<T>& p, const ForwardOutputs<T>& out, const Threads& threads,
                    void* workspace) {
  Arena arena(workspace), one(nullptr);
  Solve<T> s = lay_out(p, Sweep::forward, false, threads.n, arena);
  s.kept = out.kept;
  ForwardTile<T>::take(s, one);
  char* const scratch = static_cast<char*>(workspace) + arena.used();
  const auto tile_of = [&](int64_t worker) {
    Arena own(scratch + worker * one.used());
    return ForwardTile<T>::take(s, own);
  };
  for (int64_t begin = 0; begin < p.S; begin += s.span) {
    s.first = begin * p.R;
    prepare<T>(s, threads, begin == 0, [&](int64_t worker) { return tile_of(worker).trace; });
    const int64_t end = smaller(begin + s.span, p.S);
    run_workers(threads, [&](int64_t worker) {
      ForwardTile<T> tile = tile_of(worker);
      for_each_tile(p.B, threads.n, worker, [&](int64_t row, int64_t n) {
        forward_tile<T>(s, out, tile, begin, end, row, n);
      });
    });
  }
}

}  // namespace mvae_fast::MVAE_FAST_ISA
