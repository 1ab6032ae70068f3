// Attention of a forest of tokens to the context that they share, in single precision.
//
// A query sees the first keys of the context, its own key and those of the tokens above it. Queries lie
// in the lanes of vectors: scores are products of keys, read as they lie, with packed queries; the softmax
// is taken along the keys as they come (Milakov and Gimelshein 2018); and no lane is added to another, so
// that the parts done in vectors do not depend on their width.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <numeric>
#include <vector>

#include "intrinsics.hpp"
#include "parallel.hpp"

namespace sgdmc {

// Queries of one block; the rows of every packed matrix are as long.
inline constexpr std::ptrdiff_t kLanes = 48;
// Keys of one turn: their scores, and values, stay in the first cache.
inline constexpr std::ptrdiff_t kKeys = 64;

// out = A B, or with `factor` out = out diag(factor) + A B. A has n_rows rows; entry (r, k) is a[r * ld + k],
// or of a transposed A a[k * ld + r]. B has `depth` rows and out n_rows, each of kLanes entries of which the
// first n_columns count: a multiple of 16.
template <bool Transposed>
struct LaneProduct {
  const float *a, *b;
  float* out;
  const float* factor;
  std::ptrdiff_t ld, n_rows, n_columns, depth;

  SGDMC_INLINE float entry(std::ptrdiff_t r, std::ptrdiff_t k) const {
    return Transposed ? a[k * ld + r] : a[r * ld + k];
  }

  void run_plain() const {
    for (std::ptrdiff_t r = 0; r < n_rows; ++r) {
      float* to = out + r * kLanes;
      for (std::ptrdiff_t j = 0; j < n_columns; j += 16) {
        float sum[16];
        for (int l = 0; l < 16; ++l) sum[l] = factor ? factor[j + l] * to[j + l] : 0.0f;
        for (std::ptrdiff_t k = 0; k < depth; ++k) {
          const float x = entry(r, k);
          for (int l = 0; l < 16; ++l) sum[l] += x * b[k * kLanes + j + l];
        }
        for (int l = 0; l < 16; ++l) to[j + l] = sum[l];
      }
    }
  }

#ifdef SGDMC_HAS_DISPATCH
  template <int R, int C>
  SGDMC_AVX512 void tile512(std::ptrdiff_t r0, std::ptrdiff_t j0) const {
    __m512 sum[R][C];
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < C; ++c) {
        const std::ptrdiff_t j = j0 + 16 * c;
        sum[r][c] = factor ? _mm512_mul_ps(_mm512_loadu_ps(factor + j),
                                           _mm512_loadu_ps(out + (r0 + r) * kLanes + j))
                           : _mm512_setzero_ps();
      }
    for (std::ptrdiff_t k = 0; k < depth; ++k) {
      __m512 x[C];
      for (int c = 0; c < C; ++c) x[c] = _mm512_loadu_ps(b + k * kLanes + j0 + 16 * c);
      for (int r = 0; r < R; ++r) {
        const __m512 y = _mm512_set1_ps(entry(r0 + r, k));
        for (int c = 0; c < C; ++c) sum[r][c] = _mm512_fmadd_ps(y, x[c], sum[r][c]);
      }
    }
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < C; ++c) _mm512_storeu_ps(out + (r0 + r) * kLanes + j0 + 16 * c, sum[r][c]);
  }
  template <int R>
  SGDMC_AVX512 void rows512(std::ptrdiff_t r) const {
    if (n_columns == 48) return tile512<R, 3>(r, 0);
    for (std::ptrdiff_t j = 0; j < n_columns; j += 16) tile512<R, 1>(r, j);
  }
  SGDMC_AVX512 void run512() const {
    std::ptrdiff_t r = 0;
    for (; r + 8 <= n_rows; r += 8) rows512<8>(r);
    for (; r < n_rows; ++r) rows512<1>(r);
  }

  template <int R>
  SGDMC_AVX2 void tile256(std::ptrdiff_t r0, std::ptrdiff_t j0) const {
    __m256 sum[R][2];
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < 2; ++c) {
        const std::ptrdiff_t j = j0 + 8 * c;
        sum[r][c] = factor ? _mm256_mul_ps(_mm256_loadu_ps(factor + j),
                                           _mm256_loadu_ps(out + (r0 + r) * kLanes + j))
                           : _mm256_setzero_ps();
      }
    for (std::ptrdiff_t k = 0; k < depth; ++k) {
      const __m256 x = _mm256_loadu_ps(b + k * kLanes + j0), y = _mm256_loadu_ps(b + k * kLanes + j0 + 8);
      for (int r = 0; r < R; ++r) {
        const __m256 z = _mm256_set1_ps(entry(r0 + r, k));
        sum[r][0] = _mm256_fmadd_ps(z, x, sum[r][0]);
        sum[r][1] = _mm256_fmadd_ps(z, y, sum[r][1]);
      }
    }
    for (int r = 0; r < R; ++r)
      for (int c = 0; c < 2; ++c) _mm256_storeu_ps(out + (r0 + r) * kLanes + j0 + 8 * c, sum[r][c]);
  }
  SGDMC_AVX2 void run256() const {
    for (std::ptrdiff_t j = 0; j < n_columns; j += 16) {
      std::ptrdiff_t r = 0;
      for (; r + 4 <= n_rows; r += 4) tile256<4>(r, j);
      for (; r < n_rows; ++r) tile256<1>(r, j);
    }
  }
#endif

  __attribute__((noinline)) void run() const {
#ifdef SGDMC_HAS_DISPATCH
    const int width = simd_width();
    if (width == 512) return run512();
    if (width == 256) return run256();
#endif
    run_plain();
  }
};

// Vectors of W floats and of W unsigned 32-bit integers.
template <int W>
struct Singles {
  typedef float F __attribute__((vector_size(4 * W)));
  typedef std::uint32_t I __attribute__((vector_size(4 * W)));

  static SGDMC_INLINE F load(const float* p) {
    F v;
    __builtin_memcpy(&v, p, sizeof v);
    return v;
  }
  static SGDMC_INLINE void store(float* p, F v) { __builtin_memcpy(p, &v, sizeof v); }
};

// Transposes 8 vectors of 8 floats in place.
SGDMC_INLINE void transpose(Singles<8>::F (&v)[8]) {
  Singles<8>::F t[8];
  for (int i = 0; i < 8; i += 2) {
    t[i] = __builtin_shufflevector(v[i], v[i + 1], 0, 8, 2, 10, 4, 12, 6, 14);
    t[i + 1] = __builtin_shufflevector(v[i], v[i + 1], 1, 9, 3, 11, 5, 13, 7, 15);
  }
  for (int i = 0; i < 8; ++i) {
    const int j = i & ~2;
    v[i] = i & 2 ? __builtin_shufflevector(t[j], t[j + 2], 2, 3, 10, 11, 6, 7, 14, 15)
                 : __builtin_shufflevector(t[j], t[j + 2], 0, 1, 8, 9, 4, 5, 12, 13);
  }
  for (int i = 0; i < 4; ++i) {
    const auto low = __builtin_shufflevector(v[i], v[i + 4], 0, 1, 2, 3, 8, 9, 10, 11);
    v[i + 4] = __builtin_shufflevector(v[i], v[i + 4], 4, 5, 6, 7, 12, 13, 14, 15);
    v[i] = low;
  }
}

// 2^x for x <= 0, 0 below -126: the polynomial through 7 Chebyshev points of [-1/2, 1/2] (relative error 2e-9,
// under the rounding), times a power of two.
template <class F, class I>
SGDMC_INLINE F exp2_below(F x) {
  const F shifted = x + 0x1.8p23f;
  const F r = x - (shifted - 0x1.8p23f);
  F q = 0.000154614449f - F{};
  q = 0.0013400428f + r * q;
  q = 0.00961805694f + r * q;
  q = 0.0555032715f + r * q;
  q = 0.240226507f + r * q;
  q = 0.693147182f + r * q;
  q = 1.0f + r * q;
  const I power = __builtin_bit_cast(I, shifted) << 23;
  const F e = __builtin_bit_cast(F, __builtin_bit_cast(I, q) + power);
  return x < -126.0f ? F{} : e;
}

// What `attend` is given. Heads, queries and keys are so many floats apart; the entries of one lie together.
struct Attention {
  const float *query, *key, *value;
  std::ptrdiff_t query_head, query_row, key_head, key_row, value_head, value_row;
  std::ptrdiff_t n_heads, n_key_heads, n_queries, width;  // width is a multiple of 8
  std::ptrdiff_t n_own;         // keys of branches before those of the context: first the queries' own; or 0
  const std::int64_t* seen;     // how many keys of the context each query sees: 1 to 2^24
  const std::int64_t* parents;  // with own keys: another of them that each sees too, and so on; -1 for none
  float scale;
};

namespace detail {

// Queries [first, first + count) of one head.
class AttentionBlock {
 public:
  AttentionBlock(const Attention& given, std::ptrdiff_t head, std::ptrdiff_t first, std::ptrdiff_t count)
      : g_(given), first_(first), count_(count), n_columns_((count + 15) / 16 * 16) {
    const std::ptrdiff_t group = head / (g_.n_heads / g_.n_key_heads);
    query_ = g_.query + head * g_.query_head + first * g_.query_row;
    key_ = g_.key + group * g_.key_head;
    value_ = g_.value + group * g_.value_head;
    lines_ = std::make_unique_for_overwrite<Line[]>((2 * g_.width + kKeys) * (kLanes / 16));
    packed_ = lines_[0].x;
    sums_ = packed_ + g_.width * kLanes;
    scores_ = sums_ + g_.width * kLanes;
    for (std::ptrdiff_t i = 0; i < n_columns_; ++i) {
      seen_[i] = static_cast<float>(g_.seen[first + std::min(i, count - 1)]);
      top_[i] = -std::numeric_limits<float>::infinity();
      total_[i] = 0.0f;
    }
  }

  // Writes the queries' outputs, `row` floats apart.
  void run(float* out, std::ptrdiff_t row) {
    pack();
    const auto [least, most] = std::minmax_element(g_.seen + first_, g_.seen + first_ + count_);
    const float *key = key_ + g_.n_own * g_.key_row, *value = value_ + g_.n_own * g_.value_row;
    for (std::ptrdiff_t k = 0; k < *most; k += kKeys) {
      const std::ptrdiff_t n = std::min<std::ptrdiff_t>(kKeys, *most - k);
      LaneProduct<false>{key + k * g_.key_row, packed_, scores_, nullptr, g_.key_row, n, n_columns_, g_.width}
          .run();
      soften(k, n, std::clamp<std::ptrdiff_t>(*least - k, 0, n));
      LaneProduct<true>{value + k * g_.value_row, scores_, sums_, k ? factor_ : nullptr, g_.value_row, g_.width,
                        n_columns_, n}
          .run();
    }
    add_own();
    write(out, row);
  }

 private:
  struct alignas(64) Line {
    float x[16];
  };
  struct Own {
    const float *key, *value;
    float weight;
  };
  using Eight = Singles<8>;

  // Queries become columns, in units in which weights are powers of two. Lanes to spare repeat the last.
  void pack() {
    unit_ = g_.scale * 1.44269504f;
    dispatch([&]() SGDMC_BODY {
      for (std::ptrdiff_t i = 0; i < n_columns_; i += 8)
        for (std::ptrdiff_t k = 0; k < g_.width; k += 8) {
          Eight::F v[8];
          for (int l = 0; l < 8; ++l)
            v[l] = unit_ * Eight::load(query_ + std::min(i + l, count_ - 1) * g_.query_row + k);
          transpose(v);
          for (int l = 0; l < 8; ++l) Eight::store(packed_ + (k + l) * kLanes + i, v[l]);
        }
    });
  }

  // Scores of n keys from k on become weights relative to the largest score so far; factor_ is by what
  // earlier weights shrink. All lanes see the first n_safe of these keys.
  void soften(std::ptrdiff_t k, std::ptrdiff_t n, std::ptrdiff_t n_safe) {
    dispatch([&](auto width) SGDMC_BODY {
      constexpr int W = 2 * decltype(width)::value;
      using S = Singles<W>;
      using F = typename S::F;
      using I = typename S::I;
      for (std::ptrdiff_t j = 0; j < n_columns_; j += W) {
        float* scores = scores_ + j;
        const F seen = S::load(seen_ + j), before = S::load(top_ + j);
        for (std::ptrdiff_t i = n_safe; i < n; ++i) {
          const F key = static_cast<float>(k + i) - F{};
          const F none = -std::numeric_limits<float>::infinity() - F{};
          S::store(scores + i * kLanes, key < seen ? S::load(scores + i * kLanes) : none);
        }
        F top = before, sum{};
        for (std::ptrdiff_t i = 0; i < n; ++i) {
          const F score = S::load(scores + i * kLanes);
          top = score > top ? score : top;
        }
        for (std::ptrdiff_t i = 0; i < n; ++i) {
          const F weight = exp2_below<F, I>(S::load(scores + i * kLanes) - top);
          S::store(scores + i * kLanes, weight);
          sum += weight;
        }
        const F factor = exp2_below<F, I>(before - top);
        S::store(factor_ + j, factor);
        S::store(total_ + j, S::load(total_ + j) * factor + sum);
        S::store(top_ + j, top);
      }
    });
  }

  // Takes what each query sees of its own tree into the softmax; factor_ is now what its sums count.
  void add_own() {
    for (std::ptrdiff_t i = 0; i < count_; ++i) {
      starts_[i] = own_.size();
      for (std::ptrdiff_t at = g_.n_own ? first_ + i : -1; at >= 0; at = g_.parents[at])
        own_.push_back({key_ + at * g_.key_row, value_ + at * g_.value_row, 0.0f});
    }
    starts_[count_] = own_.size();
    dispatch([&]() SGDMC_BODY {
      for (std::ptrdiff_t i = 0; i < count_; ++i)
        for (std::size_t j = starts_[i]; j < starts_[i + 1]; ++j) {
          Eight::F sum{};
          for (std::ptrdiff_t k = 0; k < g_.width; k += 8)
            sum += Eight::load(query_ + i * g_.query_row + k) * Eight::load(own_[j].key + k);
          own_[j].weight =
              unit_ * (((sum[0] + sum[4]) + (sum[1] + sum[5])) + ((sum[2] + sum[6]) + (sum[3] + sum[7])));
        }
    });
    for (std::ptrdiff_t i = 0; i < count_; ++i) {
      const auto begin = own_.begin() + starts_[i], end = own_.begin() + starts_[i + 1];
      float top = top_[i];
      for (auto own = begin; own != end; ++own) top = std::max(top, own->weight);
      factor_[i] = std::exp2(top_[i] - top);
      float total = factor_[i] * total_[i];
      for (auto own = begin; own != end; ++own) total += own->weight = std::exp2(own->weight - top);
      factor_[i] /= total;
      for (auto own = begin; own != end; ++own) own->weight /= total;
    }
  }

  void write(float* out, std::ptrdiff_t row) {
    dispatch([&]() SGDMC_BODY {
      for (std::ptrdiff_t i = 0; i < count_; i += 8) {
        const int n = static_cast<int>(std::min<std::ptrdiff_t>(8, count_ - i));
        for (std::ptrdiff_t k = 0; k < g_.width; k += 8) {
          Eight::F v[8];
          for (int l = 0; l < 8; ++l) v[l] = Eight::load(factor_ + i) * Eight::load(sums_ + (k + l) * kLanes + i);
          transpose(v);
          for (int l = 0; l < n; ++l) {
            Eight::F mean = v[l];
            for (std::size_t j = starts_[i + l]; j < starts_[i + l + 1]; ++j)
              mean += own_[j].weight * Eight::load(own_[j].value + k);
            Eight::store(out + (i + l) * row + k, mean);
          }
        }
      }
    });
  }

  const Attention& g_;
  const std::ptrdiff_t first_, count_, n_columns_;
  const float *query_, *key_, *value_;
  float unit_ = 1.0f;
  std::unique_ptr<Line[]> lines_;
  float *packed_, *sums_, *scores_;  // (width, kLanes), (width, kLanes), (kKeys, kLanes)
  alignas(64) float seen_[kLanes], top_[kLanes], total_[kLanes], factor_[kLanes];
  std::vector<Own> own_;              // what the queries see of their trees, one query after another
  std::size_t starts_[kLanes + 1];
};

}  // namespace detail

// out (n_queries, n_heads, width) = softmax(scale q . k) v over the keys that each query sees.
inline void attend(const Attention& given, float* out, int n_threads, Stop& stop) {
  const std::ptrdiff_t n_blocks = (given.n_queries + kLanes - 1) / kLanes;
  const std::ptrdiff_t row = given.n_heads * given.width;
  // A thread is made for a fifth of a millisecond of work or more.
  const std::int64_t keys = std::accumulate(given.seen, given.seen + given.n_queries, std::int64_t{0});
  n_threads = static_cast<int>(std::min<std::int64_t>(n_threads, 1 + ((keys * row) >> 22)));
  parallel_for(given.n_heads * n_blocks, n_threads, stop, [&](std::size_t task) {
    const std::ptrdiff_t head = task / n_blocks, first = task % n_blocks * kLanes;
    detail::AttentionBlock block(given, head, first, std::min(kLanes, given.n_queries - first));
    block.run(out + first * row + head * given.width, row);
  });
}

}  // namespace sgdmc
