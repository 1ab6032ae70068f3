// Stationary laws and absorption probabilities by state reduction (Grassmann, Taksar, Heyman 1985).
//
// States are eliminated from the last to the first kept one: the chain watched only while it is among
// the states below k has P_ij + P_ik P_kj / s_k with s_k = sum_{j<k} P_kj. Nothing is ever subtracted,
// so that every component keeps its relative accuracy however nearly the chain falls apart.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <type_traits>
#include <vector>

#include "sgdmc/parallel.hpp"
#include "sgdmc/rank_update.hpp"
#include "sgdmc/team.hpp"

namespace sgdmc {

// Rows i in [k - upper, k) reach column k, row k reaches columns [k - lower, k): element (i, j) lies at
// data[i * ld + j]. A full matrix has lower = upper = n and ld = n; a band has ld = width - 1, which
// shifts each row by one place.
struct Band {
  double* data;
  std::ptrdiff_t ld;
  std::ptrdiff_t n;
  std::ptrdiff_t lower;
  std::ptrdiff_t upper;

  double* row(std::ptrdiff_t i) const { return data + i * ld; }
};

constexpr std::ptrdiff_t kPanel = 32;  // states eliminated at a time
constexpr double kReductionScale = 0x1p200;  // keeps subnormal probabilities off the slow path

namespace detail {

using Vec8 = double __attribute__((vector_size(64), aligned(8)));

SGDMC_INLINE Vec8 load8(const double* p) {
  Vec8 v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}
SGDMC_INLINE void store8(double* p, const Vec8& v) { __builtin_memcpy(p, &v, sizeof v); }

SGDMC_INLINE void axpy(double* y, double a, const double* x, std::ptrdiff_t n) {
  for (std::ptrdiff_t j = 0; j < n; ++j) y[j] += a * x[j];
}

// Sum in eight interleaved lanes, the same whatever the width of the registers.
SGDMC_INLINE double lane_sum(const double* x, std::ptrdiff_t n) {
  double lane[8] = {0, 0, 0, 0, 0, 0, 0, 0};
  std::ptrdiff_t j = 0;
  for (; j + 8 <= n; j += 8)
    for (int l = 0; l < 8; ++l) lane[l] += x[j + l];
  for (int l = 0; j < n; ++j, ++l) lane[l] += x[j];
  return ((lane[0] + lane[4]) + (lane[1] + lane[5])) + ((lane[2] + lane[6]) + (lane[3] + lane[7]));
}

// Rows [k0, k1), columns [j0, k0) in strips of 16 columns.
SGDMC_INLINE void pack_panel(const Band& a, std::ptrdiff_t j0, std::ptrdiff_t k0, std::ptrdiff_t k1,
                             double* packed) {
  for (std::ptrdiff_t j = j0; j < k0; j += 16)
    for (std::ptrdiff_t l = k0; l < k1; ++l, packed += 16)
      std::memcpy(packed, a.row(l) + j, 16 * sizeof(double));
}

// What eliminating a panel does to the panel's columns of any row above it is linear, x -> x T with T
// lower triangular and non-negative: row l of T is what becomes of the l-th unit vector.
struct PanelMap {
  alignas(64) double rows[kPanel][kPanel];

  SGDMC_INLINE void build(const Band& a, std::ptrdiff_t k0, std::ptrdiff_t k1, const double* sums) {
    const std::ptrdiff_t depth = k1 - k0;
    for (std::ptrdiff_t l = 0; l < depth; ++l) {
      double* x = rows[l];
      std::fill(x, x + kPanel, 0.0);
      x[l] = 1.0 / sums[k0 + l];
      // Row l of the panel, already multiplied by the map up to l, adds to the columns before it.
      const double* row = a.row(k0 + l) + k0;
      for (std::ptrdiff_t j = 0; j < l; ++j) axpy(x, x[l] * row[j], rows[j], j + 1);
    }
  }

  // Columns [k0, k1) of rows [i0, i1) become their image.
  SGDMC_INLINE void apply(const Band& a, std::ptrdiff_t i0, std::ptrdiff_t i1, std::ptrdiff_t k0,
                          std::ptrdiff_t k1) const {
    const std::ptrdiff_t depth = k1 - k0;
    double x[4][kPanel];
    for (std::ptrdiff_t i = i0; i < i1; i += 4) {
      const std::ptrdiff_t count = std::min<std::ptrdiff_t>(4, i1 - i);
      for (std::ptrdiff_t r = 0; r < 4; ++r) {
        std::fill(x[r], x[r] + kPanel, 0.0);
        if (r < count) std::copy_n(a.row(i + r) + k0, depth, x[r]);
      }
      for (std::ptrdiff_t j = 0; j < depth; j += 16) {
        Vec8 sum[4][2] = {};
        for (std::ptrdiff_t l = j; l < depth; ++l) {
          const Vec8 t = load8(rows[l] + j), u = load8(rows[l] + j + 8);
          for (int r = 0; r < 4; ++r) {
            sum[r][0] += x[r][l] * t;
            sum[r][1] += x[r][l] * u;
          }
        }
        alignas(64) double image[16];
        for (std::ptrdiff_t r = 0; r < count; ++r) {
          store8(image, sum[r][0]);
          store8(image + 8, sum[r][1]);
          std::copy_n(image, std::min<std::ptrdiff_t>(16, depth - j), a.row(i + r) + k0 + j);
        }
      }
    }
  }
};

}  // namespace detail

// Calls body(lower, upper) with a band's reach to both sides, as constants where both are 1 or 2: loops over
// them then unroll, and little else is done in so narrow a band.
template <class Body>
SGDMC_INLINE void with_reach(const Band& a, Body&& body) {
  if (a.lower == 1 && a.upper == 1)
    body(std::integral_constant<std::ptrdiff_t, 1>{}, std::integral_constant<std::ptrdiff_t, 1>{});
  else if (a.lower == 2 && a.upper == 2)
    body(std::integral_constant<std::ptrdiff_t, 2>{}, std::integral_constant<std::ptrdiff_t, 2>{});
  else
    body(a.lower, a.upper);
}

// Eliminates state k, which reaches `lower` states below itself and is reached from `upper` of them; returns
// the probability of going down.
template <class Lower, class Upper>
SGDMC_INLINE double eliminate(const Band& a, std::ptrdiff_t k, Lower lower, Upper upper) {
  const double* row = a.row(k) + k - lower;
  double s;
  if constexpr (std::is_same_v<Lower, std::ptrdiff_t>)
    s = detail::lane_sum(row, lower);
  else
    s = Lower::value == 1 ? row[0] : row[0] + row[1];  // what lane_sum gives
  if (s > 0)
    for (std::ptrdiff_t i = k - upper; i < k; ++i) {
      double* target = a.row(i);
      const double c = target[k] / s;
      target[k] = c;
      detail::axpy(target + k - lower, c, row, lower);
    }
  return s;
}

// A narrow band, state by state.
inline std::ptrdiff_t reduce_narrow(const Band& a, std::ptrdiff_t keep, double* sums, Stop& stop) {
  constexpr std::ptrdiff_t kBlock = 8192;
  std::ptrdiff_t bad = -1;
  for (std::ptrdiff_t k1 = a.n; k1 > keep && bad < 0; k1 -= kBlock) {
    if (stop.requested()) throw Interrupted();
    const std::ptrdiff_t end = std::max(keep, k1 - kBlock);
    dispatch([&](auto) SGDMC_BODY {
      with_reach(a, [&](auto lower, auto upper) SGDMC_BODY {
        const Band band = a;
        for (std::ptrdiff_t k = k1 - 1; k >= end; --k) {
          const double s = k >= lower && k >= upper
                               ? eliminate(band, k, lower, upper)
                               : eliminate(band, k, std::min<std::ptrdiff_t>(k, lower), std::min<std::ptrdiff_t>(k, upper));
          sums[k] = s;
          if (!(s > 0)) {
            bad = k;
            return;
          }
        }
      });
    });
  }
  return bad;
}

// Eliminates states n-1, ..., keep in place. On return, for each eliminated k, column k above the
// diagonal holds P_ik / s_k, row k left of it P_kj, and sums[k] is s_k. Returns -1, or the first state
// found that leads to no lower one. Panels of states are eliminated at once, which needs kPanel
// columns of room on both sides of a band; bands narrower than that go state by state.
inline std::ptrdiff_t reduce_states(const Band& a, std::ptrdiff_t keep, double* sums, int n_threads,
                                    Stop& stop) {
  if (a.lower < kPanel || a.upper < kPanel) return reduce_narrow(a, keep, sums, stop);
  std::ptrdiff_t bad = -1;
  detail::PanelMap map;
  Team team(a.n < 256 ? 1 : n_threads);
  const auto packed = std::make_unique_for_overwrite<double[]>(
      static_cast<std::size_t>(kPanel * std::min(a.n, a.lower + kPanel) + 2 * kPanel));
  for (std::ptrdiff_t k1 = a.n, k0; k1 > keep && bad < 0; k1 = k0) {
    if (stop.requested()) throw Interrupted();
    // Panels start at multiples of kPanel, columns at multiples of 16: no ragged edges.
    k0 = std::max(keep, (k1 - 1) / kPanel * kPanel);
    const std::ptrdiff_t j0 = std::max<std::ptrdiff_t>(0, k0 - a.lower) / 16 * 16;
    const std::ptrdiff_t i0 = std::max<std::ptrdiff_t>(0, k0 - a.upper);
    dispatch([&](auto) SGDMC_BODY {  // the rows of the panel
      for (std::ptrdiff_t k = k1 - 1; k >= k0; --k) {
        const double* row = a.row(k);
        const double s = detail::lane_sum(row + j0, k - j0);
        sums[k] = s;
        if (!(s > 0)) {
          bad = k;
          return;
        }
        for (std::ptrdiff_t i = k0; i < k; ++i) {
          double* target = a.row(i);
          const double c = target[k] / s;
          target[k] = c;
          if (c != 0) detail::axpy(target + j0, c, row + j0, k - j0);
        }
      }
    });
    if (bad >= 0) break;
    dispatch([&](auto) SGDMC_BODY {
      map.build(a, k0, k1, sums);
      if (k0 > keep) detail::pack_panel(a, j0, k0, k1, packed.get());
    });
    const auto strip = [&](std::ptrdiff_t from, std::ptrdiff_t to) {  // rows above the panel
      dispatch([&](auto) SGDMC_BODY { map.apply(a, from, to, k0, k1); });
      if (k0 > keep)
        RankUpdate{a.row(from) + j0, a.row(from) + k0, packed.get(), a.ld, to - from, k0 - j0, k1 - k0}.run();
    };
    constexpr std::ptrdiff_t kStrip = 32;
    const std::ptrdiff_t height = k0 - i0;
    if (height * (k0 - j0) < 128 * 128) {
      strip(i0, k0);
      continue;
    }
    team.run((height + kStrip - 1) / kStrip, [&](std::size_t b) {
      const std::ptrdiff_t from = i0 + static_cast<std::ptrdiff_t>(b) * kStrip;
      strip(from, std::min(from + kStrip, k0));
    });
  }
  return bad;
}

// pi from a chain reduced to its first state; rescaled on the way, so that neither end overflows.
inline void stationary_from_reduced(const Band& a, double* pi) {
  double total = 0.0;
  with_reach(a, [&](auto, auto upper) SGDMC_BODY {
    const Band band = a;
    if constexpr (std::is_same_v<decltype(upper), std::ptrdiff_t>) {
      std::fill(pi, pi + band.n, 0.0);
      pi[0] = 1.0;
      for (std::ptrdiff_t i = 0; i < band.n; ++i) {
        const std::ptrdiff_t end = std::min(band.n, i + upper + 1);
        if (pi[i] > 0x1p300) {
          for (std::ptrdiff_t j = 0; j < end; ++j) pi[j] *= 0x1p-300;
          total *= 0x1p-300;
        }
        total += pi[i];
        detail::axpy(pi + i + 1, pi[i], band.row(i) + i + 1, end - i - 1);
      }
    } else {  // what the next states have received so far stays in registers
      double next[upper + 1] = {1.0}, sum = 0.0;
      for (std::ptrdiff_t i = 0; i < band.n; ++i) {
        if (next[0] > 0x1p300) {
          for (std::ptrdiff_t j = 0; j < i; ++j) pi[j] *= 0x1p-300;
          for (double& x : next) x *= 0x1p-300;
          sum *= 0x1p-300;
        }
        const double x = pi[i] = next[0], *row = band.row(i) + i + 1;
        sum += x;
        for (std::ptrdiff_t k = 0; k < upper; ++k) next[k] = next[k + 1] + x * row[k];  // zeros beyond the end
      }
      total = sum;
    }
  });
  for (std::ptrdiff_t i = 0; i < a.n; ++i) pi[i] /= total;
}

// Row i of a matrix to be reduced, scaled to the same sum in every row.
SGDMC_INLINE void copy_row(const double* from, std::ptrdiff_t n, double* to) {
  const double unit = kReductionScale / detail::lane_sum(from, n);
  for (std::ptrdiff_t j = 0; j < n; ++j) to[j] = from[j] * unit;
}

// Stationary law of a full matrix whose rows are scaled to sum to one. Returns -1, or a state that leads
// to no lower one.
inline std::ptrdiff_t stationary_dense(const double* p, std::ptrdiff_t n, double* pi, int n_threads,
                                       Stop& stop) {
  // Rows are a whole odd number of cache lines long, so that the rows of a tile do not share a set.
  const std::ptrdiff_t ld = ((n + 7) / 8 | 1) * 8;
  const auto work = std::make_unique_for_overwrite<double[]>(static_cast<std::size_t>(n * ld));
  dispatch([&](auto) SGDMC_BODY {
    for (std::ptrdiff_t i = 0; i < n; ++i) copy_row(p + i * n, n, work.get() + i * ld);
  });
  const Band a{work.get(), ld, n, std::max(n, kPanel), std::max(n, kPanel)};
  std::vector<double> sums(n);
  const std::ptrdiff_t bad = reduce_states(a, 1, sums.data(), n_threads, stop);
  if (bad < 0) stationary_from_reduced(a, pi);
  return bad;
}

// A CSR matrix whose entries satisfy i - lower <= j <= i + upper, its rows scaled to the same sum, as a
// band that is reduced to one state.
struct ReducedBand {
  std::vector<double> work, sums;
  Band a;
  std::ptrdiff_t bad;

  template <class Index>
  ReducedBand(const double* values, const Index* columns, const Index* starts, std::ptrdiff_t n,
              std::ptrdiff_t lower, std::ptrdiff_t upper, int n_threads, Stop& stop)
      : sums(n) {
    const std::ptrdiff_t room = lower < kPanel || upper < kPanel ? 0 : kPanel;
    const std::ptrdiff_t width = lower + upper + 1 + 2 * room;
    work.resize(static_cast<std::size_t>(n * width + 16));
    a = Band{work.data() + lower + room, width - 1, n, lower, upper};
    for (std::ptrdiff_t i = 0; i < n; ++i) {
      double sum = 0.0;
      for (Index e = starts[i]; e < starts[i + 1]; ++e) sum += values[e];
      const double unit = kReductionScale / sum;
      for (Index e = starts[i]; e < starts[i + 1]; ++e) {
        const std::ptrdiff_t j = columns[e];
        if (j - i > upper || i - j > lower || j < 0 || j >= n) continue;
        a.row(i)[j] += values[e] * unit;
      }
    }
    bad = reduce_states(a, 1, sums.data(), n_threads, stop);
  }
};

template <class Index>
std::ptrdiff_t stationary_banded(const double* values, const Index* columns, const Index* starts,
                                 std::ptrdiff_t n, std::ptrdiff_t lower, std::ptrdiff_t upper, double* pi,
                                 int n_threads, Stop& stop) {
  const ReducedBand reduced(values, columns, starts, n, lower, upper, n_threads, stop);
  if (reduced.bad < 0) stationary_from_reduced(reduced.a, pi);
  return reduced.bad;
}

// Probability of ending in each of the first `keep` states, all absorbing, from each of the n states of
// a row-stochastic matrix: out is (n, keep). Returns -1, or a state that is never absorbed.
inline std::ptrdiff_t absorption_dense(const double* p, std::ptrdiff_t n, std::ptrdiff_t keep,
                                       double* out, int n_threads, Stop& stop) {
  const std::ptrdiff_t ld = ((n + 7) / 8 | 1) * 8;
  const auto work = std::make_unique_for_overwrite<double[]>(static_cast<std::size_t>(n * ld));
  dispatch([&](auto) SGDMC_BODY {
    for (std::ptrdiff_t i = 0; i < n; ++i) copy_row(p + i * n, n, work.get() + i * ld);
  });
  const Band a{work.get(), ld, n, std::max(n, kPanel), std::max(n, kPanel)};
  std::vector<double> sums(n);
  const std::ptrdiff_t bad = reduce_states(a, keep, sums.data(), n_threads, stop);
  if (bad >= 0) return bad;
  std::fill(out, out + n * keep, 0.0);
  for (std::ptrdiff_t k = 0; k < keep; ++k) out[k * keep + k] = 1.0;
  for (std::ptrdiff_t k = keep; k < n; ++k) {
    for (std::ptrdiff_t j = 0; j < k; ++j)
      detail::axpy(out + k * keep, a.row(k)[j] / sums[k], out + j * keep, keep);
    const double total = detail::lane_sum(out + k * keep, keep);
    for (std::ptrdiff_t t = 0; t < keep; ++t) out[k * keep + t] /= total;
  }
  return -1;
}

}  // namespace sgdmc
