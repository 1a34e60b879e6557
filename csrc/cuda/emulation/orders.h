// Whether results depend on the order of threads, on memory that nobody wrote, or on luck: the same work in several orders. And the
// emulation as plain C, for tests in another language.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "runtime.h"

namespace cuda_emulation {

struct Trial {
    const char* name;
    Order order;
    uint64_t seed;
    unsigned char poison;  // 0xFF: NaN and -1; 0x5A: large numbers
};

constexpr Trial kTrials[] = {
    {"ascending order", Order::ascending, 0, 0xFF},
    {"descending order", Order::descending, 0, 0x5A},
    {"random order, seed 1", Order::random, 1, 0xFF},
    {"random order, seed 2", Order::random, 2, 0x5A},
};

// Runs the work in every order, each time from the same content of all arrays, scratch arrays and shared memory poisoned anew. Returns an
// empty string, or in a sentence the first fault or the first array whose content differs.
template <class Run>
std::string in_every_order(Run&& run) {
    Machine& machine = Machine::instance();
    std::vector<std::pair<const Array*, std::vector<unsigned char>>> before, after;
    for (const auto& [mapping, array] : machine.memory.arrays()) before.push_back({&array, {array.data, array.data + array.bytes}});
    std::string told;
    for (const Trial& trial : kTrials) {
        for (const auto& [array, content] : before) {
            if (array->scratch)
                std::memset(array->data, trial.poison, array->bytes);
            else
                std::memcpy(array->data, content.data(), array->bytes);
        }
        machine.arrange(trial.order, trial.seed);
        machine.poison = trial.poison;
        run();
        told = machine.take_fault();
        if (!told.empty()) told += "; " + std::string(trial.name);
        for (size_t i = 0; told.empty() && i < after.size(); ++i) {
            const auto& [array, content] = after[i];
            for (size_t byte = 0; told.empty() && !array->scratch && byte < array->bytes; ++byte) {
                if (array->data[byte] == content[byte]) continue;
                told = "byte " + std::to_string(byte) + " of '" + array->name + "' is another in ";
                told += std::string(trial.name) + " than in " + kTrials[0].name;
            }
        }
        if (!told.empty()) break;
        if (after.empty())
            for (const auto& [array, content] : before) after.push_back({array, {array->data, array->data + array->bytes}});
    }
    machine.arrange(Order::ascending, 0);
    machine.poison = kTrials[0].poison;
    return told;
}

}  // namespace cuda_emulation

// One translation unit of a library defines CUDA_EMULATION_INTERFACE before it includes this.
#if defined(CUDA_EMULATION_INTERFACE)
#define CUDA_EMULATION_PUBLIC extern "C" __attribute__((visibility("default"), used)) inline

CUDA_EMULATION_PUBLIC void* cuda_emulation_allocate(const char* name, uint64_t bytes, int guarded_before, int scratch) {
    auto& machine = cuda_emulation::Machine::instance();
    const auto guarded = guarded_before ? cuda_emulation::Guarded::before : cuda_emulation::Guarded::behind;
    return machine.memory.allocate(name, bytes, guarded, scratch != 0, machine.poison);
}

CUDA_EMULATION_PUBLIC void cuda_emulation_release(void* data) { cuda_emulation::Machine::instance().memory.release(data); }

// 0 ascending, 1 descending, 2 random
CUDA_EMULATION_PUBLIC void cuda_emulation_arrange(int order, uint64_t seed, int poison) {
    auto& machine = cuda_emulation::Machine::instance();
    machine.arrange(static_cast<cuda_emulation::Order>(order), seed);
    machine.poison = static_cast<unsigned char>(poison);
}

// What went wrong since it was last asked, or an empty string; valid until the next call.
CUDA_EMULATION_PUBLIC const char* cuda_emulation_fault() {
    static std::string told;
    told = cuda_emulation::Machine::instance().take_fault();
    return told.c_str();
}

CUDA_EMULATION_PUBLIC const char* cuda_emulation_in_every_order(void (*run)()) {
    static std::string told;
    told = cuda_emulation::in_every_order(run);
    return told.c_str();
}
#endif
