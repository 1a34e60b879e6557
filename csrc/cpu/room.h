// Aligned memory of a thread. Included inside a namespace, after <cstdlib>, <memory> and <new>.

// Room that grows to what was wanted at most, and is not cleared.
template <class T>
class Room {
  public:
    T* at_least(int64_t count) {
        if (count > count_) {
            void* made = nullptr;
            if (posix_memalign(&made, 64, static_cast<size_t>(count) * sizeof(T)) != 0) throw std::bad_alloc();
            held_.reset(static_cast<T*>(made));
            count_ = count;
        }
        return held_.get();
    }
    const T* get() const { return held_.get(); }

  private:
    struct Free {
        void operator()(T* held) const { std::free(held); }
    };
    std::unique_ptr<T, Free> held_;
    int64_t count_ = 0;
};
