// What the files that define ops share: argument checks, data pointers, threads, scratch memory.
// They are the only ones that see torch, and only its stable ABI, so that one binary serves every
// torch from 2.10 on.
#pragma once

#if defined(__linux__)
#include <sys/mman.h>
#endif
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <cstdlib>
#include <memory>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

#include "denormals.h"
#include "problem.h"
#include "sizes.h"

// torch 2.10 has it under this name only.
#ifndef STABLE_TORCH_ERROR_CODE_CHECK
#define STABLE_TORCH_ERROR_CODE_CHECK(call) TORCH_ERROR_CODE_CHECK(call)
#endif

namespace mvae_fast {

using torch::stable::Tensor;
using Ints = std::vector<int64_t>;
using Doubles = std::vector<double>;
using torch::headeronly::ScalarType;

template <class... Parts>
void require(bool good, const Parts&... parts) {
  if (good) return;
  std::ostringstream message;
  message << "mvae_fast::solve: ";
  (message << ... << parts);
  throw std::runtime_error(message.str());
}

inline std::string shape_of(const Tensor& x) {
  std::ostringstream out;
  out << '(';
  for (int64_t i = 0; i < x.dim(); ++i) out << (i ? ", " : "") << x.size(i);
  out << ')';
  return out.str();
}

// The dtype and the device that all tensors of a call share: the CPU unless said otherwise.
struct Home {
  ScalarType dtype;
  bool cuda = false;
  int64_t device = 0;

  Home(ScalarType type) : dtype(type) {}
  static Home of(const Tensor& x) {
    Home home(x.scalar_type());
    home.cuda = x.is_cuda();
    if (home.cuda) home.device = x.get_device_index();
    return home;
  }
};

inline void check_home(const char* name, const Tensor& x, const Home& home, bool contiguous) {
  if (home.cuda)
    require(x.is_cuda() && x.get_device_index() == home.device, name,
            " must be on the device of z, cuda:", home.device);
  else
    require(x.is_cpu(), name, " must be a CPU tensor");
  require(x.scalar_type() == home.dtype, name, " must have the dtype of z");
  require(!contiguous || x.is_contiguous(), name, " must be contiguous");
}

// -1 fits anything.
inline void check_sizes(const char* name, const Tensor& x, const Ints& sizes) {
  bool fits = x.dim() == static_cast<int64_t>(sizes.size());
  for (size_t i = 0; fits && i < sizes.size(); ++i)
    fits = sizes[i] < 0 || x.size(static_cast<int64_t>(i)) == sizes[i];
  if (fits) return;
  std::ostringstream expected;
  for (size_t i = 0; i < sizes.size(); ++i)
    expected << (i ? ", " : "(") << (sizes[i] < 0 ? "*" : std::to_string(sizes[i]));
  require(false, name, " has shape ", shape_of(x), ", expected ", expected.str(), ")");
}

inline void check(const char* name, const Tensor& x, const Home& home, const Ints& sizes,
                  bool contiguous = true) {
  check_home(name, x, home, contiguous);
  check_sizes(name, x, sizes);
}

// By its number: a string would leak 50 bytes a call in the stable ABI of torch 2.10 to 2.13.
inline Nonlinearity nonlinearity_of(int64_t number) {
  require(number >= 0 && number <= static_cast<int64_t>(Nonlinearity::sin), "nonlinearity is ",
          number, ", expected 0 to ", static_cast<int64_t>(Nonlinearity::sin));
  return static_cast<Nonlinearity>(number);
}

template <class T>
const T* data(const Tensor& x) {
  return static_cast<const T*>(x.const_data_ptr());
}

template <class T>
const T* data(const std::optional<Tensor>& x) {
  return x ? data<T>(*x) : nullptr;
}

template <class T>
T* out(const Tensor& x) {
  return static_cast<T*>(x.mutable_data_ptr());
}

// A tensor of the dtype and on the device of `like`. Not by torch::stable::new_empty, which boxes
// its arguments for the dispatcher: 2 us each, and a backward of a small net makes a dozen.
inline Tensor new_tensor(const Tensor& like, const Ints& sizes) {
  int32_t dtype = 0, type = 0, index = 0;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(like.get(), &dtype));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_type(like.get(), &type));
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_get_device_index(like.get(), &index));
  Ints strides(sizes.size(), 1);
  for (size_t i = sizes.size(); i-- > 1;)
    strides[i - 1] = strides[i] * (sizes[i] > 1 ? sizes[i] : 1);
  AtenTensorHandle made = nullptr;
  STABLE_TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      static_cast<int64_t>(sizes.size()), sizes.data(), strides.data(), dtype, type, index, &made));
  return Tensor(made);
}

// Asks for huge pages, where memory is fresh: in pages of 4 KiB, 45 MB take 18 ms before anything
// is written, in huge ones 4.5 (measured on Zen 4). Smaller pieces malloc has kept.
inline Tensor in_huge_pages(const Tensor& x) {
#if defined(__linux__)
  constexpr uintptr_t kHuge = uintptr_t{2} << 20, kFresh = uintptr_t{32} << 20;
  const uintptr_t size = x.scalar_type() == ScalarType::Double ? sizeof(double) : sizeof(float);
  const uintptr_t begin = reinterpret_cast<uintptr_t>(x.const_data_ptr());
  const uintptr_t end = begin + static_cast<uintptr_t>(x.numel()) * size;
  const uintptr_t first = (begin + kHuge - 1) / kHuge * kHuge;
  if (x.is_cpu() && end - begin > kFresh)
    madvise(reinterpret_cast<void*>(first), (end - first) / kHuge * kHuge, MADV_HUGEPAGE);
#endif
  return x;
}

inline Tensor new_like(const Tensor& x) {
  const auto sizes = x.sizes();
  return new_tensor(x, Ints(sizes.begin(), sizes.end()));
}

inline void run_threads(int64_t n, void (*body)(void*, int64_t), void* context) {
  if (n == 1) return body(context, 0);
  torch::stable::parallel_for(0, n, 1, [&](int64_t begin, int64_t end) {
    const DenormalsAreZero mode;  // of a thread that torch uses, too
    for (int64_t i = begin; i < end; ++i) body(context, i);
  });
}

// As many workers as torch has threads, but no more than rows, and never so many that waking one
// costs more than the work (in multiply-adds) that it takes over.
inline Threads threads_for(int64_t rows, double work) {
  constexpr double kWorkPerThread = 2e5;  // about 5 us, what waking a thread costs
  int64_t n = torch::stable::get_num_threads();
  if (n > rows) n = rows;
  if (static_cast<double>(n) * kWorkPerThread > work)
    n = static_cast<int64_t>(work / kWorkPerThread);
  return {n < 1 ? 1 : n, run_threads};
}

struct Free {
  void operator()(void* p) const { std::free(p); }
};

// Scratch memory of one solve. Up to kKept bytes each calling thread keeps from one solve to the
// next: fresh pages cost W1 of the benchmarks a third of its time, but a large solve nothing.
class Workspace {
 public:
  explicit Workspace(int64_t bytes) {
    require(bytes < kTooMany, "the solve needs more scratch memory than can be addressed");
    thread_local std::unique_ptr<void, Free> kept;
    thread_local int64_t kept_size = 0;
    if (bytes > kKept) {
      own_ = allocate(bytes);
      address_ = own_.get();
      return;
    }
    if (bytes > kept_size) {
      kept.reset();
      kept_size = 0;
      kept = allocate(bytes);
      kept_size = bytes;
    }
    address_ = kept.get();
  }
  void* get() const { return address_; }

 private:
  static constexpr int64_t kKept = int64_t{32} << 20;

  static std::unique_ptr<void, Free> allocate(int64_t bytes) {
    void* p = std::aligned_alloc(64, static_cast<size_t>((bytes + 63) / 64 * 64));
    require(p, "there is no memory for the ", bytes, " bytes of scratch of the solve");
    return std::unique_ptr<void, Free>(p);
  }

  std::unique_ptr<void, Free> own_;
  void* address_;
};

}  // namespace mvae_fast
