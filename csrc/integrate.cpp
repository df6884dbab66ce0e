// The ops that integrate a net given by its tables. Autograd and fake kernels live in
// mvae_fast/ops.py.

#include "arguments.h"

namespace mvae_fast {
namespace {

struct Tables {
  const Tensor &weight, &bias;
  const std::optional<Tensor>&gate, &trace, &second;
};

template <class T>
Problem<T> check_arguments(const Common& common, const Tables& x) {
  Problem<T> p = check_common<T>(common);
  const ScalarType dtype = common.z.scalar_type();
  const Ints& widths = common.widths;
  const int64_t rows = p.S * p.R;
  int64_t features = 0, weights = 0;
  for (int64_t l = 1; l <= p.L; ++l) {
    features += widths[l];
    weights += widths[l] * widths[l - 1];
  }
  p.weight_stride = check_table("weight", x.weight, dtype, rows, weights);
  p.bias_stride = check_table("bias", x.bias, dtype, rows, features);
  if (x.gate) p.gate_stride = check_table("gate", *x.gate, dtype, rows, features);
  if (x.trace) {
    require(p.L <= 3, "trace is given for ", p.L, " layers, but a closed form exists up to 3");
    require(!p.K || (p.penalties & kFrobenius),
            "both trace and probes are given, expected at most one");
    const int64_t size = p.L == 1 ? 1 : p.L == 2 ? widths[1] : widths[1] * widths[2];
    p.trace_stride = check_table("trace", *x.trace, dtype, rows, size);
  }
  if (x.second) {
    require(x.trace && p.L == 2 && p.R == 1,
            "second needs trace, one hidden layer and Euler's method");
    p.second_stride = check_table("second", *x.second, dtype, rows, widths[1] * widths[1]);
  }
  p.weight = data<T>(x.weight);
  p.gate = data<T>(x.gate);
  p.bias = data<T>(x.bias);
  p.trace = data<T>(x.trace);
  p.second = data<T>(x.second);
  return p;
}

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
    return run_forward(check_arguments<double>(common, tables), z, save);
  require(z.scalar_type() == ScalarType::Float, "z must be float32 or float64");
  return run_forward(check_arguments<float>(common, tables), z, save);
}

using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

template <class T>
Gradients backward_as(const GradOutputs& grads, const Common& common, const Tables& x,
                      bool table_grads) {
  const Problem<T> p = check_arguments<T>(common, x);
  const auto like = [&](bool wanted, const Tensor& t) {
    return wanted ? torch::stable::new_empty(t, t.sizes())
                  : torch::stable::new_empty(common.z, {0});
  };
  const auto like_optional = [&](const std::optional<Tensor>& t) {
    return like(table_grads && t, t ? *t : common.z);
  };
  Tensor z = like(true, common.z), h = like(true, common.h);
  Tensor weight = like(table_grads, x.weight), bias = like(table_grads, x.bias);
  Tensor gate = like_optional(x.gate), trace = like_optional(x.trace),
         second = like_optional(x.second);
  BackwardOutputs<T> outputs{};
  outputs.z = out<T>(z);
  outputs.h = out<T>(h);
  if (table_grads) {
    outputs.weight = out<T>(weight);
    outputs.bias = out<T>(bias);
    if (x.gate) outputs.gate = out<T>(gate);
    if (x.trace) outputs.trace = out<T>(trace);
    if (x.second) outputs.second = out<T>(second);
  }
  run_backward(p, grads, outputs);
  return {z, h, weight, gate, bias, trace, second};
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
