// mvae_fast::solve and its backward on a GPU. Like csrc/solve.cpp it sees torch's stable ABI only.

#include <dlfcn.h>

#include "../arguments.h"
#include "engine.h"

namespace mvae_fast {
namespace {

// torch's current stream. Looked up at run time in the torch that is loaded, and not linked, so
// that this library also loads beside a torch without CUDA.
void* current_stream(int32_t device) {
  using Get = int32_t (*)(int32_t, void**);
  static const Get get = [] {
    void* const library = dlopen("libtorch_cuda.so", RTLD_NOLOAD | RTLD_LAZY);
    return reinterpret_cast<Get>(library ? dlsym(library, "aoti_torch_get_current_cuda_stream")
                                         : nullptr);
  }();
  require(get, "this torch has no CUDA");
  void* stream = nullptr;
  require(get(device, &stream) == 0, "torch has no current CUDA stream");
  return stream;
}

void require_success(const char* error) {
  require(!error, "CUDA says: ", error ? error : "");
}

const cuda::Solver& solver_for(Operands operands) {
  switch (operands) {
    case Operands::tf32:
      return cuda::kTf32Solver;
    case Operands::bf16:
      return cuda::kBf16Solver;
    case Operands::fp16:
      return cuda::kFp16Solver;
    case Operands::full:
      break;
  }
  return cuda::kFullSolver;
}

// A checked problem on its device, which is current while this lives.
class Run {
 public:
  explicit Run(const Call& call)
      : z_(call.z),
        device_(static_cast<int32_t>(call.z.get_device_index())),
        guard_(device_),
        checked_(check(call)),
        problem_(checked_.p) {
    require_success(guard_.error());
    require_success(cuda::device_limits(device_, limits_));
    stream_ = current_stream(device_);
  }
  const Problem<float>& problem() const { return problem_; }

  Outputs forward(int64_t save) const {
    require(save < 2, "save is ", save, ", expected 0 or 1 on a GPU");
    const Outputs outputs = new_outputs(problem_, z_, save);
    const cuda::Solver& solver = solver_for(problem_.operands);
    const Tensor workspace = new_workspace(solver.forward_workspace(problem_, limits_));
    require_success(solver.forward(problem_, addresses<float>(problem_, outputs, save), limits_,
                                   workspace.mutable_data_ptr(), stream_));
    return outputs;
  }
  void backward(const BackwardInputs<float>& inputs, const BackwardOutputs<float>& outputs) const {
    const cuda::Solver& solver = solver_for(problem_.operands);
    const Tensor workspace = new_workspace(solver.backward_workspace(problem_, outputs, limits_));
    require_success(
        solver.backward(problem_, inputs, outputs, limits_, workspace.mutable_data_ptr(), stream_));
  }

 private:
  static Checked<float> check(const Call& call) {
    require(!call.layout.empty() && call.layout[0] == static_cast<int64_t>(Form::tables),
            "the GPU engine takes tables");
    Checked<float> checked = check_call<float>(call);
    const Problem<float>& p = checked.p;
    require(!p.context, "the GPU engine has no context");
    require(p.nonlinearity <= Nonlinearity::identity, "nonlinearity is ",
            static_cast<int64_t>(p.nonlinearity), ", expected 0 to ",
            static_cast<int64_t>(Nonlinearity::identity), " on a GPU");
    require(p.L <= cuda::kMaxLayers, "widths has ", p.L, " layers, expected at most ",
            cuda::kMaxLayers, " on a GPU");
    require(p.R <= cuda::kMaxStages, "b has ", p.R, " stages, expected at most ", cuda::kMaxStages,
            " on a GPU");
    // Offsets in a tile's arena have 32 bits, and so has an evaluation's number.
    int64_t widest = 0;
    for (int64_t m : call.widths) widest = m > widest ? m : widest;
    const int64_t row = size_product(widest + 32, 7 * p.L + 3 * p.R + 12);
    require(widest < (int64_t{1} << 24) && size_product(64, row) < (int64_t{1} << 31),
            "widths has ", widest, " units in one of ", p.L, " layers, which is too many on a GPU");
    require(p.S * p.R < (int64_t{1} << 31), "h has ", p.S, " steps, too many on a GPU");
    return checked;
  }
  Tensor new_workspace(int64_t bytes) const {
    return torch::stable::new_empty(z_, {bytes}, ScalarType::Byte);
  }

  const Tensor& z_;
  int32_t device_;
  cuda::DeviceGuard guard_;
  Checked<float> checked_;
  const Problem<float>& problem_;
  cuda::Device limits_{};
  void* stream_;
};

struct Gpu {
  static constexpr bool kDouble = false;

  template <class T>
  static Outputs forward(const Call& call, int64_t save) {
    return Run(call).forward(save);
  }
  template <class T>
  static Gradients backward(const Call& call, const GradOutputs& grads, bool wanted) {
    const Run run(call);
    const BackwardInputs<T> inputs = check_gradients(run.problem(), grads);
    const Backward<T> x(call, wanted);
    run.backward(inputs, x.outputs);
    return x.gradients;
  }
};

// Empty where the kernels run on the device.
std::string cuda_device_error(int64_t device) {
  const char* const error = cuda::device_error(static_cast<int>(device));
  return error ? error : "";
}

}  // namespace
}  // namespace mvae_fast

STABLE_TORCH_LIBRARY_IMPL(mvae_fast, CompositeExplicitAutograd, m) {
  m.impl("cuda_device_error", TORCH_BOX(&mvae_fast::cuda_device_error));
}

STABLE_TORCH_LIBRARY_IMPL(mvae_fast, CUDA, m) {
  m.impl("solve", TORCH_BOX(&mvae_fast::Op<mvae_fast::Gpu>::solve));
  m.impl("solve_backward", TORCH_BOX(&mvae_fast::Op<mvae_fast::Gpu>::solve_backward));
}
