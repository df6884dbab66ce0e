// Compiled once per instruction set, with MVAE_FAST_ISA naming it: the kernels of that set behind
// plain function pointers. No torch and no standard containers here: a merged inline function would
// carry wide instructions into the other sets.

#include "kernels.h"

#include "backward.h"
#include "forward.h"
#include "hidden.h"
#include "hidden_backward.h"
#include "peak.h"

namespace mvae_fast {
namespace MVAE_FAST_ISA {

static const HiddenKernels<float> hidden_f32{hidden_forward_workspace<float>, hidden_forward<float>,
                                             hidden_backward_workspace<float>,
                                             hidden_backward<float>};
static const HiddenKernels<double> hidden_f64{
    hidden_forward_workspace<double>, hidden_forward<double>, hidden_backward_workspace<double>,
    hidden_backward<double>};

const Kernels<float> kernels_f32{
    forward_workspace<float>, forward<float>, backward_workspace<float>,
    backward<float>,          peak<float>,    &hidden_f32};
const Kernels<double> kernels_f64{
    forward_workspace<double>, forward<double>, backward_workspace<double>,
    backward<double>,          peak<double>,    &hidden_f64};

}  // namespace MVAE_FAST_ISA
}  // namespace mvae_fast
