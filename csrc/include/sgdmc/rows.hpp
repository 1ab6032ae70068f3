// What must hold before a matrix is taken for a chain, in one pass and without a copy.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>

#include "parallel.hpp"

namespace sgdmc {

// Whether rows are non-negative and finite and sum to one within a tolerance; for a sparse matrix also
// whether its columns lie inside, and its bandwidths, the largest i - j and j - i.
struct RowCheck {
  bool good = true;
  std::int64_t lower = 0, upper = 0;
};

// Whether a row is non-negative and sums to one within the tolerance, and its sum: over the entries of each
// of 32 lanes, then over the lanes, whatever the width of vectors. NaN and infinity show in the sum.
SGDMC_INLINE bool sum_row(const double* row, std::size_t n, double tolerance, double& total) {
  double sum[32] = {}, least[32] = {};
  std::size_t j = 0;
  for (; j + 32 <= n; j += 32)
    for (int l = 0; l < 32; ++l) {
      sum[l] += row[j + l];
      least[l] = row[j + l] < least[l] ? row[j + l] : least[l];
    }
  for (int l = 0; j < n; ++j, ++l) {
    sum[l] += row[j];
    least[l] = row[j] < least[l] ? row[j] : least[l];
  }
  double lowest = 0.0;
  total = 0.0;
  for (int l = 0; l < 32; ++l) total += sum[l], lowest = std::min(lowest, least[l]);
  return std::fabs(total - 1.0) <= tolerance && lowest >= 0.0;
}

inline bool check_row(const double* row, std::size_t n, double tolerance, double& total) {
  bool good = false;
  dispatch([&](auto) SGDMC_BODY {
    double sum = 0.0;
    good = sum_row(row, n, tolerance, sum);
    total = sum;
  });
  return good;
}

inline RowCheck check_full_rows(const double* p, std::size_t n, double tolerance) {
  RowCheck found;
  dispatch([&](auto) SGDMC_BODY {
    bool good = true;
    double total = 0.0;
    for (std::size_t i = 0; i < n; ++i) good &= sum_row(p + i * n, n, tolerance, total);
    found.good = good;
  });
  return found;
}

template <class Index>
RowCheck check_sparse_rows(const double* values, const Index* columns, const Index* starts, std::int64_t n,
                           double tolerance) {
  RowCheck found;
  std::int64_t lower = 0, upper = 0;
  bool good = true;
  for (std::int64_t i = 0; i < n; ++i) {
    double sum = 0.0;
    std::int64_t first = i, last = i;
    for (Index e = starts[i]; e < starts[i + 1]; ++e) {
      const std::int64_t j = columns[e];
      first = std::min(first, j);
      last = std::max(last, j);
      good &= values[e] >= 0.0;
      sum += values[e];
    }
    good &= std::fabs(sum - 1.0) <= tolerance && first >= 0 && last < n;
    lower = std::max(lower, i - first);
    upper = std::max(upper, last - i);
  }
  return {good, lower, upper};
}

}  // namespace sgdmc
