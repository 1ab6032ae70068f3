// Gradients of the built-in problems for W * G chains at once, each with a sample of its own.
//
// A problem's data are records of `stride` doubles, (x_0, .., x_{d-1}, y), so that one sample's numbers
// share a cache line. Each `add` adds one sample's gradient; sums run over coordinates and samples in
// order, as in the plain NumPy reference, and agree with it bit for bit.
#pragma once

#include <cstdint>

#include "elementary.hpp"

namespace sgdmc {

template <int W>
SGDMC_INLINE typename Simd<W>::D gather(const double* column, const std::uint32_t* sample,
                                        std::size_t stride) {
  typename Simd<W>::D v;
#pragma GCC unroll 8
  for (int l = 0; l < W; ++l) v[l] = column[sample[l] * stride];
  return v;
}

// Columns 0, 1 and 2 of the records of 4 doubles of W samples.
template <int W>
SGDMC_INLINE void gather3(const double* records, const std::uint32_t* sample, typename Simd<W>::D& a,
                          typename Simd<W>::D& b, typename Simd<W>::D& c) {
  if constexpr (W == 8) {
    using V4 = Simd<4>::D;
    V4 r[8];
#pragma GCC unroll 8
    for (int l = 0; l < 8; ++l) r[l] = load<4>(records + sample[l] * std::size_t{4});
    const auto r04 = __builtin_shufflevector(r[0], r[4], 0, 1, 2, 3, 4, 5, 6, 7);
    const auto r15 = __builtin_shufflevector(r[1], r[5], 0, 1, 2, 3, 4, 5, 6, 7);
    const auto r26 = __builtin_shufflevector(r[2], r[6], 0, 1, 2, 3, 4, 5, 6, 7);
    const auto r37 = __builtin_shufflevector(r[3], r[7], 0, 1, 2, 3, 4, 5, 6, 7);
    const auto lo01 = __builtin_shufflevector(r04, r15, 0, 8, 2, 10, 4, 12, 6, 14);
    const auto hi01 = __builtin_shufflevector(r04, r15, 1, 9, 3, 11, 5, 13, 7, 15);
    const auto lo23 = __builtin_shufflevector(r26, r37, 0, 8, 2, 10, 4, 12, 6, 14);
    const auto hi23 = __builtin_shufflevector(r26, r37, 1, 9, 3, 11, 5, 13, 7, 15);
    a = __builtin_shufflevector(lo01, lo23, 0, 1, 8, 9, 4, 5, 12, 13);
    b = __builtin_shufflevector(hi01, hi23, 0, 1, 8, 9, 4, 5, 12, 13);
    c = __builtin_shufflevector(lo01, lo23, 2, 3, 10, 11, 6, 7, 14, 15);
  } else if constexpr (W == 4) {
    const auto r0 = load<4>(records + sample[0] * std::size_t{4});
    const auto r1 = load<4>(records + sample[1] * std::size_t{4});
    const auto r2 = load<4>(records + sample[2] * std::size_t{4});
    const auto r3 = load<4>(records + sample[3] * std::size_t{4});
    const auto lo01 = __builtin_shufflevector(r0, r1, 0, 4, 2, 6);
    const auto hi01 = __builtin_shufflevector(r0, r1, 1, 5, 3, 7);
    const auto lo23 = __builtin_shufflevector(r2, r3, 0, 4, 2, 6);
    const auto hi23 = __builtin_shufflevector(r2, r3, 1, 5, 3, 7);
    a = __builtin_shufflevector(lo01, lo23, 0, 1, 4, 5);
    b = __builtin_shufflevector(hi01, hi23, 0, 1, 4, 5);
    c = __builtin_shufflevector(lo01, lo23, 2, 3, 6, 7);
  } else {
    a = gather<W>(records, sample, 4);
    b = gather<W>(records + 1, sample, 4);
    c = gather<W>(records + 2, sample, 4);
  }
}

enum class Link { identity, logistic };

// Gradient (h(<x, theta>) - y) x of a generalised linear model: least squares or logistic regression.
// Dim = 0 means a dimension known at run time.
template <Link L, int Dim>
struct LinearModel {
  const double* records;  // (n_samples, stride)
  std::size_t n_samples, stride, n_dims;
  static constexpr int fixed_dim = Dim;
  std::size_t dim() const { return Dim ? Dim : n_dims; }

  template <int W, int G>
  SGDMC_INLINE void add(const std::uint32_t* sample, const typename Simd<W>::D* theta,
                        typename Simd<W>::D* gradient) const {
    using D = typename Simd<W>::D;
    using U = typename Simd<W>::U;
    if constexpr (Dim == 2) {
#pragma GCC unroll 16
      for (int g = 0; g < G; ++g) {
        D x0, x1, y;
        gather3<W>(records, sample + g * W, x0, x1, y);
        D m = x0 * theta[g];
        m = m + x1 * theta[G + g];
        if constexpr (L == Link::logistic) m = logistic<D, U>(m);
        const D r = m - y;
        gradient[g] = gradient[g] + r * x0;
        gradient[G + g] = gradient[G + g] + r * x1;
      }
    } else {
      const std::size_t d = dim();
      for (int g = 0; g < G; ++g) {
        const std::uint32_t* s = sample + g * W;
        D m = gather<W>(records, s, stride) * theta[g];
        for (std::size_t j = 1; j < d; ++j) m = m + gather<W>(records + j, s, stride) * theta[j * G + g];
        if constexpr (L == Link::logistic) m = logistic<D, U>(m);
        const D r = m - gather<W>(records + d, s, stride);
        for (std::size_t j = 0; j < d; ++j)
          gradient[j * G + g] = gradient[j * G + g] + r * gather<W>(records + j, s, stride);
      }
    }
  }
};

// Gradient of (theta_0 sin(theta_1 x) - y)^2 / 2.
struct SineModel {
  const double* records;  // (n_samples, 2): x, y
  std::size_t n_samples;
  static constexpr int fixed_dim = 2;
  std::size_t dim() const { return 2; }

  template <int W, int G>
  SGDMC_INLINE void add(const std::uint32_t* sample, const typename Simd<W>::D* theta,
                        typename Simd<W>::D* gradient) const {
    using D = typename Simd<W>::D;
#pragma GCC unroll 16
    for (int g = 0; g < G; ++g) {
      const D x = gather<W>(records, sample + g * W, 2), y = gather<W>(records + 1, sample + g * W, 2);
      D s, c;
      sine_cosine<D, typename Simd<W>::U>(theta[G + g] * x, s, c);
      const D r = theta[g] * s - y;
      gradient[g] = gradient[g] + r * s;
      gradient[G + g] = gradient[G + g] + (r * theta[g]) * (x * c);
    }
  }
};

}  // namespace sgdmc
