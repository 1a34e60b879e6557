// Memory for many weights: in pages of two megabytes where the system has them, since a pass over all weights of an encoder touches some ten
// thousand small ones, more than a processor remembers the places of.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <new>
#include <vector>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace compress_rec {

constexpr int64_t kLargePage = 2 << 20;

struct FreeMemory {
    void operator()(void* held) const { std::free(held); }
};

// `bytes` of memory, aligned to 64 bytes; to large pages, and asking for them, where there is enough to fill one.
inline void* large_memory(int64_t bytes) {
    const bool large = bytes >= kLargePage;
    const int64_t align = large ? kLargePage : 64, size = (std::max<int64_t>(bytes, 1) + align - 1) / align * align;
    void* made = nullptr;
    if (posix_memalign(&made, static_cast<size_t>(align), static_cast<size_t>(size)) != 0) throw std::bad_alloc();
#if defined(__linux__)
    if (large) madvise(made, static_cast<size_t>(size), MADV_HUGEPAGE);  // a wish: without large pages the memory serves as well
#endif
    return made;
}

// Copies of arrays, one behind the other, as long as it lives.
class Copies {
  public:
    const void* keep(const void* from, int64_t bytes) {
        const int64_t size = (bytes + 63) / 64 * 64;
        if (size > left_) {
            left_ = std::max(size, kSlab);
            slabs_.emplace_back(large_memory(left_));
            next_ = static_cast<char*>(slabs_.back().get());
        }
        void* to = next_;
        std::memcpy(to, from, static_cast<size_t>(bytes));
        next_ += size, left_ -= size;
        return to;
    }

  private:
    static constexpr int64_t kSlab = 16 << 20;  // what is not written to takes no memory
    std::vector<std::unique_ptr<void, FreeMemory>> slabs_;
    char* next_ = nullptr;
    int64_t left_ = 0;
};

}  // namespace compress_rec
