// Eigenvalues of a chain nearest to one, as the largest of the group inverse of I - P.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <utility>
#include <vector>

#include "stationary.hpp"

namespace sgdmc {

namespace detail {

inline constexpr std::ptrdiff_t kPiece = 512;  // entries of a vector that stay in the cache

// Inner product in 32 interleaved lanes, the same whatever the width of the registers.
SGDMC_INLINE double dot(const double* x, const double* y, std::ptrdiff_t n) {
  Vec8 lane[4] = {};
  std::ptrdiff_t i = 0;
  for (; i + 32 <= n; i += 32)
    for (int l = 0; l < 4; ++l) lane[l] += load8(x + i + 8 * l) * load8(y + i + 8 * l);
  const Vec8 sum = (lane[0] + lane[1]) + (lane[2] + lane[3]);
  double rest = 0.0;
  for (; i < n; ++i) rest += x[i] * y[i];
  return (((sum[0] + sum[4]) + (sum[1] + sum[5])) + ((sum[2] + sum[6]) + (sum[3] + sum[7]))) + rest;
}

// Takes the first `m` rows of `basis` out of x, twice; adds what was taken to `taken`, and returns the
// length of what is left. Goes over the rows three times, in pieces.
SGDMC_INLINE double orthogonalise(const double* basis, std::ptrdiff_t m, std::ptrdiff_t n, double* x,
                                  double* taken) {
  std::vector<double> first(m, 0.0), second(m, 0.0);
  for (std::ptrdiff_t at = 0; at < n; at += kPiece)
    for (std::ptrdiff_t k = 0; k < m; ++k)
      first[k] += dot(basis + k * n + at, x + at, std::min(kPiece, n - at));
  for (std::ptrdiff_t at = 0; at < n; at += kPiece) {
    const std::ptrdiff_t count = std::min(kPiece, n - at);
    for (std::ptrdiff_t k = 0; k < m; ++k) axpy(x + at, -first[k], basis + k * n + at, count);
    for (std::ptrdiff_t k = 0; k < m; ++k) second[k] += dot(basis + k * n + at, x + at, count);
  }
  double square = 0.0;
  for (std::ptrdiff_t at = 0; at < n; at += kPiece) {
    const std::ptrdiff_t count = std::min(kPiece, n - at);
    for (std::ptrdiff_t k = 0; k < m; ++k) axpy(x + at, -second[k], basis + k * n + at, count);
    square += dot(x + at, x + at, count);
  }
  for (std::ptrdiff_t k = 0; k < m; ++k) taken[k] += first[k] + second[k];
  return std::sqrt(square);
}

// Calls body(width), with a constant where the width is a small one: loops as short as that are unrolled.
template <class Body>
SGDMC_INLINE void with_constant(std::ptrdiff_t width, Body&& body) {
  if (width == 1) return body(std::integral_constant<std::ptrdiff_t, 1>{});
  if (width == 2) return body(std::integral_constant<std::ptrdiff_t, 2>{});
  if (width == 4) return body(std::integral_constant<std::ptrdiff_t, 4>{});
  body(width);
}

}  // namespace detail

// The group inverse G of I - P, whose eigenvalues are 1 / (1 - lambda), balanced by the stationary law:
// D G D^-1 with D = diag(sqrt(pi)), which is symmetric for a reversible chain and close to normal for
// others, however many decades pi spans. A chain with masses too small for that is taken as it is.
class GroupInverse {
 public:
  // `pi` is written where all states lead to a lower one, that is, unless reduced().bad >= 0.
  GroupInverse(ReducedBand&& reduced, double* pi) : reduced_(std::move(reduced)), pi_(pi) {
    if (reduced_.bad >= 0) return;
    const Band& a = reduced_.a;
    stationary_from_reduced(a, pi);
    const bool balanced = *std::min_element(pi, pi + a.n) > 1e-280;
    root_.resize(a.n);
    inverse_.resize(a.n);
    share_.resize(a.n);
    for (std::ptrdiff_t i = 0; i < a.n; ++i) {
      root_[i] = balanced ? std::sqrt(pi[i]) : 1.0;
      share_[i] = balanced ? root_[i] : pi[i];
      inverse_[i] = i ? 1.0 / reduced_.sums[i] : 0.0;
    }
  }
  const ReducedBand& reduced() const { return reduced_; }

  // Rounding ends up in the equation of the state that is left, and counts for eps / sqrt(its mass).
  bool accurate() const {
    const double* pi = pi_;
    return pi[0] >= 1e-8 * *std::max_element(pi, pi + reduced_.a.n);
  }

  // Balanced vectors have no part along D 1, nor along pi D^-1.
  SGDMC_INLINE void centre(double* y) const {
    const std::ptrdiff_t n = reduced_.a.n;
    const double mean = detail::dot(share_.data(), y, n);
    detail::axpy(y, -mean, root_.data(), n);
  }

  // x becomes the group inverse times x: the y with (I - P) y = x - (pi x) 1 and pi y = 0, by
  // I - P = (I - C) diag(s) (I - R) from the reduction.
  SGDMC_INLINE void apply(double* x) const {
    const Band& a = reduced_.a;
    const std::ptrdiff_t n = a.n;
    centre(x);
    for (std::ptrdiff_t i = 0; i < n; ++i) x[i] /= root_[i];
    detail::with_constant(a.upper, [&](auto upper) SGDMC_BODY {  // furthest first: the nearest is known last
      const std::ptrdiff_t width = upper;
      for (std::ptrdiff_t i = n - 1; i >= std::max<std::ptrdiff_t>(n - width, 0); --i) {
        double sum = 0.0;
        for (std::ptrdiff_t k = n - 1; k > i; --k) sum += a.row(i)[k] * x[k];
        x[i] += sum;
      }
      for (std::ptrdiff_t i = n - 1 - width; i >= 0; --i) {
        const double* c = a.row(i) + i;
        double sum = 0.0;
        for (std::ptrdiff_t k = width; k > 0; --k) sum += c[k] * x[i + k];
        x[i] += sum;
      }
    });
    x[0] = 0.0;
    detail::with_constant(a.lower, [&](auto lower) SGDMC_BODY {
      const std::ptrdiff_t width = lower;
      for (std::ptrdiff_t i = 1; i < std::min(n, width); ++i) {
        double sum = x[i] * kReductionScale;
        for (std::ptrdiff_t j = 0; j < i; ++j) sum += a.row(i)[j] * x[j];
        x[i] = sum * inverse_[i];
      }
      for (std::ptrdiff_t i = std::max<std::ptrdiff_t>(width, 1); i < n; ++i) {
        const double* r = a.row(i) + i;
        double sum = x[i] * kReductionScale;
        for (std::ptrdiff_t j = width; j > 0; --j) sum += r[-j] * x[i - j];
        x[i] = sum * inverse_[i];
      }
    });
    for (std::ptrdiff_t i = 0; i < n; ++i) x[i] *= root_[i];
    centre(x);
  }

 private:
  ReducedBand reduced_;
  const double* pi_;
  std::vector<double> root_, share_, inverse_;
};

// Arnoldi's method from the first row of `basis` (steps + 1, n): `hessenberg` is (steps + 1, steps).
// Returns the steps done: `steps`, fewer if the space is exhausted, or as many as `enough` accepts, which
// is asked after 8, 12, 16, 24, 36, ... of them.
template <class Enough>
std::ptrdiff_t group_inverse_krylov(const GroupInverse& inverse, std::ptrdiff_t steps, double* hessenberg,
                                    double* basis, Enough&& enough, Stop& stop) {
  const std::ptrdiff_t n = inverse.reduced().a.n;
  std::fill(hessenberg, hessenberg + (steps + 1) * steps, 0.0);
  std::vector<double> taken(steps + 1);
  double norm = 0.0;
  dispatch([&](auto) SGDMC_BODY {
    inverse.centre(basis);
    norm = std::sqrt(detail::dot(basis, basis, n));
  });
  if (!(norm > 0)) return 0;
  for (std::ptrdiff_t i = 0; i < n; ++i) basis[i] /= norm;
  std::ptrdiff_t ask = 8;
  for (std::ptrdiff_t m = 0; m < steps; ++m) {
    if (stop.requested()) throw Interrupted();
    double* x = basis + (m + 1) * n;
    std::copy_n(basis + m * n, n, x);
    std::fill(taken.begin(), taken.end(), 0.0);
    dispatch([&](auto) SGDMC_BODY {
      inverse.apply(x);
      norm = detail::orthogonalise(basis, m + 1, n, x, taken.data());
    });
    double column = 0.0;
    for (std::ptrdiff_t k = 0; k <= m; ++k) {
      hessenberg[k * steps + m] = taken[k];
      column += std::fabs(taken[k]);
    }
    if (!(norm > 1e-14 * column)) return m + 1;
    hessenberg[(m + 1) * steps + m] = norm;
    const double unit = 1.0 / norm;
    for (std::ptrdiff_t i = 0; i < n; ++i) x[i] *= unit;
    if (m + 1 == ask && m + 1 < steps) {
      if (enough(m + 1)) return m + 1;
      ask += ask < 16 ? 4 : ask / 2;
    }
  }
  return steps;
}

}  // namespace sgdmc
