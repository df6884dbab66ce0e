// The kernels with float16 operands.
#include "solver.cuh"

namespace mvae_fast::cuda {

const Solver kFp16Solver = make_solver<Fp16>();

}  // namespace mvae_fast::cuda
