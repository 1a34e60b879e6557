#include "kernels.h"

#include <torch/csrc/stable/library.h>

#include <memory>
#include <type_traits>
#include <utility>

namespace compress_rec {

namespace {

static_assert(std::is_same_v<StableIValue, uint64_t>, "kernels.h states torch's calling convention without its headers");

std::vector<std::pair<const char*, BoxedKernel>>& declared() {
    static std::vector<std::pair<const char*, BoxedKernel>> kernels;
    return kernels;
}

// What STABLE_TORCH_LIBRARY_IMPL makes as a static object; as a pointer it can be taken back, and the dispatcher then falls to the
// references. Never destroyed at exit: torch may be gone by then.
torch::stable::detail::StableLibrary* registered = nullptr;

}  // namespace

CpuKernel::CpuKernel(const char* name, BoxedKernel function) {
    declared().emplace_back(name, function);
}

std::vector<std::string> kernel_names() {
    std::vector<std::string> names;
    for (const auto& kernel : declared()) names.emplace_back(kernel.first);
    return names;
}

void register_kernels(bool wanted) {
    using torch::stable::detail::StableLibrary;
    if (wanted == (registered != nullptr)) return;
    if (!wanted) {
        delete registered;
        registered = nullptr;
        return;
    }
    auto library = std::make_unique<StableLibrary>(StableLibrary::Kind::IMPL, "compress_rec", "CPU", __FILE__, __LINE__);
    for (const auto& kernel : declared()) library->impl(kernel.first, kernel.second);
    registered = library.release();
}

}  // namespace compress_rec
