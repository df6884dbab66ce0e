// One solve as plain data: sizes, pointers, strides. No torch, no member functions, so that every
// translation unit, whatever instruction set it is compiled for, agrees on it and none of them
// emits shared code. Symbols are those of docs/math.md.
#pragma once

#include "enums.h"
#include "sizes.h"

namespace mvae_fast {

// A vector of numbers `stride` apart; null: all of them are zero.
template <class T>
struct Column {
  T* data;
  int64_t stride;
};

// One layer's coefficients over F features psi of time: a = g (W y + B psi + u) + H psi with
// g = sigmoid(G psi) or, where G is null, 1. The same struct takes their gradients.
template <class T>
struct Coefficients {
  T* weight;  // rows `ld` apart
  int64_t ld;
  const Column<T>*bias, *gate, *late_bias;  // B, G, H: F columns each; a null gate: none
};

// What the kernels integrate: a velocity, by its tables or by its coefficients. A table has a row
// for each of the S * R evaluations of the velocity, in their order; its `*_stride` is the distance
// of two rows: 0 when one row serves them all.
template <class T>
struct Problem {
  int64_t B, S, L, K;     // rows, steps, affine layers, trace probes (0: none)
  const int64_t* widths;  // m_0 .. m_L, with m_0 = m_L = D
  Nonlinearity nonlinearity;
  Operands operands;
  bool residual;       // f = a_L - z instead of a_L
  int64_t penalties;   // a sum of the constants above
  int64_t R;           // stages: evaluations of the velocity in a step (Euler: 1)
  const double* a;     // (R, R), Butcher's table, zero on and above its diagonal
  const double* b;     // (R)
  int64_t checkpoint;  // k: the state after every k-th step is saved
  const T* z;          // (B, D)
  const T* h;          // (S)
  const T* probes;     // (K, B, D); null: none. The trace is theirs where no exact one is wanted
  int64_t probe_stride, probe_row_stride;  // row stride 0: the same probe for every row
  const int64_t* outputs;  // ascending step counts whose state is wanted, the last one S
  int64_t n_outputs;

  const T* weight;  // W_l row-major (m_l, m_{l-1}), one after the other
  const T* gate;    // G_l one after the other; null: no gates
  const T* bias;    // C_l one after the other
  const T* trace;   // exact-trace table for L <= 3; null: none
  const T* second;  // symmetric (m_1, m_1) table of Tr J^2 for L = 2 and R = 1; null: none
  int64_t weight_stride, gate_stride, bias_stride, trace_stride, second_stride;

  const Coefficients<const T>* layers;  // L of them; null: the tables above are given
  const T* time;  // (S * R), the times of the evaluations: F = 2 features, 1 and t; or, with
  int64_t F;      // `features`, (S * R, F): the features themselves
  bool features;
  bool exact;  // with `layers`: whether the exact trace is wanted, L <= 3

  const T* const* context;  // L of (B, m_l), each of which may be null: u of every row; null: none
};

// Numbers that a forward may keep of a row at an evaluation, so that the backward need not compute
// them again. In this order, each piece for all rows, which are row_length apart: W_l y of the
// hidden layers; with the exact trace of two of them M phi'(a_1); with probes W_l v, for each of
// them and the hidden layers from the second on; in a method of several stages the argument.
template <class T>
static inline int64_t kept_numbers(const Problem<T>& p) {
  const auto length = [](int64_t m) { return row_length(m, sizeof(T)); };
  int64_t hidden = 0, later = 0;
  for (int64_t l = 1; l < p.L; ++l) {
    hidden = size_sum(hidden, length(p.widths[l]));
    if (l > 1) later = size_sum(later, length(p.widths[l]));
  }
  const bool exact = p.layers ? p.exact : p.trace != nullptr;
  const int64_t trace = exact && p.L == 3 ? length(p.widths[2]) : 0;
  const int64_t argument = p.R > 1 ? length(p.widths[0]) : 0;
  return size_sum(size_sum(hidden, size_product(p.K, later)), trace + argument);
}

template <class T>
struct ForwardOutputs {
  T* z;        // (n_outputs, B, D)
  T* logp;     // (n_outputs, B), the change of log-density
  T* penalty;  // (n_outputs, number of penalties, B)
  T* states;   // ((S - 1) / k, B, D): z_k, z_2k, ...; null: not wanted
  T* kept;     // kept_numbers(p) for each evaluation and row; null: not wanted
};

template <class T>
struct BackwardInputs {
  const T* grad_z;        // (n_outputs, B, D)
  const T* grad_logp;     // (n_outputs, B)
  const T* grad_penalty;  // (n_outputs, number of penalties, B)
  const T* states;        // ((S - 1) / k, B, D)
  const T* kept;          // null: not kept
};

// Gradients have the layout of what they belong to; every pointer but z and h is null when not
// wanted.
template <class T>
struct BackwardOutputs {
  T *z, *h, *weight, *gate, *bias, *trace, *second;
  const Coefficients<T>* layers;
  T* time;
  T* const* context;
};

// Most stages of an embedded pair.
constexpr int64_t kMostStages = 8;

// One step of an embedded pair, of the problem's only step: stages first .. last - 1, which are all
// of them from the second on or the first alone. Pointers are to (B, D) and (B).
template <class T>
struct Attempt {
  int64_t first, last;
  bool packed;          // whether the workspace has the weights from an attempt before
  const double* error;  // (R), weights of the estimate of the error
  double rtol, atol;
  const T *z, *logp, *k, *tau;  // before the step; the first stage's, where that is given
  T *z_next, *logp_next;        // after it, unless the first stage is all
  T *k_next, *tau_next;         // of the last stage that is evaluated
  T* kept;  // kept_numbers(p) for each stage and row, from the first stage on; null: not wanted
  double* sums;  // two a worker: of the squares of the error over what is tolerated, of z and logp
};

// How the kernels run `body(context, worker)` for worker = 0 .. n-1, possibly at once.
struct Threads {
  int64_t n;
  void (*run)(int64_t n, void (*body)(void* context, int64_t worker), void* context);
};

// The kernels of one instruction set. `workspace` says how many bytes (64-byte aligned) forward or
// backward wants.
template <class T>
struct Kernels {
  int64_t (*forward_workspace)(const Problem<T>&, int64_t workers);
  void (*forward)(const Problem<T>&, const ForwardOutputs<T>&, const Threads&, void* workspace);
  int64_t (*backward_workspace)(const Problem<T>&, const BackwardOutputs<T>&, int64_t workers);
  void (*backward)(const Problem<T>&, const BackwardInputs<T>&, const BackwardOutputs<T>&,
                   const Threads&, void* workspace);
  // In a workspace of `forward_workspace`, the same one for all attempts of a solve.
  void (*attempt)(const Problem<T>&, const Attempt<T>&, const Threads&, void* workspace);
  // As `forward`, of a problem without trace, probes, penalties or saved states: in `logp` the
  // log-determinant of the steps.
  int64_t (*log_det_workspace)(const Problem<T>&, int64_t workers);
  void (*log_det)(const Problem<T>&, const ForwardOutputs<T>&, const Threads&, void* workspace);
  // Runs the register tile of the products on operands in L1, for the machine's peak: multiply-adds
  // done.
  int64_t (*peak)(int64_t repeats, const Threads&);
};

}  // namespace mvae_fast
