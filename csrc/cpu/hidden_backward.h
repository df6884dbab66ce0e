// The discrete adjoint of Euler's method in hidden space, from the last step to the first. Nothing
// asks for u_S, so that the last step has no product at all; each other one has two, A' u_bar and
// the outer one of A's gradient.
#pragma once

#include "hidden.h"
#include "hidden_adjoint.h"
#include "row_sums.h"

namespace mvae_fast {
namespace MVAE_FAST_ISA {

// One worker's share of the gradients that are summed over rows; null where there is no table.
template <class T>
struct HiddenSums {
  double* h;
  Sums<T> matrix, gate, bias, drift, trace;
  int64_t added[2];  // since the last flush, as in RowSums

  static HiddenSums take(const HiddenSolve<T>& s, Arena& arena) {
    HiddenSums x{};
    const int64_t once = s.tiles, always = size_product(s.tiles, s.p->S);
    const auto sums = [&](const PaddedTable<T>& table) {
      return Sums<T>::take(table.rows, s.width, table.rows > 1 ? once : always, arena);
    };
    x.h = arena.take<double>(s.p->S);
    x.matrix = Sums<T>::take(s.m, s.width, always, arena);
    x.gate = sums(s.gate);
    x.bias = sums(s.bias);
    x.drift = sums(s.drift);
    x.trace = sums(s.trace);
    return x;
  }
  void clear(const HiddenSolve<T>& s) const {
    memset(h, 0, s.p->S * sizeof(double));
    for (const Sums<T>* x : {&matrix, &gate, &bias, &drift, &trace}) x->clear();
  }
  // After a step, and after all steps, of one tile.
  void after_step() {
    if (++added[0] < kAdditions) return;
    added[0] = 0;
    matrix.flush();
    flush_tables(false);
  }
  void after_tile() {
    if (++added[1] < kAdditions) return;
    added[1] = 0;
    flush_tables(true);
  }
  // Row `step` of the gradient of a table.
  T* row(const Sums<T>& gradient, int64_t step) const {
    return gradient.rows ? gradient.row(gradient.rows > 1 ? step : 0) : nullptr;
  }

 private:
  void flush_tables(bool varying) const {
    for (const Sums<T>* x : {&gate, &bias, &drift, &trace})
      if ((x->rows > 1) == varying) x->flush();
  }
};

template <class T>
struct HiddenBackwardTile {
  T* u;             // u_s
  T* u_bar[2];      // the adjoints of u_{s+1} and u_s, in turn
  T *product, *hy;  // A' u_bar; h phi
  T* total_bar;     // the adjoint of sum_s h_s y_s
  T *e, *e_bar;     // a Hutchinson trace's coefficients
  T* no_trace;      // a row of zeros
  T *tau_bar, *logp_bar;
  Vec<T>* dots;  // per row, the adjoint of h
  HiddenSums<T> sums;

  static HiddenBackwardTile take(const HiddenSolve<T>& s, Arena& arena) {
    HiddenBackwardTile x{};
    const int64_t size = kTile * s.ld;
    for (T** piece : {&x.u, &x.u_bar[0], &x.u_bar[1], &x.product, &x.hy, &x.total_bar})
      *piece = arena.take<T>(size);
    if (s.p->coefficients)
      for (T** piece : {&x.e, &x.e_bar}) *piece = arena.take<T>(size);
    x.no_trace = arena.take<T>(s.width);
    for (T** piece : {&x.tau_bar, &x.logp_bar}) *piece = arena.take<T>(kTile);
    x.dots = arena.take<Vec<T>>(kTile);
    x.sums = HiddenSums<T>::take(s, arena);
    return x;
  }
};

// From the adjoint of the state after `step`, t.u_bar[(step + 1) % 2], to that of t.u before it.
template <class T>
static void hidden_backward_step(const HiddenSolve<T>& s, HiddenBackwardTile<T>& t, int64_t step,
                                 int64_t n) {
  const HiddenProblem<T>& p = *s.p;
  const int64_t m = s.m, ld = s.ld;
  const T h = p.h[step];
  const T* u_bar = t.u_bar[(step + 1) % 2];
  const bool last = step + 1 == p.S;
  if (last)
    memset(t.product, 0, n * ld * sizeof(T));
  else
    s.products.rows_times(n, m, m, u_bar, ld, s.matrix, t.product, ld, false);
  for (int64_t r = 0; r < n; ++r) t.tau_bar[r] = -h * t.logp_bar[r];
  memset(t.dots, 0, n * sizeof(Vec<T>));
  const HiddenAdjoint<T> adjoint = p.coefficients ? hidden_adjoint_of<T, true>(p.nonlinearity)
                                                  : hidden_adjoint_of<T, false>(p.nonlinearity);
  HiddenAdjointArgs<T> x{};
  x.rows = n;
  x.width = s.width;
  x.ld = ld;
  x.h = h;
  x.u = t.u;
  x.w = t.product;
  x.total_bar = t.total_bar;
  x.u_bar = u_bar;
  x.gate = s.gates(step);
  x.bias = s.bias.row(step);
  x.drift = s.drift.row(step);
  x.table = p.trace ? s.trace.row(step) : t.no_trace;
  x.e = t.e;
  x.tau_bar = t.tau_bar;
  x.logp_bar = t.logp_bar;
  x.hy = t.hy;
  x.next = t.u_bar[step % 2];
  x.e_bar = t.e_bar;
  x.bias_sum = t.sums.row(t.sums.bias, step);
  x.gate_sum = t.sums.row(t.sums.gate, step);
  x.drift_sum = t.sums.row(t.sums.drift, step);
  x.trace_sum = t.sums.row(t.sums.trace, step);
  x.dots = t.dots;
  adjoint(x);
  double total = 0;
  for (int64_t r = 0; r < n; ++r) total += sum<T>(t.dots[r]);
  t.sums.h[step] += total;
  if (!last) s.products.outer_product(m, m, n, u_bar, ld, t.hy, ld, t.sums.matrix.part, s.width);
  t.sums.after_step();
}

template <class T>
static void hidden_backward_tile(const HiddenSolve<T>& s, const HiddenBackwardInputs<T>& in,
                                 const HiddenBackwardOutputs<T>& out, HiddenBackwardTile<T>& t,
                                 int64_t begin, int64_t n) {
  const HiddenProblem<T>& p = *s.p;
  const int64_t m = s.m, ld = s.ld;
  memset(t.u_bar[p.S % 2], 0, n * ld * sizeof(T));
  memset(t.no_trace, 0, s.width * sizeof(T));
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
  t.sums.after_tile();
  for (int64_t r = 0; r < n; ++r) {
    const int64_t at = (begin + r) * m;
    memcpy(out.u + at, t.u_bar[0] + r * ld, m * sizeof(T));
    if (out.coefficients) memcpy(out.coefficients + at, t.e_bar + r * ld, m * sizeof(T));
  }
}

// One worker's part of the sum of all workers' gradients, into the caller's layout.
template <class T>
static void hidden_reduce(const HiddenSolve<T>& s, const HiddenSums<T>& first, int64_t stride,
                          const HiddenBackwardOutputs<T>& out, int64_t workers, int64_t worker) {
  const auto rows = [&](int64_t begin, int64_t end, const Sums<T>& from, T* to) {
    for (int64_t i = begin; i < end; ++i)
      add_workers(from, i * s.width, s.m, workers, stride, to + i * s.m);
  };
  rows(share(s.m, workers, worker), share(s.m, workers, worker + 1), first.matrix, out.matrix);
  if (worker != 0) return;
  const int64_t S = s.p->S;
  add_workers(Sums<double>{first.h, nullptr, 1, S}, 0, S, workers, stride, out.h);
  rows(0, s.gate.rows, first.gate, out.gate);
  rows(0, s.bias.rows, first.bias, out.bias);
  rows(0, s.drift.rows, first.drift, out.drift);
  rows(0, s.trace.rows, first.trace, out.trace);
}

template <class T>
static int64_t hidden_backward_workspace(const HiddenProblem<T>& p, int64_t workers) {
  Arena arena(nullptr), one(nullptr);
  HiddenBackwardTile<T>::take(HiddenSolve<T>::take(p, workers, arena), one);
  return workspace_size(arena, workers, one);
}

template <class T>
static void hidden_backward(const HiddenProblem<T>& p, const HiddenBackwardInputs<T>& in,
                            const HiddenBackwardOutputs<T>& out, const Threads& threads,
                            void* workspace) {
  Arena arena(workspace), one(nullptr);
  const HiddenSolve<T> s = HiddenSolve<T>::take(p, threads.n, arena);
  HiddenBackwardTile<T>::take(s, one);
  char* const scratch = static_cast<char*>(workspace) + arena.used();
  const auto tile_of = [&](int64_t worker) {
    Arena own(scratch + worker * one.used());
    return HiddenBackwardTile<T>::take(s, own);
  };
  const HiddenSums<T> first = tile_of(0).sums;
  const int64_t stride = one.used();
  run_workers(threads, [&](int64_t worker) { hidden_prepare<T>(s, true, threads.n, worker); });
  run_workers(threads, [&](int64_t worker) {
    HiddenBackwardTile<T> tile = tile_of(worker);
    tile.sums.clear(s);
    for_each_tile(p.B, threads.n, worker, [&](int64_t begin, int64_t n) {
      hidden_backward_tile<T>(s, in, out, tile, begin, n);
    });
  });
  run_workers(threads,
              [&](int64_t worker) { hidden_reduce<T>(s, first, stride, out, threads.n, worker); });
}

}  // namespace MVAE_FAST_ISA
}  // namespace mvae_fast
