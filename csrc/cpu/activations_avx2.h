// exp, GELU and the other activations on eight floats, and their sum. Included inside a file's target region and namespace, after the standard headers.
// The polynomials are fitted by csrc/fit_activations.py, which prints them as they stand here.

// The sum of the eight.
inline float total_of(__m256 sum_f32x8) {
    const __m128 half_f32x4 = _mm_add_ps(_mm256_castps256_ps128(sum_f32x8), _mm256_extractf128_ps(sum_f32x8, 1));
    const __m128 pair_f32x4 = _mm_add_ps(half_f32x4, _mm_movehl_ps(half_f32x4, half_f32x4));
    return _mm_cvtss_f32(_mm_add_ss(pair_f32x4, _mm_movehdup_ps(pair_f32x4)));
}

// 2^x for x from -126 to 127, one unit in the last place or two.
inline __m256 exp2_f32x8(__m256 x_f32x8) {
    const __m256i whole_i32x8 = _mm256_cvtps_epi32(x_f32x8);
    const __m256 rest_f32x8 = _mm256_sub_ps(x_f32x8, _mm256_cvtepi32_ps(whole_i32x8));
    __m256 y_f32x8 = _mm256_set1_ps(0.0013276466634124517f);
    y_f32x8 = _mm256_fmadd_ps(y_f32x8, rest_f32x8, _mm256_set1_ps(0.009675540961325169f));
    y_f32x8 = _mm256_fmadd_ps(y_f32x8, rest_f32x8, _mm256_set1_ps(0.05550713464617729f));
    y_f32x8 = _mm256_fmadd_ps(y_f32x8, rest_f32x8, _mm256_set1_ps(0.24022120237350464f));
    y_f32x8 = _mm256_fmadd_ps(y_f32x8, rest_f32x8, _mm256_set1_ps(0.6931469440460205f));
    y_f32x8 = _mm256_fmadd_ps(y_f32x8, rest_f32x8, _mm256_set1_ps(1.0000001192092896f));
    return _mm256_castsi256_ps(_mm256_add_epi32(_mm256_castps_si256(y_f32x8), _mm256_slli_epi32(whole_i32x8, 23)));
}

// e^x; 1.2e-38 where x is below -87.3, e^88 above that.
inline __m256 exp_f32x8(__m256 x_f32x8) {
    // in this order NaN stays: min and max give their second argument then
    const __m256 above_f32x8 = _mm256_max_ps(_mm256_set1_ps(-126.0f), _mm256_mul_ps(x_f32x8, _mm256_set1_ps(1.44269504f)));
    return exp2_f32x8(_mm256_min_ps(_mm256_set1_ps(127.0f), above_f32x8));
}

// x · Φ(x), with Φ(x) = 1/2 + x · R(x²) up to |x| = end; R's terms, the highest first, in u = 2 x² / end² - 1, where they do not cancel.
template <int TERMS>
inline __attribute__((always_inline)) __m256 gelu_by(__m256 x_f32x8, float end, const float (&terms)[TERMS]) {
    const __m256 inside_f32x8 = _mm256_max_ps(_mm256_min_ps(x_f32x8, _mm256_set1_ps(end)), _mm256_set1_ps(-end));
    const __m256 u_f32x8 =
        _mm256_fmsub_ps(_mm256_mul_ps(inside_f32x8, inside_f32x8), _mm256_set1_ps(2.0f / (end * end)), _mm256_set1_ps(1.0f));
    __m256 r_f32x8 = _mm256_set1_ps(terms[0]);
#pragma GCC unroll 13
    for (int term = 1; term < TERMS; ++term) r_f32x8 = _mm256_fmadd_ps(r_f32x8, u_f32x8, _mm256_set1_ps(terms[term]));
    return _mm256_mul_ps(x_f32x8, _mm256_fmadd_ps(inside_f32x8, r_f32x8, _mm256_set1_ps(0.5f)));
}

// R of degree 13: off by 1.0e-6 at most for |x| below 8, by about 1e-7 of |x| beyond.
inline __m256 gelu_f32x8(__m256 x_f32x8) {
    constexpr float kTerms[] = {-0.0003882334567606449f, 0.001188680762425065f, -0.001468777540139854f, 0.0020051931496709585f,
                                -0.004542309790849686f,  0.008365083485841751f, -0.012619661167263985f, 0.018038777634501457f,
                                -0.024698840454220772f,  0.03197391703724861f,  -0.03993198648095131f,  0.050025615841150284f,
                                -0.06774362176656723f,   0.1359499841928482f};
    return gelu_by(x_f32x8, 5.2f, kTerms);
}

// The same to 4e-5, for what is rounded to bytes next: R of degree 9.
inline __m256 rough_gelu_f32x8(__m256 x_f32x8) {
    constexpr float kTerms[] = {-0.0015656453324481845f, 0.004655289463698864f, -0.006682880222797394f, 0.01014050841331482f,
                                -0.018159205093979836f,  0.028623944148421288f, -0.0402957908809185f,   0.05467185378074646f,
                                -0.07718337327241898f,   0.15690529346466064f};
    return gelu_by(x_f32x8, 4.5f, kTerms);
}

// 1 / (1 + e^-x)
inline __m256 sigmoid_f32x8(__m256 x_f32x8) {
    const __m256 one_f32x8 = _mm256_set1_ps(1.0f);
    return _mm256_div_ps(one_f32x8, _mm256_add_ps(one_f32x8, exp_f32x8(_mm256_sub_ps(_mm256_setzero_ps(), x_f32x8))));
}

// By the library, number by number: it stands in heads alone, behind a pooled vector.
inline __m256 tanh_f32x8(__m256 x_f32x8) {
    alignas(32) float numbers[8];
    _mm256_store_ps(numbers, x_f32x8);
    for (float& number : numbers) number = std::tanh(number);
    return _mm256_load_ps(numbers);
}

// GELU by tanh (Hendrycks and Gimpel 2016): x · sigmoid(2 · √(2/π) · (x + 0.044715 x³))
inline __m256 gelu_tanh_f32x8(__m256 x_f32x8) {
    const __m256 square_f32x8 = _mm256_mul_ps(x_f32x8, x_f32x8);
    const __m256 slope_f32x8 = _mm256_fmadd_ps(square_f32x8, _mm256_set1_ps(1.59576912f * 0.044715f), _mm256_set1_ps(1.59576912f));
    return _mm256_mul_ps(x_f32x8, sigmoid_f32x8(_mm256_mul_ps(x_f32x8, slope_f32x8)));
}

// Not inlined: where one of these is wanted, it is the only one.
__attribute__((noinline)) inline __m256 other_activation(Activation activation, __m256 x_f32x8) {
    switch (activation) {
        case Activation::gelu: return gelu_f32x8(x_f32x8);
        case Activation::gelu_tanh: return gelu_tanh_f32x8(x_f32x8);
        case Activation::relu: return _mm256_max_ps(_mm256_setzero_ps(), x_f32x8);  // NaN stays
        case Activation::silu: return _mm256_mul_ps(x_f32x8, sigmoid_f32x8(x_f32x8));
        case Activation::tanh: return tanh_f32x8(x_f32x8);
        default: return x_f32x8;
    }
}
