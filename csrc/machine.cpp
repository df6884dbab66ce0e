// What the extension says of the machine.

#include "cpu/capability.h"
#include "torch_abi.h"

namespace mvae_fast {
namespace {

// Lets the kernels of an instruction set run, if one is named. All of this processor, best first,
// after the one whose kernels run; spaces between.
std::string cpu_capabilities(const std::string& name) {
  const bool known = name.empty() || set_capability(name.c_str());
  std::string all = capability();
  for (const char* const* other = available_capabilities(); *other; ++other)
    all += " " + std::string(*other);
  require(known, "capability is '", name, "', expected one of: ", all);
  return all;
}

// Multiply-adds that every thread's register tile did, `repeats` times: the caller takes the time.
int64_t cpu_peak(int64_t repeats) {
  constexpr int64_t kMost = 10'000'000;  // about ten seconds
  require(repeats >= 0 && repeats <= kMost, "repeats is ", repeats, ", expected 0 to ", kMost);
  return kernels<float>().peak(repeats, {torch::stable::get_num_threads(), run_threads});
}

}  // namespace
}  // namespace mvae_fast

STABLE_TORCH_LIBRARY(mvae_fast, m) {
  m.def("cpu_capabilities(str name) -> str");
  m.def("cpu_peak(int repeats) -> int");
}

STABLE_TORCH_LIBRARY_IMPL(mvae_fast, CompositeExplicitAutograd, m) {
  m.impl("cpu_capabilities", TORCH_BOX(&mvae_fast::cpu_capabilities));
  m.impl("cpu_peak", TORCH_BOX(&mvae_fast::cpu_peak));
}
