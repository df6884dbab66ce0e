// The ops that integrate a net given by the parameters of its time-conditioned layers: as
// integrate.cpp, with the tables and their gradients made inside. Autograd and fake kernels live in
// mvae_fast/engines/net_ops.py.

#include "cpu_run.h"

namespace mvae_fast {
namespace {

using Tensors = std::vector<Tensor>;

// How many tensors each layer of a type has, and which.
struct LayerType {
  bool gated, slope;  // gate weight and bias; bias slope
  bool concat;        // the bias slope is column 0 of the weight
  int64_t tensors() const { return 2 + 2 * gated + (slope && !concat); }
};

// By the numbers that mvae_fast/engines/net_ops.py gives them.
const LayerType& layer_type_of(int64_t number) {
  static const LayerType types[] = {{false, false, false},  // ignore
                                    {false, true, true},    // concat
                                    {false, true, false},   // concat_v2
                                    {true, false, false},   // squash
                                    {true, true, false}};   // concatsquash
  require(number >= 0 && number < 5, "layer is ", number, ", expected 0 to 4");
  return types[number];
}

// The layers' pointers into `tensors`: per layer weight, bias, [bias slope], [gate slope, gate
// bias].
template <class T, class Pointer>
std::vector<LayerParameters<T>> layers_of(const LayerType& type, const Ints& widths,
                                          const Tensors& tensors, const Pointer& pointer) {
  std::vector<LayerParameters<T>> layers;
  for (size_t l = 1; l < widths.size(); ++l) {
    const Tensor* x = tensors.data() + static_cast<int64_t>(l - 1) * type.tensors();
    LayerParameters<T> layer{};
    layer.weight = pointer(x[0]);
    layer.ld = widths[l - 1] + type.concat;
    layer.bias = pointer(x[1]);
    if (type.concat) {
      layer.bias_slope = layer.weight;
      layer.bias_slope_stride = layer.ld;
      layer.weight += 1;
    } else if (type.slope) {
      layer.bias_slope = pointer(x[2]);
      layer.bias_slope_stride = 1;
    }
    if (type.gated) {
      layer.gate_slope = pointer(x[2 + type.slope]);
      layer.gate_bias = pointer(x[3 + type.slope]);
    }
    layers.push_back(layer);
  }
  return layers;
}

struct Net {
  const Tensor& t;
  const Tensors& parameters;
  int64_t layer;
  bool exact;
};

template <class T>
struct Arguments {
  Problem<T> p;
  std::vector<LayerParameters<const T>> layers;  // p points into them
};

template <class T>
Arguments<T> check_arguments(const Common& common, const Net& x) {
  Arguments<T> out;
  out.p = check_common<T>(common);
  const LayerType& type = layer_type_of(x.layer);
  const ScalarType dtype = common.z.scalar_type();
  const Ints& widths = common.widths;
  check("t", x.t, dtype, {out.p.S * out.p.R});
  require(static_cast<int64_t>(x.parameters.size()) == out.p.L * type.tensors(), "parameters has ",
          x.parameters.size(), " tensors, expected ", out.p.L * type.tensors());
  for (size_t l = 1; l < widths.size(); ++l) {
    const Tensor* q = x.parameters.data() + static_cast<int64_t>(l - 1) * type.tensors();
    check("weight", q[0], dtype, {widths[l], size_sum(widths[l - 1], type.concat)});
    check("bias", q[1], dtype, {widths[l]});
    int64_t next = 2;
    if (type.slope && !type.concat) check("bias slope", q[next++], dtype, {widths[l], 1});
    if (type.gated) {
      check("gate slope", q[next], dtype, {widths[l], 1});
      check("gate bias", q[next + 1], dtype, {widths[l]});
    }
  }
  require(!x.exact || out.p.L <= 3, "exact is set for ", out.p.L,
          " layers, but a closed form exists up to 3");
  require(!x.exact || !out.p.K || (out.p.penalties & kFrobenius),
          "both exact and probes are given, expected at most one");
  out.layers = layers_of<const T>(type, widths, x.parameters,
                                  [](const Tensor& tensor) { return data<T>(tensor); });
  out.p.net = out.layers.data();
  out.p.t = data<T>(x.t);
  out.p.exact = x.exact;
  return out;
}

Outputs integrate_net(const Tensor& z, const Tensor& t, const Tensor& h, const Tensors& parameters,
                      const std::optional<Tensor>& probes, const Ints& widths, int64_t layer,
                      bool exact, int64_t nonlinearity, bool residual, const Doubles& a,
                      const Doubles& b, const Ints& outputs, int64_t checkpoint_every,
                      int64_t penalties, int64_t operands, bool save) {
  const Common common{z, h, probes,  widths,           nonlinearity, residual,
                      a, b, outputs, checkpoint_every, penalties,    operands};
  const Net net{t, parameters, layer, exact};
  if (z.scalar_type() == ScalarType::Double)
    return run_forward(check_arguments<double>(common, net).p, z, save);
  require(z.scalar_type() == ScalarType::Float, "z must be float32 or float64");
  return run_forward(check_arguments<float>(common, net).p, z, save);
}

using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensors>;

template <class T>
Gradients backward_as(const GradOutputs& grads, const Common& common, const Net& net,
                      bool parameter_grads) {
  const Arguments<T> arguments = check_arguments<T>(common, net);
  const auto like = [](const Tensor& t) { return torch::stable::new_empty(t, t.sizes()); };
  Tensor z = like(common.z), h = like(common.h);
  Tensor t = parameter_grads ? like(net.t) : torch::stable::new_empty(net.t, {0});
  Tensors parameters;
  std::vector<LayerParameters<T>> layers;
  BackwardOutputs<T> outputs{};
  outputs.z = out<T>(z);
  outputs.h = out<T>(h);
  if (parameter_grads) {
    for (const Tensor& parameter : net.parameters) parameters.push_back(like(parameter));
    layers = layers_of<T>(layer_type_of(net.layer), common.widths, parameters,
                          [](const Tensor& tensor) { return out<T>(tensor); });
    outputs.net = layers.data();
    outputs.t = out<T>(t);
  }
  run_backward(arguments.p, grads, outputs);
  return {z, t, h, parameters};
}

Gradients integrate_net_backward(const Tensor& grad_z, const Tensor& grad_logp,
                                 const Tensor& grad_penalty, const Tensor& z, const Tensor& states,
                                 const Tensor& t, const Tensor& h, const Tensors& parameters,
                                 const std::optional<Tensor>& probes, const Ints& widths,
                                 int64_t layer, bool exact, int64_t nonlinearity, bool residual,
                                 const Doubles& a, const Doubles& b, const Ints& outputs,
                                 int64_t checkpoint_every, int64_t penalties, int64_t operands,
                                 bool parameter_grads) {
  const Common common{z, h, probes,  widths,           nonlinearity, residual,
                      a, b, outputs, checkpoint_every, penalties,    operands};
  const Net net{t, parameters, layer, exact};
  const GradOutputs grads{grad_z, grad_logp, grad_penalty, states};
  if (z.scalar_type() == ScalarType::Double)
    return backward_as<double>(grads, common, net, parameter_grads);
  require(z.scalar_type() == ScalarType::Float, "z must be float32 or float64");
  return backward_as<float>(grads, common, net, parameter_grads);
}

}  // namespace
}  // namespace mvae_fast

STABLE_TORCH_LIBRARY_FRAGMENT(mvae_fast, m) {
  m.def(
      "integrate_net(Tensor z, Tensor t, Tensor h, Tensor[] parameters, Tensor? probes, "
      "int[] widths, int layer, bool exact, int nonlinearity, bool residual, float[] a, float[] b, "
      "int[] outputs, int checkpoint_every, int penalties, int operands, bool save) "
      "-> (Tensor z_out, Tensor logp_out, Tensor penalty_out, Tensor states)");
  m.def(
      "integrate_net_backward(Tensor grad_z_out, Tensor grad_logp_out, Tensor grad_penalty_out, "
      "Tensor z, Tensor states, Tensor t, Tensor h, Tensor[] parameters, Tensor? probes, "
      "int[] widths, int layer, bool exact, int nonlinearity, bool residual, float[] a, float[] b, "
      "int[] outputs, int checkpoint_every, int penalties, int operands, bool parameter_grads) "
      "-> (Tensor z, Tensor t, Tensor h, Tensor[] parameters)");
}

STABLE_TORCH_LIBRARY_IMPL(mvae_fast, CPU, m) {
  m.impl("integrate_net", TORCH_BOX(&mvae_fast::integrate_net));
  m.impl("integrate_net_backward", TORCH_BOX(&mvae_fast::integrate_net_backward));
}
