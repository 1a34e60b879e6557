// One fibre a CUDA thread, one block at a time: the scheduler, its order, and what it finds out.
#pragma once

#include <setjmp.h>
#include <signal.h>
#include <ucontext.h>

#include <algorithm>
#include <cstdio>
#include <deque>
#include <functional>
#include <numeric>
#include <random>
#include <string>
#include <vector>

#include "memory.h"
#include "types.h"

// The built-in variables. The scheduler sets them whenever it lets a thread run.
inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;
inline constexpr int warpSize = 32;

namespace cuda_emulation {

constexpr int kLanes = 32;
constexpr size_t kStack = 128 << 10, kPayload = 64;

// The order in which threads, and blocks, get their turn.
enum class Order { ascending, descending, random };

// Where in the source a thread waits.
struct Site {
    const char* what = "";
    const char* file = "";
    int line = 0;

    bool operator==(const Site& other) const {
        const auto same = [](const char* one, const char* two) { return one == two || std::strcmp(one, two) == 0; };
        return line == other.line && same(what, other.what) && same(file, other.file);
    }
    std::string told() const {
        const std::string path = file;
        return std::string(what) + " (" + path.substr(path.find_last_of('/') + 1) + ":" + std::to_string(line) + ")";
    }
};

// What the lanes of a warp have brought to one collective.
struct Snapshot {
    unsigned unread = 0;
    alignas(16) unsigned char values[kLanes][kPayload];
};

struct Warp {
    alignas(16) unsigned char offers[kLanes][kPayload];
    unsigned waiting = 0, returned = 0;  // lanes
    std::deque<Snapshot> snapshots;  // of which those that everybody has read are used again

    Snapshot& free_snapshot() {
        for (Snapshot& snapshot : snapshots)
            if (!snapshot.unread) return snapshot;
        return snapshots.emplace_back();
    }
};

enum class State { ready, at_barrier, at_collective, returned };

struct Copy {
    void* to;
    const void* from;
    size_t bytes, whole;  // what is behind `bytes` becomes 0
};

struct Thread {
    ucontext_t context;
    jmp_buf place;
    bool started = false;
    State state = State::ready;
    Site site;
    uint3 index;
    int number = 0;
    unsigned mask = 0;           // of the collective it waits at
    Snapshot* received = nullptr;
    size_t shared_arrays = 0;    // how many it has taken
    std::vector<std::vector<Copy>> copies;  // asynchronous copies under way, a group each; the last is still open
};

class Machine {
  public:
    Memory memory;
    SharedArrays shared;
    unsigned char poison = 0xFF;
    unsigned barrier_sum = 0, barrier_result = 0;  // of __syncthreads_or and its like

    static Machine& instance() {
        static Machine machine;
        return machine;
    }

    void arrange(Order order, uint64_t seed) {
        order_ = order;
        random_.seed(seed);
    }
    bool shuffles() const { return order_ == Order::random; }
    bool coin() { return random_() >> 63; }

    // The first fault since the last time it was asked for, in a sentence; empty where there was none.
    std::string take_fault() {
        std::string told;
        told.swap(fault_);
        return told;
    }

    // Runs every thread of every block. Returns false, and keeps the fault, where one is found.
    bool run(const std::string& kernel, dim3 grid, dim3 block, size_t shared_bytes, const std::function<void()>& body) {
        kernel_ = kernel;
        body_ = &body;
        gridDim = grid, blockDim = block;
        prepare(block.x * block.y * block.z);
        std::vector<uint64_t> blocks(uint64_t{grid.x} * grid.y * grid.z);
        std::iota(blocks.begin(), blocks.end(), 0);
        in_order(blocks);
        Signals caught;
        for (const uint64_t number : blocks) {
            blockIdx = {static_cast<unsigned>(number % grid.x), static_cast<unsigned>(number / grid.x % grid.y),
                        static_cast<unsigned>(number / grid.x / grid.y)};
            if (!run_block()) return false;
            if (shared.total() > shared_bytes) {
                return found("takes " + std::to_string(shared.total()) + " bytes of shared memory, but was launched with " +
                             std::to_string(shared_bytes));
            }
            if (const std::string place = shared.damaged(); !place.empty()) return found("some thread wrote " + place);
        }
        if (const std::string place = memory.damaged(); !place.empty()) return found("some thread wrote " + place);
        return true;
    }

    Thread& current() { return *current_; }
    Warp& warp_of(const Thread& thread) { return warps_[thread.number / kLanes]; }
    bool running() const { return current_ != nullptr; }

    // Lets the others run; returns when it is this thread's turn again.
    void yield() { leave(current_->place, scheduler_); }

    // Ends the launch with a fault of the thread that runs.
    [[noreturn]] void fail(const std::string& what) {
        Thread& thread = *current_;
        fault_ = kernel_ + ": " + what + "; thread " + told(thread.index) + " of block " + told(blockIdx);
        if (thread.site.line) fault_ += ", last seen at " + thread.site.told();
        current_ = nullptr;
        _longjmp(scheduler_, 2);
    }

    void wait_at_barrier(Site site) {
        current_->site = site;
        current_->state = State::at_barrier;
        if (++waiting_ == threads_count_) open_barrier();
        yield();
    }

    // Waits until every lane of the mask has come to the same collective, and returns what each brought.
    Snapshot& wait_for_lanes(Site site, unsigned mask, const void* value, size_t bytes) {
        Thread& me = *current_;
        const int lane = me.number % kLanes, first = me.number - lane;
        me.site = site;
        me.mask = mask;
        if (!(mask >> lane & 1)) fail("lane " + std::to_string(lane) + " is not in the mask it names");
        const int there = std::min(kLanes, threads_count_ - first);
        if (there < kLanes && mask >> there) fail("the mask names lanes that the warp does not have");
        Warp& warp = warp_of(me);
        std::memcpy(warp.offers[lane], value, bytes);
        me.state = State::at_collective;
        warp.waiting |= 1u << lane;
        const unsigned gone = warp.returned & mask;
        if (gone) fail("waits for lane " + std::to_string(__builtin_ctz(gone)) + ", which has returned");
        const bool all = (warp.waiting & mask) == mask;
        if (all) {
            Snapshot& snapshot = warp.free_snapshot();
            snapshot.unread = mask;
            for (int other = 0; other < kLanes; ++other) {
                if (!(mask >> other & 1)) continue;
                Thread& thread = threads_[first + other];
                if (thread.mask != mask || !(thread.site == site)) {
                    fail("meets lane " + std::to_string(other) + " at another collective, " + thread.site.told());
                }
                std::memcpy(snapshot.values[other], warp.offers[other], bytes);
                thread.received = &snapshot;
                thread.state = State::ready;
            }
            warp.waiting &= ~mask;
        }
        if (!all || shuffles()) yield();
        me.received->unread &= ~(1u << lane);
        return *me.received;
    }

  private:
    // Faults of memory end the launch, not the process. Handlers of other owners are put back afterwards.
    struct Signals {
        static constexpr int kCaught[] = {SIGSEGV, SIGBUS, SIGILL};
        struct sigaction before[3];
        stack_t stack_before{};
        std::vector<char> stack = std::vector<char>(64 << 10);

        Signals() {
            stack_t aside{};
            aside.ss_sp = stack.data();
            aside.ss_size = stack.size();
            sigaltstack(&aside, &stack_before);
            struct sigaction wanted {};
            wanted.sa_sigaction = [](int signal, siginfo_t* info, void* context) { instance().caught(signal, info, context); };
            wanted.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
            for (int i = 0; i < 3; ++i) sigaction(kCaught[i], &wanted, &before[i]);
        }
        ~Signals() {
            for (int i = 0; i < 3; ++i) sigaction(kCaught[i], &before[i], nullptr);
            sigaltstack(&stack_before, nullptr);
        }
    };

    void caught(int signal, siginfo_t* info, void* context) {
        if (!current_) {  // not ours: let it happen again, without us
            ::signal(signal, SIG_DFL);
            return;
        }
        std::string how = "touches memory";
#if defined(__x86_64__)
        if (signal != SIGILL) how = static_cast<ucontext_t*>(context)->uc_mcontext.gregs[REG_ERR] & 2 ? "writes" : "reads";
#endif
        const auto* address = static_cast<const unsigned char*>(info->si_addr);
        if (signal == SIGILL) fail("leaves an array of its own, or touches an address that is not aligned");
        std::string place = memory.place_of(address);
        if (place.empty()) place = shared.place_of(address);
        const unsigned char* stack = stack_of(current_->number);
        if (address >= stack && address < stack + kPage) place = "beyond its stack of 128 KiB";
        fail(how + " " + (place.empty() ? "an address that belongs to no array" : place));
    }

    __attribute__((noinline)) static void leave(jmp_buf& from, jmp_buf& to) {
        if (!_setjmp(from)) _longjmp(to, 1);
    }

    // Returns 1 when the thread waits or has returned, 2 when it failed.
    __attribute__((noinline)) int resume(Thread& thread) {
        current_ = &thread;
        threadIdx = thread.index;
        if (const int came = _setjmp(scheduler_)) return came;
        if (thread.started) _longjmp(thread.place, 1);
        thread.started = true;
        setcontext(&thread.context);
        return 2;  // never reached
    }

    static void enter() {
        Machine& machine = instance();
        (*machine.body_)();
        Thread& thread = *machine.current_;
        thread.state = State::returned;
        machine.warp_of(thread).returned |= 1u << thread.number % kLanes;
        _longjmp(machine.scheduler_, 1);
    }

    unsigned char* stack_of(int number) const { return stacks_ + number * (kPage + kStack); }

    void prepare(int count) {
        threads_count_ = count;
        if (static_cast<int>(threads_.size()) < count) {
            if (!stacks_) {
                stacks_ = map_pages(1024 * (kPage + kStack));
                for (int number = 0; number < 1024; ++number) open_pages(stack_of(number) + kPage, kStack);
            }
            threads_.resize(count);
        }
        warps_.resize(std::max<size_t>(warps_.size(), (count + kLanes - 1) / kLanes));
    }

    bool run_block() {
        shared.begin_block(poison);
        waiting_ = 0;
        barrier_sum = 0;
        for (Warp& warp : warps_) {
            warp.waiting = warp.returned = 0;
            for (Snapshot& snapshot : warp.snapshots) snapshot.unread = 0;
        }
        for (int number = 0; number < threads_count_; ++number) {
            Thread& thread = threads_[number];
            thread.started = false;
            thread.state = State::ready;
            thread.site = {};
            thread.number = number;
            thread.shared_arrays = 0;
            thread.copies.clear();
            thread.index = {number % blockDim.x, number / blockDim.x % blockDim.y, number / blockDim.x / blockDim.y};
            getcontext(&thread.context);
            thread.context.uc_stack.ss_sp = stack_of(number) + kPage;
            thread.context.uc_stack.ss_size = kStack;
            thread.context.uc_link = nullptr;
            makecontext(&thread.context, &Machine::enter, 0);
        }
        std::vector<int> turn(threads_count_);
        std::iota(turn.begin(), turn.end(), 0);
        for (;;) {
            in_order(turn);
            bool ran = false, left = false;
            for (const int number : turn) {
                Thread& thread = threads_[number];
                if (thread.state == State::ready) {
                    ran = true;
                    if (resume(thread) == 2) return false;
                }
                left = left || thread.state != State::returned;
            }
            current_ = nullptr;
            if (!left) return true;
            if (!ran) return found(stuck());
        }
    }

    void open_barrier() {
        for (int number = 1; number < threads_count_; ++number) {
            if (threads_[number].site == threads_[0].site) continue;
            fail("the threads of the block wait at different barriers: " + waiting_threads());
        }
        waiting_ = 0;
        barrier_result = barrier_sum;
        barrier_sum = 0;
        for (int number = 0; number < threads_count_; ++number) threads_[number].state = State::ready;
    }

    std::string stuck() const { return "divergent: no thread can go on, since " + waiting_threads(); }

    // "threads 0-31 wait at __syncthreads (a.cu:12), threads 32-63 have returned"
    std::string waiting_threads() const {
        std::string told;
        for (int first = 0, last; first < threads_count_; first = last + 1) {
            last = first;
            while (last + 1 < threads_count_ && threads_[last + 1].state == threads_[first].state &&
                   (threads_[first].state == State::returned || threads_[last + 1].site == threads_[first].site)) {
                ++last;
            }
            const bool returned = threads_[first].state == State::returned;
            told += (told.empty() ? "threads " : ", threads ") + std::to_string(first) + "-" + std::to_string(last);
            told += returned ? " returned" : " wait at " + threads_[first].site.told();
        }
        return told;
    }

    bool found(const std::string& what) {
        fault_ = kernel_ + ": " + what + "; block " + told(blockIdx);
        return false;
    }

    static std::string told(uint3 index) {
        return "(" + std::to_string(index.x) + ", " + std::to_string(index.y) + ", " + std::to_string(index.z) + ")";
    }

    template <class Number>
    void in_order(std::vector<Number>& numbers) {
        if (order_ == Order::random) std::shuffle(numbers.begin(), numbers.end(), random_);
        if (order_ == Order::descending) std::sort(numbers.begin(), numbers.end(), std::greater<>());
    }

    std::string kernel_, fault_;
    const std::function<void()>* body_ = nullptr;
    Order order_ = Order::ascending;
    std::mt19937_64 random_;
    jmp_buf scheduler_;
    Thread* current_ = nullptr;
    std::deque<Thread> threads_;
    std::deque<Warp> warps_;
    unsigned char* stacks_ = nullptr;
    int threads_count_ = 0, waiting_ = 0;
};

}  // namespace cuda_emulation
