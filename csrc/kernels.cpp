#include "kernels.h"

#include <torch/csrc/stable/library.h>

#include <memory>
#include <type_traits>
#include <utility>

namespace compress_rec {

namespace {

static_assert(std::is_same_v<StableIValue, uint64_t>, "kernels.h states torch's calling convention without its headers");

// The kernels for one of torch's dispatch keys.
struct Kernels {
    const char* key;
    std::vector<std::pair<const char*, BoxedKernel>> declared;
    // What STABLE_TORCH_LIBRARY_IMPL makes as a static object; as a pointer it can be taken back, and the dispatcher then falls to the
    // references. Never destroyed at exit: torch may be gone by then.
    torch::stable::detail::StableLibrary* registered = nullptr;

    void put(bool wanted) {
        using torch::stable::detail::StableLibrary;
        if (declared.empty() || wanted == (registered != nullptr)) return;
        if (!wanted) {
            delete registered;
            registered = nullptr;
            return;
        }
        auto library = std::make_unique<StableLibrary>(StableLibrary::Kind::IMPL, "compress_rec", key, __FILE__, __LINE__);
        for (const auto& kernel : declared) library->impl(kernel.first, kernel.second);
        registered = library.release();
    }
};

Kernels& on_cpu() {
    static Kernels kernels{"CPU", {}};
    return kernels;
}

Kernels& on_cuda() {
    static Kernels kernels{"CUDA", {}};
    return kernels;
}

}  // namespace

CpuKernel::CpuKernel(const char* name, BoxedKernel function) {
    on_cpu().declared.emplace_back(name, function);
}

CudaKernel::CudaKernel(const char* name, BoxedKernel function) {
    on_cuda().declared.emplace_back(name, function);
}

std::vector<std::string> kernel_names() {
    std::vector<std::string> names;
    for (const auto& kernel : on_cpu().declared) names.emplace_back(kernel.first);
    return names;
}

void register_kernels(bool wanted) {
    on_cpu().put(wanted);
}

void register_cuda_kernels(bool wanted) {
    on_cuda().put(wanted);
}

}  // namespace compress_rec
