// Memory of the emulated device: every array ends, or begins, at a page that may not be touched, and starts out poisoned.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <map>
#include <stdexcept>
#include <string>

namespace cuda_emulation {

constexpr size_t kPage = 4096, kAlignment = 16;
constexpr unsigned char kCanary = 0xA5;

constexpr size_t rounded_up(size_t bytes, size_t step) { return (bytes + step - 1) / step * step; }

inline unsigned char* map_pages(size_t bytes) {
    void* mapped = mmap(nullptr, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapped == MAP_FAILED) throw std::runtime_error("the emulated device has no memory left");
    return static_cast<unsigned char*>(mapped);
}

inline void open_pages(unsigned char* from, size_t bytes) {
    if (bytes && mprotect(from, bytes, PROT_READ | PROT_WRITE) != 0) throw std::runtime_error("the emulated device cannot open its memory");
}

// Which side of an array touches the forbidden page. An array that ends there is found out at its first byte too many, but for the few
// that fill it up to 16: those hold canaries, which betray a write.
enum class Guarded { behind, before };

struct Array {
    std::string name;
    unsigned char* mapping = nullptr;  // forbidden page, open pages, forbidden page
    size_t mapped = 0;
    unsigned char* data = nullptr;
    size_t bytes = 0;
    bool scratch = false;  // its content is no result

    unsigned char* opened() const { return mapping + kPage; }
    unsigned char* closed() const { return mapping + mapped - kPage; }
};

class Memory {
  public:
    unsigned char* allocate(const char* name, size_t bytes, Guarded guarded, bool scratch, unsigned char poison) {
        Array made;
        made.name = name;
        made.bytes = bytes;
        made.scratch = scratch;
        const size_t inner = std::max(rounded_up(bytes, kPage), kPage);
        made.mapped = inner + 2 * kPage;
        made.mapping = map_pages(made.mapped);
        open_pages(made.opened(), inner);
        made.data = guarded == Guarded::before ? made.opened() : made.closed() - rounded_up(bytes, kAlignment);
        std::memset(made.opened(), kCanary, inner);
        std::memset(made.data, poison, bytes);
        arrays_[made.mapping] = made;
        return made.data;
    }

    void release(const void* data) {
        for (auto found = arrays_.begin(); found != arrays_.end(); ++found) {
            if (found->second.data != data) continue;
            munmap(found->second.mapping, found->second.mapped);
            arrays_.erase(found);
            return;
        }
    }

    const std::map<unsigned char*, Array>& arrays() const { return arrays_; }

    // Says in words where an address lies that was not to be touched; empty where it belongs to no array.
    std::string place_of(const void* address) const {
        const auto* byte = static_cast<const unsigned char*>(address);
        for (const auto& [mapping, array] : arrays_) {
            if (byte < mapping || byte >= mapping + array.mapped) continue;
            const auto behind = byte - (array.data + array.bytes), before = array.data - byte;
            const std::string of = " of '" + array.name + "' (" + std::to_string(array.bytes) + " bytes)";
            if (before > 0) return std::to_string(before) + " bytes before the start" + of;
            return std::to_string(behind) + " bytes behind the end" + of;
        }
        return "";
    }

    // The name of an array around which something was written, or nothing.
    std::string damaged() const {
        for (const auto& [mapping, array] : arrays_) {
            for (const unsigned char* at = array.opened(); at < array.closed(); ++at) {
                if (at == array.data && array.bytes) at += array.bytes;
                if (at >= array.closed()) break;
                if (*at != kCanary) return place_of(at);
            }
        }
        return "";
    }

  private:
    std::map<unsigned char*, Array> arrays_;
};

// The shared memory of a block: arrays taken one behind the other, each in pages of its own.
class SharedArrays {
  public:
    static constexpr size_t kMost = 64, kLargest = 256 << 10, kWatched = 64;

    void begin_block(unsigned char poison) {
        poison_ = poison;
        taken_ = 0;
    }

    // The array number `index` of this block, made by whichever thread asks first; null where another size was asked for before.
    unsigned char* take(size_t index, size_t bytes) {
        if (index >= kMost || bytes > kLargest) throw std::runtime_error("the emulation has 64 shared arrays of at most 256 KiB");
        if (!slots_) {
            slots_ = map_pages(kMost * kSlot);
            for (size_t slot = 0; slot < kMost; ++slot) open_pages(slots_ + slot * kSlot, kLargest);
        }
        unsigned char* data = end_of(index) - rounded_up(bytes, kAlignment);
        if (index < taken_) return sizes_[index] == bytes ? data : nullptr;
        sizes_[taken_++] = bytes;
        std::memset(data - kWatched, kCanary, kWatched + rounded_up(bytes, kAlignment));
        std::memset(data, poison_, bytes);
        return data;
    }

    // What the arrays of this block take together, each rounded up to 16 bytes.
    size_t total() const {
        size_t sum = 0;
        for (size_t index = 0; index < taken_; ++index) sum += rounded_up(sizes_[index], kAlignment);
        return sum;
    }

    std::string place_of(const void* address) const {
        const auto* byte = static_cast<const unsigned char*>(address);
        if (!slots_ || byte < slots_ || byte >= slots_ + kMost * kSlot) return "";
        const size_t index = static_cast<size_t>(byte - slots_) / kSlot;
        if (index >= taken_) return "in a shared array that was never taken";
        const auto behind = byte - (end_of(index) - rounded_up(sizes_[index], kAlignment) + sizes_[index]);
        const std::string of = "shared array " + std::to_string(index) + " (" + std::to_string(sizes_[index]) + " bytes)";
        return behind >= 0 ? std::to_string(behind) + " bytes behind the end of " + of : "before the start of " + of;
    }

    std::string damaged() const {
        for (size_t index = 0; index < taken_; ++index) {
            const unsigned char* data = end_of(index) - rounded_up(sizes_[index], kAlignment);
            for (const unsigned char* at = data - kWatched; at < end_of(index); ++at) {
                if (at == data && sizes_[index]) at += sizes_[index];
                if (at < end_of(index) && *at != kCanary) return place_of(at);
            }
        }
        return "";
    }

  private:
    static constexpr size_t kSlot = kLargest + kPage;

    unsigned char* end_of(size_t index) const { return slots_ + index * kSlot + kLargest; }

    unsigned char* slots_ = nullptr;
    unsigned char poison_ = 0xFF;
    size_t taken_ = 0;
    size_t sizes_[kMost] = {};
};

}  // namespace cuda_emulation
