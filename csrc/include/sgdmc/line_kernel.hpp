// The Gaussian kernel on a line as a banded product, for eight lines of numbers at a time.
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

SGDMC_INLINE Lanes all(double x) { return broadcast<Lanes>(x); }
SGDMC_INLINE Lanes max(Lanes a, Lanes b) { return a > b ? a : b; }

// exp(x); 0 below -708.
SGDMC_INLINE Lanes exp(Lanes x) {
  const auto tiny = x < -708.0;
  x = x < -708.0 ? all(-708.0) : x;
  x = x > 709.0 ? all(709.0) : x;
  const Lanes out = exp_between<Lanes, LaneBits>(x);
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

}  // namespace sgdmc
