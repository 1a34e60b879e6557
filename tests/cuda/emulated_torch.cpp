// Stands in for the device and for csrc/kernels.cpp: the torch side of the CUDA kernels, and the kernels under emulation, as ops of
// torch.ops.compress_rec_emulated on the CPU.
#include <torch/csrc/stable/library.h>

#include <utility>
#include <vector>

#include "kernels.h"
#include "torch_device.h"

namespace compress_rec {

namespace {

std::vector<std::pair<const char*, BoxedKernel>>& declared() {
    static std::vector<std::pair<const char*, BoxedKernel>> kernels;
    return kernels;
}

}  // namespace

CudaKernel::CudaKernel(const char* name, BoxedKernel function) {
    declared().emplace_back(name, function);
}

namespace cuda {

Running::Running(int32_t) : multiprocessors_(3) {}
Running::~Running() = default;

}  // namespace cuda

}  // namespace compress_rec

extern "C" __attribute__((visibility("default"))) void register_emulated() {
    using torch::stable::detail::StableLibrary;
    static StableLibrary library(StableLibrary::Kind::IMPL, "compress_rec_emulated", "CPU", __FILE__, __LINE__);
    for (const auto& kernel : compress_rec::declared()) library.impl(kernel.first, kernel.second);
}
