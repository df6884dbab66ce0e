// What the extension says of the machine.

#include "cpu/capability.h"
#include "torch_abi.h"

namespace mvae_fast {
namespace {

// All capabilities of this processor, best first, after the one whose kernels run; spaces between.
std::string cpu_capabilities() {
  std::string all = capability();
  for (const char* const* name = available_capabilities(); *name; ++name)
    all += " " + std::string(*name);
  return all;
}

// Multiply-adds that every thread's register tile did, `repeats` times: the caller takes the time.
int64_t cpu_peak(int64_t repeats) {
  constexpr int64_t kMost = 10'000'000;  // about ten seconds
  require(repeats >= 0 && repeats <= kMost, "repeats is ", repeats, ", expected 0 to ", kMost);
  return kernels<float>().peak(repeats, {torch::stable::get_num_threads(), run_threads});
}

void set_cpu_capability(const std::string& name) {
  require(set_capability(name.c_str()), "capability is '", name,
          "', expected one of: ", cpu_capabilities());
}

}  // namespace
}  // namespace mvae_fast

STABLE_TORCH_LIBRARY(mvae_fast, m) {
  m.def("cpu_capabilities() -> str");
  m.def("set_cpu_capability(str name) -> ()");
  m.def("cpu_peak(int repeats) -> int");
}

STABLE_TORCH_LIBRARY_IMPL(mvae_fast, CompositeExplicitAutograd, m) {
  m.impl("cpu_capabilities", TORCH_BOX(&mvae_fast::cpu_capabilities));
  m.impl("set_cpu_capability", TORCH_BOX(&mvae_fast::set_cpu_capability));
  m.impl("cpu_peak", TORCH_BOX(&mvae_fast::cpu_peak));
}
