// The kernels with float16 operands.
#include "solver.cuh"

namespace mvae_fast {
namespace cuda {

const Solver kFp16Solver = make_solver<Fp16>();

}  // namespace cuda
}  // namespace mvae_fast
