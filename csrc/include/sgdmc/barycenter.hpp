// Debiased and entropic Sinkhorn barycenters of histograms on a line, eight problems at a time.
//
// Numbers are kept in blocks of neighbouring bins: doubles times a power of two, one a block and lane
// (absorbed scalings, block by block), so that potentials may range over any number of decades. The
// product with the Gaussian kernel exp(-d^2 / scale) is banded by construction: a target block leaves out
// source blocks whose share is sure to be below 2^-kCut of the whole. Where the Gaussian is wide it factors,
//     exp(-(u-v)^2 / scale) = c sum_z g(u-z) g(z-v),  g(d) = exp(-2 d^2 / scale),  z on a coarser grid,
// exact to 1e-16 *relative to each entry* for a spacing h <= 0.2565 sqrt(scale), since the trapezoidal
// rule is exact for Gaussians up to exp(-pi^2 scale / (4 h^2)).
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

#include "elementary.hpp"
#include "parallel.hpp"

namespace sgdmc {

inline constexpr int kLanes = 8;
using Lanes = Simd<kLanes>::D;
using LaneBits = Simd<kLanes>::U;

struct alignas(64) LaneLine {
  double value[kLanes];
};
using LaneArray = std::vector<LaneLine>;
SGDMC_INLINE Lanes* lanes(LaneArray& a) { return reinterpret_cast<Lanes*>(a.data()); }
SGDMC_INLINE const Lanes* lanes(const LaneArray& a) { return reinterpret_cast<const Lanes*>(a.data()); }

namespace detail {

inline constexpr double kNothing = -1e300;  // offset of a block of zeros, and logarithm of zero
inline constexpr double kCut = 60.0;        // bits
inline constexpr double kLog2 = 0x1.62e42fefa39efp-1;
inline constexpr int kBlurStart = 20;    // iterations for the debiasing vector of the first guess
inline constexpr int kStartSteps = 3;    // Sinkhorn iterations with the first guess held fixed
inline constexpr double kStartMix = 1e-6;  // share of the blurred start, so that no bin is ruled out

SGDMC_INLINE Lanes all(double x) { return broadcast<Lanes>(x); }
SGDMC_INLINE Lanes max(Lanes a, Lanes b) { return a > b ? a : b; }

// exp(x); 0 below -708.
SGDMC_INLINE Lanes exp(Lanes x) {
  const auto tiny = x < -708.0;
  x = x < -708.0 ? all(-708.0) : x;
  x = x > 709.0 ? all(709.0) : x;
  const Lanes shifted = x * 0x1.71547652b82fep+0 + kRound;
  const LaneBits exponent = __builtin_bit_cast(LaneBits, shifted);
  const Lanes n = shifted - kRound;
  const Lanes r = (x - n * 0x1.62e42feep-1) - n * 0x1.a39ef35793c76p-33;
  Lanes q = all(1.0 / 6227020800.0);
  q = 1.0 / 479001600.0 + r * q;
  q = 1.0 / 39916800.0 + r * q;
  q = 1.0 / 3628800.0 + r * q;
  q = 1.0 / 362880.0 + r * q;
  q = 1.0 / 40320.0 + r * q;
  q = 1.0 / 5040.0 + r * q;
  q = 1.0 / 720.0 + r * q;
  q = 1.0 / 120.0 + r * q;
  q = 1.0 / 24.0 + r * q;
  q = 1.0 / 6.0 + r * q;
  q = 0.5 + r * q;
  const Lanes e = 1.0 + (r + (r * r) * q);
  const Lanes out = __builtin_bit_cast(Lanes, __builtin_bit_cast(LaneBits, e) + (exponent << 52));
  return tiny ? Lanes{} : out;
}

// 2^k for integers k; 0 below -1022, and not above 2^1023.
SGDMC_INLINE Lanes pow2(Lanes k) {
  const auto tiny = k < -1022.0;
  k = k < -1022.0 ? all(-1022.0) : k;
  k = k > 1023.0 ? all(1023.0) : k;
  const LaneBits bits = __builtin_bit_cast(LaneBits, (k + 1023.0) + 0x1p52) << 52;
  return tiny ? Lanes{} : __builtin_bit_cast(Lanes, bits);
}

// Largest and smallest of the lanes.
SGDMC_INLINE double largest(Lanes x) {
  x = max(x, __builtin_shufflevector(x, x, 4, 5, 6, 7, 0, 1, 2, 3));
  x = max(x, __builtin_shufflevector(x, x, 2, 3, 0, 1, 6, 7, 4, 5));
  return std::max(x[0], x[1]);
}

// Biased exponent of a positive number, as a double.
SGDMC_INLINE Lanes biased_exponent(Lanes x) {
  const LaneBits e = __builtin_bit_cast(LaneBits, x) >> 52;
  return __builtin_bit_cast(Lanes, e | 0x4330000000000000u) - 0x1p52;
}

// log(x) for normal x > 0; kNothing for smaller x. The polynomial of fdlibm (Sun Microsystems 1993).
SGDMC_INLINE Lanes log(Lanes x) {
  const auto none = x < 0x1p-1022;
  x = x < 0x1p-1022 ? all(1.0) : x;
  Lanes n = biased_exponent(x) - 1023.0;
  Lanes m = __builtin_bit_cast(
      Lanes, (__builtin_bit_cast(LaneBits, x) & 0x000FFFFFFFFFFFFFu) | 0x3FF0000000000000u);
  const auto high = m > 0x1.6a09e667f3bcdp+0;
  m = high ? 0.5 * m : m;
  n = high ? n + 1.0 : n;
  const Lanes f = m - 1.0, s = f / (2.0 + f), z = s * s, w = z * z;
  const Lanes odd = w * (3.999999999940941908e-01 + w * (2.222219843214978396e-01 + w * 1.531383769920937332e-01));
  const Lanes even =
      z * (6.666666666666735130e-01 +
           w * (2.857142874366239149e-01 + w * (1.818357216161805012e-01 + w * 1.479819860511658591e-01)));
  const Lanes r = odd + even, half = 0.5 * f * f;
  const Lanes out =
      n * 6.93147180369123816490e-01 - ((half - (s * (half + r) + n * 1.90821492927058770002e-10)) - f);
  return none ? all(kNothing) : out;
}

}  // namespace detail

// Which bins, in blocks: positions first * length + i * step for i in [0, count * points).
struct BlockRange {
  int first = 0, count = 0;
};

// One Gaussian kernel factor * exp(-rate d^2) between two block grids.
struct GaussianStage {
  int from_points, to_points;  // points a block
  int reach;                   // tables for block distances in [-reach, reach]
  std::vector<double> table;   // [distance][from][to], each divided by 2^peak
  std::vector<double> peak, least;  // binary exponents of the largest and of the smallest entry

  GaussianStage(double rate, double factor, int length, int from_points_, int to_points_, int reach_)
      : from_points(from_points_), to_points(to_points_), reach(reach_) {
    const int from_step = length / from_points, to_step = length / to_points;
    for (int distance = -reach; distance <= reach; ++distance) {
      const auto exponent = [&](int x, int y) {  // of the entry, to base 2
        const double d = static_cast<double>(distance) * length + x * to_step - y * from_step;
        return (std::log(factor) - rate * d * d) / detail::kLog2;
      };
      double high = -std::numeric_limits<double>::infinity(), low = -high;
      for (int y = 0; y < from_points; ++y)
        for (int x = 0; x < to_points; ++x) {
          high = std::max(high, exponent(x, y));
          low = std::min(low, exponent(x, y));
        }
      peak.push_back(std::ceil(high));
      least.push_back(std::floor(low));
      for (int y = 0; y < from_points; ++y)
        for (int x = 0; x < to_points; ++x) table.push_back(std::exp2(exponent(x, y) - peak.back()));
    }
  }

  template <int C>
  SGDMC_INLINE void accumulate(const Lanes* in, const int* source, const int* distance,
                               const Lanes* share, int n_sources, int first_to, Lanes* out) const {
    Lanes sum[C] = {};
    for (int i = 0; i < n_sources; ++i) {
      const Lanes* x = in + static_cast<std::ptrdiff_t>(source[i]) * from_points;
      const double* t = table.data() +
                        static_cast<std::ptrdiff_t>(distance[i] + reach) * from_points * to_points +
                        first_to;
      for (int y = 0; y < from_points; ++y, t += to_points) {
        const Lanes v = x[y] * share[i];
#pragma GCC unroll 16
        for (int c = 0; c < C; ++c) sum[c] += t[c] * v;
      }
    }
    for (int c = 0; c < C; ++c) out[c] = sum[c];
  }

  struct Scratch {
    LaneArray share, left, right;  // a block each
    std::vector<int> source, distance;
    void resize(std::size_t blocks) {
      for (LaneArray* x : {&share, &left, &right}) x->assign(blocks, LaneLine{});
      source.assign(blocks, 0);
      distance.assign(blocks, 0);
    }
  };

  // out = kernel * in; both with an offset a block.
  void apply(const Lanes* in, const Lanes* in_offset, BlockRange from, Lanes* out, Lanes* out_offset,
             BlockRange to, Scratch& work) const {
    dispatch([&](auto) SGDMC_BODY { apply_here(in, in_offset, from, out, out_offset, to, work); });
  }

 private:
  SGDMC_INLINE void apply_here(const Lanes* in, const Lanes* in_offset, BlockRange from, Lanes* out,
                               Lanes* out_offset, BlockRange to, Scratch& work) const {
    using detail::all;
    using detail::kCut;
    using detail::kNothing;
    const int count = from.count;
    Lanes *share = lanes(work.share), *left = lanes(work.left), *right = lanes(work.right);
    int *source = work.source.data(), *distance = work.distance.data();
    for (int j = 0; j < count; ++j) {  // largest offsets up to j, and from j on
      left[j] = j ? detail::max(left[j - 1], in_offset[j]) : in_offset[j];
      const int back = count - 1 - j;
      right[back] = j ? detail::max(right[back + 1], in_offset[back]) : in_offset[back];
    }
    for (int i = 0; i < to.count; ++i) {
      const int here = to.first + i - from.first;  // the source block at distance 0
      const double *low = least.data() + reach, *high = peak.data() + reach;
      // A block whose largest value is 1 or more gives every target at least its smallest table entry:
      // what is 2^-kCut below the best of these bounds at most cannot matter. Go outwards until
      // nothing further off can.
      Lanes sure = all(kNothing);
      int a = here, b = here + 1;  // blocks [a, b) are done
      if (here < 0) a = b = 0;
      if (here >= count) a = b = count;
      if (a < b) sure = in_offset[here] + low[0];
      for (int step = 1; a > 0 || b < count; ++step) {
        if (a > 0) --a, sure = detail::max(sure, in_offset[a] + low[here - a]);
        if (b < count) sure = detail::max(sure, in_offset[b] + low[here - b]), ++b;
        if (step % 4 != 0) continue;
        Lanes rest = all(2 * kNothing);
        if (a > 0) rest = left[a - 1] + high[here - a + 1];
        if (b < count) rest = detail::max(rest, right[b] + high[here - b]);
        if (detail::largest(rest - sure) < -kCut) break;
      }
      out_offset[i] = sure;
      int n_sources = 0;
      const Lanes needed = sure > 0.5 * kNothing ? sure - kCut : all(1e300);
      for (int j = a; j < b; ++j) {
        const Lanes most = in_offset[j] + high[here - j];
        if (detail::largest(most - needed) < 0) continue;
        share[n_sources] = most >= needed ? detail::pow2(most - sure) : Lanes{};
        source[n_sources] = j;
        distance[n_sources++] = here - j;
      }
      Lanes* target = out + static_cast<std::ptrdiff_t>(i) * to_points;
      int x = 0;
      for (; x + 16 <= to_points; x += 16)
        accumulate<16>(in, source, distance, share, n_sources, x, target + x);
      for (; x + 4 <= to_points; x += 4)
        accumulate<4>(in, source, distance, share, n_sources, x, target + x);
      for (; x < to_points; ++x)
        accumulate<1>(in, source, distance, share, n_sources, x, target + x);
    }
  }
};

// Values in blocks, with offsets.
struct Scaled {
  LaneArray value, offset;
  BlockRange range;
  void resize(BlockRange blocks, int points) {
    range = blocks;
    value.assign(static_cast<std::size_t>(blocks.count) * points, LaneLine{});
    offset.assign(blocks.count, LaneLine{});
  }

  // Brings the largest value of each of `count` blocks into [1, 2).
  SGDMC_INLINE void normalise(int count, int points) {
    Lanes *v = lanes(value), *o = lanes(offset);
    for (int i = 0; i < count; ++i, v += points) {
      Lanes top{};
      for (int x = 0; x < points; ++x) top = detail::max(top, v[x]);
      const auto none = top < 0x1p-1022;
      const Lanes e = none ? Lanes{} : detail::biased_exponent(top) - 1023.0;
      const Lanes shrink = detail::pow2(-e);
      for (int x = 0; x < points; ++x) v[x] = v[x] * shrink;
      o[i] = none ? detail::all(detail::kNothing) : o[i] + e;
    }
  }
};

// The product with K, direct or through the coarser grid. Tables reach over `max_blocks` blocks.
struct LineKernel {
  double scale;
  int spacing, length;  // of the coarser grid (1: direct), and of a block, in bins
  int margin;           // blocks of the coarser grid beyond the bins
  GaussianStage first, second;

  static int spacing_of(double scale) {
    int h = 1;
    while (2 * h <= 0.2565 * std::sqrt(scale)) h *= 2;
    return h >= 4 ? h : 1;
  }
  static int length_of(double scale) {
    const int h = spacing_of(scale);
    return h > 1 ? 4 * h : scale >= 36.0 ? 4 : scale >= 16.0 ? 2 : 1;
  }
  static int margin_of(double scale) {
    return static_cast<int>(std::ceil(3.2 * std::sqrt(scale) / length_of(scale)));
  }
  LineKernel(double scale_, int max_blocks)
      : scale(scale_),
        spacing(spacing_of(scale_)),
        length(length_of(scale_)),
        margin(spacing > 1 ? margin_of(scale_) : 0),
        first(spacing > 1 ? 2.0 / scale_ : 1.0 / scale_, 1.0, length, length, spacing > 1 ? 4 : length,
              max_blocks + 2 * margin),
        second(2.0 / scale_, 2.0 * spacing / std::sqrt(3.14159265358979323846 * scale_), length, 4, length,
               spacing > 1 ? max_blocks + 2 * margin : 0) {}

  struct Scratch {
    Scaled middle;
    GaussianStage::Scratch stage;
  };

  void apply(const Scaled& in, Scaled& out, Scratch& work) const {
    const int start = std::min(in.range.first, out.range.first) - margin;
    const int end = std::max(in.range.first + in.range.count, out.range.first + out.range.count) + margin;
    const BlockRange coarse{start, end - start};
    if (spacing == 1) {
      first.apply(lanes(in.value), lanes(in.offset), in.range, lanes(out.value), lanes(out.offset),
                  out.range, work.stage);
      return;
    }
    first.apply(lanes(in.value), lanes(in.offset), in.range, lanes(work.middle.value),
                lanes(work.middle.offset), coarse, work.stage);
    // The middle values of a block need not reach 1: bring them there.
    dispatch([&](auto) SGDMC_BODY { work.middle.normalise(coarse.count, 4); });
    second.apply(lanes(work.middle.value), lanes(work.middle.offset), coarse, lanes(out.value),
                 lanes(out.offset), out.range, work.stage);
  }
};

struct BarycenterSettings {
  std::size_t n, n_members;  // bins, members a problem
  double reg;
  bool debiased;
  double tol;
  std::int64_t max_iter;
};

// Exact W2 barycenter: mass between consecutive levels of any distribution function is spread evenly
// between the averaged quantiles.
inline void quantile_barycenter(const double* const* rows, const double* weights, std::size_t m,
                                std::size_t n, double* out) {
  std::vector<double> cumulated(m * (n + 1));
  std::vector<std::size_t> bin(m, 0);
  for (std::size_t k = 0; k < m; ++k) {
    double* c = cumulated.data() + k * (n + 1);
    for (std::size_t s = 0; s < n; ++s) c[s + 1] = c[s] + rows[k][s];
    const double total = c[n];
    for (std::size_t s = 0; s <= n; ++s) c[s] /= total;
  }
  std::fill(out, out + n, 0.0);
  for (double level = 0.0; level < 1.0;) {
    double next = 1.0, left = 0.0, right = 0.0;
    for (std::size_t k = 0; k < m; ++k) {
      const double* c = cumulated.data() + k * (n + 1);
      while (bin[k] + 1 < n && c[bin[k] + 1] <= level) ++bin[k];
      if (c[bin[k] + 1] > level) next = std::min(next, c[bin[k] + 1]);
    }
    for (std::size_t k = 0; k < m; ++k) {
      const double* c = cumulated.data() + k * (n + 1) + bin[k];
      const double height = c[1] - c[0], at = static_cast<double>(bin[k]);
      left += weights[k] * (at + (height > 0 ? std::clamp((level - c[0]) / height, 0.0, 1.0) : 0.0));
      right += weights[k] * (at + (height > 0 ? std::clamp((next - c[0]) / height, 0.0, 1.0) : 1.0));
    }
    const double mass = next - level, top = static_cast<double>(n);
    left = std::clamp(left, 0.0, top);
    right = std::clamp(right, left, top);
    std::size_t s = std::min(static_cast<std::size_t>(left), n - 1);
    if (right <= static_cast<double>(s + 1)) {
      out[s] += mass;
    } else {
      for (; s < n && static_cast<double>(s) < right; ++s) {
        const double part = std::min(right, static_cast<double>(s + 1)) - std::max(left, static_cast<double>(s));
        out[s] += mass * part / (right - left);
      }
    }
    level = next;
  }
}

namespace detail {

// Eight problems side by side.
class Group {
 public:
  Group(const BarycenterSettings& s, const LineKernel& kernel, const double* histograms,
        const std::int64_t* members, const double* weights, std::size_t first, std::size_t count)
      : s_(s), kernel_(kernel), count_(count) {
    const std::size_t n = s.n, m = s.n_members;
    const int length = kernel.length;
    target_ = {0, static_cast<int>((n + length - 1) / length)};
    weight_.assign(m, LaneLine{});
    tilt_.assign(1, LaneLine{});
    start_.assign(static_cast<std::size_t>(target_.count) * length, LaneLine{});
    std::vector<std::vector<std::int64_t>> offset(m, std::vector<std::int64_t>(kLanes));
    std::vector<const double*> rows(m);
    std::vector<double> guess(n), w(m);
    for (std::size_t l = 0; l < kLanes; ++l) {
      const std::size_t p = first + std::min(l, count - 1);  // spare lanes repeat the last problem
      double centre = 0.0;
      std::vector<double> mean(m);
      for (std::size_t k = 0; k < m; ++k) {
        rows[k] = histograms + members[p * m + k] * n;
        w[k] = weights[p * m + k];
        weight_[k].value[l] = w[k];
        for (std::size_t v = 0; v < n; ++v) mean[k] += rows[k][v] * static_cast<double>(v);
        centre += w[k] * mean[k];
      }
      double drift = 0.0;
      for (std::size_t k = 0; k < m; ++k) {
        offset[k][l] = w[k] > 0 ? static_cast<std::int64_t>(std::nearbyint(mean[k] - centre)) : 0;
        drift += w[k] * static_cast<double>(offset[k][l]);
      }
      tilt_[0].value[l] = 2.0 * drift / kernel.scale;
      quantile_barycenter(rows.data(), w.data(), m, n, guess.data());
      for (std::size_t v = 0; v < n; ++v) start_[v].value[l] = guess[v];
    }
    // Sources, moved by whole bins onto the common centre, over the blocks that hold any of their mass.
    sources_.resize(m);
    for (std::size_t k = 0; k < m; ++k) {
      std::int64_t low = std::numeric_limits<std::int64_t>::max(), high = -low;
      for (std::size_t l = 0; l < kLanes; ++l) {
        const double* row = histograms + members[(first + std::min(l, count - 1)) * m + k] * n;
        std::int64_t a = 0, b = static_cast<std::int64_t>(n) - 1;
        while (a < b && row[a] == 0) ++a;
        while (b > a && row[b] == 0) --b;
        low = std::min(low, a - offset[k][l]);
        high = std::max(high, b - offset[k][l]);
      }
      const auto block = [&](std::int64_t x) {
        return static_cast<int>(x >= 0 ? x / length : -((-x + length - 1) / length));
      };
      const BlockRange range{block(low), block(high) - block(low) + 1};
      sources_[k].resize(range, length);
      for (std::size_t l = 0; l < kLanes; ++l) {
        const double* row = histograms + members[(first + std::min(l, count - 1)) * m + k] * n;
        for (std::int64_t v = 0; v < static_cast<std::int64_t>(n); ++v)
          if (row[v] > 0)
            sources_[k].value[v - offset[k][l] - std::int64_t{range.first} * length].value[l] = row[v];
      }
    }
    int low = 0, high = target_.count;
    for (const Scaled& source : sources_) {
      low = std::min(low, source.range.first);
      high = std::max(high, source.range.first + source.range.count);
    }
    const int blocks = high - low + 2 * kernel.margin;
    work_.middle.resize({0, blocks}, 4);
    work_.stage.resize(blocks);
    for (Scaled* x : {&d_, &kd_, &bary_}) x->resize(target_, length);
    b_.resize(m);
    ka_.resize(m);
    plan_.resize(m);
    for (std::size_t k = 0; k < m; ++k) {
      b_[k].resize(target_, length);
      ka_[k].resize(target_, length);
      plan_[k].resize(sources_[k].range, length);
    }
    log_bary_.assign(start_.size(), LaneLine{});
  }

  // Writes the histograms, iterations and residuals of the group's problems.
  void solve(double* out, std::int64_t* n_iter, double* residual, Stop& stop) {
    const std::size_t n = s_.n, m = s_.n_members;
    begin();
    bool done[kLanes];
    for (std::size_t l = 0; l < kLanes; ++l) done[l] = l >= count_;
    for (std::int64_t iteration = 1; iteration <= s_.max_iter; ++iteration) {
      if (stop.requested()) throw Interrupted();
      for (std::size_t k = 0; k < m; ++k) half_step(k);
      Lanes error;
      combine(error);
      bool waiting = false;
      for (std::size_t l = 0; l < count_; ++l) {
        if (done[l]) continue;
        n_iter[l] = iteration;
        residual[l] = error[l];
        done[l] = error[l] <= s_.tol;
        waiting |= !done[l];
        if (done[l] || iteration == s_.max_iter) {
          double total = 0.0;
          for (std::size_t v = 0; v < n; ++v) total += start_[v].value[l];
          for (std::size_t v = 0; v < n; ++v) out[l * n + v] = start_[v].value[l] / total;
        }
      }
      if (!waiting) return;
    }
  }

 private:
  const BarycenterSettings& s_;
  const LineKernel& kernel_;
  std::size_t count_;
  BlockRange target_;
  LaneArray weight_, tilt_, start_, log_bary_;  // start_ also holds the present barycenter
  std::vector<Scaled> sources_, b_, ka_, plan_;
  Scaled d_, kd_, bary_;
  LineKernel::Scratch work_;

  // From logarithms, one a bin, to blocks.
  SGDMC_INLINE void from_log(const Lanes* x, Scaled& out) const {
    const int length = kernel_.length;
    Lanes *value = lanes(out.value), *offset = lanes(out.offset);
    for (int i = 0; i < target_.count; ++i) {
      Lanes top = all(kNothing);
      for (int v = 0; v < length; ++v) top = max(top, x[i * length + v]);
      const auto none = top < 0.5 * kNothing;
      const Lanes e = none ? Lanes{} : ((top / kLog2) + kRound) - kRound;
      offset[i] = none ? all(kNothing) : e;
      for (int v = 0; v < length; ++v) value[i * length + v] = exp(x[i * length + v] - e * kLog2);
    }
  }

  // a_k = alpha_k / (K b_k), then K^T a_k.
  void half_step(std::size_t k) {
    kernel_.apply(b_[k], plan_[k], work_);
    dispatch([&](auto) SGDMC_BODY { divide_sources(k); });
    kernel_.apply(plan_[k], ka_[k], work_);
  }
  SGDMC_INLINE void divide_sources(std::size_t k) {
    Scaled& a = plan_[k];
    const Lanes* source = lanes(sources_[k].value);
    Lanes *value = lanes(a.value), *offset = lanes(a.offset);
    const int length = kernel_.length;
    for (int i = 0; i < a.range.count; ++i) {
      offset[i] = -offset[i];
      for (int v = i * length; v < (i + 1) * length; ++v) {
        const Lanes x = max(value[v], all(0x1p-1000));
        value[v] = source[v] > 0.0 ? source[v] / x : Lanes{};
      }
    }
    a.normalise(a.range.count, length);
  }

  // b_k = alpha / (K^T a_k) for alpha in blocks.
  SGDMC_INLINE void back_step(std::size_t k) {
    const Lanes *alpha = lanes(bary_.value), *alpha_offset = lanes(bary_.offset);
    const Lanes *ka = lanes(ka_[k].value), *ka_offset = lanes(ka_[k].offset);
    Lanes *b = lanes(b_[k].value), *b_offset = lanes(b_[k].offset);
    const int length = kernel_.length;
    for (int i = 0; i < target_.count; ++i) {
      const auto none = (alpha_offset[i] < 0.5 * kNothing) | (ka_offset[i] < 0.5 * kNothing);
      b_offset[i] = none ? all(kNothing) : alpha_offset[i] - ka_offset[i];
      for (int v = i * length; v < (i + 1) * length; ++v)
        b[v] = ka[v] > 0x1p-1000 ? alpha[v] / ka[v] : Lanes{};
    }
    b_[k].normalise(target_.count, length);
  }

  // d <- sqrt(d alpha / (K d)); returns the sum over bins of |alpha - d K d|.
  void debias(Lanes& error) {
    kernel_.apply(d_, kd_, work_);
    dispatch([&](auto) SGDMC_BODY { error = update_debiasing(); });
  }
  SGDMC_INLINE Lanes update_debiasing() {
    const Lanes *alpha = lanes(bary_.value), *alpha_offset = lanes(bary_.offset);
    const Lanes *kd = lanes(kd_.value), *kd_offset = lanes(kd_.offset);
    Lanes *d = lanes(d_.value), *d_offset = lanes(d_.offset);
    const int length = kernel_.length;
    Lanes error{};
    for (int i = 0; i < target_.count; ++i) {
      const auto none = (alpha_offset[i] < 0.5 * kNothing) | (d_offset[i] < 0.5 * kNothing);
      const Lanes half = none ? Lanes{} : 0.5 * (d_offset[i] + alpha_offset[i] - kd_offset[i]);
      const Lanes whole = (half + kRound) - kRound;  // half - whole is 0 or +-1/2
      const Lanes root = half > whole   ? all(0x1.6a09e667f3bcdp+0)
                         : half < whole ? all(0x1.6a09e667f3bcdp-1)
                                        : all(1.0);
      const Lanes mine = pow2(none ? all(kNothing) : alpha_offset[i]);
      const Lanes other = pow2(none ? all(kNothing) : d_offset[i] + kd_offset[i]);
      for (int v = i * length; v < (i + 1) * length; ++v) {
        const Lanes gap = alpha[v] * mine - (d[v] * kd[v]) * other;
        error += gap < 0.0 ? -gap : gap;
        const Lanes ratio = kd[v] > 0x1p-1000 ? d[v] * (alpha[v] / kd[v]) : Lanes{};
        for (int l = 0; l < kLanes; ++l) d[v][l] = __builtin_sqrt(ratio[l]);
        d[v] = d[v] * root;
      }
      d_offset[i] = none ? all(kNothing) : whole;
    }
    d_.normalise(target_.count, length);
    return error;
  }

  // The new barycenter from all K^T a_k, its residual, and the new b_k and d.
  void combine(Lanes& error) {
    dispatch([&](auto) SGDMC_BODY { error = new_barycenter(); });
    dispatch([&](auto) SGDMC_BODY {
      for (std::size_t k = 0; k < s_.n_members; ++k) {
        error = detail::max(error, shortfall(k));
        back_step(k);
      }
    });
    if (s_.debiased) {
      Lanes gap;
      debias(gap);
      error = detail::max(error, gap);
    }
  }
  SGDMC_INLINE Lanes new_barycenter() {
    const std::size_t m = s_.n_members;
    const int length = kernel_.length;
    const int n = static_cast<int>(s_.n);
    Lanes* x = lanes(log_bary_);
    const Lanes* weight = lanes(weight_);
    const Lanes slope = lanes(tilt_)[0];
    const Lanes *d = lanes(d_.value), *d_offset = lanes(d_.offset);
    Lanes top = all(kNothing);
    for (int i = 0; i < target_.count; ++i)
      for (int v = i * length; v < (i + 1) * length; ++v) {
        Lanes sum = static_cast<double>(v) * slope;
        if (s_.debiased) sum += log(d[v]) + d_offset[i] * kLog2;
        for (std::size_t k = 0; k < m; ++k) {
          const Lanes part = log(lanes(ka_[k].value)[v]) + lanes(ka_[k].offset)[i] * kLog2;
          sum += weight[k] > 0.0 ? weight[k] * part : Lanes{};
        }
        x[v] = v < n ? max(sum, all(kNothing)) : all(kNothing);
        top = max(top, x[v]);
      }
    Lanes total{};
    for (int v = 0; v < n; ++v) total += exp(x[v] - top);
    const Lanes norm = top + log(total);
    for (int v = 0; v < target_.count * length; ++v) x[v] = max(x[v] - norm, all(kNothing));
    from_log(x, bary_);
    Lanes moved{};
    Lanes* now = lanes(start_);
    const Lanes *alpha = lanes(bary_.value), *alpha_offset = lanes(bary_.offset);
    for (int i = 0; i < target_.count; ++i) {
      const Lanes unit = pow2(alpha_offset[i]);
      for (int v = i * length; v < (i + 1) * length; ++v) {
        const Lanes fresh = alpha[v] * unit, gap = fresh - now[v];
        moved += gap < 0.0 ? -gap : gap;
        now[v] = fresh;
      }
    }
    return moved;
  }

  // Twice what the second marginal b_k K^T a_k falls short of the barycenter by.
  SGDMC_INLINE Lanes shortfall(std::size_t k) const {
    const int length = kernel_.length;
    Lanes missing{};
    const Lanes* now = lanes(start_);
    const Lanes *ka = lanes(ka_[k].value), *ka_offset = lanes(ka_[k].offset);
    const Lanes *b = lanes(b_[k].value), *b_offset = lanes(b_[k].offset);
    for (int i = 0; i < target_.count; ++i) {
      const Lanes sum = b_offset[i] + ka_offset[i];
      const Lanes unit = pow2(sum < 0.5 * kNothing ? all(kNothing) : sum);
      for (int v = i * length; v < (i + 1) * length; ++v) {
        const Lanes gap = now[v] - (b[v] * ka[v]) * unit;
        missing += gap > 0.0 ? gap : Lanes{};
      }
    }
    return lanes(weight_)[k] > 0.0 ? 2.0 * missing : Lanes{};
  }

  // First guess: the exact W2 barycenter with a trace of its blurred self, and potentials that fit it.
  void begin() {
    dispatch([&](auto) SGDMC_BODY { constant(d_); });
    kernel_.apply(d_, kd_, work_);  // K 1
    dispatch([&](auto) SGDMC_BODY { divide_guess(); });
    kernel_.apply(d_, kd_, work_);
    dispatch([&](auto) SGDMC_BODY {
      mix_guess();
      constant(d_);
    });
    Lanes unused;
    if (s_.debiased)
      for (int i = 0; i < kBlurStart; ++i) debias(unused);
    for (std::size_t k = 0; k < s_.n_members; ++k) {
      dispatch([&](auto) SGDMC_BODY { first_scaling(k); });
      for (int i = 0; i < kStartSteps; ++i) {
        half_step(k);
        dispatch([&](auto) SGDMC_BODY { back_step(k); });
      }
    }
  }
  SGDMC_INLINE void constant(Scaled& out) const {
    Lanes *value = lanes(out.value), *offset = lanes(out.offset);
    for (int i = 0; i < target_.count; ++i) offset[i] = Lanes{};
    for (int v = 0; v < target_.count * kernel_.length; ++v)
      value[v] = v < static_cast<int>(s_.n) ? all(1.0) : Lanes{};
  }
  SGDMC_INLINE void divide_guess() {
    const int length = kernel_.length;
    const Lanes *guess = lanes(start_), *kd = lanes(kd_.value), *kd_offset = lanes(kd_.offset);
    Lanes* d = lanes(d_.value);
    for (int v = 0; v < static_cast<int>(s_.n); ++v)
      d[v] = guess[v] / (kd[v] * pow2(kd_offset[v / length]));
    d_.normalise(target_.count, length);
  }
  SGDMC_INLINE void mix_guess() {
    const int length = kernel_.length, n = static_cast<int>(s_.n);
    const Lanes *kd = lanes(kd_.value), *kd_offset = lanes(kd_.offset);
    Lanes *guess = lanes(start_), *x = lanes(log_bary_);
    for (int v = 0; v < target_.count * length; ++v) {
      const Lanes offset = kd_offset[v / length];
      const Lanes blurred = kd[v] * pow2(offset < 0.5 * kNothing ? all(kNothing) : offset);
      guess[v] = v < n ? (1.0 - kStartMix) * guess[v] + kStartMix * (blurred + 1e-6 / n) : Lanes{};
      x[v] = log(guess[v]);
    }
    from_log(x, bary_);
  }
  SGDMC_INLINE void first_scaling(std::size_t k) {
    const int length = kernel_.length, n = static_cast<int>(s_.n);
    const Lanes slope = lanes(tilt_)[0];
    const Lanes *d = lanes(d_.value), *d_offset = lanes(d_.offset);
    Lanes* x = lanes(log_bary_);
    for (int v = 0; v < target_.count * length; ++v)
      x[v] = v < n ? (log(d[v]) + d_offset[v / length] * kLog2) - static_cast<double>(v) * slope : all(kNothing);
    from_log(x, b_[k]);
  }
};

}  // namespace detail

// Barycenter p of the histograms members[p * m ..] with weights[p * m ..], for each p < n_problems: out is
// (n_problems, n), n_iter and residual (n_problems,).
inline void sinkhorn_barycenters(const BarycenterSettings& s, const double* histograms,
                                 std::size_t n_problems, const std::int64_t* members,
                                 const double* weights, double* out, std::int64_t* n_iter,
                                 double* residual, int n_threads, Stop& stop) {
  const double scale = static_cast<double>(s.n) * static_cast<double>(s.n) * s.reg;
  const int length = LineKernel::length_of(scale);
  const LineKernel kernel(scale, static_cast<int>(3 * s.n / length) + 4);
  parallel_for((n_problems + kLanes - 1) / kLanes, n_threads, stop, [&](std::size_t g) {
    const std::size_t first = g * kLanes, count = std::min<std::size_t>(kLanes, n_problems - first);
    detail::Group group(s, kernel, histograms, members, weights, first, count);
    group.solve(out + first * s.n, n_iter + first, residual + first, stop);
  });
}

}  // namespace sgdmc
