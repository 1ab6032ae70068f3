// Discretisation: state = clip(floor((x - low) * scale), 0, n - 1), and minima and maxima in one pass.
#pragma once

#include <cmath>
#include <cstdint>
#include <limits>
#include <numeric>

#include "parallel.hpp"

namespace sgdmc {

// Rows a block may take: about 256 KiB of values, a whole number of `period` entries.
inline std::size_t rows_per_block(std::size_t dim) {
  const std::size_t rows = (std::size_t{1} << 15) / dim;
  return std::max<std::size_t>(rows - rows % 16, 16);
}

// Index of the first entry that is NaN or infinite, or n.
inline std::size_t first_nonfinite(const double* values, std::size_t n) {
  std::size_t i = 0;
  while (i < n && std::isfinite(values[i])) ++i;
  return i;
}

// Extremes of each of `dim` columns of `values` (rows, dim), row-major. Returns the flat index of the
// first entry that is NaN or infinite, or -1; the extremes are meaningful only then.
inline std::int64_t min_max(const double* values, std::size_t rows, std::size_t dim, double* low,
                            double* high, int n_threads, Stop& stop) {
  constexpr double inf = std::numeric_limits<double>::infinity();
  std::fill(low, low + dim, inf);
  std::fill(high, high + dim, -inf);
  const std::size_t block = rows_per_block(dim), n_blocks = (rows + block - 1) / block;
  // Eight accumulators a column, in the order of the entries, so that the loop below is one of vectors.
  const std::size_t period = 8 * dim;
  std::atomic<std::int64_t> bad{-1};
  std::mutex guard;
  parallel_for(n_blocks, n_threads, stop, [&](std::size_t b) {
    std::vector<double> lows(period, inf), highs(period, -inf), wrong(period, 0.0);
    const double* x = values + b * block * dim;
    const std::size_t n = (std::min(rows, (b + 1) * block) - b * block) * dim;
    dispatch([&](auto) SGDMC_BODY {
      // Four vectors of one column hide the latency of the comparisons; other widths have them already.
      if (dim == 1) {
        double lo[32], hi[32], nan[32];
        for (int l = 0; l < 32; ++l) lo[l] = inf, hi[l] = -inf, nan[l] = 0.0;
        std::size_t i = 0;
        for (; i + 32 <= n; i += 32)
          for (int l = 0; l < 32; ++l) {
            const double v = x[i + l];
            lo[l] = v < lo[l] ? v : lo[l];
            hi[l] = v > hi[l] ? v : hi[l];
            nan[l] += v - v;  // zero for finite v, NaN otherwise
          }
        for (; i < n; ++i) {
          lo[0] = x[i] < lo[0] ? x[i] : lo[0];
          hi[0] = x[i] > hi[0] ? x[i] : hi[0];
          nan[0] += x[i] - x[i];
        }
        for (int l = 0; l < 32; ++l) {
          lows[l % 8] = std::min(lows[l % 8], lo[l]);
          highs[l % 8] = std::max(highs[l % 8], hi[l]);
          wrong[l % 8] += nan[l];
        }
        return;
      }
      for (std::size_t i = 0; i < n; i += period) {
        const std::size_t m = std::min(period, n - i);
        double *lo = lows.data(), *hi = highs.data(), *nan = wrong.data();
#pragma GCC ivdep
        for (std::size_t l = 0; l < m; ++l) {
          const double v = x[i + l];
          lo[l] = v < lo[l] ? v : lo[l];
          hi[l] = v > hi[l] ? v : hi[l];
          nan[l] += v - v;
        }
      }
    });
    const double total = std::accumulate(wrong.begin(), wrong.end(), 0.0);
    if (total != 0.0) {  // NaN
      lower_index(bad, static_cast<std::int64_t>(b * block * dim + first_nonfinite(x, n)));
      return;
    }
    const std::lock_guard<std::mutex> lock(guard);
    for (std::size_t l = 0; l < period; ++l) {
      low[l % dim] = std::min(low[l % dim], lows[l]);
      high[l % dim] = std::max(high[l % dim], highs[l]);
    }
  });
  return bad.load();
}

// State of one value; NaN gives 0, which the caller reports.
SGDMC_INLINE std::int16_t state_of(double x, double low, double scale, double last) {
  double s = (x - low) * scale;
  s = s >= 0.0 ? s : 0.0;
  s = s < last ? s : last;
  return static_cast<std::int16_t>(static_cast<std::int32_t>(s));
}

// States of `values` (rows, dim), row-major. Returns the flat index of the first entry that is NaN or
// infinite, or -1.
inline std::int64_t encode(const double* values, std::size_t rows, std::size_t dim, const double* low,
                           const double* scale, std::int32_t n_states, std::int16_t* out, int n_threads,
                           Stop& stop) {
  const std::size_t block = rows_per_block(dim), n_blocks = (rows + block - 1) / block;
  const std::size_t period = 32 * dim;
  std::vector<double> lows(period), scales(period);
  for (std::size_t l = 0; l < period; ++l) lows[l] = low[l % dim], scales[l] = scale[l % dim];
  const double last = n_states - 1;
  std::atomic<std::int64_t> bad{-1};
  parallel_for(n_blocks, n_threads, stop, [&](std::size_t b) {
    const double* x = values + b * block * dim;
    std::int16_t* s = out + b * block * dim;
    const std::size_t n = (std::min(rows, (b + 1) * block) - b * block) * dim;
    bool wrong = false;
    dispatch([&](auto) SGDMC_BODY {
      const double *lo = lows.data(), *sc = scales.data();
      double nan[8] = {0, 0, 0, 0, 0, 0, 0, 0};
      std::size_t i = 0, phase = 0;
      for (; i + 32 <= n; i += 32) {
        double buffer[32];
        for (int l = 0; l < 32; ++l) {
          double v = (x[i + l] - lo[phase + l]) * sc[phase + l];
          v = v >= 0.0 ? v : 0.0;
          buffer[l] = v < last ? v : last;
        }
        for (int l = 0; l < 32; ++l)
          s[i + l] = static_cast<std::int16_t>(static_cast<std::int32_t>(buffer[l]));
        for (int k = 0; k < 32; k += 8)
          for (int l = 0; l < 8; ++l) nan[l] += x[i + k + l] - x[i + k + l];
        phase = phase + 32 == period ? 0 : phase + 32;
      }
      double total = 0.0;
      for (; i < n; ++i) {
        s[i] = state_of(x[i], low[i % dim], scale[i % dim], last);
        total += x[i] - x[i];
      }
      for (int l = 0; l < 8; ++l) total += nan[l];
      wrong = total != 0.0;
    });
    if (wrong) lower_index(bad, static_cast<std::int64_t>(b * block * dim + first_nonfinite(x, n)));
  });
  return bad.load();
}

}  // namespace sgdmc
