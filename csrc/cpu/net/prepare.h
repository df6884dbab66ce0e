// Fills the tables that all workers share, from the caller's or from its coefficients.
#pragma once

#include "trace_tables.h"

namespace mvae_fast::MVAE_FAST_ISA {

// The tables of the present window and, before the first window (`all`), those that have none.
// `scratch_of(worker)` is a worker's TraceScratch; `packed`: what does not change with time is
// there from a call before, in the same workspace.
template <class T, class F>
static void prepare(const Solve<T>& x, const Threads& threads, bool all, const F& scratch_of,
                    bool packed = false) {
  const int64_t workers = threads.n;
  if (all)
    for (int64_t i = 0; i < x.widest; ++i) x.ones[i] = 1;
  if (!x.p->layers) {
    if (all || x.span < x.p->S)
      run_workers(threads, [&](int64_t worker) {
        if (all) prepare_small_tables<T>(x, workers, worker);
        prepare_large_tables<T>(x, all, workers, worker);
      });
    return;
  }
  if (all) {
    // Vectors, and the trace below needs all of the gates: not worth waking a thread.
    small_tables<T>(x);
    run_workers(threads, [&](int64_t worker) {
      if (!packed) {
        pack_weights<T>(x, workers, worker);
        if (x.third) transpose_third<T>(x, workers, worker);
      }
      if (x.exact && x.L == 2) trace_one_hidden<T>(x, scratch_of(worker), workers, worker);
    });
  }
  if (x.exact && x.L == 1) {
    if (all) trace_no_hidden<T>(x);
  } else if (x.exact && x.L == 3 && ((all && !packed) || x.trace_rows > 1)) {
    run_workers(threads, [&](int64_t worker) {
      trace_two_hidden<T>(x, scratch_of(worker), all && !packed, workers, worker);
    });
  }
}

}  // namespace mvae_fast::MVAE_FAST_ISA
