#include "isa.h"

#include <atomic>
#include <mutex>
#include <stdexcept>

#include "kernels.h"

namespace compress_rec {

namespace {

std::atomic<Tier> tier_in_force{Tier::reference};
std::mutex changing;

}  // namespace

Tier best_tier() {
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Tier::avx2;
#endif
    return Tier::reference;
}

const char* name_of(Tier tier) {
    return tier == Tier::avx2 ? "avx2" : "reference";
}

std::vector<std::string> tier_names() {
    std::vector<std::string> names{name_of(Tier::reference)};
    if (best_tier() == Tier::avx2) names.emplace_back(name_of(Tier::avx2));
    return names;
}

Tier current_tier() {
    return tier_in_force.load(std::memory_order_relaxed);
}

void use(const std::string& name) {
    std::lock_guard<std::mutex> one_at_a_time(changing);
    for (Tier tier : {Tier::reference, Tier::avx2}) {
        if (name != name_of(tier) || tier > best_tier()) continue;
        register_kernels(tier != Tier::reference);
        // a CPU that has nothing but the reference is no reason to leave a GPU idle
        register_cuda_kernels(tier != Tier::reference || best_tier() == Tier::reference);
        tier_in_force.store(tier, std::memory_order_relaxed);
        return;
    }
    throw std::invalid_argument("this CPU has no instruction tier called '" + name + "'");
}

}  // namespace compress_rec
