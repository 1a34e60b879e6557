// Selecting the best of many scores without a branch a score. Included inside a file's target region and namespace, after the standard
// headers.
//
// Scores and ids lie in two arrays, always in the order of the ids, so that of equal scores the one that stands first is the better.
// Everything below compares scores with a number and keeps those above it: NaN is above nothing, and so is never kept.

constexpr float kNone = -std::numeric_limits<float>::infinity();
constexpr int64_t kFewToSort = 512;  // up to here the quadratic sort without branches is the quicker

// How many more than k a cut may leave.
inline int64_t slack_of(int64_t k) { return k / 8 + 2; }

// Floats as integers of the same order, and back; -0 is 0.
inline int32_t order_of(float value) {
    int32_t bits;
    std::memcpy(&bits, &value, sizeof bits);
    return bits >= 0 ? bits : -(bits & 0x7FFFFFFF);
}

inline float at_order(int32_t order) {
    const int32_t bits = order >= 0 ? order : static_cast<int32_t>(0x80000000u | static_cast<uint32_t>(-order));
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

inline int64_t sum_of(__m256i count_i32x8) {
    __m128i sum_i32x4 = _mm_add_epi32(_mm256_castsi256_si128(count_i32x8), _mm256_extracti128_si256(count_i32x8, 1));
    sum_i32x4 = _mm_add_epi32(sum_i32x4, _mm_shuffle_epi32(sum_i32x4, 0x4E));
    return _mm_cvtsi128_si32(_mm_add_epi32(sum_i32x4, _mm_shuffle_epi32(sum_i32x4, 0xB1)));
}

// How many of the scores lie above `least`; count is a multiple of 8.
inline int64_t count_above(const float* scores, int64_t count, float least) {
    const __m256 least_f32x8 = _mm256_set1_ps(least);
    __m256i even_i32x8 = _mm256_setzero_si256(), odd_i32x8 = _mm256_setzero_si256();
    const auto above = [&](int64_t i) { return _mm256_castps_si256(_mm256_cmp_ps(_mm256_loadu_ps(scores + i), least_f32x8, _CMP_GT_OQ)); };
    int64_t i = 0;
    for (; i + 16 <= count; i += 16) {
        even_i32x8 = _mm256_sub_epi32(even_i32x8, above(i));
        odd_i32x8 = _mm256_sub_epi32(odd_i32x8, above(i + 8));
    }
    if (i < count) odd_i32x8 = _mm256_sub_epi32(odd_i32x8, above(i));
    return sum_of(_mm256_add_epi32(even_i32x8, odd_i32x8));
}

// A number with at least k scores above it.
struct Bound {
    float below;     // at least k scores lie above; -inf where there are not k
    float kth;       // what the k-th best score equals, where `exact`
    bool exact;
    int64_t above;   // how many lie above `below`
};

// Looks for a bound with at most k + slack scores above it: by halving the range of values, then that of the floats between, which always
// ends. Where ties leave no such bound, `below` and `kth` are neighbours. count is a multiple of 8, NaN does not occur.
inline Bound bound_of(const float* scores, int64_t count, int64_t k, int64_t slack) {
    const __m256 none_f32x8 = _mm256_set1_ps(kNone), far_f32x8 = _mm256_set1_ps(-kNone);
    __m256 most_f32x8 = none_f32x8, least_f32x8 = far_f32x8;
    for (int64_t i = 0; i < count; i += 8) {
        const __m256 score_f32x8 = _mm256_loadu_ps(scores + i);
        most_f32x8 = _mm256_max_ps(most_f32x8, score_f32x8);
        const __m256 missing_f32x8 = _mm256_cmp_ps(score_f32x8, none_f32x8, _CMP_EQ_OQ);
        least_f32x8 = _mm256_min_ps(least_f32x8, _mm256_blendv_ps(score_f32x8, far_f32x8, missing_f32x8));
    }
    alignas(32) float most[8], least[8];
    _mm256_store_ps(most, most_f32x8);
    _mm256_store_ps(least, least_f32x8);
    const int64_t real = count_above(scores, count, kNone);
    if (real < k) return {kNone, kNone, false, real};
    const float smallest = *std::min_element(least, least + 8), tiny = std::numeric_limits<float>::min();
    // what lies just below 0 is 0 where torch.set_flush_denormal is on
    int32_t low = std::abs(smallest) < tiny ? order_of(-tiny) : order_of(smallest) - 1, high = order_of(*std::max_element(most, most + 8));
    int64_t above = real;
    for (int step = 0; above > k + slack && static_cast<int64_t>(high) - low > 1; ++step) {
        int32_t middle = order_of(0.5f * at_order(low) + 0.5f * at_order(high));
        if (step >= 16 || middle <= low || middle >= high) middle = static_cast<int32_t>((static_cast<int64_t>(low) + high) >> 1);
        const int64_t found = count_above(scores, count, at_order(middle));
        if (found >= k) {
            low = middle;
            above = found;
        } else {
            high = middle;
        }
    }
    return {at_order(low), at_order(high), static_cast<int64_t>(high) - low == 1, above};
}

// For each mask of eight lanes, the kept lanes first.
struct Packing {
    uint8_t lane[256][8];
    constexpr Packing() : lane() {
        for (int mask = 0; mask < 256; ++mask) {
            int filled = 0;
            for (int i = 0; i < 8; ++i)
                if (mask >> i & 1) lane[mask][filled++] = static_cast<uint8_t>(i);
        }
    }
};
alignas(64) constexpr Packing kPacking;

inline __m256i packing_of(int mask) {
    return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(kPacking.lane[mask])));
}

// Writes the scores above `least` and their ids, first_id + i, one behind the other, and returns how many. count is a multiple of 8. The
// output may be the input, and is overwritten up to seven places behind the last one written.
inline int64_t keep_above(const float* scores, int64_t count, int64_t first_id, float least, float* kept, int32_t* ids) {
    const __m256 least_f32x8 = _mm256_set1_ps(least);
    __m256i id_i32x8 = _mm256_add_epi32(_mm256_set1_epi32(static_cast<int32_t>(first_id)), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    int64_t filled = 0;
    for (int64_t i = 0; i < count; i += 8) {
        const __m256 score_f32x8 = _mm256_loadu_ps(scores + i);
        const int mask = _mm256_movemask_ps(_mm256_cmp_ps(score_f32x8, least_f32x8, _CMP_GT_OQ));
        const __m256i order_i32x8 = packing_of(mask);
        _mm256_storeu_ps(kept + filled, _mm256_permutevar8x32_ps(score_f32x8, order_i32x8));
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(ids + filled), _mm256_permutevar8x32_epi32(id_i32x8, order_i32x8));
        filled += __builtin_popcount(static_cast<unsigned>(mask));
        id_i32x8 = _mm256_add_epi32(id_i32x8, _mm256_set1_epi32(8));
    }
    return filled;
}

// Cuts scores and ids back to the k best, or a few more than k where that is quicker. Nothing that comes later matters unless its score
// lies above the returned threshold. There is room for seven more places behind count.
inline float cut_to(float* scores, int32_t* ids, int64_t& count, int64_t k) {
    const int64_t padded = (count + 7) / 8 * 8;
    std::fill(scores + count, scores + padded, kNone);
    const Bound bound = bound_of(scores, padded, k, slack_of(k));
    if (bound.above < k) return kNone;
    int64_t ties = bound.exact ? k - count_above(scores, padded, bound.kth) : 0;
    const float least = bound.exact ? bound.kth : bound.below;
    int64_t filled = 0;
    for (int64_t i = 0; i < count; ++i) {
        const bool tied = ties > 0 && scores[i] == least;
        ties -= tied;
        scores[filled] = scores[i];
        ids[filled] = ids[i];
        filled += tied || scores[i] > least;
    }
    count = filled;
    return least;
}

// Whether `other`, which stands at `place` counted from the first lane, ranks before each lane: it is greater, or equal and stands first.
inline __m256i before(__m256 other_f32x8, __m256 score_f32x8, int place) {
    const __m256i behind_i32x8 = _mm256_cmpgt_epi32(_mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7), _mm256_set1_epi32(place));
    const __m256 tie_f32x8 = _mm256_and_ps(_mm256_cmp_ps(other_f32x8, score_f32x8, _CMP_EQ_OQ), _mm256_castsi256_ps(behind_i32x8));
    return _mm256_castps_si256(_mm256_or_ps(tie_f32x8, _mm256_cmp_ps(other_f32x8, score_f32x8, _CMP_GT_OQ)));
}

// Writes the k best of the scores, falling, of equal ones the first; -inf and id -1 behind them. There is room for fifteen more places
// behind count. Each score's rank is counted: the better ones before it and behind it, without a branch.
inline void sort_few(float* scores, const int32_t* ids, int64_t count, int64_t k, float* best, int64_t* best_ids) {
    const int64_t padded = (count + 15) / 16 * 16;
    std::fill(scores + count, scores + padded, kNone);
    for (int64_t i = 0; i < padded; i += 16) {
        const __m256 low_f32x8 = _mm256_loadu_ps(scores + i), high_f32x8 = _mm256_loadu_ps(scores + i + 8);
        __m256i low_i32x8 = _mm256_setzero_si256(), high_i32x8 = _mm256_setzero_si256();
        for (int64_t j = 0; j < i; ++j) {
            const __m256 other_f32x8 = _mm256_broadcast_ss(scores + j);
            low_i32x8 = _mm256_sub_epi32(low_i32x8, _mm256_castps_si256(_mm256_cmp_ps(other_f32x8, low_f32x8, _CMP_GE_OQ)));
            high_i32x8 = _mm256_sub_epi32(high_i32x8, _mm256_castps_si256(_mm256_cmp_ps(other_f32x8, high_f32x8, _CMP_GE_OQ)));
        }
        for (int j = 0; j < 16; ++j) {
            const __m256 other_f32x8 = _mm256_broadcast_ss(scores + i + j);
            low_i32x8 = _mm256_sub_epi32(low_i32x8, before(other_f32x8, low_f32x8, j));
            high_i32x8 = _mm256_sub_epi32(high_i32x8, before(other_f32x8, high_f32x8, j - 8));
        }
        for (int64_t j = i + 16; j < padded; ++j) {
            const __m256 other_f32x8 = _mm256_broadcast_ss(scores + j);
            low_i32x8 = _mm256_sub_epi32(low_i32x8, _mm256_castps_si256(_mm256_cmp_ps(other_f32x8, low_f32x8, _CMP_GT_OQ)));
            high_i32x8 = _mm256_sub_epi32(high_i32x8, _mm256_castps_si256(_mm256_cmp_ps(other_f32x8, high_f32x8, _CMP_GT_OQ)));
        }
        alignas(32) int32_t rank[16];
        _mm256_store_si256(reinterpret_cast<__m256i*>(rank), low_i32x8);
        _mm256_store_si256(reinterpret_cast<__m256i*>(rank + 8), high_i32x8);
        for (int64_t j = i; j < std::min(i + 16, count); ++j) {
            if (rank[j - i] >= k) continue;
            best[rank[j - i]] = scores[j] + 0.0f;  // -0 becomes 0
            best_ids[rank[j - i]] = ids[j];
        }
    }
}

inline void sort_many(const float* scores, const int32_t* ids, int64_t count, int64_t k, float* best, int64_t* best_ids) {
    std::vector<int32_t> place(static_cast<size_t>(count));
    std::iota(place.begin(), place.end(), 0);
    const auto better = [scores](int32_t a, int32_t b) { return scores[a] > scores[b] || (scores[a] == scores[b] && a < b); };
    const int64_t wanted = std::min(count, k);
    if (wanted < count) std::nth_element(place.begin(), place.begin() + wanted, place.end(), better);
    std::sort(place.begin(), place.begin() + wanted, better);
    for (int64_t i = 0; i < wanted; ++i) {
        best[i] = scores[place[i]] + 0.0f;  // -0 becomes 0
        best_ids[i] = ids[place[i]];
    }
}

// The best of one query so far: a buffer that is cut back when it is full.
class Shortlist {
  public:
    // Room for the best k of `items`: two cuts, or all of them, a panel, and what the vectors write behind the last place.
    static int64_t capacity_for(int64_t k, int64_t items) { return std::min(2 * (k + slack_of(k)) + 32, items) + 48; }

    void open(float* scores, int32_t* ids, int64_t capacity, int64_t k, const int64_t* excluded, const int64_t* excluded_end) {
        scores_ = scores, ids_ = ids, full_ = capacity - 32, k_ = k, excluded_ = excluded, excluded_end_ = excluded_end;
    }

    float threshold() const { return threshold_; }

    // Up to 16 scores, those of the ids first_id + i where bit i of `wanted` is set; only what lies above the threshold is kept.
    void add(const float* scores, unsigned wanted, int64_t first_id) {
        for (; wanted != 0; wanted &= wanted - 1) {
            const int64_t lane = __builtin_ctz(wanted), id = first_id + lane;
            while (excluded_ != excluded_end_ && *excluded_ < id) ++excluded_;
            if (excluded_ != excluded_end_ && *excluded_ == id) continue;
            scores_[filled_] = scores[lane];
            ids_[filled_++] = static_cast<int32_t>(id);
        }
        if (filled_ > full_) cut();
    }

    // A row of scores, those of the ids first_id … first_id + count - 1; it is written over, up to the next multiple of 16 behind count.
    // `maxima` and `ids` have room for as many.
    void add_row(float* row, int64_t count, int64_t first_id, float* maxima, int32_t* ids) {
        for (; excluded_ != excluded_end_ && *excluded_ < first_id + count; ++excluded_)
            if (*excluded_ >= first_id) row[*excluded_ - first_id] = kNone;
        const int64_t padded = (count + 7) / 8 * 8;
        std::fill(row + count, row + padded, kNone);
        const float least = std::max(threshold_, row_bound(row, padded, maxima));
        int64_t kept = keep_above(row, padded, first_id, least, row, ids);
        if (kept > k_ + slack_of(k_)) cut_to(row, ids, kept, k_);
        if (filled_ + kept > full_) cut();
        std::copy(row, row + kept, scores_ + filled_);
        std::copy(ids, ids + kept, ids_ + filled_);
        filled_ += kept;
    }

    // Makes the threshold as high as what has come allows.
    void cut() { threshold_ = std::max(threshold_, cut_to(scores_, ids_, filled_, k_)); }

    // Writes the k best, falling; -inf and id -1 behind them.
    void close(float* best, int64_t* best_ids) {
        if (filled_ > k_ + slack_of(k_)) cut();
        if (filled_ <= kFewToSort) sort_few(scores_, ids_, filled_, k_, best, best_ids);
        else sort_many(scores_, ids_, filled_, k_, best, best_ids);
        for (int64_t i = filled_; i < k_; ++i) best[i] = kNone, best_ids[i] = -1;
    }

  private:
    // A number that at least k scores of a row lie above: the row is cut into at least k groups, and k of their maxima lie above it.
    float row_bound(const float* row, int64_t count, float* maxima) const {
        const int64_t vectors = count / 8, wanted = (3 * k_ + 7) / 8;
        const int64_t in_group = std::max<int64_t>(1, vectors / std::max<int64_t>(1, wanted));
        int64_t groups = 0;
        for (int64_t v = 0; v < vectors; v += in_group, ++groups) {
            __m256 most_f32x8 = _mm256_set1_ps(kNone);
            for (int64_t i = v; i < std::min(v + in_group, vectors); ++i)
                most_f32x8 = _mm256_max_ps(_mm256_loadu_ps(row + i * 8), most_f32x8);  // in this order NaN gives the second
            _mm256_storeu_ps(maxima + groups * 8, most_f32x8);
        }
        return bound_of(maxima, groups * 8, k_, slack_of(k_)).below;
    }

    float* scores_ = nullptr;
    int32_t* ids_ = nullptr;
    int64_t full_ = 0, k_ = 0, filled_ = 0;
    const int64_t* excluded_ = nullptr;
    const int64_t* excluded_end_ = nullptr;
    float threshold_ = kNone;
};
