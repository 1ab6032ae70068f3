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

// The calling thread and up to n_threads - 1 others, fewer where the system refuses them.
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
    call(nullptr);
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
    call(&work);
    work();
    for (std::uint32_t left; (left = busy_.load(std::memory_order_acquire)) != 0;)
      busy_.wait(left, std::memory_order_acquire);
  }

 private:
  void call(const std::function<void()>* work) {
    work_ = work;
    busy_.store(static_cast<std::uint32_t>(threads_.size()), std::memory_order_relaxed);
    turn_.fetch_add(1, std::memory_order_release);
    turn_.notify_all();
  }
  void serve() {
    for (std::uint32_t seen = 0;; ++seen) {
      turn_.wait(seen, std::memory_order_acquire);
      if (!work_) return;
      (*work_)();
      if (busy_.fetch_sub(1, std::memory_order_acq_rel) == 1) busy_.notify_one();
    }
  }

  std::vector<std::thread> threads_;
  const std::function<void()>* work_ = nullptr;  // what all are to do now; none: leave
  std::atomic<std::uint32_t> turn_{0}, busy_{0};
};

}  // namespace sgdmc
