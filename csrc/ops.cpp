// The ops: schemas, argument checks, output allocation. Autograd and fake kernels live in
// mvae_fast/ops.py.

#include "cpu/capability.h"
#include "torch_face.h"

namespace mvae_fast {
namespace {

// A table's leading axis is 1 (every evaluation alike) or their number: the distance of two rows.
int64_t check_table(const char* name, const Tensor& x, ScalarType dtype, int64_t rows,
                    int64_t row) {
  check(name, x, dtype, {-1, row});
  require(x.size(0) == 1 || x.size(0) == rows, name, " has ", x.size(0),
          " rows, expected 1 or the number of evaluations, ", rows);
  return x.size(0) == 1 ? 0 : row;
}

struct Arguments {
  const Tensor &z, &h, &weight, &bias;
  const std::optional<Tensor>&gate, &trace, &second, &probes;
  const Ints& widths;
  const std::string& nonlinearity;
  bool residual;
  const Doubles &a, &b;
  const Ints& outputs;
  int64_t checkpoint_every;
};

template <class T>
Problem<T> check_arguments(const Arguments& x) {
  const ScalarType dtype = x.z.scalar_type();
  const int64_t L = static_cast<int64_t>(x.widths.size()) - 1;
  require(L >= 1, "widths has ", L + 1, " entries, expected at least 2");
  for (int64_t m : x.widths) require(m >= 1, "widths holds ", m, ", expected positive widths");
  const int64_t D = x.widths.front();
  require(x.widths.back() == D, "widths goes from ", D, " to ", x.widths.back(),
          ", expected the same");
  check("z", x.z, dtype, {-1, D});
  check("h", x.h, dtype, {-1});

  Problem<T> p{};
  p.B = x.z.size(0);
  p.S = x.h.size(0);
  p.L = L;
  require(p.S >= 1, "h has no steps, expected at least one");
  p.R = static_cast<int64_t>(x.b.size());
  require(p.R >= 1 && x.a.size() == x.b.size() * x.b.size(), "a has ", x.a.size(),
          " entries and b ", p.R, ", expected R * R and R");
  for (int64_t i = 0; i < p.R; ++i)
    for (int64_t j = i; j < p.R; ++j)
      require(x.a[static_cast<size_t>(i * p.R + j)] == 0,
              "a must be zero on and above its diagonal");
  require(p.R > 1 || x.b[0] == 1, "b is ", x.b[0], " for a single stage, expected 1");
  require(x.checkpoint_every >= 1, "checkpoint_every is ", x.checkpoint_every, ", expected >= 1");
  const int64_t rows = p.S * p.R;
  int64_t features = 0, weights = 0;
  for (int64_t l = 1; l <= L; ++l) {
    features += x.widths[l];
    weights += x.widths[l] * x.widths[l - 1];
  }
  p.weight_stride = check_table("weight", x.weight, dtype, rows, weights);
  p.bias_stride = check_table("bias", x.bias, dtype, rows, features);
  if (x.gate) p.gate_stride = check_table("gate", *x.gate, dtype, rows, features);
  if (x.trace) {
    require(L <= 3, "trace is given for ", L, " layers, but a closed form exists up to 3");
    const int64_t size = L == 1 ? 1 : L == 2 ? x.widths[1] : x.widths[1] * x.widths[2];
    p.trace_stride = check_table("trace", *x.trace, dtype, rows, size);
  }
  if (x.second) {
    require(x.trace && L == 2 && p.R == 1,
            "second needs trace, one hidden layer and Euler's method");
    p.second_stride = check_table("second", *x.second, dtype, rows, x.widths[1] * x.widths[1]);
  }
  if (x.probes) {
    require(!x.trace, "both trace and probes are given, expected at most one");
    check("probes", *x.probes, dtype, {-1, p.B, D}, false);
    p.K = x.probes->size(0);
    p.probe_stride = x.probes->stride(0);
    p.probe_row_stride = p.B > 1 ? x.probes->stride(1) : D;
    require(D == 1 || x.probes->stride(2) == 1, "probes must be contiguous in its last axis");
    require(p.probe_row_stride == 0 || p.probe_row_stride == D,
            "probes must be contiguous or expanded over rows");
  }
  require(!x.outputs.empty() && x.outputs.back() == p.S,
          "outputs must end with the number of steps, ", p.S);
  for (size_t i = 0; i < x.outputs.size(); ++i)
    require(x.outputs[i] >= (i ? x.outputs[i - 1] + 1 : 1), "outputs must ascend from 1");

  p.widths = x.widths.data();
  p.nonlinearity = nonlinearity_of(x.nonlinearity);
  p.residual = x.residual;
  p.a = x.a.data();
  p.b = x.b.data();
  p.checkpoint = x.checkpoint_every;
  p.z = data<T>(x.z);
  p.h = data<T>(x.h);
  p.weight = data<T>(x.weight);
  p.gate = data<T>(x.gate);
  p.bias = data<T>(x.bias);
  p.trace = data<T>(x.trace);
  p.second = data<T>(x.second);
  p.probes = p.K ? data<T>(x.probes) : nullptr;
  p.outputs = x.outputs.data();
  p.n_outputs = static_cast<int64_t>(x.outputs.size());
  return p;
}

// As many workers as torch has threads, but never so many that waking one costs more than the work
// it takes over.
template <class T>
Threads threads_for(const Problem<T>& p) {
  constexpr double kWorkPerThread = 2e5;  // multiply-adds: about 5 us, what waking a thread costs
  double work = 0;
  for (int64_t l = 1; l <= p.L; ++l) work += static_cast<double>(p.widths[l] * p.widths[l - 1]);
  work *= static_cast<double>(p.B * p.S * p.R);
  int64_t n = torch::stable::get_num_threads();
  if (n > p.B) n = p.B;
  if (static_cast<double>(n) * kWorkPerThread > work)
    n = static_cast<int64_t>(work / kWorkPerThread);
  return {n < 1 ? 1 : n, run_threads};
}

template <class T>
std::tuple<Tensor, Tensor, Tensor> integrate_as(const Arguments& x, bool save) {
  const Problem<T> p = check_arguments<T>(x);
  const int64_t D = x.widths.front();
  Tensor z = torch::stable::new_empty(x.z, {p.n_outputs, p.B, D});
  Tensor logp = torch::stable::new_empty(x.z, {p.n_outputs, p.B});
  Tensor states = torch::stable::new_empty(x.z, {save ? (p.S - 1) / p.checkpoint : 0, p.B, D});
  const Threads threads = threads_for(p);
  const Kernels<T>& engine = kernels<T>();
  const Workspace scratch(engine.forward_workspace(p, threads.n));
  engine.forward(p, {out<T>(z), out<T>(logp), save ? out<T>(states) : nullptr}, threads,
                 scratch.get());
  return {z, logp, states};
}

std::tuple<Tensor, Tensor, Tensor> integrate(
    const Tensor& z, const Tensor& h, const Tensor& weight, const std::optional<Tensor>& gate,
    const Tensor& bias, const std::optional<Tensor>& trace, const std::optional<Tensor>& second,
    const std::optional<Tensor>& probes, const Ints& widths, const std::string& nonlinearity,
    bool residual, const Doubles& a, const Doubles& b, const Ints& outputs,
    int64_t checkpoint_every, bool save) {
  const Arguments x{z,        h,      weight, bias,    gate,
                    trace,    second, probes, widths,  nonlinearity,
                    residual, a,      b,      outputs, checkpoint_every};
  if (z.scalar_type() == ScalarType::Double) return integrate_as<double>(x, save);
  require(z.scalar_type() == ScalarType::Float, "z must be float32 or float64");
  return integrate_as<float>(x, save);
}

using Gradients = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor>;

template <class T>
Gradients integrate_backward_as(const Tensor& grad_z, const Tensor& grad_logp, const Tensor& states,
                                const Arguments& x, bool table_grads) {
  const Problem<T> p = check_arguments<T>(x);
  const int64_t D = x.widths.front();
  const ScalarType dtype = x.z.scalar_type();
  check("grad_z_out", grad_z, dtype, {p.n_outputs, p.B, D});
  check("grad_logp_out", grad_logp, dtype, {p.n_outputs, p.B});
  check("states", states, dtype, {(p.S - 1) / p.checkpoint, p.B, D});
  const auto like = [&](bool wanted, const Tensor& t) {
    return wanted ? torch::stable::new_empty(t, t.sizes()) : torch::stable::new_empty(x.z, {0});
  };
  Tensor z_bar = like(true, x.z), h_bar = like(true, x.h);
  Tensor weight_bar = like(table_grads, x.weight), bias_bar = like(table_grads, x.bias);
  Tensor gate_bar = like(table_grads && x.gate, x.gate ? *x.gate : x.z);
  Tensor trace_bar = like(table_grads && x.trace, x.trace ? *x.trace : x.z);
  Tensor second_bar = like(table_grads && x.second, x.second ? *x.second : x.z);
  BackwardOutputs<T> outputs{};
  outputs.z = out<T>(z_bar);
  outputs.h = out<T>(h_bar);
  if (table_grads) {
    outputs.weight = out<T>(weight_bar);
    outputs.bias = out<T>(bias_bar);
    if (x.gate) outputs.gate = out<T>(gate_bar);
    if (x.trace) outputs.trace = out<T>(trace_bar);
    if (x.second) outputs.second = out<T>(second_bar);
  }
  const Threads threads = threads_for(p);
  const Kernels<T>& engine = kernels<T>();
  const Workspace scratch(engine.backward_workspace(p, outputs, threads.n));
  engine.backward(p, {data<T>(grad_z), data<T>(grad_logp), data<T>(states)}, outputs, threads,
                  scratch.get());
  return {z_bar, h_bar, weight_bar, gate_bar, bias_bar, trace_bar, second_bar};
}

Gradients integrate_backward(const Tensor& grad_z, const Tensor& grad_logp, const Tensor& z,
                             const Tensor& states, const Tensor& h, const Tensor& weight,
                             const std::optional<Tensor>& gate, const Tensor& bias,
                             const std::optional<Tensor>& trace,
                             const std::optional<Tensor>& second,
                             const std::optional<Tensor>& probes, const Ints& widths,
                             const std::string& nonlinearity, bool residual, const Doubles& a,
                             const Doubles& b, const Ints& outputs, int64_t checkpoint_every,
                             bool table_grads) {
  const Arguments x{z,        h,      weight, bias,    gate,
                    trace,    second, probes, widths,  nonlinearity,
                    residual, a,      b,      outputs, checkpoint_every};
  if (z.scalar_type() == ScalarType::Double)
    return integrate_backward_as<double>(grad_z, grad_logp, states, x, table_grads);
  require(z.scalar_type() == ScalarType::Float, "z must be float32 or float64");
  return integrate_backward_as<float>(grad_z, grad_logp, states, x, table_grads);
}

std::string cpu_capability() {
  return capability();
}

// All capabilities of this processor, best first, separated by spaces.
std::string cpu_capabilities() {
  std::string all;
  for (const char* const* name = available_capabilities(); *name; ++name)
    all += (all.empty() ? "" : " ") + std::string(*name);
  return all;
}

// Multiply-adds that every thread's register tile did, `repeats` times: the caller takes the time.
int64_t cpu_peak(int64_t repeats) {
  return kernels<float>().peak(repeats, {torch::stable::get_num_threads(), run_threads});
}

void set_cpu_capability(const std::string& name) {
  require(set_capability(name.c_str()), "capability is '", name,
          "', expected one of: ", cpu_capabilities());
}

}  // namespace
}  // namespace mvae_fast

STABLE_TORCH_LIBRARY(mvae_fast, m) {
  m.def(
      "integrate(Tensor z, Tensor h, Tensor weight, Tensor? gate, Tensor bias, Tensor? trace, "
      "Tensor? second, Tensor? probes, int[] widths, str nonlinearity, bool residual, float[] a, "
      "float[] b, int[] outputs, int checkpoint_every, bool save) "
      "-> (Tensor z_out, Tensor logp_out, Tensor states)");
  m.def(
      "integrate_backward(Tensor grad_z_out, Tensor grad_logp_out, Tensor z, Tensor states, "
      "Tensor h, Tensor weight, Tensor? gate, Tensor bias, Tensor? trace, Tensor? second, "
      "Tensor? probes, int[] widths, str nonlinearity, bool residual, float[] a, float[] b, "
      "int[] outputs, int checkpoint_every, bool table_grads) "
      "-> (Tensor z, Tensor h, Tensor weight, Tensor gate, Tensor bias, Tensor trace, "
      "Tensor second)");
  m.def("cpu_capability() -> str");
  m.def("cpu_capabilities() -> str");
  m.def("set_cpu_capability(str name) -> ()");
  m.def("cpu_peak(int repeats) -> int");
}

STABLE_TORCH_LIBRARY_IMPL(mvae_fast, CPU, m) {
  m.impl("integrate", TORCH_BOX(&mvae_fast::integrate));
  m.impl("integrate_backward", TORCH_BOX(&mvae_fast::integrate_backward));
}

STABLE_TORCH_LIBRARY_IMPL(mvae_fast, CompositeExplicitAutograd, m) {
  m.impl("cpu_capability", TORCH_BOX(&mvae_fast::cpu_capability));
  m.impl("cpu_capabilities", TORCH_BOX(&mvae_fast::cpu_capabilities));
  m.impl("set_cpu_capability", TORCH_BOX(&mvae_fast::set_cpu_capability));
  m.impl("cpu_peak", TORCH_BOX(&mvae_fast::cpu_peak));
}
