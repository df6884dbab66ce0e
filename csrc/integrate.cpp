// The ops that integrate a net given by its tables. Autograd and fake kernels live in
// mvae_fast/engines/cpp.py.

#include "cpu_run.h"
#include "table_arguments.h"

namespace mvae_fast {
namespace {

Outputs integrate(const Tensor& z, const Tensor& h, const Tensor& weight,
                  const std::optional<Tensor>& gate, const Tensor& bias,
                  const std::optional<Tensor>& trace, const std::optional<Tensor>& second,
                  const std::optional<Tensor>& probes, const Ints& widths, int64_t nonlinearity,
                  bool residual, const Doubles& a, const Doubles& b, const Ints& outputs,
                  int64_t checkpoint_every, int64_t penalties, int64_t operands, bool save) {
  const Common common{z, h, probes,  widths,           nonlinearity, residual,
                      a, b, outputs, checkpoint_every, penalties,    operands};
  const Tables tables{weight, bias, gate, trace, second};
  if (z.scalar_type() == ScalarType::Double)
    return run_forward(check_tables<double>(common, tables), z, save);
  require(z.scalar_type() == ScalarType::Float, "z must be float32 or float64");
  return run_forward(check_tables<float>(common, tables), z, save);
}

template <class T>
Gradients backward_as(const GradOutputs& grads, const Common& common, const Tables& x,
                      bool table_grads) {
  const Problem<T> p = check_tables<T>(common, x);
  const Gradients gradients = new_gradients(common, x, table_grads);
  run_backward(p, grads, addresses<T>(gradients, x, table_grads));
  return gradients;
}

Gradients integrate_backward(
    const Tensor& grad_z, const Tensor& grad_logp, const Tensor& grad_penalty, const Tensor& z,
    const Tensor& states, const Tensor& h, const Tensor& weight, const std::optional<Tensor>& gate,
    const Tensor& bias, const std::optional<Tensor>& trace, const std::optional<Tensor>& second,
    const std::optional<Tensor>& probes, const Ints& widths, int64_t nonlinearity, bool residual,
    const Doubles& a, const Doubles& b, const Ints& outputs, int64_t checkpoint_every,
    int64_t penalties, int64_t operands, bool table_grads) {
  const Common common{z, h, probes,  widths,           nonlinearity, residual,
                      a, b, outputs, checkpoint_every, penalties,    operands};
  const Tables tables{weight, bias, gate, trace, second};
  const GradOutputs grads{grad_z, grad_logp, grad_penalty, states};
  if (z.scalar_type() == ScalarType::Double)
    return backward_as<double>(grads, common, tables, table_grads);
  require(z.scalar_type() == ScalarType::Float, "z must be float32 or float64");
  return backward_as<float>(grads, common, tables, table_grads);
}

}  // namespace
}  // namespace mvae_fast

STABLE_TORCH_LIBRARY_FRAGMENT(mvae_fast, m) {
  m.def(
      "integrate(Tensor z, Tensor h, Tensor weight, Tensor? gate, Tensor bias, Tensor? trace, "
      "Tensor? second, Tensor? probes, int[] widths, int nonlinearity, bool residual, float[] a, "
      "float[] b, int[] outputs, int checkpoint_every, int penalties, int operands, bool save) "
      "-> (Tensor z_out, Tensor logp_out, Tensor penalty_out, Tensor states)");
  m.def(
      "integrate_backward(Tensor grad_z_out, Tensor grad_logp_out, Tensor grad_penalty_out, "
      "Tensor z, Tensor states, Tensor h, Tensor weight, Tensor? gate, Tensor bias, Tensor? trace, "
      "Tensor? second, Tensor? probes, int[] widths, int nonlinearity, bool residual, float[] a, "
      "float[] b, int[] outputs, int checkpoint_every, int penalties, int operands, bool "
      "table_grads) "
      "-> (Tensor z, Tensor h, Tensor weight, Tensor gate, Tensor bias, Tensor trace, "
      "Tensor second)");
}

STABLE_TORCH_LIBRARY_IMPL(mvae_fast, CPU, m) {
  m.impl("integrate", TORCH_BOX(&mvae_fast::integrate));
  m.impl("integrate_backward", TORCH_BOX(&mvae_fast::integrate_backward));
}
