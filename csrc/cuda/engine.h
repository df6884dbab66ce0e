// The CUDA engine's C++ face, free of torch and of CUDA's headers: one solver for each type of
// operands, in a translation unit of its own (solver_*.cu), so that nvcc compiles them in parallel.
#pragma once

#include "../problem.h"
#include "launch.h"

namespace mvae_fast::cuda {

// All work is put on `stream` (a cudaStream_t) of the current device; nothing waits for it. The
// workspace lies on the device, 256-byte aligned, and holds as many bytes as the function before
// says. The results: null, or what CUDA said was wrong.
struct Solver {
  int64_t (*forward_workspace)(const Problem<float>&, const Device&);
  const char* (*forward)(const Problem<float>&, const ForwardOutputs<float>&, const Device&,
                         void* workspace, void* stream);
  int64_t (*backward_workspace)(const Problem<float>&, const BackwardOutputs<float>&,
                                const Device&);
  const char* (*backward)(const Problem<float>&, const BackwardInputs<float>&,
                          const BackwardOutputs<float>&, const Device&, void* workspace,
                          void* stream);
};

extern const Solver kFullSolver, kTf32Solver, kBf16Solver, kFp16Solver;

// Makes a device current while it lives.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device);
  ~DeviceGuard();
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;
  const char* error() const { return error_; }

 private:
  int before_ = -1;
  const char* error_ = nullptr;
};

// The limits of a device, asked once; null, or what was wrong.
const char* device_limits(int device, Device& limits);

// Null where this library has code for a device, or what CUDA says instead.
const char* device_error(int device);

}  // namespace mvae_fast::cuda
