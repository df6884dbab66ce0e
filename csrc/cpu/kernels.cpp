// Compiled once per instruction set, with MVAE_FAST_ISA naming it: the kernels of that set behind
// plain function pointers. No torch and no standard containers here: a merged inline function would
// carry wide instructions into the other sets.

#include "kernels.h"

#include "backward.h"
#include "forward.h"
#include "peak.h"

namespace mvae_fast {
namespace MVAE_FAST_ISA {

const Kernels<float> kernels_f32{forward_workspace<float>, forward<float>,
                                 backward_workspace<float>, backward<float>, peak<float>};
#if !defined(__AVX512BF16__)  // doubles are those of avx512
const Kernels<double> kernels_f64{forward_workspace<double>, forward<double>,
                                  backward_workspace<double>, backward<double>, peak<double>};
#endif

}  // namespace MVAE_FAST_ISA
}  // namespace mvae_fast
