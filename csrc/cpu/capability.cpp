#include "capability.h"

#include <atomic>
#include <cstring>

#include "kernels.h"

namespace mvae_fast {
namespace {

struct Capability {
  const char* name;
  const Kernels<float>* f32;
  const Kernels<double>* f64;
};

struct Capabilities {
  const Capability* best_first[5] = {};
  const char* names[5] = {};
};

const Capability kBaseline{"baseline", &baseline::kernels_f32, &baseline::kernels_f64};
#if MVAE_FAST_X86_DISPATCH
const Capability kAvx2{"avx2", &avx2::kernels_f32, &avx2::kernels_f64};
const Capability kAvx512{"avx512", &avx512::kernels_f32, &avx512::kernels_f64};
const Capability kAvx512Bf16{"avx512_bf16", &avx512_bf16::kernels_f32, &avx512::kernels_f64};
#endif

Capabilities detect() {
  Capabilities found;
  int n = 0;
#if MVAE_FAST_X86_DISPATCH
  __builtin_cpu_init();
  const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool has_avx512 = has_avx2 && __builtin_cpu_supports("avx512f") &&
                          __builtin_cpu_supports("avx512bw") &&
                          __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (has_avx512 && __builtin_cpu_supports("avx512bf16")) found.best_first[n++] = &kAvx512Bf16;
  if (has_avx512) found.best_first[n++] = &kAvx512;
  if (has_avx2) found.best_first[n++] = &kAvx2;
#endif
  found.best_first[n++] = &kBaseline;
  for (int i = 0; i < n; ++i) found.names[i] = found.best_first[i]->name;
  return found;
}

const Capabilities& all() {
  static const Capabilities found = detect();
  return found;
}

std::atomic<const Capability*>& chosen() {
  static std::atomic<const Capability*> current{all().best_first[0]};
  return current;
}

}  // namespace

const char* const* available_capabilities() {
  return all().names;
}

const char* capability() {
  return chosen().load()->name;
}

bool set_capability(const char* name) {
  for (const Capability* const* c = all().best_first; *c; ++c)
    if (std::strcmp((*c)->name, name) == 0) {
      chosen().store(*c);
      return true;
    }
  return false;
}

template <>
const Kernels<float>& kernels<float>() {
  return *chosen().load()->f32;
}

template <>
const Kernels<double>& kernels<double>() {
  return *chosen().load()->f64;
}

}  // namespace mvae_fast
