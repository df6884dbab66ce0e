// Which device, and what it can do.
#include <cuda_runtime.h>

#include <mutex>

#include "engine.h"

namespace mvae_fast::cuda {
namespace {

const char* message(cudaError_t error) {
  return error == cudaSuccess ? nullptr : cudaGetErrorString(error);
}

constexpr int kDevices = 64;

}  // namespace

// Compiled for the same architectures as all kernels, and the least to load.
__global__ void any_kernel() {}

DeviceGuard::DeviceGuard(int device) {
  int before;
  error_ = message(cudaGetDevice(&before));
  if (error_ || before == device) return;
  error_ = message(cudaSetDevice(device));
  if (!error_) before_ = before;
}

DeviceGuard::~DeviceGuard() {
  if (before_ >= 0) cudaSetDevice(before_);
}

const char* device_limits(int device, Device& limits) {
  static std::mutex mutex;
  static Device known[kDevices] = {};
  const std::lock_guard<std::mutex> lock(mutex);
  Device fresh{};
  Device& x = device < kDevices ? known[device] : fresh;
  if (!x.sms) {
    const auto ask = [&](cudaDeviceAttr attribute, int64_t& to) {
      int value = 0;
      const char* error = message(cudaDeviceGetAttribute(&value, attribute, device));
      to = value;
      return error;
    };
    if (const char* error = ask(cudaDevAttrMaxSharedMemoryPerBlockOptin, x.shared_per_block))
      return error;
    if (const char* error = ask(cudaDevAttrMultiProcessorCount, x.sms)) return error;
  }
  limits = x;
  return nullptr;
}

const char* device_error(int device) {
  const DeviceGuard guard(device);
  cudaFuncAttributes attributes;
  const char* const error =
      guard.error() ? guard.error() : message(cudaFuncGetAttributes(&attributes, any_kernel));
  cudaGetLastError();  // or the next launch would report it as its own
  return error;
}

}  // namespace mvae_fast::cuda
