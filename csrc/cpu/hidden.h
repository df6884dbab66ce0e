// Euler's method in hidden space (../hidden.h): what its two sweeps share, and the forward one.
// Every worker carries its tiles of rows through all steps, as in forward.h.
#pragma once

#include "../hidden.h"
#include "solve.h"

namespace mvae_fast {
namespace MVAE_FAST_ISA {

// A table in padded rows: 1, or S where it varies with time; 0: absent.
template <class T>
struct PaddedTable {
  T* data;
  int64_t rows, width;

  static PaddedTable take(const T* table, int64_t stride, int64_t steps, int64_t m, Arena& arena) {
    const int64_t rows = table ? (stride ? steps : int64_t{1}) : int64_t{0};
    return {arena.take<T>(rows, padded<T>(m)), rows, padded<T>(m)};
  }
  void fill(const T* table, int64_t m) const { copy_rows<T>(rows, m, table, m, data, width); }
  T* row(int64_t s) const { return data + (rows > 1 ? s : 0) * width; }
};

// What every worker of one solve shares.
template <class T>
struct HiddenSolve {
  const HiddenProblem<T>* p;
  int64_t m, width, ld;  // the hidden layer, padded to whole vectors, row length of its tiles
  int64_t tiles;         // that one worker has, at most
  T* matrix;             // packed for the product of the sweep: A' forward, A backward
  PaddedTable<T> gate, bias, drift, trace;
  T* ones;
  Products<T> products;  // of operands as they are: they need no scratch

  static HiddenSolve take(const HiddenProblem<T>& p, int64_t workers, Arena& arena) {
    HiddenSolve x{};
    x.p = &p;
    x.m = p.m;
    x.width = padded<T>(p.m);
    x.ld = leading<T>(p.m);
    x.tiles = most_tiles(p.B, workers);
    x.matrix = arena.take<T>(Products<T>::packed_size(false, p.m, p.m));
    x.gate = PaddedTable<T>::take(p.gate, p.gate_stride, p.S, p.m, arena);
    x.bias = PaddedTable<T>::take(p.bias, p.bias_stride, p.S, p.m, arena);
    x.drift = PaddedTable<T>::take(p.drift, p.drift_stride, p.S, p.m, arena);
    x.trace = PaddedTable<T>::take(p.trace, p.trace_stride, p.S, p.m, arena);
    x.ones = arena.take<T>(x.width);
    x.products = Products<T>::take(false, 0, arena);
    return x;
  }
  const T* gates(int64_t s) const { return gate.rows ? gate.row(s) : ones; }
};

// One worker's part of the shared tables: its share of the packed matrix's panels; the first worker
// also pads the rows.
template <class T>
static void hidden_prepare(const HiddenSolve<T>& s, bool backward, int64_t workers,
                           int64_t worker) {
  const HiddenProblem<T>& p = *s.p;
  const int64_t along = backward ? p.m : 1, across = backward ? 1 : p.m;
  Products<T>::pack(false, s.matrix, p.m, p.m, p.matrix, along, across, workers, worker);
  if (worker != 0) return;
  s.gate.fill(p.gate, p.m);
  s.bias.fill(p.bias, p.m);
  s.drift.fill(p.drift, p.m);
  s.trace.fill(p.trace, p.m);
  for (int64_t i = 0; i < s.width; ++i) s.ones[i] = 1;
}

// tau of a Hutchinson trace: phi'(a) . (G e), row by row; `scratch` is a tile.
template <class T>
static void coefficient_trace(const HiddenSolve<T>& s, const T* d1, const T* gate, const T* e,
                              int64_t n, T* scratch, T* tau) {
  tangent<T>(n, s.width, d1, s.ld, gate, e, s.ld, scratch);
  add_row_dots<T>(n, s.width, scratch, s.ld, s.ones, 0, T(1), tau);
}

template <class T>
struct HiddenForwardTile {
  T *u, *y, *product, *total, *tau, *logp;
  T *d1, *e;  // phi' and the coefficients of a Hutchinson trace

  static HiddenForwardTile take(const HiddenSolve<T>& s, Arena& arena) {
    HiddenForwardTile t{};
    const int64_t size = kTile * s.ld;
    for (T** piece : {&t.u, &t.y, &t.product, &t.total}) *piece = arena.take<T>(size);
    for (T** piece : {&t.tau, &t.logp}) *piece = arena.take<T>(kTile);
    if (s.p->coefficients)
      for (T** piece : {&t.d1, &t.e}) *piece = arena.take<T>(size);
    return t;
  }
};

template <class T>
static void hidden_forward_tile(const HiddenSolve<T>& s, const HiddenForwardOutputs<T>& out,
                                const HiddenForwardTile<T>& t, int64_t begin, int64_t n) {
  const HiddenProblem<T>& p = *s.p;
  const int64_t m = s.m, width = s.width, ld = s.ld;
  const bool traced = p.trace || p.coefficients;
  const Activate<T> pass = p.trace          ? activation<T, Keep::value_trace>(p.nonlinearity)
                           : p.coefficients ? activation<T, Keep::value_slope>(p.nonlinearity)
                                            : activation<T, Keep::value>(p.nonlinearity);
  copy_rows<T>(n, m, p.u + begin * m, m, t.u, ld);
  if (p.coefficients) copy_rows<T>(n, m, p.coefficients + begin * m, m, t.e, ld);
  memset(t.total, 0, n * ld * sizeof(T));
  memset(t.logp, 0, n * sizeof(T));
  for (int64_t step = 0; step < p.S; ++step) {
    const T h = p.h[step];
    memset(t.tau, 0, n * sizeof(T));
    pass({n, width, ld, t.u, s.gates(step), s.bias.row(step), t.y, t.d1, nullptr, s.trace.row(step),
          t.tau});
    if (p.coefficients) coefficient_trace<T>(s, t.d1, s.gates(step), t.e, n, t.product, t.tau);
    if (traced)
      for (int64_t r = 0; r < n; ++r) t.logp[r] -= h * t.tau[r];
    add_scaled_rows<T>(n, width, h, t.y, ld, t.total, ld);
    if (step + 1 == p.S) break;  // nothing asks for u_S
    s.products.rows_times(n, m, m, t.y, ld, s.matrix, t.product, ld, false);
    advance<T>(n, width, false, h, t.product, ld, s.ones, s.drift.row(step), t.u, ld);
    if (out.states) {
      T* to = out.states + (step * p.B + begin) * m;
      for (int64_t r = 0; r < n; ++r) memcpy(to + r * m, t.u + r * ld, m * sizeof(T));
    }
  }
  for (int64_t r = 0; r < n; ++r)
    memcpy(out.total + (begin + r) * m, t.total + r * ld, m * sizeof(T));
  memcpy(out.logp + begin, t.logp, n * sizeof(T));
}

template <class T>
static int64_t hidden_forward_workspace(const HiddenProblem<T>& p, int64_t workers) {
  Arena arena(nullptr), one(nullptr);
  HiddenForwardTile<T>::take(HiddenSolve<T>::take(p, workers, arena), one);
  return workspace_size(arena, workers, one);
}

template <class T>
static void hidden_forward(const HiddenProblem<T>& p, const HiddenForwardOutputs<T>& out,
                           const Threads& threads, void* workspace) {
  Arena arena(workspace), one(nullptr);
  const HiddenSolve<T> s = HiddenSolve<T>::take(p, threads.n, arena);
  HiddenForwardTile<T>::take(s, one);
  char* const scratch = static_cast<char*>(workspace) + arena.used();
  run_workers(threads, [&](int64_t worker) { hidden_prepare<T>(s, false, threads.n, worker); });
  run_workers(threads, [&](int64_t worker) {
    Arena own(scratch + worker * one.used());
    const HiddenForwardTile<T> tile = HiddenForwardTile<T>::take(s, own);
    for_each_tile(p.B, threads.n, worker, [&](int64_t begin, int64_t n) {
      hidden_forward_tile<T>(s, out, tile, begin, n);
    });
  });
}

}  // namespace MVAE_FAST_ISA
}  // namespace mvae_fast
