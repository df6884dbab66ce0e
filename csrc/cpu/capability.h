// Which kernels run: the widest this processor has, or one chosen by name (tests force each).
#pragma once

#include "../problem.h"

namespace mvae_fast {

// Names, best first, of the instruction sets this processor can run; ends with null.
const char* const* available_capabilities();

const char* capability();

// False if `name` is not available here.
bool set_capability(const char* name);

template <class T>
const Kernels<T>& kernels();

}  // namespace mvae_fast
