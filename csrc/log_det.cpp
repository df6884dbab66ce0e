// mvae_fast::log_det on the CPU: a solve with the log-determinant of its steps in place of the
// integral of the trace. It has no backward: what wants gradients takes the reference.

#include "arguments.h"
#include "cpu/capability.h"

namespace mvae_fast {
namespace {

// States and log-density changes at the outputs.
using Steps = std::tuple<Tensor, Tensor>;

template <class T>
Threads workers_for(const Problem<T>& p) {
  const double D = static_cast<double>(p.widths[0]);
  double work = D * D / 3;  // for each row of a Jacobian
  for (int64_t l = 1; l <= p.L; ++l)
    work += static_cast<double>(p.widths[l]) * static_cast<double>(p.widths[l - 1]);
  return threads_for(p.B, work * D * static_cast<double>(p.B) * static_cast<double>(p.S * p.R));
}

template <class T>
Steps run(const Call& call) {
  const Checked<T> checked = check_call<T>(call);
  const Problem<T>& p = checked.p;
  require(p.layers || !p.trace, "layout has a trace table, which a log-determinant does not take");
  const Steps outputs{new_tensor(call.z, {p.n_outputs, p.B, p.widths[0]}),
                      new_tensor(call.z, {p.n_outputs, p.B})};
  const Threads threads = workers_for(p);
  const Kernels<T>& engine = kernels<T>();
  const Workspace scratch(engine.log_det_workspace(p, threads.n));
  const DenormalsAreZero mode;
  ForwardOutputs<T> addresses{};
  addresses.z = out<T>(std::get<0>(outputs));
  addresses.logp = out<T>(std::get<1>(outputs));
  engine.log_det(p, addresses, threads, scratch.get());
  return outputs;
}

Steps log_det(const Tensor& z, const Tensor& h, const Tensors& tensors, const Ints& widths,
              const Ints& layout, int64_t nonlinearity, bool residual, const Doubles& a,
              const Doubles& b, const Ints& outputs) {
  const std::optional<Tensor> none;
  // One checkpoint a step: tables that vary with time are held for one step at a time.
  const Call call{z, h, none,    tensors, widths, layout, nonlinearity, residual, false,
                  a, b, outputs, 1,       0,      0};
  if (z.scalar_type() == ScalarType::Double) return run<double>(call);
  require(z.scalar_type() == ScalarType::Float, "z must be float32 or float64");
  return run<float>(call);
}

}  // namespace
}  // namespace mvae_fast

STABLE_TORCH_LIBRARY_FRAGMENT(mvae_fast, m) {
  m.def(
      "log_det(Tensor z, Tensor h, Tensor[] tensors, int[] widths, int[] layout, "
      "int nonlinearity, bool residual, float[] a, float[] b, int[] outputs) "
      "-> (Tensor z_out, Tensor logp_out)");
}

STABLE_TORCH_LIBRARY_IMPL(mvae_fast, CPU, m) {
  m.impl("log_det", TORCH_BOX(&mvae_fast::log_det));
}
