// Rows times a packed matrix, in floats or in bytes, and what is done with each result while it is in a register. Included inside a file's
// target region and namespace, behind fma_tile_avx2.h and eights_tile_avx2.h.
//
// A result depends on its row and its column alone: in bytes it is an exact integer, in floats a sum of chains of FMAs over the same steps.

// Rows rounded to bytes, and which they were: query, key and value want the same ones.
struct Rounded {
    Room<uint8_t> bytes;
    Room<RoundedRow> rows;
    const float* of = nullptr;
    const float* diagonal = nullptr;

    void make(const Matrix& matrix, const float* x, int64_t stride, int64_t count) {
        if (of == x && diagonal == matrix.diagonal) return;
        const int64_t block = (matrix.inputs + kPlacesInEights - 1) / kPlacesInEights * kThreeStep;
        uint8_t* to = bytes.at_least((count + 2) / kRowsInThree * block);
        round_rows(x, stride, matrix.diagonal, matrix.inputs, count, to, rows.at_least(count));
        of = x, diagonal = matrix.diagonal;
    }
    void forget() { of = nullptr; }
};

// The room of one thread.
struct Scratch {
    Rounded given, between;       // the rows of a chain's first matrix, and of the later ones
    Room<float> middle[2];        // between the matrices of a chain
    Room<float> neurons;          // between up and down
    Room<float> begun;            // sums of a panel, chain by chain
    Room<float> stages[2];        // between the stages of a head
};

inline Scratch& scratch() {
    thread_local Scratch mine;
    return mine;
}

template <int ROWS, class Store>
inline __attribute__((always_inline)) void int8_rows(const Matrix& matrix, const Rounded& rounded, int64_t row, int64_t panel, const float* bias,
                                                     const int8_t* ahead, Store& store) {
    const int64_t steps = (matrix.inputs + kPlacesInEights - 1) / kPlacesInEights;
    const uint8_t* bytes = rounded.bytes.get() + row / kRowsInThree * steps * kThreeStep;
    const RoundedRow* told = rounded.rows.get() + row;
    alignas(32) int32_t totals[ROWS][kEightsColumns];
    eights_panel<ROWS>(bytes, matrix.bytes, matrix.first[panel], matrix.first[panel + 1], steps, ahead, totals);
    __m256 y_f32x8[ROWS][2];
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) {
        const int64_t column = panel * kEightsColumns + v * 8;
        const __m256i sums_i32x8 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(matrix.sums + column));
        const __m256 scales_f32x8 = _mm256_loadu_ps(matrix.scales + column);
        const __m256 bias_f32x8 = bias ? _mm256_loadu_ps(bias + column) : _mm256_setzero_ps();
#pragma GCC unroll 3
        for (int r = 0; r < ROWS; ++r) {
            const __m256i offset_i32x8 = _mm256_mullo_epi32(_mm256_set1_epi32(told[r].zero), sums_i32x8);
            const __m256i total_i32x8 = _mm256_load_si256(reinterpret_cast<const __m256i*>(totals[r] + v * 8));
            const __m256 total_f32x8 = _mm256_cvtepi32_ps(_mm256_sub_epi32(total_i32x8, offset_i32x8));
            y_f32x8[r][v] = _mm256_fmadd_ps(_mm256_mul_ps(total_f32x8, _mm256_set1_ps(told[r].step)), scales_f32x8, bias_f32x8);
        }
    }
    store(row, panel, y_f32x8);
}

template <class Store>
void int8_product(const Matrix& matrix, const Rounded& rounded, int64_t count, const float* bias, Store store) {
    const int64_t panels = in_panels(matrix.outputs), bytes = (matrix.inputs + kPlacesInEights - 1) / kPlacesInEights * kBytesInEights;
    for (int64_t panel = 0; panel < panels; ++panel) {
        const int8_t* next = matrix.bytes + matrix.first[panel + 1] * bytes;
        int64_t row = 0;
        for (; row + kRowsInThree <= count; row += kRowsInThree)
            int8_rows<3>(matrix, rounded, row, panel, bias, next + std::min<int64_t>(row / kRowsInThree, 3) * 64, store);
        if (count - row == 2) int8_rows<2>(matrix, rounded, row, panel, bias, next, store);
        if (count - row == 1) int8_rows<1>(matrix, rounded, row, panel, bias, next, store);
    }
}

// A chain's rounding errors grow with its length; one over 384 steps is about as far off as torch's blocked sums.
constexpr int64_t kStepsInFloatChain = 384;

// A function of its own for every number of rows: together, gcc 12 keeps the sums of some in memory.
template <int ROWS, class Store>
__attribute__((noinline)) void float_rows(const Matrix& matrix, const float* x, int64_t stride, int64_t row, int64_t panel,
                                                      int64_t step, int64_t steps, const float* bias, float* begun, int64_t ahead, Store& store) {
    __m256 sum_f32x8[ROWS][2];
#pragma GCC unroll 6
    for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 2
        for (int v = 0; v < 2; ++v) sum_f32x8[r][v] = _mm256_setzero_ps();
    const float* panels = matrix.floats + (panel * matrix.inputs + step) * kPanelColumns;
    const float* next = panels + steps * kPanelColumns + (row / 6) * steps * ahead;
    const auto fetch = [&](int64_t s) __attribute__((always_inline)) { _mm_prefetch(reinterpret_cast<const char*>(next + s * ahead), _MM_HINT_T1); };
    fma_tile<ROWS, 2>(x + row * stride + step, stride, 1, panels, 0, steps, sum_f32x8, fetch);
    const bool is_first = step == 0, is_last = step + steps == matrix.inputs;
#pragma GCC unroll 6
    for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 2
        for (int v = 0; v < 2; ++v) {
            float* before = begun + (row + r) * kPanelColumns + v * 8;
            if (!is_first) sum_f32x8[r][v] = _mm256_add_ps(sum_f32x8[r][v], _mm256_loadu_ps(before));
            if (!is_last) _mm256_storeu_ps(before, sum_f32x8[r][v]);
            if (is_last && bias) sum_f32x8[r][v] = _mm256_add_ps(sum_f32x8[r][v], _mm256_loadu_ps(bias + panel * kPanelColumns + v * 8));
        }
    if (is_last) store(row, panel, sum_f32x8);
}

template <class Store>
void float_product(const Matrix& matrix, const float* x, int64_t stride, int64_t count, const float* bias, Store store) {
    const int64_t panels = in_panels(matrix.outputs);
    float* begun = matrix.inputs > kStepsInFloatChain ? scratch().begun.at_least(count * kPanelColumns) : nullptr;
    // behind the sixes come two groups that are nearly alike: one or two rows alone would wait for each of their FMAs
    const int64_t rest = count % 6, sixes = rest == 0 || rest >= 4 || count < 6 ? count - rest : count - rest - 6;
    const int64_t half = rest >= 4 || count < 6 ? count - sixes : (count - sixes + 1) / 2;
    const int64_t groups = std::max<int64_t>(1, count / 6), ahead = (kPanelColumns + groups - 1) / groups;
    for (int64_t panel = 0; panel < panels; ++panel) {
        int64_t step = 0;
        do {
            const int64_t steps = std::min(kStepsInFloatChain, matrix.inputs - step);
            int64_t row = 0;
            for (; row < sixes; row += 6) float_rows<6>(matrix, x, stride, row, panel, step, steps, bias, begun, ahead, store);
            while (row < count) {
                const int64_t rows = std::min(half, count - row);
                switch (rows) {
                    case 1: float_rows<1>(matrix, x, stride, row, panel, step, steps, bias, begun, ahead, store); break;
                    case 2: float_rows<2>(matrix, x, stride, row, panel, step, steps, bias, begun, ahead, store); break;
                    case 3: float_rows<3>(matrix, x, stride, row, panel, step, steps, bias, begun, ahead, store); break;
                    case 4: float_rows<4>(matrix, x, stride, row, panel, step, steps, bias, begun, ahead, store); break;
                    default: float_rows<5>(matrix, x, stride, row, panel, step, steps, bias, begun, ahead, store); break;
                }
                row += rows;
            }
            step += steps;
        } while (step < matrix.inputs);
    }
}

// Where results go: rows lie row_stride floats apart, panels of 16 columns panel_stride. ADDED: to what is there.
template <bool ADDED>
struct Put {
    float* out;
    int64_t row_stride, panel_stride;
    template <int ROWS>
    inline __attribute__((always_inline)) void operator()(int64_t row, int64_t panel, const __m256 (&y_f32x8)[ROWS][2]) const {
#pragma GCC unroll 6
        for (int r = 0; r < ROWS; ++r)
#pragma GCC unroll 2
            for (int v = 0; v < 2; ++v) {
                float* to = out + (row + r) * row_stride + panel * panel_stride + v * 8;
                _mm256_storeu_ps(to, ADDED ? _mm256_add_ps(_mm256_loadu_ps(to), y_f32x8[r][v]) : y_f32x8[r][v]);
            }
    }
};

// out (rows, stride)
inline Put<false> store_rows(float* out, int64_t stride) { return {out, stride, kEncoderPanel}; }
inline Put<true> add_rows(float* out, int64_t stride) { return {out, stride, kEncoderPanel}; }

// out (panels, tokens, 16): how attention reads queries, keys and values
inline Put<false> store_panels(float* out, int64_t tokens) { return {out, kEncoderPanel, tokens * kEncoderPanel}; }

struct StoreActivated {
    float* out;
    int64_t stride;
    Activation activation;
    bool rough;  // rounded to bytes next
    template <int ROWS>
    inline __attribute__((always_inline)) void operator()(int64_t row, int64_t panel, const __m256 (&y_f32x8)[ROWS][2]) const {
        // through memory: with the polynomial's numbers in registers as well, gcc spills the tile's sums
        store_rows(out, stride)(row, panel, y_f32x8);
        asm volatile("" : : : "memory");
        for (int r = 0; r < ROWS; ++r)
            for (int v = 0; v < 2; ++v) {
                float* at = out + (row + r) * stride + panel * kEncoderPanel + v * 8;
                const __m256 x_f32x8 = _mm256_loadu_ps(at);
                if (activation != Activation::gelu) {
                    _mm256_storeu_ps(at, other_activation(activation, x_f32x8));
                } else {
                    _mm256_storeu_ps(at, rough ? rough_gelu_f32x8(x_f32x8) : gelu_f32x8(x_f32x8));
                }
            }
    }
};

// Runs a weight on `count` rows of x, as it is stored, and hands every result to `store`.
template <class Store>
void run_linear(const Linear& linear, const float* x, int64_t stride, int64_t count, Store store) {
    Scratch& room = scratch();
    Rounded* rounded = &room.given;
    const size_t length = linear.chain.size();
    for (size_t number = 0; number < length; ++number) {
        const Matrix& matrix = linear.chain[number];
        if (matrix.bytes) rounded->make(matrix, x, stride, count);
        if (number + 1 == length) {
            if (matrix.bytes) return int8_product(matrix, *rounded, count, linear.bias, store);
            return float_product(matrix, x, stride, count, linear.bias, store);
        }
        const int64_t between = padded(matrix.outputs);
        float* middle = room.middle[number % 2].at_least(count * between);
        const auto keep = store_rows(middle, between);
        if (matrix.bytes) {
            int8_product(matrix, *rounded, count, nullptr, keep);
        } else {
            float_product(matrix, x, stride, count, nullptr, keep);
        }
        x = middle, stride = between;
        rounded = &room.between;
        rounded->forget();
    }
}
