// The kernels with tf32 operands.
#include "solver.cuh"

namespace mvae_fast {
namespace cuda {

const Solver kTf32Solver = make_solver<Tf32>();

}  // namespace cuda
}  // namespace mvae_fast
