// Aligned memory of a thread. Included inside a namespace, behind ../large_memory.h.

// Room that grows to what was wanted at most, and is not cleared.
template <class T>
class Room {
  public:
    T* at_least(int64_t count) {
        if (count > count_) {
            held_.reset();  // first, so that both are never there at once
            count_ = 0;
            held_.reset(static_cast<T*>(large_memory(count * static_cast<int64_t>(sizeof(T)))));
            count_ = count;
        }
        return held_.get();
    }
    const T* get() const { return held_.get(); }

  private:
    std::unique_ptr<T, FreeMemory> held_;
    int64_t count_ = 0;
};
