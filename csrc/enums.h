// Every number that Python and the kernels share. Its Python side is mvae_fast/engines/enums.py,
// and tests/engines/test_enums.py holds them together.
#pragma once

#include <cstdint>

namespace mvae_fast {

// The kernels for GPUs have those up to identity.
enum class Nonlinearity : int {
  softplus,
  tanh,
  relu,
  elu,
  silu,
  square,
  identity,
  gelu,
  gelu_tanh,
  selu,
  leaky_relu,
  sigmoid,
  sin
};

// The type of the products' operands; sums, state and log-density are T always. A CPU without bf16
// instructions takes full for bf16; the last two are for GPUs.
enum class Operands : int { full, bf16, fp16, tf32 };

// Integrals along the path besides the log-density: of a value of f, or of the probes' J eps.
constexpr int64_t kMeanMagnitude = 1;   // sum_i |f_i| / D
constexpr int64_t kRootMeanSquare = 2;  // |f| / sqrt(D)
constexpr int64_t kKineticEnergy = 4;   // |f|^2
constexpr int64_t kFrobenius = 8;       // sum_k |J eps_k|^2
constexpr int64_t kPenalties = 4;       // kinds

// Features of time, at most.
constexpr int64_t kMostFeatures = 32;

// What the tensors of a solve are (`layout[0]`), see arguments.h.
enum class Form : int { coefficients, tables };

}  // namespace mvae_fast
