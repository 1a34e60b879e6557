#include "limits.h"

#include "isa.h"

namespace compress_rec {

std::vector<ArithmeticLimit> arithmetic_limits() {
    if (best_tier() == Tier::reference) return {};
    return {{"fma", kFmaOperations, &fma_limit_avx2},
            {"maddubs", kMaddubsOperations, &maddubs_limit_avx2},
            {"maddubs_pairs", kPairsOperations, &maddubs_pairs_limit_avx2},
            {"maddubs_fours", kFoursOperations, &maddubs_fours_limit_avx2}};
}

}  // namespace compress_rec
