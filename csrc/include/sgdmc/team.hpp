// Threads that stay for many short pieces of work: making one costs a fifth of a millisecond.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <system_error>
#include <thread>
#include <vector>

namespace sgdmc {

// The calling thread and up to n_threads - 1 others, fewer where the system refuses them. Nobody waits for
// a thread that has not begun: one that wakes up late finds the work closed and sleeps on.
class Team {
 public:
  explicit Team(int n_threads) {
    threads_.reserve(n_threads > 1 ? n_threads - 1 : 0);
    for (int i = 1; i < n_threads; ++i) {
      try {
        threads_.emplace_back([this] { serve(); });
      } catch (const std::system_error&) {
        break;
      }
    }
  }
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;
  ~Team() {
    leave_.store(true, std::memory_order_relaxed);
    call();
    for (auto& thread : threads_) thread.join();
  }

  // Calls body(block) for each block in [0, n_blocks) once, on whichever thread is free; returns when all
  // are done. `body` must not throw.
  template <class Body>
  void run(std::size_t n_blocks, Body&& body) {
    std::atomic<std::size_t> next{0};
    const std::function<void()> work = [&] {
      for (std::size_t block; (block = next.fetch_add(1, std::memory_order_relaxed)) < n_blocks;) body(block);
    };
    if (n_blocks <= 1 || threads_.empty()) return work();
    work_ = &work;
    at_work_.store(kOpen, std::memory_order_release);
    call();
    work();
    at_work_.fetch_sub(kOpen, std::memory_order_acq_rel);
    for (std::uint32_t left; (left = at_work_.load(std::memory_order_acquire)) != 0;)
      at_work_.wait(left, std::memory_order_acquire);
  }

 private:
  static constexpr std::uint32_t kOpen = std::uint32_t{1} << 31;

  void call() {
    turn_.fetch_add(1, std::memory_order_release);
    turn_.notify_all();
  }
  void serve() {
    for (std::uint32_t seen = 0;;) {
      turn_.wait(seen, std::memory_order_acquire);
      seen = turn_.load(std::memory_order_acquire);
      if (leave_.load(std::memory_order_relaxed)) return;
      std::uint32_t others = at_work_.load(std::memory_order_relaxed);
      while (others >= kOpen && !at_work_.compare_exchange_weak(others, others + 1, std::memory_order_acquire)) {
      }
      if (others < kOpen) continue;
      (*work_)();
      if (at_work_.fetch_sub(1, std::memory_order_acq_rel) == 1) at_work_.notify_one();
    }
  }

  std::vector<std::thread> threads_;
  const std::function<void()>* work_ = nullptr;  // what is to be done, while at_work_ is open
  std::atomic<std::uint32_t> turn_{0};           // calls so far
  std::atomic<std::uint32_t> at_work_{0};        // others at work, and whether more may begin
  std::atomic<bool> leave_{false};
};

}  // namespace sgdmc
