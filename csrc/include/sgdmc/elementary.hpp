// Sine, cosine, exponential and the logistic function by fixed sequences of additions, multiplications and one
// division, so that C++, numba and NumPy give the same bits, at every vector width.
#pragma once

#include <bit>
#include <cstdint>
#include <limits>

#include "parallel.hpp"

namespace sgdmc {

// Vectors of W doubles and of W 64-bit integers.
template <int W>
struct Simd {
  typedef double D __attribute__((vector_size(8 * W)));
  typedef std::uint64_t U __attribute__((vector_size(8 * W)));
};

inline constexpr double kRound = 0x1.8p52;  // x + kRound - kRound rounds to an integer

template <class D>
SGDMC_INLINE D broadcast(double x) {
  return x - D{};
}

template <int W>
SGDMC_INLINE typename Simd<W>::D load(const double* p) {
  typename Simd<W>::D v;
  __builtin_memcpy(&v, p, sizeof v);
  return v;
}

// Transposes W vectors of W doubles in place.
template <int W>
SGDMC_INLINE void transpose(typename Simd<W>::D (&v)[W]) {
  if constexpr (W == 8) {
    typename Simd<8>::D t[8], u[8];
#pragma GCC unroll 4
    for (int i = 0; i < 8; i += 2) {
      t[i] = __builtin_shufflevector(v[i], v[i + 1], 0, 8, 2, 10, 4, 12, 6, 14);
      t[i + 1] = __builtin_shufflevector(v[i], v[i + 1], 1, 9, 3, 11, 5, 13, 7, 15);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 8; i += 4) {
      u[i] = __builtin_shufflevector(t[i], t[i + 2], 0, 1, 8, 9, 4, 5, 12, 13);
      u[i + 1] = __builtin_shufflevector(t[i + 1], t[i + 3], 0, 1, 8, 9, 4, 5, 12, 13);
      u[i + 2] = __builtin_shufflevector(t[i], t[i + 2], 2, 3, 10, 11, 6, 7, 14, 15);
      u[i + 3] = __builtin_shufflevector(t[i + 1], t[i + 3], 2, 3, 10, 11, 6, 7, 14, 15);
    }
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      v[i] = __builtin_shufflevector(u[i], u[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
      v[i + 4] = __builtin_shufflevector(u[i], u[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    }
  } else if constexpr (W == 4) {
    typename Simd<4>::D t[4];
#pragma GCC unroll 2
    for (int i = 0; i < 4; i += 2) {
      t[i] = __builtin_shufflevector(v[i], v[i + 1], 0, 4, 2, 6);
      t[i + 1] = __builtin_shufflevector(v[i], v[i + 1], 1, 5, 3, 7);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      v[i] = __builtin_shufflevector(t[i], t[i + 2], 0, 1, 4, 5);
      v[i + 2] = __builtin_shufflevector(t[i], t[i + 2], 2, 3, 6, 7);
    }
  } else {
    const auto low = __builtin_shufflevector(v[0], v[1], 0, 2);
    v[1] = __builtin_shufflevector(v[0], v[1], 1, 3);
    v[0] = low;
  }
}

// s = sin(x), c = cos(x) for each lane, of type D = Simd<W>::D with bits in U = Simd<W>::U.
//
// Argument reduction x - n pi/2 in three parts (Cody and Waite), then the minimax polynomials of fdlibm
// (Sun Microsystems 1993) on [-pi/4, pi/4]. Within 1.5 units in the last place for |x| <= 2^20; beyond
// it, the result belongs to an argument a few units in the last place away; NaN for |x| > 2^50.
template <class D, class U>
SGDMC_INLINE void sine_cosine(D x, D& s, D& c) {
  const D magnitude = __builtin_bit_cast(D, __builtin_bit_cast(U, x) & 0x7FFFFFFFFFFFFFFFu);
  const D nan = broadcast<D>(std::numeric_limits<double>::quiet_NaN());
  x = magnitude <= 0x1p50 ? x : nan;
  const D shifted = x * 0x1.45f306dc9c883p-1 + kRound;
  const U quadrant = __builtin_bit_cast(U, shifted);
  const D n = shifted - kRound;
  const D r = ((x - n * 0x1.921fb544p+0) - n * 0x1.0b4611a6p-34) - n * 0x1.3198a2e037073p-69;
  const D z = r * r;
  const D sine =
      r + (z * r) * (-1.66666666666666324348e-01 +
                     z * (8.33333333332248946124e-03 +
                          z * (-1.98412698298579493134e-04 +
                               z * (2.75573137070700676789e-06 +
                                    z * (-2.50507602534068634195e-08 + z * 1.58969099521155010221e-10)))));
  const D tail =
      z * (4.16666666666666019037e-02 +
           z * (-1.38888888888741095749e-03 +
                z * (2.48015872894767294178e-05 +
                     z * (-2.75573143513906633035e-07 +
                          z * (2.08757232129817482790e-09 + z * -1.13596475577881948265e-11)))));
  const D half = 0.5 * z;
  const D w = 1.0 - half;
  const D cosine = w + (((1.0 - w) - half) + z * tail);
  const auto odd = (quadrant & 1u) != 0u;
  s = odd ? cosine : sine;
  c = odd ? sine : cosine;
  s = __builtin_bit_cast(D, __builtin_bit_cast(U, s) ^ ((quadrant & 2u) << 62));
  c = __builtin_bit_cast(D, __builtin_bit_cast(U, c) ^ (((quadrant + 1u) & 2u) << 62));
}

// exp(x) for -708 <= x <= 709: reduction to |r| <= ln(2)/2 and the Taylor polynomial of degree 13 there
// (truncation 4e-18).
template <class D, class U>
SGDMC_INLINE D exp_between(D x) {
  const D shifted = x * 0x1.71547652b82fep+0 + kRound;
  const U exponent = __builtin_bit_cast(U, shifted);
  const D n = shifted - kRound;
  const D r = (x - n * 0x1.62e42feep-1) - n * 0x1.a39ef35793c76p-33;
  D q = broadcast<D>(1.0 / 6227020800.0);
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
  const D e = 1.0 + (r + (r * r) * q);
  // Times 2^n: the low bits of `shifted` are n, and the result is a normal number.
  return __builtin_bit_cast(D, __builtin_bit_cast(U, e) + (exponent << 52));
}

// 1 / (1 + exp(-x)); x is clamped to [-708, 708], where the result is 0 or 1 to full precision.
template <class D, class U>
SGDMC_INLINE D logistic(D x) {
  x = x > 708.0 ? broadcast<D>(708.0) : x;
  x = x < -708.0 ? broadcast<D>(-708.0) : x;
  return 1.0 / (1.0 + exp_between<D, U>(-x));
}

inline void sine_cosine(const double* x, std::size_t n, double* s, double* c) {
  dispatch([&](auto width) SGDMC_BODY {
    constexpr int W = decltype(width)::value;
    using D = typename Simd<W>::D;
    for (std::size_t i = 0; i < n; i += W) {
      D v{}, sine, cosine;
      const int m = static_cast<int>(std::min<std::size_t>(W, n - i));
      for (int l = 0; l < m; ++l) v[l] = x[i + l];
      sine_cosine<D, typename Simd<W>::U>(v, sine, cosine);
      for (int l = 0; l < m; ++l) s[i + l] = sine[l], c[i + l] = cosine[l];
    }
  });
}

inline void logistic(const double* x, std::size_t n, double* out) {
  dispatch([&](auto width) SGDMC_BODY {
    constexpr int W = decltype(width)::value;
    using D = typename Simd<W>::D;
    for (std::size_t i = 0; i < n; i += W) {
      D v{};
      const int m = static_cast<int>(std::min<std::size_t>(W, n - i));
      for (int l = 0; l < m; ++l) v[l] = x[i + l];
      v = logistic<D, typename Simd<W>::U>(v);
      for (int l = 0; l < m; ++l) out[i + l] = v[l];
    }
  });
}

}  // namespace sgdmc
