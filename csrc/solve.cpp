// mvae_fast::solve and its backward on the CPU. Autograd and fake kernels are in
// mvae_fast/engines/ops.py.

#include "arguments.h"
#include "cpu/capability.h"

namespace mvae_fast {
namespace {

template <class T>
Threads workers_for(const Problem<T>& p) {
  double work = 0;
  for (int64_t l = 1; l <= p.L; ++l)
    work += static_cast<double>(p.widths[l]) * static_cast<double>(p.widths[l - 1]);
  return threads_for(p.B, work * static_cast<double>(p.B) * static_cast<double>(p.S * p.R));
}

template <class T>
Checked<T> check_on_cpu(const Call& call) {
  Checked<T> checked = check_call<T>(call);
  require(call.operands <= static_cast<int64_t>(Operands::bf16),
          "operands is neither 0 (full) nor 1 (bf16), which are all that the CPU engine has");
  return checked;
}

struct Cpu {
  static constexpr bool kDouble = true;

  template <class T>
  static Outputs forward(const Call& call, int64_t save) {
    const Checked<T> checked = check_on_cpu<T>(call);
    const Problem<T>& p = checked.p;
    const Outputs outputs = new_outputs(p, call.z, save);
    const Threads threads = workers_for(p);
    const Kernels<T>& engine = kernels<T>();
    const DenormalsAreZero mode;
    const Workspace scratch(engine.forward_workspace(p, threads.n));
    engine.forward(p, addresses<T>(p, outputs, save), threads, scratch.get());
    return outputs;
  }

  template <class T>
  static Gradients backward(const Call& call, const GradOutputs& grads, bool wanted) {
    const Checked<T> checked = check_on_cpu<T>(call);
    const Problem<T>& p = checked.p;
    const BackwardInputs<T> inputs = check_gradients(p, grads);
    const Backward<T> x(call, wanted);
    const Threads threads = workers_for(p);
    const Kernels<T>& engine = kernels<T>();
    const DenormalsAreZero mode;
    const Workspace scratch(engine.backward_workspace(p, x.outputs, threads.n));
    engine.backward(p, inputs, x.outputs, threads, scratch.get());
    return x.gradients;
  }
};

}  // namespace
}  // namespace mvae_fast

STABLE_TORCH_LIBRARY_FRAGMENT(mvae_fast, m) {
  // Python reads the same file for the ops of Triton.
  for (const char* schema : {
#include "../mvae_fast/engines/schemas.inc"
       })
    m.def(schema);
}

STABLE_TORCH_LIBRARY_IMPL(mvae_fast, CPU, m) {
  m.impl("solve", TORCH_BOX(&mvae_fast::Op<mvae_fast::Cpu>::solve));
  m.impl("solve_backward", TORCH_BOX(&mvae_fast::Op<mvae_fast::Cpu>::solve_backward));
}
