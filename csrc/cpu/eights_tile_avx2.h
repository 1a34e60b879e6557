// The inner loop of int8 products whose 16-bit sums hold eight products, and the rounding of rows for it. Included inside a file's target
// region and namespace, after the standard headers.
//
// A panel holds 16 columns of the right-hand side in steps of 16 places: four groups of four places, (4, 16, 4) signed bytes, 256 a step.
// Rows are 7-bit unsigned bytes in blocks of three, step by step: 16 bytes of each row in turn. `maddubs` sums two products into 16 bits;
// the sums of a step's four groups are added there, eight products in all, before `madd` widens them to 32: five multiplications for 128
// products. Whoever packs a panel sees to it that no eight weights that meet in a lane can leave 16 bits with activations of 0 … 127: their
// positive parts sum to at most 258, and so do their negative ones (127 · 258 = 32766). Places 0, 1 of each group meet, and places 2, 3.
//
// Three rows by 16 columns are six sums of 32 bits, six of 16, two vectors of weights, a broadcast and a product: all 16 registers. Tiles
// with more rows load more often than two a cycle, and wait for that.

constexpr int64_t kEightsColumns = 16, kPlacesInEights = 16, kBytesInEights = kEightsColumns * kPlacesInEights;
constexpr int64_t kRowsInThree = 3, kThreeStep = kRowsInThree * kPlacesInEights;

inline __m256i eights_weights(const int8_t* from) {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
}

inline __m256i eights_row(const uint8_t* from) {
    int32_t bytes;
    std::memcpy(&bytes, from, sizeof bytes);
    return _mm256_set1_epi32(bytes);
}

// Three sums of 16 bits or of 32 by a vector of columns. Named, not an array: gcc 12 keeps arrays of them in memory.
struct ThreeSums {
    __m256i first, second, third;
};

// Adds the products of a group's four places for ROWS rows and eight columns to their 16-bit sums, or begins these.
template <int ROWS, bool BEGIN>
inline __attribute__((always_inline)) void eights_group(const uint8_t* row, const int8_t* weights, ThreeSums& near, ThreeSums& far) {
    const __m256i near_i8x32 = eights_weights(weights), far_i8x32 = eights_weights(weights + 32);
    const auto add = [&](int64_t r, __m256i& near_i16x16, __m256i& far_i16x16) __attribute__((always_inline)) {
        const __m256i row_u8x32 = eights_row(row + r * kPlacesInEights);
        const __m256i near_product_i16x16 = _mm256_maddubs_epi16(row_u8x32, near_i8x32);
        const __m256i far_product_i16x16 = _mm256_maddubs_epi16(row_u8x32, far_i8x32);
        near_i16x16 = BEGIN ? near_product_i16x16 : _mm256_add_epi16(near_i16x16, near_product_i16x16);
        far_i16x16 = BEGIN ? far_product_i16x16 : _mm256_add_epi16(far_i16x16, far_product_i16x16);
        // one row behind the other: otherwise gcc loads the rows of a whole step at once and spills the sums
        asm volatile("" : "+x"(near_i16x16), "+x"(far_i16x16));
    };
    add(0, near.first, far.first);
    if constexpr (ROWS > 1) add(1, near.second, far.second);
    if constexpr (ROWS > 2) add(2, near.third, far.third);
}

// totals[r][c] (+)= row r of the block · column c over `steps` steps, 32-byte aligned; added to what is there where MORE. One line in four
// of what lies at `ahead`, where the next panel's weights are, is fetched into the second-level cache meanwhile. One row alone waits for its
// weights, so all of their lines are fetched, and into the first.
template <int ROWS, bool MORE>
inline __attribute__((always_inline)) void eights_tile(const uint8_t* rows, const int8_t* panel, int64_t steps, const int8_t* ahead,
                                                       int32_t (*totals)[kEightsColumns]) {
    const __m256i one_i16x16 = _mm256_set1_epi16(1);
    ThreeSums near_sum, far_sum;
    const auto begin = [&](int64_t r, int64_t column) __attribute__((always_inline)) {
        return MORE ? _mm256_load_si256(reinterpret_cast<const __m256i*>(totals[r] + column)) : _mm256_setzero_si256();
    };
    near_sum.first = begin(0, 0), far_sum.first = begin(0, 8);
    if constexpr (ROWS > 1) near_sum.second = begin(1, 0), far_sum.second = begin(1, 8);
    if constexpr (ROWS > 2) near_sum.third = begin(2, 0), far_sum.third = begin(2, 8);
    for (int64_t s = 0; s < steps; ++s) {
        const int8_t* weights = panel + s * kBytesInEights;
        const uint8_t* row = rows + s * kThreeStep;
        const char* later = reinterpret_cast<const char*>(ahead + s * kBytesInEights);
        if constexpr (ROWS > 1) {
            _mm_prefetch(later, _MM_HINT_T1);
        } else {
            _mm_prefetch(later, _MM_HINT_T0), _mm_prefetch(later + 64, _MM_HINT_T0);
            _mm_prefetch(later + 128, _MM_HINT_T0), _mm_prefetch(later + 192, _MM_HINT_T0);
        }
        ThreeSums near, far;
        eights_group<ROWS, true>(row, weights, near, far);
        eights_group<ROWS, false>(row + 4, weights + 64, near, far);
        eights_group<ROWS, false>(row + 8, weights + 128, near, far);
        eights_group<ROWS, false>(row + 12, weights + 192, near, far);
        const auto widen = [&](__m256i& sum_i32x8, __m256i eight_i16x16) __attribute__((always_inline)) {
            sum_i32x8 = _mm256_add_epi32(sum_i32x8, _mm256_madd_epi16(eight_i16x16, one_i16x16));
        };
        widen(near_sum.first, near.first), widen(far_sum.first, far.first);
        if constexpr (ROWS > 1) widen(near_sum.second, near.second), widen(far_sum.second, far.second);
        if constexpr (ROWS > 2) widen(near_sum.third, near.third), widen(far_sum.third, far.third);
    }
    const auto end = [&](int64_t r, __m256i near_i32x8, __m256i far_i32x8) __attribute__((always_inline)) {
        _mm256_store_si256(reinterpret_cast<__m256i*>(totals[r]), near_i32x8);
        _mm256_store_si256(reinterpret_cast<__m256i*>(totals[r] + 8), far_i32x8);
    };
    end(0, near_sum.first, far_sum.first);
    if constexpr (ROWS > 1) end(1, near_sum.second, far_sum.second);
    if constexpr (ROWS > 2) end(2, near_sum.third, far_sum.third);
}

// totals[r][c] = row r of the block · column c of a panel, the sum of its parts first … last - 1 that lie one behind the other from `parts` on.
template <int ROWS>
inline __attribute__((always_inline)) void eights_panel(const uint8_t* rows, const int8_t* parts, int32_t first, int32_t last, int64_t steps,
                                                        const int8_t* ahead, int32_t (*totals)[kEightsColumns]) {
    const int64_t part_bytes = steps * kBytesInEights;
    eights_tile<ROWS, false>(rows, parts + first * part_bytes, steps, ahead, totals);
    for (int32_t part = first + 1; part < last; ++part) eights_tile<ROWS, true>(rows, parts + part * part_bytes, steps, ahead, totals);
}

struct RoundedRow {
    float step;    // NaN where the row holds NaN or infinity
    int32_t zero;  // the byte that stands for 0
};

// Rounds a row, times `diagonal` where there is one, as quantize_rows in compress_rec/ops/int8_linear.py says, to its place in a block: 16
// bytes of each step, kThreeStep apart, zeros behind `width`.
inline RoundedRow round_row(const float* row, const float* diagonal, int64_t width, uint8_t* bytes) {
    constexpr float kMostByte = 127.0f;
    const int64_t whole = width / 8, steps = (width + kPlacesInEights - 1) / kPlacesInEights;
    alignas(32) float rest[8] = {};
    for (int64_t place = whole * 8; place < width; ++place) rest[place - whole * 8] = diagonal ? row[place] * diagonal[place] : row[place];
    const auto at = [&](int64_t v) {
        const __m256 row_f32x8 = _mm256_loadu_ps(row + v * 8);
        return diagonal ? _mm256_mul_ps(row_f32x8, _mm256_loadu_ps(diagonal + v * 8)) : row_f32x8;
    };
    __m256 least_f32x8 = _mm256_setzero_ps(), most_f32x8 = _mm256_setzero_ps();
    __m256i largest_i32x8 = _mm256_setzero_si256();  // bits of the largest magnitude: those of NaN and infinity lie above all others
    const __m256i magnitude_i32x8 = _mm256_set1_epi32(0x7FFFFFFF);
    const auto see = [&](__m256 row_f32x8) {
        least_f32x8 = _mm256_min_ps(least_f32x8, row_f32x8);
        most_f32x8 = _mm256_max_ps(most_f32x8, row_f32x8);
        largest_i32x8 = _mm256_max_epi32(largest_i32x8, _mm256_and_si256(_mm256_castps_si256(row_f32x8), magnitude_i32x8));
    };
    for (int64_t v = 0; v < whole; ++v) see(at(v));
    see(_mm256_load_ps(rest));
    if (_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(largest_i32x8, _mm256_set1_epi32(0x7F7FFFFF))))) {
        for (int64_t s = 0; s < steps; ++s) std::memset(bytes + s * kThreeStep, 0, kPlacesInEights);
        return {std::numeric_limits<float>::quiet_NaN(), 0};
    }
    // least and most side by side, the least with its sign turned, so that one chain of maxima finds both
    const __m256 away_f32x8 = _mm256_xor_ps(least_f32x8, _mm256_set1_ps(-0.0f));
    const __m256 lower_f32x8 = _mm256_permute2f128_ps(away_f32x8, most_f32x8, 0x20);
    const __m256 upper_f32x8 = _mm256_permute2f128_ps(away_f32x8, most_f32x8, 0x31);
    __m256 bounds_f32x8 = _mm256_max_ps(lower_f32x8, upper_f32x8);
    bounds_f32x8 = _mm256_max_ps(bounds_f32x8, _mm256_permute_ps(bounds_f32x8, 0x4E));
    bounds_f32x8 = _mm256_max_ps(bounds_f32x8, _mm256_permute_ps(bounds_f32x8, 0xB1));
    const float low = -_mm256_cvtss_f32(bounds_f32x8), high = _mm_cvtss_f32(_mm256_extractf128_ps(bounds_f32x8, 1));
    float step = high / kMostByte - low / kMostByte;
    if (step < std::numeric_limits<float>::min()) step = 1.0f;
    const float inverse = 1.0f / step;
    const int32_t zero = std::min(_mm_cvtss_si32(_mm_set_ss(-low * inverse)), int32_t{127});  // rounds halves to even
    const __m256 inverse_f32x8 = _mm256_set1_ps(inverse);
    const __m256i zero_i16x16 = _mm256_set1_epi16(static_cast<int16_t>(zero));
    const __m256i most_u8x32 = _mm256_set1_epi8(static_cast<char>(kMostByte));
    const auto rounded = [&](__m256 row_f32x8) { return _mm256_cvtps_epi32(_mm256_mul_ps(row_f32x8, inverse_f32x8)); };
    const auto levels = [&](__m256i a_i32x8, __m256i b_i32x8, __m256i c_i32x8, __m256i d_i32x8) {
        const __m256i ab_i16x16 = _mm256_add_epi16(_mm256_packs_epi32(a_i32x8, b_i32x8), zero_i16x16);
        const __m256i cd_i16x16 = _mm256_add_epi16(_mm256_packs_epi32(c_i32x8, d_i32x8), zero_i16x16);
        const __m256i level_u8x32 = _mm256_min_epu8(_mm256_packus_epi16(ab_i16x16, cd_i16x16), most_u8x32);
        return _mm256_permutevar8x32_epi32(level_u8x32, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));  // packing works within halves
    };
    const auto put = [&](int64_t s, __m128i level_u8x16) {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(bytes + s * kThreeStep), level_u8x16);
    };
    int64_t s = 0;
    for (; (s + 2) * kPlacesInEights <= width; s += 2) {  // two steps are a vector of bytes
        const __m256i level_u8x32 = levels(rounded(at(s * 2)), rounded(at(s * 2 + 1)), rounded(at(s * 2 + 2)), rounded(at(s * 2 + 3)));
        put(s, _mm256_castsi256_si128(level_u8x32));
        put(s + 1, _mm256_extracti128_si256(level_u8x32, 1));
    }
    for (; s < steps; ++s) {
        const auto end = [&](int64_t v) { return v < whole ? at(v) : _mm256_load_ps(rest); };
        const __m256i a_i32x8 = rounded(end(s * 2)), b_i32x8 = rounded(end(s * 2 + 1));
        put(s, _mm256_castsi256_si128(levels(a_i32x8, b_i32x8, a_i32x8, b_i32x8)));
    }
    if (width % kPlacesInEights)  // what stands behind the row would count as the zero point
        std::memset(bytes + (steps - 1) * kThreeStep + width % kPlacesInEights, 0,
                    static_cast<size_t>(kPlacesInEights - width % kPlacesInEights));
    return {step, zero};
}

// Rounds `count` rows, `stride` apart, to blocks of three.
inline void round_rows(const float* rows, int64_t stride, const float* diagonal, int64_t width, int64_t count, uint8_t* bytes,
                       RoundedRow* rounded) {
    const int64_t block = (width + kPlacesInEights - 1) / kPlacesInEights * kThreeStep;
    for (int64_t r = 0; r < count; ++r)
        rounded[r] = round_row(rows + r * stride, diagonal, width, bytes + r / kRowsInThree * block + r % kRowsInThree * kPlacesInEights);
}
