// The CUDA engine's kernels, compiled for the host: the same templates, with warps that run one
// after the other. Python calls this through ctypes (tests/cuda/emulator.py).
#include <cstdlib>
#include <vector>

#include "cuda/backward.h"
#include "cuda/forward.h"
#include "cuda/solve.h"
#include "machine_host.h"

namespace mvae_fast::cuda {
namespace {

template <class M>
struct HostLauncher {
  using T = typename M::T;
  using Packed = typename M::Packed;

  void zero(void* at, int64_t bytes) const { memset(at, 0, static_cast<size_t>(bytes)); }
  void copy(int64_t* to, const int64_t* from, int64_t n) const {
    memcpy(to, from, static_cast<size_t>(n) * sizeof(int64_t));
  }
  void pack(const Jobs<PackJob<T>>& jobs, const Plan<T>& p) const {
    Packed* packed = const_cast<Packed*>(static_cast<const Packed*>(p.packed));
    for (int j = 0; j < jobs.count; ++j) {
      const PackJob<T>& job = jobs.job[j];
      for (int64_t i = 0; i < job.rows * packed_size(job.n, job.k); ++i)
        pack_element<M>(job, packed, i);
    }
  }
  // As a thread block does: its weights to shared memory, and an arena that holds garbage.
  template <class P, class Block>
  void blocks(const P& p, const Launch& launch, Block block) const {
    std::vector<T> own(static_cast<size_t>(p.tile.size));
    const Packed* packed = static_cast<const Packed*>(p.packed);
    const std::vector<Packed> weights(packed, packed + p.resident);
    for (int64_t index = 0; index < launch.grid; ++index) {
      T* arena =
          p.arena_in_shared ? own.data() : reinterpret_cast<T*>(p.arena + index * p.arena_bytes);
      for (int64_t i = 0; i < p.tile.size; ++i) arena[i] = static_cast<T>(NAN);
      block(HostCta{static_cast<int>(index), static_cast<int>(launch.grid)}, arena, weights.data());
    }
  }
  void forward(const ForwardPlan<T>& p, const Launch& launch) const {
    blocks(p, launch, [&](const HostCta& cta, T* arena, const Packed* weights) {
      forward_block<M>(cta, p, arena, weights);
    });
  }
  void backward(const BackwardPlan<T>& p, const Launch& launch) const {
    blocks(p, launch, [&](const HostCta& cta, T* arena, const Packed* weights) {
      backward_block<M>(cta, p, arena, weights);
    });
  }
  void products(const Jobs<ProductJob<T>>& jobs, const void* tape) const {
    for (int j = 0; j < jobs.count; ++j)
      for (int64_t unit = 0; unit < product_units(jobs.job[j]); ++unit)
        product_unit<M>(jobs.job[j], static_cast<const Packed*>(tape), unit, HostWarp{0, 0});
  }
  void sums(const Jobs<SumJob<T>>& jobs) const {
    for (int j = 0; j < jobs.count; ++j)
      for (int64_t i = 0; i < jobs.job[j].groups * jobs.job[j].width; ++i)
        sum_element(jobs.job[j], i);
  }
};

template <class F>
void with_workspace(int64_t bytes, F f) {
  std::vector<char> memory(static_cast<size_t>(bytes) + 256, char(0xff));
  const uintptr_t address = reinterpret_cast<uintptr_t>(memory.data());
  f(reinterpret_cast<void*>((address + 255) / 256 * 256));
}

template <class M>
void forward_on(const Problem<typename M::T>& p, const ForwardOutputs<typename M::T>& out,
                const Device& device, const Settings& settings) {
  const int64_t bytes = plan_forward<M>(p, out, device, settings, nullptr).bytes;
  with_workspace(bytes, [&](void* memory) {
    run_forward(p, plan_forward<M>(p, out, device, settings, memory), HostLauncher<M>{});
  });
}

template <class M>
void backward_on(const Problem<typename M::T>& p, const BackwardInputs<typename M::T>& in,
                 const BackwardOutputs<typename M::T>& out, const Device& device,
                 const Settings& settings) {
  const int64_t bytes = plan_backward<M>(p, in, out, device, settings, nullptr).bytes;
  with_workspace(bytes, [&](void* memory) {
    run_backward(p, out, plan_backward<M>(p, in, out, device, settings, memory), HostLauncher<M>{});
  });
}

template <class T, class F>
void by_operands(Operands operands, const F& f) {
  switch (operands) {
    case Operands::full:
      return f(HostMachine<Full, T>());
    case Operands::tf32:
      return f(HostMachine<Tf32, T>());
    case Operands::bf16:
      return f(HostMachine<Bf16, T>());
    case Operands::fp16:
      return f(HostMachine<Fp16, T>());
  }
}

}  // namespace
}  // namespace mvae_fast::cuda

using namespace mvae_fast;

extern "C" {

void forward_float(const Problem<float>* p, const ForwardOutputs<float>* out,
                   const cuda::Device* device, const cuda::Settings* settings) {
  cuda::by_operands<float>(p->operands, [&](auto machine) {
    cuda::forward_on<decltype(machine)>(*p, *out, *device, *settings);
  });
}

void backward_float(const Problem<float>* p, const BackwardInputs<float>* in,
                    const BackwardOutputs<float>* out, const cuda::Device* device,
                    const cuda::Settings* settings) {
  cuda::by_operands<float>(p->operands, [&](auto machine) {
    cuda::backward_on<decltype(machine)>(*p, *in, *out, *device, *settings);
  });
}

void forward_double(const Problem<double>* p, const ForwardOutputs<double>* out,
                    const cuda::Device* device, const cuda::Settings* settings) {
  cuda::forward_on<cuda::HostMachine<cuda::Full, double>>(*p, *out, *device, *settings);
}

void backward_double(const Problem<double>* p, const BackwardInputs<double>* in,
                     const BackwardOutputs<double>* out, const cuda::Device* device,
                     const cuda::Settings* settings) {
  cuda::backward_on<cuda::HostMachine<cuda::Full, double>>(*p, *in, *out, *device, *settings);
}

// What the launch arithmetic chooses; as Choice in test_launch.py.
struct Choice {
  int64_t rows, tiles, grid, shared_bytes, arena_in_shared, resident_bytes, packed_bytes;
  int64_t arena_bytes, window, workspace;
};

void launch_for(const int64_t* widths, int64_t L, int64_t B, int64_t S, int64_t R, int64_t every,
                int64_t gated, int64_t varying, int operands, int backward,
                const cuda::Device* device, Choice* choice) {
  // No pointer is followed: any that is not null stands for a table that there is.
  const float* const some = reinterpret_cast<const float*>(256);
  const std::vector<double> a(static_cast<size_t>(R * R), 0.0), b(static_cast<size_t>(R), 1.0);
  Problem<float> p{};
  p.B = B;
  p.S = S;
  p.L = L;
  p.widths = widths;
  p.R = R;
  p.a = a.data();
  p.b = b.data();
  p.checkpoint = every;
  p.outputs = &S;
  p.n_outputs = 1;
  p.weight = p.bias = some;
  p.gate = gated ? some : nullptr;
  p.weight_stride = varying;
  cuda::by_operands<float>(static_cast<Operands>(operands), [&](auto machine) {
    using M = decltype(machine);
    const auto report = [&](const auto& solve, int64_t window) {
      const int64_t element = sizeof(typename M::Packed);
      *choice = {solve.launch.rows,
                 solve.launch.tiles,
                 solve.launch.grid,
                 solve.launch.shared_bytes,
                 solve.launch.arena_in_shared,
                 solve.launch.resident * element,
                 solve.plan.weights.size * element,
                 solve.plan.tile.size * int64_t{sizeof(float)},
                 window,
                 solve.bytes};
    };
    if (backward) {
      BackwardOutputs<float> out{};
      out.weight = const_cast<float*>(some);
      const auto solve = cuda::plan_backward<M>(p, {}, out, *device, cuda::kChosen, nullptr);
      report(solve, solve.span);
    } else {
      report(cuda::plan_forward<M>(p, {}, *device, cuda::kChosen, nullptr), S);
    }
  });
}
}
