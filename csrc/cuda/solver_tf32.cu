// The kernels with tf32 operands.
#include "solver.cuh"

namespace mvae_fast::cuda {

const Solver kTf32Solver = make_solver<Tf32>();

}  // namespace mvae_fast::cuda
