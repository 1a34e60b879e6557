// CUDA on the CPU, for tests: include this in place of cuda_runtime.h, and a .cu file is C++. README.md says what it finds out.
#pragma once

#if defined(__CUDACC__)
#error "nvcc has the real thing"
#endif

#include "arithmetic.h"
#include "collectives.h"
#include "fibres.h"
#include "memory.h"
#include "orders.h"
#include "runtime.h"
#include "types.h"
