// The kernels with bfloat16 operands.
#include "solver.cuh"

namespace mvae_fast {
namespace cuda {

const Solver kBf16Solver = make_solver<Bf16>();

}  // namespace cuda
}  // namespace mvae_fast
