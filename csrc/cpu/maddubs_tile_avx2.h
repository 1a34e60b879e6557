// The inner loop of the int8 kernels. Included inside a file's target region and namespace, after the standard headers.
//
// A panel holds 16 columns of the right-hand side in steps of eight places each: two groups of four places, (2, 16, 4) signed bytes, 128
// a step. A tile multiplies ROWS rows of 7-bit unsigned bytes by VECTORS × 8 columns. `maddubs` sums two products into 16 bits; the sums
// of both groups are added there, four products in all, before `madd` widens them to 32: three multiplications for 64 products instead
// of four. Whoever packs a panel sees to it that no four weights that meet in a lane can leave 16 bits with activations of 0 … 127:
// their positive parts sum to at most 258, and so do their negative ones (127 · 258 = 32766).

constexpr int64_t kInt8Columns = 16, kPlacesInStep = 8, kBytesInStep = kInt8Columns * kPlacesInStep;

inline __m256i bytes_at(const int8_t* from) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
}

inline __m256i four_bytes(const uint8_t* from) {
    int32_t bytes;
    std::memcpy(&bytes, from, sizeof bytes);
    return _mm256_set1_epi32(bytes);
}

// Rows come in blocks of four, step by step: eight bytes of each row in turn. Strided rows would meet in one bank of the cache.
constexpr int64_t kRowsInBlock = 4, kBlockStep = kRowsInBlock * kPlacesInStep;

// totals[r][c] = row r of the block · column c over `steps` steps, for ROWS rows and VECTORS · 8 columns, 32-byte aligned. Panels lie
// panel_stride bytes apart. The sums leave through memory, so that gcc keeps them in registers whatever the caller does with them.
template <int ROWS, int VECTORS>
inline __attribute__((always_inline)) void maddubs_tile(const uint8_t* rows, const int8_t* panels, int64_t panel_stride, int64_t steps,
                                                        int32_t (*totals)[VECTORS * 8]) {
    const __m256i one_i16x16 = _mm256_set1_epi16(1);
    __m256i sum_i32x8[ROWS][VECTORS];
    for (int r = 0; r < ROWS; ++r)
        for (int v = 0; v < VECTORS; ++v) sum_i32x8[r][v] = _mm256_setzero_si256();
    for (int64_t s = 0; s < steps; ++s) {
        for (int r = 0; r < ROWS; ++r) {
            const uint8_t* row = rows + s * kBlockStep + r * kPlacesInStep;
            const __m256i near_u8x32 = four_bytes(row), far_u8x32 = four_bytes(row + 4);
            for (int v = 0; v < VECTORS; v += 2) {
                const int8_t* column = panels + (v / 2) * panel_stride + s * kBytesInStep;
                const __m256i near0_i16x16 = _mm256_maddubs_epi16(near_u8x32, bytes_at(column));
                const __m256i far0_i16x16 = _mm256_maddubs_epi16(far_u8x32, bytes_at(column + 64));
                const __m256i near1_i16x16 = _mm256_maddubs_epi16(near_u8x32, bytes_at(column + 32));
                const __m256i far1_i16x16 = _mm256_maddubs_epi16(far_u8x32, bytes_at(column + 96));
                const __m256i four0_i32x8 = _mm256_madd_epi16(_mm256_add_epi16(near0_i16x16, far0_i16x16), one_i16x16);
                const __m256i four1_i32x8 = _mm256_madd_epi16(_mm256_add_epi16(near1_i16x16, far1_i16x16), one_i16x16);
                __m256i sum0_i32x8 = _mm256_add_epi32(sum_i32x8[r][v], four0_i32x8);
                __m256i sum1_i32x8 = _mm256_add_epi32(sum_i32x8[r][v + 1], four1_i32x8);
                // finish one row before the next: otherwise gcc loads the rows of a whole step at once and spills the sums (-13 %)
                asm volatile("" : "+x"(sum0_i32x8), "+x"(sum1_i32x8));
                sum_i32x8[r][v] = sum0_i32x8, sum_i32x8[r][v + 1] = sum1_i32x8;
            }
        }
    }
    for (int r = 0; r < ROWS; ++r)
        for (int v = 0; v < VECTORS; ++v) _mm256_store_si256(reinterpret_cast<__m256i*>(totals[r] + v * 8), sum_i32x8[r][v]);
}
