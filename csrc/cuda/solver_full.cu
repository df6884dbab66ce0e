// The kernels with float32 operands, as sums of tf32 ones.
#include "solver.cuh"

namespace mvae_fast::cuda {

const Solver kFullSolver = make_solver<Full>();

}  // namespace mvae_fast::cuda
