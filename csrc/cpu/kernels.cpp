// Compiled once per instruction set, with MVAE_FAST_ISA naming it: the kernels of that set behind
// plain function pointers. No torch and no standard containers here: a merged inline function would
// carry wide instructions into the other sets.

#include "kernels.h"

#include "log_det/steps.h"
#include "simd/peak.h"
#include "sweep/attempt.h"
#include "sweep/backward.h"

namespace mvae_fast::MVAE_FAST_ISA {

template <class T>
static constexpr Kernels<T> kKernels{forward_workspace<T>, forward<T>, backward_workspace<T>,
                                     backward<T>,          attempt<T>, log_det_workspace<T>,
                                     log_det<T>,           peak<T>};

const Kernels<float> kernels_f32 = kKernels<float>;
#if !defined(__AVX512BF16__)  // doubles are those of avx512
const Kernels<double> kernels_f64 = kKernels<double>;
#endif

}  // namespace mvae_fast::MVAE_FAST_ISA
