// One solve as plain data: sizes, pointers, strides. No torch, no member functions, so that every
// translation unit, whatever instruction set it is compiled for, agrees on it and none of them
// emits shared code. Symbols are those of docs/math.md.
#pragma once

#include <cstdint>

namespace mvae_fast {

// As in mvae_fast/table_ops.py. The kernels for GPUs have those up to identity.
enum class Nonlinearity : int {
  softplus,
  tanh,
  relu,
  elu,
  swish,
  square,
  identity,
  gelu,
  gelu_tanh,
  selu,
  leaky_relu,
  sigmoid,
  sin
};

// The type of the products' operands; sums, state and log-density are T always. The last two are
// for GPUs.
enum class Operands : int { same, bf16, fp16, tf32 };

// Integrals along the path besides the log-density: of a value of f, or of the probes' J eps.
constexpr int64_t kMeanMagnitude = 1;   // sum_i |f_i| / D
constexpr int64_t kRootMeanSquare = 2;  // |f| / sqrt(D)
constexpr int64_t kKineticEnergy = 4;   // |f|^2
constexpr int64_t kFrobenius = 8;       // sum_k |J eps_k|^2
constexpr int64_t kPenalties = 4;       // kinds

// One time-conditioned layer's parameters: a = G (W y) + C with G = sigmoid(gate_slope t +
// gate_bias) or, where those are null, 1, and C = G bias + bias_slope t. The same struct takes
// their gradients.
template <class T>
struct LayerParameters {
  T* weight;  // rows `ld` apart
  int64_t ld;
  T *bias, *gate_slope, *gate_bias;
  T* bias_slope;  // null: none
  int64_t bias_slope_stride;
};

// What the kernels integrate: a net, given either by its tables or by its parameters. A table has a
// row for each of the S * R evaluations of the velocity, in their order; its `*_stride` is the
// distance of two rows: 0 when one row serves them all.
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

  const LayerParameters<const T>* net;  // L of them; null: the tables above are given
  const T* t;                           // (S * R), the times of the evaluations
  bool exact;                           // with `net`: whether the exact trace is wanted, L <= 3
};

template <class T>
struct ForwardOutputs {
  T* z;        // (n_outputs, B, D)
  T* logp;     // (n_outputs, B), the change of log-density
  T* penalty;  // (n_outputs, number of penalties, B)
  T* states;   // ((S - 1) / k, B, D): z_k, z_2k, ...; null: not wanted
};

template <class T>
struct BackwardInputs {
  const T* grad_z;        // (n_outputs, B, D)
  const T* grad_logp;     // (n_outputs, B)
  const T* grad_penalty;  // (n_outputs, number of penalties, B)
  const T* states;        // ((S - 1) / k, B, D)
};

// Gradients have their tables' or parameters' layout; every pointer but z and h is null when not
// wanted.
template <class T>
struct BackwardOutputs {
  T *z, *h, *weight, *gate, *bias, *trace, *second;
  const LayerParameters<T>* net;
  T* t;
};

// How the kernels run `body(context, worker)` for worker = 0 .. n-1, possibly at once.
struct Threads {
  int64_t n;
  void (*run)(int64_t n, void (*body)(void* context, int64_t worker), void* context);
};

template <class T>
struct HiddenKernels;  // hidden.h

// The kernels of one instruction set. `workspace` says how many bytes (64-byte aligned) forward or
// backward wants.
template <class T>
struct Kernels {
  int64_t (*forward_workspace)(const Problem<T>&, int64_t workers);
  void (*forward)(const Problem<T>&, const ForwardOutputs<T>&, const Threads&, void* workspace);
  int64_t (*backward_workspace)(const Problem<T>&, const BackwardOutputs<T>&, int64_t workers);
  void (*backward)(const Problem<T>&, const BackwardInputs<T>&, const BackwardOutputs<T>&,
                   const Threads&, void* workspace);
  // Runs the register tile of the products on operands in L1, for the machine's peak: multiply-adds
  // done.
  int64_t (*peak)(int64_t repeats, const Threads&);
  const HiddenKernels<T>* hidden;
};

}  // namespace mvae_fast
