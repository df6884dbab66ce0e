// The kernels, and the launcher that puts a solve's on a stream.
#pragma once

#include <cuda_runtime.h>

#include "backward.h"
#include "engine.h"
#include "forward.h"
#include "machine_device.h"
#include "solve.h"

namespace mvae_fast::cuda {

extern __shared__ float4 shared_memory[];

// Kernels take all they need as parameters, of which every driver passes 4 KB.
static_assert(sizeof(BackwardPlan<float>) <= 4096 && sizeof(ForwardPlan<float>) <= 4096, "plans");
static_assert(sizeof(Jobs<PackJob<float>>) < 4096 && sizeof(Jobs<ProductJob<float>>) < 4096 &&
                  sizeof(Jobs<SumJob<float>>) < 4096,
              "jobs");

// A block's arena, and behind it (or, where that is in global memory, alone) its resident weights.
template <class M>
struct BlockMemory {
  DeviceCta cta;
  float* arena;
  const typename M::Packed* weights;

  __device__ __forceinline__ explicit BlockMemory(const Plan<float>& p) {
    float* const shared = reinterpret_cast<float*>(shared_memory);
    arena =
        p.arena_in_shared ? shared : reinterpret_cast<float*>(p.arena + blockIdx.x * p.arena_bytes);
    float* const behind = p.arena_in_shared ? shared + p.tile.size : shared;
    weights = reinterpret_cast<const typename M::Packed*>(behind);
    const int quads = static_cast<int>(p.resident * sizeof(typename M::Packed) / 16);
    const float4* const from = static_cast<const float4*>(p.packed);
    cta.each(quads, [&](int i) { reinterpret_cast<float4*>(behind)[i] = from[i]; });
  }
};

template <class M>
__global__ void __launch_bounds__(kThreads, kBlocks)
    forward_kernel(const __grid_constant__ ForwardPlan<float> p) {
  const BlockMemory<M> block(p);
  forward_block<M>(block.cta, p, block.arena, block.weights);
}

template <class M>
__global__ void __launch_bounds__(kThreads, kBlocks)
    backward_kernel(const __grid_constant__ BackwardPlan<float> p) {
  const BlockMemory<M> block(p);
  backward_block<M>(block.cta, p, block.arena, block.weights);
}

template <class M>
__global__ void pack_kernel(const __grid_constant__ Jobs<PackJob<float>> jobs,
                            typename M::Packed* packed) {
  const PackJob<float>& job = jobs.job[blockIdx.y];
  const int64_t size = job.rows * packed_size(job.n, job.k);
  const int64_t stride = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < size; i += stride)
    pack_element<M>(job, packed, i);
}

template <class M>
__global__ void __launch_bounds__(kThreads, kBlocks)
    product_kernel(const __grid_constant__ Jobs<ProductJob<float>> jobs,
                   const typename M::Packed* tape) {
  const Warp warp{static_cast<int>(threadIdx.x) / kLanes, static_cast<int>(threadIdx.x) % kLanes};
  const ProductJob<float>& job = jobs.job[blockIdx.y];
  const int64_t units = product_units(job), stride = int64_t{gridDim.x} * kWarps;
  for (int64_t unit = int64_t{blockIdx.x} * kWarps + warp.index; unit < units; unit += stride)
    product_unit<M>(job, tape, unit, warp);
}

template <class M>
__global__ void sum_kernel(const __grid_constant__ Jobs<SumJob<float>> jobs) {
  const SumJob<float>& job = jobs.job[blockIdx.y];
  const int64_t size = job.groups * job.width, stride = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < size; i += stride)
    sum_element(job, i);
}

// A few of the host's numbers to the device as a kernel's parameter: a copy from the host's memory
// would wait for it, or break in a captured graph.
struct Numbers {
  int64_t value[256];
};

template <class M>
__global__ void copy_kernel(const __grid_constant__ Numbers numbers, int64_t* to, int64_t n) {
  if (threadIdx.x < n) to[threadIdx.x] = numbers.value[threadIdx.x];
}

template <class Op>
class DeviceLauncher {
  using M = DeviceMachine<Op, false>;
  using WithProbes = DeviceMachine<Op, true>;

 public:
  DeviceLauncher(const Device& device, void* stream)
      : device_(device), stream_(static_cast<cudaStream_t>(stream)) {}

  void zero(void* at, int64_t bytes) const {
    note(cudaMemsetAsync(at, 0, static_cast<size_t>(bytes), stream_));
  }
  void copy(int64_t* to, const int64_t* from, int64_t n) const {
    constexpr int64_t kMost = sizeof(Numbers) / sizeof(int64_t);
    for (int64_t i = 0; i < n; i += kMost) {
      const int64_t count = std::min(kMost, n - i);
      Numbers numbers{};
      std::copy(from + i, from + i + count, numbers.value);
      copy_kernel<M><<<1, kMost, 0, stream_>>>(numbers, to + i, count);
      note(cudaGetLastError());
    }
  }
  void pack(const Jobs<PackJob<float>>& jobs, const Plan<float>& p) const {
    int64_t most = 0;
    for (int j = 0; j < jobs.count; ++j)
      most = std::max(most, jobs.job[j].rows * packed_size(jobs.job[j].n, jobs.job[j].k));
    auto* packed = static_cast<typename M::Packed*>(const_cast<void*>(p.packed));
    if (most) pack_kernel<M><<<grid(most, jobs.count), kThreads, 0, stream_>>>(jobs, packed);
    note(cudaGetLastError());
  }
  void forward(const ForwardPlan<float>& p, const Launch& launch) const {
    sweep(p.K ? forward_kernel<WithProbes> : forward_kernel<M>, p, launch);
  }
  void backward(const BackwardPlan<float>& p, const Launch& launch) const {
    sweep(p.K ? backward_kernel<WithProbes> : backward_kernel<M>, p, launch);
  }
  void products(const Jobs<ProductJob<float>>& jobs, const void* tape) const {
    int64_t most = 0;
    for (int j = 0; j < jobs.count; ++j) most = std::max(most, product_units(jobs.job[j]));
    product_kernel<M><<<grid(most * kLanes, jobs.count), kThreads, 0, stream_>>>(
        jobs, static_cast<const typename M::Packed*>(tape));
    note(cudaGetLastError());
  }
  void sums(const Jobs<SumJob<float>>& jobs) const {
    int64_t most = 0;
    for (int j = 0; j < jobs.count; ++j)
      most = std::max(most, jobs.job[j].groups * jobs.job[j].width);
    sum_kernel<M><<<grid(most, jobs.count), kThreads, 0, stream_>>>(jobs);
    note(cudaGetLastError());
  }
  const char* error() const { return error_ == cudaSuccess ? nullptr : cudaGetErrorString(error_); }

 private:
  // Threads for `most` items of each of `jobs`, which go on in strides where there are more.
  dim3 grid(int64_t most, int jobs) const {
    const int64_t blocks = (most + kThreads - 1) / kThreads;
    return dim3(static_cast<unsigned>(std::min(blocks, device_.sms * 16)),
                static_cast<unsigned>(jobs));
  }
  template <class P>
  void sweep(void (*kernel)(P), const P& p, const Launch& launch) const {
    // Not what this launch takes but all there is: the limit is the kernel's, and between here and
    // the launch another thread's solve may set it.
    note(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                              static_cast<int>(device_.shared_per_block)));
    kernel<<<static_cast<unsigned>(launch.grid), kThreads, static_cast<size_t>(launch.shared_bytes),
             stream_>>>(p);
    note(cudaGetLastError());
  }
  void note(cudaError_t error) const {
    if (error_ == cudaSuccess) error_ = error;
  }

  const Device& device_;
  cudaStream_t stream_;
  mutable cudaError_t error_ = cudaSuccess;
};

template <class Op>
Solver make_solver() {
  using M = DeviceMachine<Op, false>;
  Solver x{};
  x.forward_workspace = [](const Problem<float>& p, const Device& device) {
    return plan_forward<M>(p, {}, device, kChosen, nullptr).bytes;
  };
  x.forward = [](const Problem<float>& p, const ForwardOutputs<float>& out, const Device& device,
                 void* workspace, void* stream) {
    const DeviceLauncher<Op> launcher(device, stream);
    run_forward(p, plan_forward<M>(p, out, device, kChosen, workspace), launcher);
    return launcher.error();
  };
  x.backward_workspace = [](const Problem<float>& p, const BackwardOutputs<float>& out,
                            const Device& device) {
    return plan_backward<M>(p, {}, out, device, kChosen, nullptr).bytes;
  };
  x.backward = [](const Problem<float>& p, const BackwardInputs<float>& in,
                  const BackwardOutputs<float>& out, const Device& device, void* workspace,
                  void* stream) {
    const DeviceLauncher<Op> launcher(device, stream);
    run_backward(p, out, plan_backward<M>(p, in, out, device, kChosen, workspace), launcher);
    return launcher.error();
  };
  return x;
}

}  // namespace mvae_fast::cuda
