// The compiled kernels: each <op>.cpp declares its own with one static object, so that nobody edits a list.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace compress_rec {

// torch's calling convention for boxed kernels of the stable ABI: StableIValue is a uint64_t.
using BoxedKernel = void (*)(uint64_t* stack, uint64_t inputs, uint64_t outputs);

// static const CpuKernel declared("name", TORCH_BOX(&function));
struct CpuKernel {
    CpuKernel(const char* name, BoxedKernel function);
};

// The same for CUDA devices; in a build without CUDA there are none.
struct CudaKernel {
    CudaKernel(const char* name, BoxedKernel function);
};

// The names of the ops that have a compiled kernel for the CPU.
std::vector<std::string> kernel_names();

// Registers all of them with torch's dispatcher at the CPU, or takes them back.
void register_kernels(bool wanted);

// Those for CUDA devices.
void register_cuda_kernels(bool wanted);

}  // namespace compress_rec
