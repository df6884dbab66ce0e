// Runs a checked problem on the CPU: threads, workspace, kernels.
#pragma once

#include "arguments.h"
#include "cpu/capability.h"

namespace mvae_fast {

template <class T>
Threads threads_for(const Problem<T>& p) {
  double work = 0;
  for (int64_t l = 1; l <= p.L; ++l)
    work += static_cast<double>(p.widths[l]) * static_cast<double>(p.widths[l - 1]);
  return threads_for(p.B, work * static_cast<double>(p.B) * static_cast<double>(p.S * p.R));
}

template <class T>
void require_cpu_operands(const Problem<T>& p) {
  require(p.operands == Operands::same || p.operands == Operands::bf16,
          "operands is neither 0 (full) nor 1 (bf16), which are all that the CPU engine has");
}

template <class T>
Outputs run_forward(const Problem<T>& p, const Tensor& like, bool save) {
  require_cpu_operands(p);
  const Outputs outputs = new_outputs(p, like, save);
  const Threads threads = threads_for(p);
  const Kernels<T>& engine = kernels<T>();
  const Workspace scratch(engine.forward_workspace(p, threads.n));
  engine.forward(p, addresses<T>(outputs, save), threads, scratch.get());
  return outputs;
}

template <class T>
void run_backward(const Problem<T>& p, const GradOutputs& x, const BackwardOutputs<T>& outputs) {
  require_cpu_operands(p);
  const BackwardInputs<T> inputs = check_gradients(p, x);
  const Threads threads = threads_for(p);
  const Kernels<T>& engine = kernels<T>();
  const Workspace scratch(engine.backward_workspace(p, outputs, threads.n));
  engine.backward(p, inputs, outputs, threads, scratch.get());
}

}  // namespace mvae_fast
