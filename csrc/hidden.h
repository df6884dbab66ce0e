// One solve in hidden space as plain data, beside problem.h: Euler's method on u = W_1 z of a net
// with one hidden layer, whose state then never has to be formed (mvae_fast/hidden_space.py).
#pragma once

#include "problem.h"

namespace mvae_fast {

//   a = G u + C     y = phi(a)     u <- u + h (A y + d)     logp <- logp - h tau
// with tau = phi'(a) . trace, or phi'(a) . (G * coefficients) row by row, or 0. A table has a row
// for each step; its `*_stride` is the distance of two rows: 0 when one row serves them all.
template <class T>
struct HiddenProblem {
  int64_t B, S, m;  // rows, steps, width of the hidden layer
  Nonlinearity nonlinearity;
  const T* u;             // (B, m), the start
  const T* h;             // (S)
  const T* matrix;        // A row-major (m, m)
  const T* gate;          // G; null: no gate
  const T* bias;          // C
  const T* drift;         // d
  const T* trace;         // exact-trace table; null: none
  const T* coefficients;  // (B, m), a Hutchinson trace's; null: none
  int64_t gate_stride, bias_stride, drift_stride, trace_stride;
};

template <class T>
struct HiddenForwardOutputs {
  T* total;   // (B, m): sum_s h_s y_s
  T* logp;    // (B), the change of log-density
  T* states;  // (S - 1, B, m): u_1, u_2, ...; null: not wanted
};

template <class T>
struct HiddenBackwardInputs {
  const T* grad_total;  // (B, m)
  const T* grad_logp;   // (B)
  const T* states;      // (S - 1, B, m)
};

// Gradients have the layout of what they belong to, and are null where that is.
template <class T>
struct HiddenBackwardOutputs {
  T *u, *h, *matrix, *gate, *bias, *drift, *trace, *coefficients;
};

// The kernels of one instruction set, as in Kernels.
template <class T>
struct HiddenKernels {
  int64_t (*forward_workspace)(const HiddenProblem<T>&, int64_t workers);
  void (*forward)(const HiddenProblem<T>&, const HiddenForwardOutputs<T>&, const Threads&,
                  void* workspace);
  int64_t (*backward_workspace)(const HiddenProblem<T>&, int64_t workers);
  void (*backward)(const HiddenProblem<T>&, const HiddenBackwardInputs<T>&,
                   const HiddenBackwardOutputs<T>&, const Threads&, void* workspace);
};

}  // namespace mvae_fast
