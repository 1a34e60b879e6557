// The instructions that CUDA C++ has no name for, each with a twin in C++ for the emulation: tensor-core products of 16 × 8 × 16, the load
// of their fragments, and asynchronous copies to shared memory. sm_80 and on.
//
// Fragments, for lane l with g = l / 4 and t = l % 4, two numbers to a register, the first in the low half:
//   a (16 × 16): a[0] row g, columns 2t, 2t + 1; a[1] row g + 8; a[2] row g, columns 2t + 8, 2t + 9; a[3] row g + 8, the same columns
//   b (16 × 8):  b[0] rows 2t, 2t + 1 of column g; b[1] rows 2t + 8, 2t + 9
//   c (16 × 8):  c[0], c[1] row g, columns 2t, 2t + 1; c[2], c[3] row g + 8
#pragma once

#include "device.h"

namespace compress_rec::cuda {

#if defined(__CUDACC__)

__device__ inline void multiply_add(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2], __nv_bfloat16) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ inline void multiply_add(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2], __half) {
    asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
                 : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

__device__ inline unsigned shared_address(const void* place) { return static_cast<unsigned>(__cvta_generic_to_shared(place)); }

// Four matrices of 8 × 8 numbers of 16 bits: lane l says where row l % 8 of matrix l / 8 lies, and gets columns 2t, 2t + 1 of row g of all.
__device__ inline void load_matrices(unsigned (&registers)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(registers[0]), "=r"(registers[1]), "=r"(registers[2]), "=r"(registers[3])
                 : "r"(shared_address(row))
                 : "memory");
}

// Copies 16 bytes to shared memory without waiting; where `there` is false, zeros, and nothing is read.
__device__ inline void copy_16(void* shared, const void* global, bool there) {
    const int bytes = there ? 16 : 0;
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(bytes) : "memory");
}

__device__ inline void end_copies() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most kOpen of this thread's ended groups of copies are under way. Other threads' copies are there behind a barrier.
template <int kOpen>
__device__ inline void wait_for_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(kOpen) : "memory");
}

#else

namespace twins {

struct Fragments {
    unsigned a[4], b[2];
};

inline float half_of(unsigned pair, int which, __nv_bfloat16) { return __bfloat162float({static_cast<uint16_t>(pair >> 16 * which)}); }
inline float half_of(unsigned pair, int which, __half) { return __half2float({static_cast<uint16_t>(pair >> 16 * which)}); }

}  // namespace twins

// Products are exact, and summed in double. The device rounds inside the sum in a way that is its own.
template <class Number>
void multiply_add(float (&c)[4], const unsigned (&a)[4], const unsigned (&b)[2], Number type, CUDA_EMULATION_SITE) {
    twins::Fragments mine{};
    std::copy(a, a + 4, mine.a);
    std::copy(b, b + 2, mine.b);
    const auto all = cuda_emulation::exchange("mma", kAllLanes, mine, file, line);
    const int lane = cuda_emulation::lane(), g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; ++i) {
        const int column = 2 * t + i % 2, upper = i / 2;
        double sum = c[i];
        for (int k = 0; k < 16; ++k) {
            const int holder = k % 8 / 2, behind = k / 8;
            sum += static_cast<double>(twins::half_of(all[4 * g + holder].a[upper + 2 * behind], k % 2, type)) *
                   twins::half_of(all[4 * column + holder].b[behind], k % 2, type);
        }
        c[i] = static_cast<float>(sum);
    }
}

inline void load_matrices(unsigned (&registers)[4], const void* row, CUDA_EMULATION_SITE) {
    const auto rows = cuda_emulation::exchange("ldmatrix", kAllLanes, row, file, line);
    const int lane = cuda_emulation::lane();
    for (int matrix = 0; matrix < 4; ++matrix) {
        registers[matrix] = static_cast<const unsigned*>(rows[8 * matrix + lane / 4])[lane % 4];
    }
}

inline void copy_16(void* shared, const void* global, bool there) {
    if (reinterpret_cast<uintptr_t>(shared) % 16 || (there && reinterpret_cast<uintptr_t>(global) % 16))
        cuda_emulation::Machine::instance().fail("copies 16 bytes from or to an address that is not a multiple of 16");
    cuda_emulation::copy_later(shared, global, there ? 16 : 0, 16);
}

inline void end_copies() { cuda_emulation::end_group(); }

template <int kOpen>
void wait_for_copies() {
    cuda_emulation::wait_for_copies(kOpen);
}

#endif

// Where 16 bytes lie in a tile in shared memory whose rows are `chunks` times 16 bytes, a multiple of eight. They change places within
// their eight by the row, so that the eight rows of a matrix lie in different banks.
__device__ inline int swizzled(int row, int chunk, int chunks) { return (row * chunks + (chunk ^ (row & 7))) * 16; }

}  // namespace compress_rec::cuda
