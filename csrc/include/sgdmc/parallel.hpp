// Blocks of work on several threads, interruptible, and run-time dispatch over instruction sets.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <mutex>
#include <system_error>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#define SGDMC_INLINE inline __attribute__((always_inline))

namespace sgdmc {

// Thrown out of a kernel when its Stop was requested.
struct Interrupted : std::exception {
  const char* what() const noexcept override { return "interrupted"; }
};

// A request to stop that kernels ask for between blocks. `poll` is called on the thread that made the
// object and no other, at most every 50 ms; once it returns true, every thread sees the request.
class Stop {
 public:
  Stop() = default;
  explicit Stop(std::function<bool()> poll) : poll_(std::move(poll)) {}

  bool requested() {
    if (flag_.load(std::memory_order_relaxed)) return true;
    if (poll_ && std::this_thread::get_id() == owner_) {
      const auto now = std::chrono::steady_clock::now();
      if (now - last_ >= std::chrono::milliseconds(50)) {
        last_ = now;
        if (poll_()) flag_.store(true, std::memory_order_relaxed);
      }
    }
    return flag_.load(std::memory_order_relaxed);
  }
  void request() { flag_.store(true, std::memory_order_relaxed); }

 private:
  std::function<bool()> poll_;
  std::thread::id owner_ = std::this_thread::get_id();
  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
  std::atomic<bool> flag_{false};
};

// Lowers `target`, where -1 stands for none, to `value`.
inline void lower_index(std::atomic<std::int64_t>& target, std::int64_t value) {
  std::int64_t seen = target.load();
  while ((seen < 0 || value < seen) && !target.compare_exchange_weak(seen, value)) {
  }
}

// Calls body(block) for each block in [0, n_blocks), the calling thread included. Blocks are handed out
// one by one; an exception in one of them stops the rest and is thrown again here. Where the system
// refuses a thread, fewer are used. Throws Interrupted if `stop` was requested before all were done.
template <class Body>
void parallel_for(std::size_t n_blocks, int n_threads, Stop& stop, Body&& body) {
  std::atomic<std::size_t> next{0};
  std::atomic<bool> failed{false};
  std::exception_ptr error;
  std::mutex guard;
  auto work = [&] {
    try {
      while (!failed.load(std::memory_order_relaxed) && !stop.requested()) {
        const std::size_t block = next.fetch_add(1, std::memory_order_relaxed);
        if (block >= n_blocks) return;
        body(block);
      }
    } catch (...) {
      const std::lock_guard<std::mutex> lock(guard);
      if (!error) error = std::current_exception();
      failed.store(true, std::memory_order_relaxed);
    }
  };
  std::vector<std::thread> threads;
  const std::size_t wanted = std::min<std::size_t>(n_threads < 1 ? 1 : n_threads, n_blocks);
  for (std::size_t i = 1; i < wanted; ++i) {
    try {
      threads.emplace_back(work);
    } catch (const std::system_error&) {
      break;
    }
  }
  work();
  for (auto& thread : threads) thread.join();
  if (error) std::rethrow_exception(error);
  if (stop.requested()) throw Interrupted();
}

// Run-time dispatch: body(Width<W>{}) is compiled three times, for vectors of W = 2, 4 and 8 doubles
// (baseline, AVX2, AVX-512), and the widest that the processor has is called. `body` must be a lambda
// marked SGDMC_BODY, so that it is inlined into each copy. Results do not depend on the copy: a*b+c is
// never contracted, and sums are written out lane by lane. A body that takes no width works as well.
#define SGDMC_BODY __attribute__((always_inline))

template <int W>
using Width = std::integral_constant<int, W>;

template <int W, class Body>
SGDMC_INLINE void call_with_width(Body& body) {
  if constexpr (std::is_invocable_v<Body&, Width<W>>)
    body(Width<W>{});
  else
    body();
}

#if defined(__x86_64__) && defined(__GNUC__)
#define SGDMC_HAS_DISPATCH 1
#define SGDMC_AVX512 __attribute__((target("arch=x86-64-v4,prefer-vector-width=512")))
#define SGDMC_AVX2 __attribute__((target("arch=x86-64-v3")))

template <class Body>
__attribute__((noinline, flatten)) SGDMC_AVX512 void run_avx512(Body& body) {
  call_with_width<8>(body);
}
template <class Body>
__attribute__((noinline, flatten)) SGDMC_AVX2 void run_avx2(Body& body) {
  call_with_width<4>(body);
}
#endif
template <class Body>
__attribute__((noinline)) void run_baseline(Body& body) {
  call_with_width<2>(body);
}

// Bits of the widest vectors to use: those of this processor, or fewer where a test lowered the limit.
inline int& simd_limit() {
  static int limit = 512;
  return limit;
}
inline int simd_width() {
#ifdef SGDMC_HAS_DISPATCH
  static const int native = [] {
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512cd"))
      return 512;
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2") && __builtin_cpu_supports("fma"))
      return 256;
    return 128;
  }();
  return std::min(native, simd_limit());
#else
  return 128;
#endif
}

template <class Body>
void dispatch(Body&& body) {
#ifdef SGDMC_HAS_DISPATCH
  const int width = simd_width();
  if (width == 512) return run_avx512(body);
  if (width == 256) return run_avx2(body);
#endif
  run_baseline(body);
}

}  // namespace sgdmc
