// Blocks on threads: each is done once, exceptions and requests to stop get through.
#include <numeric>
#include <stdexcept>

#include "check.hpp"
#include "sgdmc/parallel.hpp"
#include "sgdmc/team.hpp"

using namespace sgdmc;

CASE(each_block_is_done_once) {
  for (int threads : {1, 2, 7}) {
    std::vector<int> done(100, 0);
    Stop stop;
    parallel_for(done.size(), threads, stop, [&](std::size_t b) { ++done[b]; });
    CHECK(std::accumulate(done.begin(), done.end(), 0) == 100);
    CHECK(*std::min_element(done.begin(), done.end()) == 1);
  }
}

CASE(a_team_does_each_block_of_each_run_once) {
  for (int threads : {1, 2, 7}) {
    Team team(threads);
    std::vector<int> done(40, 0);
    for (int run = 0; run < 200; ++run) team.run(done.size(), [&](std::size_t b) { ++done[b]; });
    CHECK(std::accumulate(done.begin(), done.end(), 0) == 200 * 40);
    CHECK(*std::min_element(done.begin(), done.end()) == 200);
  }
}

CASE(no_blocks_is_no_work) {
  Stop stop;
  parallel_for(0, 4, stop, [&](std::size_t) { CHECK(false); });
}

CASE(an_exception_reaches_the_caller) {
  Stop stop;
  bool caught = false;
  try {
    parallel_for(50, 4, stop, [&](std::size_t b) {
      if (b == 17) throw std::runtime_error("block 17");
    });
  } catch (const std::runtime_error& error) {
    caught = std::string(error.what()) == "block 17";
  }
  CHECK(caught);
}

CASE(a_request_stops_all_threads) {
  std::atomic<int> polls{0};
  Stop stop([&] { return ++polls == 1; });
  bool interrupted = false;
  try {
    parallel_for(1000000, 3, stop,
                 [&](std::size_t) { std::this_thread::sleep_for(std::chrono::milliseconds(1)); });
  } catch (const Interrupted&) {
    interrupted = true;
  }
  CHECK(interrupted);
  CHECK(polls == 1);
}

CASE(every_width_is_reached) {
  for (int limit : {512, 256, 128}) {
    simd_limit() = limit;
    int width = 0;
    dispatch([&](auto w) SGDMC_BODY { width = decltype(w)::value; });
    CHECK(64 * width <= limit);
    CHECK(width >= 2);
  }
  simd_limit() = 512;
}

CASE(the_lowest_index_is_kept) {
  std::atomic<std::int64_t> lowest{-1};
  for (std::int64_t value : {9, 4, 7}) lower_index(lowest, value);
  CHECK(lowest == 4);
}

int main() { return check::run(); }
