// Constant-step SGD from many starts: blocks of 32 chains in vectors, segments of steps in cache.
#pragma once

#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>

#include "grid.hpp"
#include "problems.hpp"
#include "random.hpp"

namespace sgdmc {

inline constexpr double kDiverged = 1e12;  // |theta| beyond it counts as divergence

struct SgdSettings {
  double step_size, decay;  // decay = step_size * l2
  std::size_t n_chains, n_steps, batch_size;
  bool replacement;
  std::uint64_t seed, first_chain;
};

// Where a run first left all bounds: the earliest step, and the lowest chain there.
struct Divergence {
  std::int64_t step = -1, chain = -1;
  std::mutex guard;
  void report(std::int64_t at_step, std::int64_t at_chain) {
    const std::lock_guard<std::mutex> lock(guard);
    if (step < 0 || at_step < step || (at_step == step && at_chain < chain)) step = at_step, chain = at_chain;
  }
};

// Samples of the batches of `L` chains. With replacement, draw number t is `bounded(bits(t), N)`. Without,
// the draws of one epoch are an incremental Fisher-Yates shuffle of 0..N-1, begun anew at each epoch, so
// that draw t still uses random number t and no other.
template <int L>
class Sampler {
 public:
  Sampler(const SgdSettings& s, std::size_t n_samples, std::size_t first_chain)
      : n_(n_samples), replacement_(s.replacement) {
    for (int l = 0; l < L; ++l) {
      const Key key = key_of(s.seed, s.first_chain + first_chain + l);
      offset_[l] = key.offset;
      twist_[l] = key.twist;
    }
    if (!replacement_) order_.resize(n_ * L);
  }

  SGDMC_INLINE void fill(std::uint64_t first_draw, std::size_t n_draws, std::uint32_t* sample) {
    const std::uint64_t n = n_;
    if (replacement_) {
      for (std::size_t i = 0; i < n_draws; ++i)
        for (int l = 0; l < L; ++l)
          sample[i * L + l] = static_cast<std::uint32_t>(
              bounded(draw_bits(offset_[l], twist_[l], first_draw + i), n));
      return;
    }
    for (std::size_t i = 0; i < n_draws; ++i) {
      const std::uint64_t position = (first_draw + i) % n;
      if (position == 0)
        for (std::size_t k = 0; k < n_ * L; ++k) order_[k] = static_cast<std::uint32_t>(k / L);
      for (int l = 0; l < L; ++l) {
        const std::uint64_t other =
            position + bounded(draw_bits(offset_[l], twist_[l], first_draw + i), n - position);
        std::swap(order_[position * L + l], order_[other * L + l]);
        sample[i * L + l] = order_[position * L + l];
      }
    }
  }

 private:
  alignas(64) std::uint64_t offset_[L], twist_[L];
  std::size_t n_;
  bool replacement_;
  std::vector<std::uint32_t> order_;  // (n_samples, L)
};

// What takes the iterates of a block: tile (n_steps, dim, L) holds those of steps first_step, first_step +
// 1, ..; of its L lanes the first `lanes` are chains. Called once a segment, so that a virtual call costs
// nothing and each kernel is compiled once.
struct Sink {
  virtual ~Sink() = default;
  virtual void take(const double* tile, std::size_t first_step, std::size_t n_steps, int lanes) = 0;
};

// Memory of one block, kept by the caller so that it is not asked for inside the vectorised code.
template <int L>
struct Scratch {
  std::size_t segment;                // steps simulated before anything is written
  std::vector<std::uint32_t> sample;  // (draws, L)
  std::vector<double> tile;           // (segment, dim, L)
  struct alignas(64) Line {
    double value[8];
  };
  std::vector<Line> state;  // iterates, then gradients: 2 * dim * L doubles
  Scratch(std::size_t dim, std::size_t batch, std::size_t n_steps) {
    const std::size_t room = std::max<std::size_t>(2048 / L / std::max(dim, batch), 1);
    segment = std::min(room, std::max<std::size_t>(n_steps, 1));
    sample.resize(std::min<std::size_t>(segment * batch, std::max<std::size_t>(segment, 64)) * L);
    tile.resize(segment * dim * L);
    state.resize((2 * dim * L + 7) / 8);
  }
};

// Runs L = W * G chains from `first_chain` on, of which `lanes` exist; the others repeat the last one.
template <int W, int G, class Problem>
SGDMC_INLINE void sgd_block(const Problem& problem, const SgdSettings& s, const double* start,
                            std::size_t first_chain, int lanes, Scratch<W * G>& scratch,
                            Sampler<W * G>& sampler, Sink& sink, Divergence& divergence, Stop& stop) {
  constexpr int L = W * G;
  using D = typename Simd<W>::D;
  constexpr int fixed = Problem::fixed_dim;
  const std::size_t dim = problem.dim();
  D theta_fixed[fixed ? fixed * G : 1], gradient_fixed[fixed ? fixed * G : 1];
  D *theta = theta_fixed, *gradient = gradient_fixed;
  if constexpr (fixed == 0) {
    theta = reinterpret_cast<D*>(scratch.state.data());
    gradient = theta + dim * G;
  }
  for (std::size_t j = 0; j < dim; ++j)
    for (int g = 0; g < G; ++g) {
      D first;
      for (int l = 0; l < W; ++l)
        first[l] = start[(first_chain + std::min(g * W + l, lanes - 1)) * dim + j];
      theta[j * G + g] = first;
    }
  const D scale = broadcast<D>(s.step_size / static_cast<double>(s.batch_size));
  const D decay = broadcast<D>(s.decay);
  const bool decays = s.decay != 0.0;
  const std::size_t batch = s.batch_size;
  const std::size_t room = scratch.sample.size() / L;  // draws that fit
  std::uint32_t* const sample = scratch.sample.data();
  double* const tile = scratch.tile.data();
  for (std::size_t t0 = 0; t0 < s.n_steps; t0 += scratch.segment) {
    if (stop.requested()) throw Interrupted();
    const std::size_t steps = std::min(scratch.segment, s.n_steps - t0);
    std::size_t drawn = 0, used = 0;  // draws of this segment
    const std::size_t wanted = steps * batch;
    D largest = D{};
    for (std::size_t t = 0; t < steps; ++t) {
      if constexpr (fixed != 0) {
#pragma GCC unroll 32
        for (int k = 0; k < fixed * G; ++k) gradient[k] = D{};
      } else {
        for (std::size_t k = 0; k < dim * G; ++k) gradient[k] = D{};
      }
      for (std::size_t k = 0; k < batch; ++k) {
        if (used == drawn) {
          const std::size_t n = std::min(room, wanted - drawn);
          sampler.fill(t0 * batch + drawn, n, sample);
          drawn += n;
        }
        problem.template add<W, G>(sample + (used % room) * L, theta, gradient);
        ++used;
      }
      double* const row = tile + t * dim * L;
      const auto move = [&](std::size_t k) SGDMC_BODY {
        const D g = decays ? scale * gradient[k] + decay * theta[k] : scale * gradient[k];
        theta[k] = theta[k] - g;
        using U = typename Simd<W>::U;
        const D size = __builtin_bit_cast(D, __builtin_bit_cast(U, theta[k]) & 0x7FFFFFFFFFFFFFFFu);
        largest = size > largest ? size : largest;
        __builtin_memcpy(row + k * W, &theta[k], sizeof(D));
      };
      if constexpr (fixed != 0) {
#pragma GCC unroll 32
        for (int k = 0; k < fixed * G; ++k) move(k);
      } else {
        for (std::size_t k = 0; k < dim * G; ++k) move(k);
      }
    }
    // NaN stays NaN, so the last iterates of the segment show it; larger numbers were kept in `largest`.
    bool bad = false;
    for (int l = 0; l < W; ++l) bad |= !(largest[l] <= kDiverged);
    for (std::size_t k = 0; k < dim * G; ++k)
      for (int l = 0; l < W; ++l) bad |= theta[k][l] != theta[k][l];
    if (bad) {
      for (std::size_t t = 0; t < steps; ++t)
        for (int lane = 0; lane < lanes; ++lane)
          for (std::size_t j = 0; j < dim; ++j)
            if (!(std::fabs(tile[(t * dim + j) * L + lane]) <= kDiverged)) {
              divergence.report(static_cast<std::int64_t>(t0 + t + 1),
                                static_cast<std::int64_t>(first_chain + lane));
              return;
            }
    }
    sink.take(tile, t0 + 1, steps, lanes);
  }
}

using MakeSink = std::function<std::unique_ptr<Sink>(std::size_t first_chain, int L)>;

// Runs all chains; `make_sink` gives what takes the iterates of a block of L chains.
template <class Problem>
void sgd(const Problem& problem, const SgdSettings& s, const double* start, const MakeSink& make_sink,
         Divergence& divergence, int n_threads, Stop& stop) {
  const auto run = [&]<int L>(std::size_t first, int lanes) {
    Scratch<L> scratch(problem.dim(), s.batch_size, s.n_steps);
    Sampler<L> sampler(s, problem.n_samples, first);
    const std::unique_ptr<Sink> sink = make_sink(first, L);
    if constexpr (L == 2) {
      dispatch([&](auto) SGDMC_BODY {
        sgd_block<2, 1>(problem, s, start, first, lanes, scratch, sampler, *sink, divergence, stop);
      });
    } else {
      dispatch([&](auto width) SGDMC_BODY {
        constexpr int W = decltype(width)::value;
        sgd_block<W, L / W>(problem, s, start, first, lanes, scratch, sampler, *sink, divergence, stop);
      });
    }
  };
  const std::size_t n_blocks = (s.n_chains + 31) / 32;
  parallel_for(n_blocks, n_threads, stop, [&](std::size_t b) {
    const std::size_t first = 32 * b;
    const int lanes = static_cast<int>(std::min<std::size_t>(32, s.n_chains - first));
    if (lanes > 8)
      run.template operator()<32>(first, lanes);
    else if (lanes > 2)
      run.template operator()<8>(first, lanes);
    else
      run.template operator()<2>(first, lanes);
  });
}

// Writes every `thin`-th iterate, the start included, to out (n_chains, n_steps / thin + 1, dim).
class StoreIterates : public Sink {
 public:
  StoreIterates(double* out_of_first, std::size_t records, std::size_t dimension, std::size_t thinning, int lanes)
      : out_(out_of_first), n_records_(records), dim_(dimension), thin_(thinning), L_(lanes) {}

  void take(const double* tile, std::size_t first_step, std::size_t n_steps, int lanes) override {
    if (thin_ == 1)
      return dispatch([&](auto width) SGDMC_BODY {
        store<decltype(width)::value>(tile, first_step, n_steps * dim_, lanes);
      });
    for (std::size_t t = 0; t < n_steps; ++t) {
      if ((first_step + t) % thin_ != 0) continue;
      for (int lane = 0; lane < lanes; ++lane)
        for (std::size_t j = 0; j < dim_; ++j)
          out_[(lane * n_records_ + (first_step + t) / thin_) * dim_ + j] = tile[(t * dim_ + j) * L_ + lane];
    }
  }

 private:
  // n consecutive numbers of each lane, W x W of them at a time.
  template <int W>
  SGDMC_INLINE void store(const double* tile, std::size_t first_step, std::size_t n, int lanes) {
    const std::size_t whole = n - n % W, stride = n_records_ * dim_;
    double* const to = out_ + first_step * dim_;
    for (int lane = 0; lane < lanes; lane += W) {
      const int m = std::min(W, lanes - lane);
      for (std::size_t k = 0; W <= L_ && k < whole; k += W) {
        typename Simd<W>::D v[W];
#pragma GCC unroll 8
        for (int i = 0; i < W; ++i) v[i] = load<W>(tile + (k + i) * L_ + lane);
        transpose<W>(v);
        if (m == W) {
#pragma GCC unroll 8
          for (int i = 0; i < W; ++i) __builtin_memcpy(to + (lane + i) * stride + k, &v[i], sizeof v[i]);
        } else {
          for (int i = 0; i < m; ++i) __builtin_memcpy(to + (lane + i) * stride + k, &v[i], sizeof v[i]);
        }
      }
      for (int i = 0; i < m; ++i)
        for (std::size_t k = W <= L_ ? whole : 0; k < n; ++k) to[(lane + i) * stride + k] = tile[k * L_ + lane + i];
    }
  }

  double* out_;
  std::size_t n_records_, dim_, thin_;
  int L_;
};

}  // namespace sgdmc
