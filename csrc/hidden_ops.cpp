// The ops of the integration in hidden space: schemas, argument checks, output allocation. Autograd
// and fake kernels live in mvae_fast/hidden_ops.py.

#include "cpu/capability.h"
#include "hidden.h"
#include "torch_face.h"

namespace mvae_fast {
namespace {

struct HiddenArguments {
  const Tensor &u, &h, &matrix;
  const std::optional<Tensor>& gate;
  const Tensor &bias, &drift;
  const std::optional<Tensor>&trace, &coefficients;
  int64_t nonlinearity;
};

template <class T>
HiddenProblem<T> check_arguments(const HiddenArguments& x) {
  const ScalarType dtype = x.u.scalar_type();
  check("u", x.u, dtype, {-1, -1});
  check("h", x.h, dtype, {-1});
  HiddenProblem<T> p{};
  p.B = x.u.size(0);
  p.m = x.u.size(1);
  p.S = x.h.size(0);
  require(p.m >= 1, "u has no columns, expected at least one");
  require(p.S >= 1, "h has no steps, expected at least one");
  check("matrix", x.matrix, dtype, {p.m, p.m});
  if (x.gate) p.gate_stride = check_table("gate", *x.gate, dtype, p.S, p.m);
  p.bias_stride = check_table("bias", x.bias, dtype, p.S, p.m);
  p.drift_stride = check_table("drift", x.drift, dtype, p.S, p.m);
  require(!x.trace || !x.coefficients, "both trace and coefficients are given, expected one");
  if (x.trace) p.trace_stride = check_table("trace", *x.trace, dtype, p.S, p.m);
  if (x.coefficients) check("coefficients", *x.coefficients, dtype, {p.B, p.m});

  p.nonlinearity = nonlinearity_of(x.nonlinearity);
  p.u = data<T>(x.u);
  p.h = data<T>(x.h);
  p.matrix = data<T>(x.matrix);
  p.gate = data<T>(x.gate);
  p.bias = data<T>(x.bias);
  p.drift = data<T>(x.drift);
  p.trace = data<T>(x.trace);
  p.coefficients = data<T>(x.coefficients);
  return p;
}

template <class T>
Threads threads_for(const HiddenProblem<T>& p) {
  const double m = static_cast<double>(p.m);
  return mvae_fast::threads_for(p.B, m * m * static_cast<double>(p.B) * static_cast<double>(p.S));
}

template <class T>
std::tuple<Tensor, Tensor, Tensor> integrate_as(const HiddenArguments& x, bool save) {
  const HiddenProblem<T> p = check_arguments<T>(x);
  Tensor total = torch::stable::new_empty(x.u, {p.B, p.m});
  Tensor logp = torch::stable::new_empty(x.u, {p.B});
  Tensor states = torch::stable::new_empty(x.u, {save ? p.S - 1 : 0, p.B, p.m});
  const Threads threads = threads_for(p);
  const HiddenKernels<T>& engine = *kernels<T>().hidden;
  const Workspace scratch(engine.forward_workspace(p, threads.n));
  engine.forward(p, {out<T>(total), out<T>(logp), save ? out<T>(states) : nullptr}, threads,
                 scratch.get());
  return {total, logp, states};
}

std::tuple<Tensor, Tensor, Tensor> integrate_hidden(
    const Tensor& u, const Tensor& h, const Tensor& matrix, const std::optional<Tensor>& gate,
    const Tensor& bias, const Tensor& drift, const std::optional<Tensor>& trace,
    const std::optional<Tensor>& coefficients, int64_t nonlinearity, bool save) {
  const HiddenArguments x{u, h, matrix, gate, bias, drift, trace, coefficients, nonlinearity};
  if (u.scalar_type() == ScalarType::Double) return integrate_as<double>(x, save);
  require(u.scalar_type() == ScalarType::Float, "u must be float32 or float64");
  return integrate_as<float>(x, save);
}

using HiddenGradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

template <class T>
HiddenGradients integrate_backward_as(const Tensor& grad_total, const Tensor& grad_logp,
                                      const Tensor& states, const HiddenArguments& x) {
  const HiddenProblem<T> p = check_arguments<T>(x);
  const ScalarType dtype = x.u.scalar_type();
  check("grad_total", grad_total, dtype, {p.B, p.m});
  check("grad_logp", grad_logp, dtype, {p.B});
  check("states", states, dtype, {p.S - 1, p.B, p.m});
  const auto like = [&](const std::optional<Tensor>& t) {
    return t ? torch::stable::new_empty(*t, t->sizes()) : torch::stable::new_empty(x.u, {0});
  };
  Tensor u_bar = like(x.u), h_bar = like(x.h), matrix_bar = like(x.matrix);
  Tensor gate_bar = like(x.gate), bias_bar = like(x.bias), drift_bar = like(x.drift);
  Tensor trace_bar = like(x.trace), coefficients_bar = like(x.coefficients);
  HiddenBackwardOutputs<T> outputs{};
  outputs.u = out<T>(u_bar);
  outputs.h = out<T>(h_bar);
  outputs.matrix = out<T>(matrix_bar);
  outputs.bias = out<T>(bias_bar);
  outputs.drift = out<T>(drift_bar);
  if (x.gate) outputs.gate = out<T>(gate_bar);
  if (x.trace) outputs.trace = out<T>(trace_bar);
  if (x.coefficients) outputs.coefficients = out<T>(coefficients_bar);
  const Threads threads = threads_for(p);
  const HiddenKernels<T>& engine = *kernels<T>().hidden;
  const Workspace scratch(engine.backward_workspace(p, threads.n));
  engine.backward(p, {data<T>(grad_total), data<T>(grad_logp), data<T>(states)}, outputs, threads,
                  scratch.get());
  return {u_bar, h_bar, matrix_bar, gate_bar, bias_bar, drift_bar, trace_bar, coefficients_bar};
}

HiddenGradients integrate_hidden_backward(const Tensor& grad_total, const Tensor& grad_logp,
                                          const Tensor& u, const Tensor& states, const Tensor& h,
                                          const Tensor& matrix, const std::optional<Tensor>& gate,
                                          const Tensor& bias, const Tensor& drift,
                                          const std::optional<Tensor>& trace,
                                          const std::optional<Tensor>& coefficients,
                                          int64_t nonlinearity) {
  const HiddenArguments x{u, h, matrix, gate, bias, drift, trace, coefficients, nonlinearity};
  if (u.scalar_type() == ScalarType::Double)
    return integrate_backward_as<double>(grad_total, grad_logp, states, x);
  require(u.scalar_type() == ScalarType::Float, "u must be float32 or float64");
  return integrate_backward_as<float>(grad_total, grad_logp, states, x);
}

}  // namespace
}  // namespace mvae_fast

STABLE_TORCH_LIBRARY_FRAGMENT(mvae_fast, m) {
  m.def(
      "integrate_hidden(Tensor u, Tensor h, Tensor matrix, Tensor? gate, Tensor bias, "
      "Tensor drift, Tensor? trace, Tensor? coefficients, int nonlinearity, bool save) "
      "-> (Tensor total, Tensor logp, Tensor states)");
  m.def(
      "integrate_hidden_backward(Tensor grad_total, Tensor grad_logp, Tensor u, Tensor states, "
      "Tensor h, Tensor matrix, Tensor? gate, Tensor bias, Tensor drift, Tensor? trace, "
      "Tensor? coefficients, int nonlinearity) "
      "-> (Tensor u, Tensor h, Tensor matrix, Tensor gate, Tensor bias, Tensor drift, "
      "Tensor trace, Tensor coefficients)");
}

STABLE_TORCH_LIBRARY_IMPL(mvae_fast, CPU, m) {
  m.impl("integrate_hidden", TORCH_BOX(&mvae_fast::integrate_hidden));
  m.impl("integrate_hidden_backward", TORCH_BOX(&mvae_fast::integrate_hidden_backward));
}
