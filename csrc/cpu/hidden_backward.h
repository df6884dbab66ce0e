// The discrete adjoint of Euler's method in hidden space, from the last step to the first. With
// q_s = A' u_bar_{s+1} + P_bar, where P = sum_s h_s y_s, one product serves four adjoints:
//   y_bar = h q     h_bar = q . y + u_bar . d - logp_bar tau     a_bar = phi' y_bar + phi'' t
// Nothing asks for u_S, so that the last step has no product at all.
#pragma once

#include "hidden.h"
#include "row_sums.h"

namespace mvae_fast {
namespace MVAE_FAST_ISA {

// One worker's share of the gradients that are summed over rows; null where there is no table.
template <class T>
struct HiddenSums {
  T *h, *matrix, *gate, *bias, *drift, *trace;

  static HiddenSums take(const HiddenSolve<T>& s, Arena& arena) {
    HiddenSums x{};
    x.h = arena.take<T>(s.p->S);
    x.matrix = arena.take<T>(s.m * s.width);
    if (s.gate.rows) x.gate = arena.take<T>(s.gate.rows * s.width);
    x.bias = arena.take<T>(s.bias.rows * s.width);
    x.drift = arena.take<T>(s.drift.rows * s.width);
    if (s.trace.rows) x.trace = arena.take<T>(s.trace.rows * s.width);
    return x;
  }
  void clear(const HiddenSolve<T>& s) const {
    memset(h, 0, s.p->S * sizeof(T));
    memset(matrix, 0, s.m * s.width * sizeof(T));
    if (gate) memset(gate, 0, s.gate.rows * s.width * sizeof(T));
    memset(bias, 0, s.bias.rows * s.width * sizeof(T));
    memset(drift, 0, s.drift.rows * s.width * sizeof(T));
    if (trace) memset(trace, 0, s.trace.rows * s.width * sizeof(T));
  }
  // Row `step` of the gradient of a table.
  T* row(T* gradient, const PaddedTable<T>& table, int64_t step) const {
    return gradient ? gradient + (table.rows > 1 ? step : 0) * table.width : nullptr;
  }
};

template <class T>
struct HiddenBackwardTile {
  T *u, *u_bar;            // u_s and the adjoint of u_{s+1}, in turn that of u_s
  T *y, *d1, *d2, *t;      // phi, phi', phi'', coefficient of phi''
  T *q, *g;                // q_s; G a_bar
  T *total_bar, *scratch;  // P_bar
  T *e, *e_bar;            // a Hutchinson trace's coefficients
  T *tau, *tau_bar, *logp_bar;
  HiddenSums<T> sums;

  static HiddenBackwardTile take(const HiddenSolve<T>& s, Arena& arena) {
    HiddenBackwardTile x{};
    const int64_t size = kTile * s.ld;
    for (T** piece :
         {&x.u, &x.u_bar, &x.y, &x.d1, &x.d2, &x.t, &x.q, &x.g, &x.total_bar, &x.scratch})
      *piece = arena.take<T>(size);
    if (s.p->coefficients)
      for (T** piece : {&x.e, &x.e_bar}) *piece = arena.take<T>(size);
    for (T** piece : {&x.tau, &x.tau_bar, &x.logp_bar}) *piece = arena.take<T>(kTile);
    x.sums = HiddenSums<T>::take(s, arena);
    return x;
  }
};

// tau, the coefficients t of phi'', and the trace's own gradients.
template <class T>
static void hidden_trace_adjoint(const HiddenSolve<T>& s, const HiddenBackwardTile<T>& t,
                                 int64_t step, int64_t n) {
  const T h = s.p->h[step];
  for (int64_t r = 0; r < n; ++r) t.tau_bar[r] = -h * t.logp_bar[r];
  if (s.p->trace) {
    const T* table = s.trace.row(step);
    add_row_dots<T>(n, s.width, t.d1, s.ld, table, 0, T(1), t.tau);
    scale_rows<T>(n, s.width, t.tau_bar, table, 0, t.t, s.ld);
    add_scaled_column_sums<T>(n, s.width, t.tau_bar, t.d1, s.ld,
                              t.sums.row(t.sums.trace, s.trace, step));
    return;
  }
  const T* gate = s.gates(step);
  coefficient_trace<T>(s, t.d1, gate, t.e, n, t.scratch, t.tau);
  scale_rows<T>(n, s.width, t.tau_bar, s.ones, 0, t.scratch, s.ld);
  tangent_adjoint<T>(n, s.width, s.ld, t.d1, gate, t.e, s.ld, t.scratch, true, t.t, t.g,
                     t.sums.row(t.sums.gate, s.gate, step));
  add_scaled_rows<T>(n, s.width, T(1), t.g, s.ld, t.e_bar, s.ld);
}

// t.u_bar from the adjoint of the state after `step` to that of t.u before it.
template <class T>
static void hidden_backward_step(const HiddenSolve<T>& s, const HiddenBackwardTile<T>& t,
                                 int64_t step, int64_t n) {
  const HiddenProblem<T>& p = *s.p;
  const int64_t m = s.m, width = s.width, ld = s.ld;
  const T h = p.h[step];
  const bool traced = p.trace || p.coefficients, last = step + 1 == p.S;
  const Activate<T> all = activation<T, Keep::all>(p.nonlinearity);
  all({n, width, ld, t.u, s.gates(step), s.bias.row(step), t.y, t.d1, t.d2, nullptr, nullptr});
  const T* q = t.total_bar;
  if (!last) {
    memcpy(t.q, t.total_bar, n * ld * sizeof(T));
    rows_times<T>(n, m, m, t.u_bar, ld, s.matrix, t.q, ld, true);
    q = t.q;
    scale_columns<T>(n, width, h, s.ones, t.u_bar, ld, t.scratch, ld);
    outer_product<T>(m, m, n, t.scratch, ld, t.y, ld, t.sums.matrix, width);
    add_column_sums<T>(n, width, h, t.u_bar, ld, t.sums.row(t.sums.drift, s.drift, step));
  }
  T dots[kTile] = {};  // per row, the adjoint of h
  add_row_dots<T>(n, width, q, ld, t.y, ld, T(1), dots);
  if (!last) add_row_dots<T>(n, width, t.u_bar, ld, s.drift.row(step), 0, T(1), dots);
  if (traced) {
    memset(t.tau, 0, n * sizeof(T));
    hidden_trace_adjoint<T>(s, t, step, n);
    for (int64_t r = 0; r < n; ++r) dots[r] -= t.logp_bar[r] * t.tau[r];
  }
  for (int64_t r = 0; r < n; ++r) t.sums.h[step] += dots[r];
  adjoint<T>(n, width, ld, h, t.d1, q, t.d2, traced ? t.t : nullptr, s.gates(step), t.u, t.g,
             t.sums.row(t.sums.bias, s.bias, step), t.sums.row(t.sums.gate, s.gate, step));
  add_scaled_rows<T>(n, width, T(1), t.g, ld, t.u_bar, ld);
}

template <class T>
static void hidden_backward_tile(const HiddenSolve<T>& s, const HiddenBackwardInputs<T>& in,
                                 const HiddenBackwardOutputs<T>& out,
                                 const HiddenBackwardTile<T>& t, int64_t begin, int64_t n) {
  const HiddenProblem<T>& p = *s.p;
  const int64_t m = s.m, ld = s.ld;
  memset(t.u_bar, 0, n * ld * sizeof(T));
  copy_rows<T>(n, m, in.grad_total + begin * m, m, t.total_bar, ld);
  memcpy(t.logp_bar, in.grad_logp + begin, n * sizeof(T));
  if (p.coefficients) {
    copy_rows<T>(n, m, p.coefficients + begin * m, m, t.e, ld);
    memset(t.e_bar, 0, n * ld * sizeof(T));
  }
  for (int64_t step = p.S - 1; step >= 0; --step) {
    const T* state = step ? in.states + (step - 1) * p.B * m : p.u;
    copy_rows<T>(n, m, state + begin * m, m, t.u, ld);
    hidden_backward_step<T>(s, t, step, n);
  }
  for (int64_t r = 0; r < n; ++r) {
    const int64_t at = (begin + r) * m;
    memcpy(out.u + at, t.u_bar + r * ld, m * sizeof(T));
    if (out.coefficients) memcpy(out.coefficients + at, t.e_bar + r * ld, m * sizeof(T));
  }
}

// One worker's part of the sum of all workers' gradients, into the caller's layout.
template <class T>
static void hidden_reduce(const HiddenSolve<T>& s, const HiddenSums<T>& first, int64_t stride,
                          const HiddenBackwardOutputs<T>& out, int64_t workers, int64_t worker) {
  const auto rows = [&](int64_t begin, int64_t end, const T* from, T* to) {
    for (int64_t i = begin; i < end; ++i)
      add_workers<T>(s.m, from + i * s.width, workers, stride, to + i * s.m);
  };
  rows(share(s.m, workers, worker), share(s.m, workers, worker + 1), first.matrix, out.matrix);
  if (worker != 0) return;
  add_workers<T>(s.p->S, first.h, workers, stride, out.h);
  rows(0, s.gate.rows, first.gate, out.gate);
  rows(0, s.bias.rows, first.bias, out.bias);
  rows(0, s.drift.rows, first.drift, out.drift);
  rows(0, s.trace.rows, first.trace, out.trace);
}

template <class T>
static int64_t hidden_backward_workspace(const HiddenProblem<T>& p, int64_t workers) {
  Arena arena(nullptr), one(nullptr);
  HiddenBackwardTile<T>::take(HiddenSolve<T>::take(p, arena), one);
  return arena.used() + workers * one.used();
}

template <class T>
static void hidden_backward(const HiddenProblem<T>& p, const HiddenBackwardInputs<T>& in,
                            const HiddenBackwardOutputs<T>& out, const Threads& threads,
                            void* workspace) {
  Arena arena(workspace), one(nullptr);
  const HiddenSolve<T> s = HiddenSolve<T>::take(p, arena);
  HiddenBackwardTile<T>::take(s, one);
  struct Context {
    const HiddenSolve<T>* s;
    const HiddenBackwardInputs<T>* in;
    const HiddenBackwardOutputs<T>* out;
    int64_t workers;
    char* scratch;
    int64_t scratch_size;

    HiddenBackwardTile<T> tile(int64_t worker) const {
      Arena arena(scratch + worker * scratch_size);
      return HiddenBackwardTile<T>::take(*s, arena);
    }
  } context{&s, &in, &out, threads.n, static_cast<char*>(workspace) + arena.used(), one.used()};
  threads.run(
      threads.n,
      [](void* opaque, int64_t worker) {
        const Context& c = *static_cast<Context*>(opaque);
        hidden_prepare<T>(*c.s, true, c.workers, worker);
      },
      &context);
  threads.run(
      threads.n,
      [](void* opaque, int64_t worker) {
        const Context& c = *static_cast<Context*>(opaque);
        const HiddenBackwardTile<T> tile = c.tile(worker);
        tile.sums.clear(*c.s);
        for_each_tile(c.s->p->B, c.workers, worker, [&](int64_t begin, int64_t n) {
          hidden_backward_tile<T>(*c.s, *c.in, *c.out, tile, begin, n);
        });
      },
      &context);
  threads.run(
      threads.n,
      [](void* opaque, int64_t worker) {
        const Context& c = *static_cast<Context*>(opaque);
        hidden_reduce<T>(*c.s, c.tile(0).sums, c.scratch_size / static_cast<int64_t>(sizeof(T)),
                         *c.out, c.workers, worker);
      },
      &context);
}

}  // namespace MVAE_FAST_ISA
}  // namespace mvae_fast
