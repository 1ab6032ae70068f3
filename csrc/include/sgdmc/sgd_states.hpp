// SGD that leaves states instead of iterates: simulate, discretise and count while a segment is in cache.
#pragma once

#include <cstdint>
#include <memory>

#include "grid.hpp"
#include "sgd.hpp"

namespace sgdmc {

struct GridView {
  const double *low, *scale;  // (dim,)
  std::int32_t n_states;
};

// States (n_steps, dim, L) of a tile of iterates.
class Discretiser {
 public:
  Discretiser(const GridView& grid, std::size_t dim, int L) : grid_(grid), dim_(dim), L_(L) {}

  const std::int16_t* operator()(const double* tile, std::size_t n_steps) {
    states_.resize(n_steps * dim_ * L_);
    dispatch([&](auto) SGDMC_BODY {
      const double last = grid_.n_states - 1;
      for (std::size_t k = 0; k < n_steps * dim_; ++k) {
        const double low = grid_.low[k % dim_], scale = grid_.scale[k % dim_];
        const double* from = tile + k * L_;
        std::int16_t* to = states_.data() + k * L_;
        for (int l = 0; l < L_; ++l) to[l] = state_of(from[l], low, scale, last);
      }
    });
    return states_.data();
  }

 private:
  GridView grid_;
  std::size_t dim_;
  int L_;
  std::vector<std::int16_t> states_;
};

// Writes the state of every `thin`-th iterate to out (n_chains, n_records, dim).
class StoreStates : public Sink {
 public:
  StoreStates(std::int16_t* out_of_first, std::size_t records, std::size_t dimension, std::size_t thinning,
              const GridView& grid, int L)
      : out_(out_of_first), n_records_(records), dim_(dimension), thin_(thinning), L_(L), states_(grid, dimension, L) {}

  void take(const double* tile, std::size_t first_step, std::size_t n_steps, int lanes) override {
    const std::int16_t* s = states_(tile, n_steps);
    if (thin_ == 1) {
      for (int lane = 0; lane < lanes; ++lane) {
        std::int16_t* to = out_ + (lane * n_records_ + first_step) * dim_;
        for (std::size_t k = 0; k < n_steps * dim_; ++k) to[k] = s[k * L_ + lane];
      }
      return;
    }
    for (int lane = 0; lane < lanes; ++lane)
      for (std::size_t t = 0; t < n_steps; ++t) {
        if ((first_step + t) % thin_ != 0) continue;
        std::int16_t* to = out_ + (lane * n_records_ + (first_step + t) / thin_) * dim_;
        for (std::size_t j = 0; j < dim_; ++j) to[j] = s[(t * dim_ + j) * L_ + lane];
      }
  }

 private:
  std::int16_t* out_;
  std::size_t n_records_, dim_, thin_;
  int L_;
  Discretiser states_;
};

// Tables of counts, one a thread at work, handed out to blocks and summed at the end.
template <class Count>
class CountTables {
 public:
  explicit CountTables(std::size_t cells) : cells_(cells) {}
  std::unique_ptr<Count[]> acquire() {
    {
      const std::lock_guard<std::mutex> lock(guard_);
      if (!free_.empty()) {
        auto table = std::move(free_.back());
        free_.pop_back();
        return table;
      }
    }
    return std::make_unique<Count[]>(cells_);
  }
  void release(std::unique_ptr<Count[]> table) {
    const std::lock_guard<std::mutex> lock(guard_);
    free_.push_back(std::move(table));
  }
  void add_to(std::int64_t* counts) const {
    for (const auto& table : free_)
      for (std::size_t i = 0; i < cells_; ++i) counts[i] += static_cast<std::int64_t>(table[i]);
  }

 private:
  std::size_t cells_;
  std::mutex guard_;
  std::vector<std::unique_ptr<Count[]>> free_;
};

// Counts the transitions of each coordinate's states at `lag`, over sliding windows.
template <class Count>
class CountStates : public Sink {
 public:
  CountStates(CountTables<Count>& tables, const GridView& grid, const double* start, std::size_t n_lanes,
              std::size_t dim, std::size_t lag, int L)
      : tables_(tables), table_(tables.acquire()), n_(grid.n_states), dim_(dim), lag_(lag), L_(L),
        states_(grid, dim, L), recent_(lag * dim * L) {
    for (std::size_t j = 0; j < dim; ++j)
      for (std::size_t l = 0; l < n_lanes; ++l)
        recent_[j * L + l] = state_of(start[l * dim + j], grid.low[j], grid.scale[j], grid.n_states - 1);
  }
  ~CountStates() override { tables_.release(std::move(table_)); }

  void take(const double* tile, std::size_t first_step, std::size_t n_steps, int lanes) override {
    const std::int16_t* s = states_(tile, n_steps);
    for (std::size_t t = 0; t < n_steps; ++t)
      for (std::size_t j = 0; j < dim_; ++j, s += L_) {
        std::int16_t* const before = recent_.data() + ((first_step + t) % lag_ * dim_ + j) * L_;
        Count* const table = table_.get() + j * n_ * n_;
        if (first_step + t >= lag_)
          for (int l = 0; l < lanes; ++l) ++table[static_cast<std::size_t>(before[l]) * n_ + s[l]];
        std::copy_n(s, L_, before);
      }
  }

 private:
  CountTables<Count>& tables_;
  std::unique_ptr<Count[]> table_;
  std::size_t n_, dim_, lag_;
  int L_;
  Discretiser states_;
  std::vector<std::int16_t> recent_;  // (lag, dim, L): slot t % lag holds the states of step t
};

}  // namespace sgdmc
