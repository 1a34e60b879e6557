// The instruction tiers: which this CPU has, and which is in force.
#pragma once

#include <string>
#include <vector>

namespace compress_rec {

enum class Tier { reference = 0, avx2 = 1 };

// The best tier this CPU can run.
Tier best_tier();

const char* name_of(Tier tier);

// Every tier this CPU can run, the reference first.
std::vector<std::string> tier_names();

// The tier in force; the reference until use() names another.
Tier current_tier();

// Puts the tier called `name` in force: registers the compiled kernels with torch, or takes them back so that the references serve.
// Throws std::invalid_argument where there is no such tier on this CPU.
void use(const std::string& name);

}  // namespace compress_rec
