// What this machine can do at most, one thread: loops that do nothing but multiply in registers, or read. bench/limits.py clocks them.
#pragma once

#include <cstdint>
#include <vector>

namespace compress_rec {

// Each runs `steps` steps and returns a number that depends on every result, so that no work can be left out.
using ArithmeticLoop = double (*)(int64_t steps);

// A multiplication and an addition count as two operations.
constexpr int64_t kFmaOperations = 12 * 8 * 2;        // 12 FMAs of 8 floats
constexpr int64_t kMaddubsOperations = 4 * 32 * 2;    // 4 times maddubs, madd, add: 32 products of bytes
constexpr int64_t kPairsOperations = 2 * 4 * 32 * 2;  // 4 times two maddubs summed in 16 bits, madd, add
constexpr int64_t kFoursOperations = 4 * 4 * 32 * 2;  // 4 times four maddubs summed in 16 bits, madd, add

double fma_limit_avx2(int64_t steps);
double maddubs_limit_avx2(int64_t steps);
double maddubs_pairs_limit_avx2(int64_t steps);
double maddubs_fours_limit_avx2(int64_t steps);

// Reads whole 128-byte pieces of `bytes` bytes, `passes` times, and returns a number that depends on all of them.
double read_limit_avx2(const void* data, int64_t bytes, int64_t passes);

struct ArithmeticLimit {
    const char* name;
    int64_t operations;  // a step
    ArithmeticLoop run;
};

// Those of the best tier this CPU can run; none where that is the reference.
std::vector<ArithmeticLimit> arithmetic_limits();

}  // namespace compress_rec
