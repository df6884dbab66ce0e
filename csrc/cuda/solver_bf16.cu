// The kernels with bfloat16 operands.
#include "solver.cuh"

namespace mvae_fast::cuda {

const Solver kBf16Solver = make_solver<Bf16>();

}  // namespace mvae_fast::cuda
