// The candidates of one query while int8 screening passes over the items. Included inside a file's target region and namespace, after
// the standard headers.
//
// Screening says for every item how large its score can be at most. An item stays only if that reaches the bar: what the k-th best score
// known so far leaves open. Scores become known by rescoring, and the most promising are rescored first, so that the bar rises early and
// most of the others fall without being rescored.

struct Finalist {
    float score;
    int32_t id;
};

inline bool better(const Finalist& a, const Finalist& b) {
    return a.score > b.score || (a.score == b.score && a.id < b.id);
}

inline __m256d four_doubles(const float* from) { return _mm256_cvtps_pd(_mm_loadu_ps(from)); }
inline __m256d four_doubles(const double* from) { return _mm256_loadu_pd(from); }

// The product in float64 of two rows of floats, the first of them widened or not: exact but for about 1e-15, and the same whatever
// surrounds it.
template <typename Number>
inline double product_of(const Number* a, const float* b, int64_t width) {
    __m256d sum_f64x4[4] = {_mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd(), _mm256_setzero_pd()};
    int64_t d = 0;
    for (; d + 16 <= width; d += 16) {
        for (int i = 0; i < 4; ++i) {
            sum_f64x4[i] = _mm256_fmadd_pd(four_doubles(a + d + 4 * i), four_doubles(b + d + 4 * i), sum_f64x4[i]);
        }
    }
    alignas(32) double lanes[4];
    _mm256_store_pd(lanes, _mm256_add_pd(_mm256_add_pd(sum_f64x4[0], sum_f64x4[1]), _mm256_add_pd(sum_f64x4[2], sum_f64x4[3])));
    double sum = (lanes[0] + lanes[1]) + (lanes[2] + lanes[3]);
    for (; d < width; ++d) sum += static_cast<double>(a[d]) * b[d];
    return sum;
}

// A product as a score; adding 0 turns -0 into 0, so that they tie.
inline float score_of(double product) { return static_cast<float>(product) + 0.0f; }

class Finalists {
  public:
    // error: by how much a score may exceed the screened one for the query's part; unit: what the screened numbers are multiplied by.
    void open(const CosineTopKInt8Task& task, int64_t query, double error, double unit) {
        task_ = &task, query_ = task.queries + query * task.width, error_ = error, unit_ = unit;
        if (task.excluded) excluded_ = task.excluded[query], excluded_end_ = task.excluded_end[query];
        capacity_ = static_cast<size_t>(4 * task.k + 64);
        best_.reserve(static_cast<size_t>(std::min(task.k, task.last - task.first)));
    }

    // Items whose upper bound, in screened numbers, lies below it cannot be among the best.
    float bar() const { return bar_; }

    // Ids come rising. `upper` has reached the bar.
    void add(float upper, int32_t id) {
        while (excluded_ != excluded_end_ && *excluded_ < id) ++excluded_;
        if (excluded_ != excluded_end_ && *excluded_ == id) return;
        waiting_.push_back({upper, id});
        if (waiting_.size() >= capacity_) settle();
    }

    void close(float* scores, int64_t* ids) {
        std::sort(waiting_.begin(), waiting_.end(), better);
        for (size_t i = 0; i < waiting_.size() && waiting_[i].score >= bar_; ++i) {
            if (i + 2 < waiting_.size()) prefetch(waiting_[i + 2].id);
            rescore(waiting_[i].id);
        }
        std::sort(best_.begin(), best_.end(), better);
        for (int64_t i = 0; i < task_->k; ++i) {
            const bool filled = i < static_cast<int64_t>(best_.size());
            scores[i] = filled ? best_[i].score : -std::numeric_limits<float>::infinity();
            ids[i] = filled ? best_[i].id : -1;
        }
    }

  private:
    // Rescores the k most promising of those that wait, and lets go of those that fall below the bar.
    void settle() {
        const size_t most = std::min(waiting_.size(), static_cast<size_t>(task_->k));
        if (most < waiting_.size()) std::nth_element(waiting_.begin(), waiting_.begin() + most, waiting_.end(), better);
        for (size_t i = 0; i < most; ++i) {
            if (i + 2 < most) prefetch(waiting_[i + 2].id);
            if (waiting_[i].score >= bar_) rescore(waiting_[i].id);
        }
        size_t filled = 0;
        for (size_t i = most; i < waiting_.size(); ++i)
            if (waiting_[i].score >= bar_) waiting_[filled++] = waiting_[i];
        waiting_.resize(filled);
        if (2 * filled > capacity_) capacity_ *= 2;
    }

    void rescore(int32_t id) {
        const Finalist found{score_of(exact(id)), id};
        if (static_cast<int64_t>(best_.size()) < task_->k) {
            best_.push_back(found);
            if (static_cast<int64_t>(best_.size()) < task_->k) return;
            std::make_heap(best_.begin(), best_.end(), better);
        } else {
            if (!better(found, best_.front())) return;
            std::pop_heap(best_.begin(), best_.end(), better);
            best_.back() = found;
            std::push_heap(best_.begin(), best_.end(), better);
        }
        bar_ = static_cast<float>((best_.front().score - error_) / unit_);
    }

    double exact(int32_t id) const {
        if (task_->items) return product_of(query_, task_->items + int64_t{id} * task_->width, task_->width);
        const int8_t* panel = task_->panels + id / kInt8Columns * task_->steps * kBytesInStep + id % kInt8Columns * 4;
        double sum = 0.0;
        for (int64_t d = 0; d < task_->width; ++d) sum += static_cast<double>(query_[d]) * panel[d / 4 * (kBytesInStep / 2) + d % 4];
        return sum * task_->scales[id];
    }

    void prefetch(int32_t id) const {
        if (!task_->items) return;
        const char* row = reinterpret_cast<const char*>(task_->items + int64_t{id} * task_->width);
        for (int64_t byte = 0; byte < task_->width * int64_t{sizeof(float)}; byte += 64) _mm_prefetch(row + byte, _MM_HINT_T0);
    }

    const CosineTopKInt8Task* task_ = nullptr;
    const float* query_ = nullptr;
    const int64_t* excluded_ = nullptr;
    const int64_t* excluded_end_ = nullptr;
    double error_ = 0.0, unit_ = 1.0;
    float bar_ = -std::numeric_limits<float>::infinity();
    size_t capacity_ = 0;
    std::vector<Finalist> waiting_;  // their upper bounds, in screened numbers
    std::vector<Finalist> best_;     // rescored; a heap with the worst in front as soon as there are k
};
