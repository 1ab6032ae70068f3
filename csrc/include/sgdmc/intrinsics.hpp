// Intrinsics, for the few kernels that the compiler does not vectorise well by itself.
#pragma once

#include "parallel.hpp"

#ifdef SGDMC_HAS_DISPATCH
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"  // GCC's own headers, bug 105593
#include <immintrin.h>
#pragma GCC diagnostic pop
#endif
