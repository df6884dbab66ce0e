// The kernels compiled into this library, one namespace per instruction set.
#pragma once

#include "../problem.h"

#define MVAE_FAST_DECLARE_KERNELS(isa)      \
  namespace isa {                           \
  extern const Kernels<float> kernels_f32;  \
  extern const Kernels<double> kernels_f64; \
  }

namespace mvae_fast {
MVAE_FAST_DECLARE_KERNELS(baseline)
MVAE_FAST_DECLARE_KERNELS(avx2)
MVAE_FAST_DECLARE_KERNELS(avx512)
MVAE_FAST_DECLARE_KERNELS(avx512_bf16)
}  // namespace mvae_fast
