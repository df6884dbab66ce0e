// One step of an embedded pair as an attempt, of all rows: the state after it and how far off that
// is (docs/math.md, section 6). The solver (csrc/adaptive.cpp) takes it or tries a shorter one.
#pragma once

#include "forward.h"

namespace mvae_fast::MVAE_FAST_ISA {

// Adds to `sum` the squares of error / (atol + rtol max(|before|, |after|)).
template <class T>
static void add_error(const Attempt<T>& x, int64_t n, const T* error, const T* before,
                      const T* after, double* sum) {
  double total = 0;
  for (int64_t i = 0; i < n; ++i) {
    const double a = before[i] < 0 ? -before[i] : before[i],
                 b = after[i] < 0 ? -after[i] : after[i];
    // Not by a maximum, which hides a NaN.
    const double q = error[i] / (x.atol + x.rtol * (a > b ? a : b));
    total += q * q;
  }
  *sum += total;
}

template <class T>
static void attempt_tile(const Solve<T>& s, const Attempt<T>& x, ForwardTile<T>& t, int64_t begin,
                         int64_t n, double* sums) {
  const Problem<T>& p = *s.p;
  const int64_t D = s.D, ld0 = s.layers[0].ld, width = padded<T>(D), slot = kTile * ld0, R = p.R;
  const T h = p.h[0];
  const bool traced = s.exact || p.K;
  T taus[kMostStages * kTile];
  t.begin = begin;
  copy_rows<T>(n, D, x.z + begin * D, D, t.z, ld0);
  if (p.K) t.probes.load_tile(s, begin, n);
  if (x.first > 0) {
    copy_rows<T>(n, D, x.k + begin * D, D, t.k, ld0);
    memcpy(taus, x.tau + begin, n * sizeof(T));
  }
  for (int64_t r = x.first; r < x.last; ++r) {
    const T* input = t.z;
    if (r > 0) {
      T* const argument = s.kept ? s.kept_argument(r, t.begin) : t.input;
      combine<T>(s, t.z, h, p.a + r * R, r, t.k, n, argument);
      input = argument;
    }
    if (p.K) t.probes.evaluate(s, t.products, r, n);
    evaluate<T>(s, t, r, T(0), input, n, traced);
    T* k = t.k + r * slot;
    scale_columns<T>(n, width, p.residual ? T(-1) : T(0), s.ones, input, ld0, k, ld0);
    advance<T>(n, width, false, T(1), t.f, ld0, s.gates(r, s.L), s.biases(r, s.L), k, ld0);
    for (int64_t i = 0; i < n; ++i) taus[r * kTile + i] = traced ? t.tau[i] : T(0);
  }
  const auto write = [&](const T* from, T* to) {
    for (int64_t i = 0; i < n; ++i) memcpy(to + (begin + i) * D, from + i * ld0, D * sizeof(T));
  };
  write(t.k + (x.last - 1) * slot, x.k_next);
  memcpy(x.tau_next + begin, taus + (x.last - 1) * kTile, n * sizeof(T));
  if (x.last < R) return;

  combine<T>(s, t.z, h, p.b, R, t.k, n, t.input);
  memset(t.f, 0, n * ld0 * sizeof(T));
  T logp[kTile], error[kTile] = {};
  memcpy(logp, x.logp + begin, n * sizeof(T));
  for (int64_t r = 0; r < R; ++r) {
    const T weight = h * static_cast<T>(x.error[r]), b = h * static_cast<T>(p.b[r]);
    add_scaled_rows<T>(n, width, weight, t.k + r * slot, ld0, t.f, ld0);
    for (int64_t i = 0; i < n; ++i) {
      logp[i] -= b * taus[r * kTile + i];
      error[i] -= weight * taus[r * kTile + i];
    }
  }
  for (int64_t i = 0; i < n; ++i)
    add_error<T>(x, D, t.f + i * ld0, t.z + i * ld0, t.input + i * ld0, sums);
  add_error<T>(x, n, error, x.logp + begin, logp, sums + 1);
  write(t.input, x.z_next);
  memcpy(x.logp_next + begin, logp, n * sizeof(T));
}

template <class T>
static void attempt(const Problem<T>& p, const Attempt<T>& x, const Threads& threads,
                    void* workspace) {
  Arena arena(workspace), one(nullptr);
  Solve<T> s = lay_out(p, Sweep::forward, false, threads.n, arena);
  s.kept = x.kept;
  ForwardTile<T>::take(s, one);
  char* const scratch = static_cast<char*>(workspace) + arena.used();
  const auto tile_of = [&](int64_t worker) {
    Arena own(scratch + worker * one.used());
    return ForwardTile<T>::take(s, own);
  };
  prepare<T>(s, threads, true, [&](int64_t worker) { return tile_of(worker).trace; }, x.packed);
  run_workers(threads, [&](int64_t worker) {
    ForwardTile<T> tile = tile_of(worker);
    double* const sums = x.sums + 2 * worker;
    sums[0] = sums[1] = 0;
    for_each_tile(p.B, threads.n, worker,
                  [&](int64_t row, int64_t n) { attempt_tile<T>(s, x, tile, row, n, sums); });
  });
}

}  // namespace mvae_fast::MVAE_FAST_ISA
