// A += C R, a few columns times a few rows: where state reduction spends its time.
//
// Each product is added by a fused multiply-add, in the order of the columns, whatever the registers are:
// results do not depend on their width. Processors of before 2013 have no such instruction and are slow here.
#pragma once

#include <cmath>
#include <cstddef>

#include "intrinsics.hpp"
#include "parallel.hpp"

namespace sgdmc {

// Rows [0, n_rows) and columns [0, n_columns) of A, whose rows are ld apart, as those of C; n_columns is a
// multiple of 16. R has `depth` rows, packed in strips of 16 columns.
struct RankUpdate {
  double* a;
  const double* c;
  const double* packed;
  std::ptrdiff_t ld, n_rows, n_columns, depth;

  void run_plain() const {
    for (std::ptrdiff_t i = 0; i < n_rows; ++i) {
      const double* strip = packed;
      for (std::ptrdiff_t j = 0; j < n_columns; j += 16, strip += 16 * depth) {
        double sum[16];
        double* to = a + i * ld + j;
        for (int k = 0; k < 16; ++k) sum[k] = to[k];
        for (std::ptrdiff_t l = 0; l < depth; ++l)
          for (int k = 0; k < 16; ++k) sum[k] = std::fma(c[i * ld + l], strip[16 * l + k], sum[k]);
        for (int k = 0; k < 16; ++k) to[k] = sum[k];
      }
    }
  }

#ifdef SGDMC_HAS_DISPATCH
  template <int R>
  SGDMC_AVX512 void tile512(std::ptrdiff_t i, std::ptrdiff_t j, const double* strip) const {
    __m512d sum[R][2];
    for (int r = 0; r < R; ++r) {
      sum[r][0] = _mm512_loadu_pd(a + (i + r) * ld + j);
      sum[r][1] = _mm512_loadu_pd(a + (i + r) * ld + j + 8);
    }
    for (std::ptrdiff_t l = 0; l < depth; ++l) {
      const __m512d x = _mm512_loadu_pd(strip + 16 * l), y = _mm512_loadu_pd(strip + 16 * l + 8);
      for (int r = 0; r < R; ++r) {
        const __m512d factor = _mm512_set1_pd(c[(i + r) * ld + l]);
        sum[r][0] = _mm512_fmadd_pd(factor, x, sum[r][0]);
        sum[r][1] = _mm512_fmadd_pd(factor, y, sum[r][1]);
      }
    }
    for (int r = 0; r < R; ++r) {
      _mm512_storeu_pd(a + (i + r) * ld + j, sum[r][0]);
      _mm512_storeu_pd(a + (i + r) * ld + j + 8, sum[r][1]);
    }
  }
  SGDMC_AVX512 void run512() const {
    for (std::ptrdiff_t i = 0; i < n_rows; i += 8) {
      const double* strip = packed;
      for (std::ptrdiff_t j = 0; j < n_columns; j += 16, strip += 16 * depth) {
        if (i + 8 <= n_rows)
          tile512<8>(i, j, strip);
        else
          for (std::ptrdiff_t r = i; r < n_rows; ++r) tile512<1>(r, j, strip);
      }
    }
  }

  template <int R>
  SGDMC_AVX2 void tile256(std::ptrdiff_t i, std::ptrdiff_t j, const double* strip) const {
    __m256d sum[R][2];
    for (int r = 0; r < R; ++r) {
      sum[r][0] = _mm256_loadu_pd(a + (i + r) * ld + j);
      sum[r][1] = _mm256_loadu_pd(a + (i + r) * ld + j + 4);
    }
    for (std::ptrdiff_t l = 0; l < depth; ++l) {
      const __m256d x = _mm256_loadu_pd(strip + 16 * l), y = _mm256_loadu_pd(strip + 16 * l + 4);
      for (int r = 0; r < R; ++r) {
        const __m256d factor = _mm256_set1_pd(c[(i + r) * ld + l]);
        sum[r][0] = _mm256_fmadd_pd(factor, x, sum[r][0]);
        sum[r][1] = _mm256_fmadd_pd(factor, y, sum[r][1]);
      }
    }
    for (int r = 0; r < R; ++r) {
      _mm256_storeu_pd(a + (i + r) * ld + j, sum[r][0]);
      _mm256_storeu_pd(a + (i + r) * ld + j + 4, sum[r][1]);
    }
  }
  SGDMC_AVX2 void run256() const {
    for (std::ptrdiff_t i = 0; i < n_rows; i += 6) {
      const double* strip = packed;
      for (std::ptrdiff_t j = 0; j < n_columns; j += 16, strip += 16 * depth)
        for (std::ptrdiff_t half = 0; half < 16; half += 8) {
          if (i + 6 <= n_rows)
            tile256<6>(i, j + half, strip + half);
          else
            for (std::ptrdiff_t r = i; r < n_rows; ++r) tile256<1>(r, j + half, strip + half);
        }
    }
  }
#endif

  void run() const {
#ifdef SGDMC_HAS_DISPATCH
    const int width = simd_width();
    if (width == 512) return run512();
    if (width == 256) return run256();
#endif
    run_plain();
  }
};

}  // namespace sgdmc
