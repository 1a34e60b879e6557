// A row of floats as 7-bit unsigned bytes, as quantize_rows in compress_rec/ops/int8_linear.py says, written to its place in a block of
// rows as maddubs_tile_avx2.h wants it. Included behind that file, inside the target region and namespace.

struct RowScale {
    float step;     // NaN where the row holds NaN or infinity
    int32_t zero;   // the byte that stands for 0
};

// Writes the row's eight bytes of each of `steps` steps, kBlockStep apart, zeros behind `width`.
inline RowScale quantize_row(const float* row, int64_t width, int64_t steps, uint8_t* bytes) {
    constexpr float kMostByte = 127.0f;
    __m256 least_f32x8 = _mm256_setzero_ps(), most_f32x8 = _mm256_setzero_ps();
    __m256i largest_i32x8 = _mm256_setzero_si256();  // bits of the largest magnitude: those of NaN and infinity lie above all others
    const __m256i magnitude_i32x8 = _mm256_set1_epi32(0x7FFFFFFF);
    const auto see = [&](__m256 row_f32x8) {
        least_f32x8 = _mm256_min_ps(least_f32x8, row_f32x8);
        most_f32x8 = _mm256_max_ps(most_f32x8, row_f32x8);
        largest_i32x8 = _mm256_max_epi32(largest_i32x8, _mm256_and_si256(_mm256_castps_si256(row_f32x8), magnitude_i32x8));
    };
    const int64_t whole = width / 8 * 8;
    alignas(32) float rest[8] = {};
    for (int64_t d = 0; d < whole; d += 8) see(_mm256_loadu_ps(row + d));
    if (whole < width) {
        std::copy(row + whole, row + width, rest);
        see(_mm256_load_ps(rest));
    }
    if (_mm256_movemask_ps(_mm256_castsi256_ps(_mm256_cmpgt_epi32(largest_i32x8, _mm256_set1_epi32(0x7F7FFFFF))))) {
        for (int64_t s = 0; s < steps; ++s) std::memset(bytes + s * kBlockStep, 0, kPlacesInStep);
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
    const auto put = [&](int64_t step, __m128i level_u8x16) {
        _mm_storel_epi64(reinterpret_cast<__m128i*>(bytes + step * kBlockStep), level_u8x16);
    };
    int64_t s = 0;
    for (; (s + 4) * kPlacesInStep <= whole; s += 4) {
        const float* from = row + s * kPlacesInStep;
        const __m256i level_u8x32 = levels(rounded(_mm256_loadu_ps(from)), rounded(_mm256_loadu_ps(from + 8)),
                                           rounded(_mm256_loadu_ps(from + 16)), rounded(_mm256_loadu_ps(from + 24)));
        const __m128i low_u8x16 = _mm256_castsi256_si128(level_u8x32), high_u8x16 = _mm256_extracti128_si256(level_u8x32, 1);
        put(s, low_u8x16);
        put(s + 1, _mm_unpackhi_epi64(low_u8x16, low_u8x16));
        put(s + 2, high_u8x16);
        put(s + 3, _mm_unpackhi_epi64(high_u8x16, high_u8x16));
    }
    for (; s < steps; ++s) {
        const bool inside = (s + 1) * kPlacesInStep <= width;
        const __m256i level_i32x8 = rounded(inside ? _mm256_loadu_ps(row + s * kPlacesInStep) : _mm256_load_ps(rest));
        put(s, _mm256_castsi256_si128(levels(level_i32x8, level_i32x8, level_i32x8, level_i32x8)));
        if (!inside) std::memset(bytes + s * kBlockStep + (width - whole), 0, static_cast<size_t>(whole + kPlacesInStep - width));
    }
    return {step, zero};
}
