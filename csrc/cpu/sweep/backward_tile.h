// What a worker keeps for one tile of rows in the backward sweep, and how it recomputes what the
// forward sweep did not save.
#pragma once

#include <initializer_list>

#include "../net/probes.h"
#include "../net/trace_tables.h"
#include "penalties.h"

namespace mvae_fast::MVAE_FAST_ISA {

template <class T>
struct BackwardTile {
  int64_t begin;             // its first row
  int64_t slot, slot0;       // elements of one hidden layer's tile, of one state's
  T *z, *z_bar;              // z_s and the adjoint of z_{s+1}, in turn that of z_s
  T *scaled, *top;           // h k_bar; G_L k_bar
  T *w, *y, *d1, *d2, *t;    // per hidden layer: W y, phi, phi', phi'', coefficient of phi''
  T *g, *y_bar;              // G_l a_bar_l and W_l' of it
  T *tangent_w, *tangent_v;  // per hidden layer: W v and v of one probe
  T* tangent_sum;            // per probe: G_1 u_bar_1 summed over steps
  T *tau, *tau_second, *tau_bar, *logp_bar;
  T* penalty_bar;       // (kPenalties, rows)
  T *velocity, *u_bar;  // with penalties: f; J eps, then the adjoint of the last layer's tangent
  T *inputs, *k, *k_bar, *input_bar;  // more than one stage: per stage; k_bar of one
  T* context;                         // u_L of these rows
  T* const* context_bar;              // the adjoints of u, of all rows; null: not wanted
  T* path;                            // the states between two checkpoints
  bool coupled;                       // whether t holds this evaluation's trace
  Probes<T> probes;
  Products<T> products;
  TraceScratch<T> trace;
  RowSums<T> sums;

  static BackwardTile take(const Solve<T>& s, bool tables, Arena& arena) {
    BackwardTile x{};
    const int64_t hidden = s.L - 1, stages = s.p->R > 1 ? s.p->R : 0;
    x.slot = kTile * s.widest;
    x.slot0 = kTile * leading<T>(s.D);
    for (T** piece : {&x.z, &x.z_bar, &x.scaled, &x.top}) *piece = arena.take<T>(x.slot0);
    for (T** piece : {&x.w, &x.y, &x.d1, &x.d2}) *piece = arena.take<T>(hidden, x.slot);
    x.g = arena.take<T>(x.slot);
    x.y_bar = arena.take<T>(x.slot);
    for (T** piece : {&x.tau, &x.tau_second, &x.tau_bar, &x.logp_bar})
      *piece = arena.take<T>(kTile);
    if (s.p->K || s.exact) x.t = arena.take<T>(hidden, x.slot);
    for (T** piece : {&x.inputs, &x.k, &x.input_bar}) *piece = arena.take<T>(stages, x.slot0);
    x.k_bar = arena.take<T>(stages || s.values ? x.slot0 : 0);
    x.penalty_bar = arena.take<T>(kPenalties, kTile);
    x.velocity = arena.take<T>(s.values ? x.slot0 : 0);
    x.u_bar = arena.take<T>(s.frobenius ? x.slot0 : 0);
    x.context = arena.take<T>(s.context(s.L) ? x.slot0 : 0);
    x.path = arena.take<T>(s.p->checkpoint - 1, x.slot0);
    x.probes = Probes<T>::take(s, arena);
    if (s.p->K) {
      x.tangent_w = arena.take<T>(hidden, x.slot);
      x.tangent_v = arena.take<T>(hidden, x.slot);
      x.tangent_sum = arena.take<T>(s.p->K, x.probes.rows, x.probes.ld1);
    }
    x.products = Products<T>::take(s.bf16, s.widest, arena);
    x.trace = TraceScratch<T>::take(s, arena);
    x.sums = RowSums<T>::take(s, tables, arena);
    return x;
  }
  T* hidden(T* base, int64_t l) const { return base + (l - 1) * slot; }
  // Layer l's W y: kept by the forward, or to be computed.
  T* product(const Solve<T>& s, int64_t row, int64_t l) const {
    return s.kept ? s.kept_product(row, l, begin) : hidden(w, l);
  }
  // Layer l's W v of probe k, l > 1.
  T* tangent_product(const Solve<T>& s, int64_t row, int64_t k, int64_t l) const {
    return s.kept ? s.kept_tangent(row, k, l, begin) : hidden(tangent_w, l);
  }
};

// Recomputes what is not kept of w, y, phi' and phi'' of every hidden layer at the state z.
template <class T>
static void recompute(const Solve<T>& s, const BackwardTile<T>& t, int64_t row, const T* z,
                      int64_t n) {
  const Activate<T> all = activation<T, Keep::all>(s.p->nonlinearity);
  const T* y = z;
  for (int64_t l = 1; l < s.L; ++l) {
    const Layer& layer = s.layers[l];
    T* w = t.product(s, row, l);
    if (!s.kept) layer_product<T>(s, t.products, row, l, t.begin, n, y, s.layers[l - 1].ld, w);
    all({n, padded<T>(layer.m), layer.ld, w, s.gates(row, l), s.biases(row, l), t.hidden(t.y, l),
         t.hidden(t.d1, l), t.hidden(t.d2, l), nullptr, nullptr});
    y = t.hidden(t.y, l);
  }
}

// k = the velocity of evaluation `row` at z, from the last hidden layer's y.
template <class T>
static void velocity_from(const Solve<T>& s, const BackwardTile<T>& t, int64_t row, const T* z,
                          const T* y, int64_t n, T* k) {
  const int64_t ld0 = s.layers[0].ld, width0 = padded<T>(s.D);
  layer_product<T>(s, t.products, row, s.L, t.begin, n, y, s.layers[s.L - 1].ld, t.top);
  scale_columns<T>(n, width0, s.p->residual ? T(-1) : T(0), s.ones, z, ld0, k, ld0);
  advance<T>(n, width0, false, T(1), t.top, ld0, s.gates(row, s.L), s.biases(row, s.L), k, ld0);
}

// k = the velocity of evaluation `row` at z.
template <class T>
static void velocity(const Solve<T>& s, const BackwardTile<T>& t, int64_t row, const T* z,
                     int64_t n, T* k) {
  const Activate<T> plain = activation<T, Keep::value>(s.p->nonlinearity);
  const T* y = z;
  for (int64_t l = 1; l < s.L; ++l) {
    const Layer& layer = s.layers[l];
    T* to = t.hidden(t.y, l);
    layer_product<T>(s, t.products, row, l, t.begin, n, y, s.layers[l - 1].ld, to);
    plain({n, padded<T>(layer.m), layer.ld, to, s.gates(row, l), s.biases(row, l), to, nullptr,
           nullptr, nullptr, nullptr});
    y = to;
  }
  velocity_from<T>(s, t, row, z, y, n, k);
}

// The arguments of all stages of `step` from the state z to t.inputs, all velocities but the last
// to t.k.
template <class T>
static void step_inputs(const Solve<T>& s, const BackwardTile<T>& t, int64_t step, const T* z,
                        int64_t n) {
  const Problem<T>& p = *s.p;
  for (int64_t r = 0; r < p.R; ++r) {
    T* input = t.inputs + r * t.slot0;
    combine<T>(s, z, p.h[step], p.a + r * p.R, r, t.k, n, input);
    if (r + 1 < p.R) velocity<T>(s, t, step * p.R + r, input, n, t.k + r * t.slot0);
  }
}

// to = the state after `step` from z before it.
template <class T>
static void next_state(const Solve<T>& s, const BackwardTile<T>& t, int64_t step, const T* z,
                       int64_t n, T* to) {
  const Problem<T>& p = *s.p;
  const double euler = 1;
  if (p.R == 1) {
    velocity<T>(s, t, step, z, n, t.scaled);
    combine<T>(s, z, p.h[step], &euler, 1, t.scaled, n, to);
    return;
  }
  step_inputs<T>(s, t, step, z, n);
  velocity<T>(s, t, step * p.R + p.R - 1, t.inputs + (p.R - 1) * t.slot0, n,
              t.k + (p.R - 1) * t.slot0);
  combine<T>(s, z, p.h[step], p.b, p.R, t.k, n, to);
}

}  // namespace mvae_fast::MVAE_FAST_ISA
