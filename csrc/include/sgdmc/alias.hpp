// Alias tables of the rows of a stochastic matrix (Walker 1977), checked on the way.
#pragma once

#include <bit>
#include <cstdint>

#include "intrinsics.hpp"
#include "parallel.hpp"
#include "rows.hpp"

namespace sgdmc {

// An entry: the upper 48 bits are the probability of staying with the entry drawn, the lower 16 the entry
// of the same row to take otherwise.
inline constexpr std::uint64_t kAliasMask = 0xFFFF;
inline constexpr std::uint64_t kMean = std::uint64_t{1} << 48;  // 1/n in units of the sweep below
inline constexpr std::size_t kMaxRow = std::size_t{1} << 15;    // so that 1 fits in 63 bits of them

// The share of probability p of a row, where unit is n 2^48 over the row's sum.
SGDMC_INLINE std::uint64_t share_of(double p, double unit) {
  const double share = p * unit, most = 0x1.fffffffffffffp62;
  return static_cast<std::uint64_t>(static_cast<std::int64_t>(share < most ? share : most));
}

// Tables of up to Rows rows of n <= 32768 probabilities each. A row's entries, in units of 2^-48 / n, are
// listed as small (below the mean) or large; the current small one is filled up from the current large
// one, which becomes the current small one when it drops below the mean itself. Arithmetic is in
// integers, rows advance together, and nothing branches on their numbers: that hides the latency of this
// chain.
template <int Rows>
class AliasSweep {
 public:
  explicit AliasSweep(std::size_t longest)
      : longest_(longest), share_(Rows * (longest + 1)), order_(2 * Rows * (longest + 2)) {}

  void build(const double* const* row, const std::size_t* length, const double* total,
             std::uint64_t* const* table, int n_rows) {
    Sweep sweep[Rows];
    for (int r = 0; r < Rows; ++r) {
      const int k = std::min(r, n_rows - 1);
      sweep[r] = begin(r, row[k], r < n_rows ? length[r] : 0, total[k], table[k]);
    }
    for (bool busy = true; busy;) {
      busy = false;
#pragma GCC unroll 8
      for (int r = 0; r < Rows; ++r) busy |= advance(sweep[r]);
    }
  }

 private:
  struct Sweep {
    const std::uint64_t* share;
    std::uint64_t* table;
    const std::uint32_t *small, *large;  // next of each
    std::uint64_t need, have;            // what the current small and large ones hold
    std::uint32_t current, donor, end;
  };

  Sweep begin(int r, const double* p, std::size_t n, double total, std::uint64_t* table) {
    std::uint64_t* share = share_.data() + r * (longest_ + 1);
    std::uint32_t* small = order_.data() + 2 * r * (longest_ + 2);
    std::uint32_t* large = small + longest_ + 2;
    const double unit = static_cast<double>(n) * static_cast<double>(kMean) / total;
    dispatch([&](auto) SGDMC_BODY {
      for (std::size_t i = 0; i < n; ++i) share[i] = share_of(p[i], unit);
      for (std::size_t i = 0; i < n; ++i) table[i] = ~kAliasMask | i;
    });
    std::size_t n_small = 0, n_large = 0;
    for (std::size_t i = 0; i < n; ++i) {
      const bool is_small = share[i] < kMean;
      small[n_small] = large[n_large] = static_cast<std::uint32_t>(i);
      n_small += is_small;
      n_large += !is_small;
    }
    const auto end = static_cast<std::uint32_t>(n);
    share[n] = 0;
    small[n_small] = large[n_large] = end;
    return {share, table, small + 1, large + 1, share[small[0]], share[large[0]], small[0], large[0], end};
  }

  SGDMC_INLINE static bool advance(Sweep& s) {
    if (s.current == s.end || s.donor == s.end) return false;
    s.table[s.current] = s.need << 16 | s.donor;
    const std::uint64_t left = s.have + s.need - kMean;
    const bool emptied = left < kMean;
    const std::uint32_t next_small = *s.small, next_large = *s.large;
    const std::uint64_t small_need = s.share[next_small], large_have = s.share[next_large];
    s.current = emptied ? s.donor : next_small;
    s.need = emptied ? left : small_need;
    s.donor = emptied ? next_large : s.donor;
    s.have = emptied ? large_have : left;
    s.large += emptied;
    s.small += !emptied;
    return true;
  }

  std::size_t longest_;
  std::vector<std::uint64_t> share_;
  std::vector<std::uint32_t> order_;
};

#ifdef SGDMC_HAS_DISPATCH
// The same tables with AVX-512. Let D_i be what the small entries up to i lack of the mean, in total, and
// S_j what the large ones up to j have to spare. Large entry j is emptied by the first small i with D_i >
// S_j, keeps 1 + S_j - D_i and goes on with j + 1; small i is filled up by the first j with S_j >= D_(i-1).
// So all that is sequential is to look for the S_j among the D_i, eight at a time and two rows together;
// compressing, summing, and putting entries back into place are vector operations.
class WideAliasRows {
 public:
  static constexpr int rows = 2;
  explicit WideAliasRows(std::size_t longest) {
    for (auto& w : row_) w.resize(longest);
  }

  SGDMC_AVX512 void build(const double* const* row, const std::size_t* length, const double* total,
                          std::uint64_t* const* table, int n_rows) {
    for (int r = 0; r < n_rows; ++r) row_[r].split(row[r], length[r], total[r]);
    if (n_rows == rows) {
      Row &a = row_[0], &b = row_[1];
      for (std::size_t left; (left = std::min(a.n_large - a.j, b.n_large - b.j)) != 0;)
        for (; left; --left) {
          a.look();
          b.look();
        }
    }
    for (int r = 0; r < n_rows; ++r) {
      while (row_[r].j < row_[r].n_large) row_[r].look();
      row_[r].write(length[r], table[r]);
    }
  }

 private:
  static constexpr std::uint64_t kOwn = ~std::uint64_t{0};  // an entry that always stays

  SGDMC_AVX512 static __mmask8 first_lanes(std::size_t count) {
    return static_cast<__mmask8>(count >= 8 ? 0xFF : (1u << count) - 1);
  }
  SGDMC_AVX512 static __m512i eight_words(const std::uint16_t* from) {
    return _mm512_cvtepu16_epi64(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  }

  struct Row {
    std::vector<std::uint64_t> lack, spare, keep;  // D, S, entries of small ones in their order
    std::vector<std::uint32_t> reach;              // of a large one: the small one that empties it
    std::vector<std::uint16_t> donor, alias;       // the large ones; of a small one: who fills it up
    std::vector<std::uint8_t> small;               // bits: which entries of the row are small
    std::size_t n_small = 0, n_large = 0, i = 0, j = 0;

    void resize(std::size_t n) {  // with room for whole vectors beyond the end
      for (auto* x : {&lack, &spare, &keep}) x->resize(n + 16);
      reach.resize(n + 8);
      donor.resize(n + 16);
      alias.resize(n + 64);
      small.resize(n / 8 + 1);
    }

    SGDMC_AVX512 void split(const double* p, std::size_t n, double total) {
      const __m512i mean = _mm512_set1_epi64(kMean);
      const __m512d unit = _mm512_set1_pd(static_cast<double>(n) * static_cast<double>(kMean) / total);
      const __m512d most = _mm512_set1_pd(0x1.fffffffffffffp62);
      __m256i index = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
      std::size_t a = 0, b = 0;
      for (std::size_t k = 0; k < n; k += 8) {
        const __mmask8 part = first_lanes(n - k);
        const __m512d product = _mm512_mul_pd(_mm512_maskz_loadu_pd(part, p + k), unit);
        const __m512i share = _mm512_cvttpd_epi64(_mm512_min_pd(product, most));
        const __mmask8 below = _mm512_mask_cmplt_epi64_mask(part, share, mean), above = part & ~below;
        _mm512_storeu_si512(&lack[a], _mm512_maskz_compress_epi64(below, _mm512_sub_epi64(mean, share)));
        _mm512_storeu_si512(&spare[b], _mm512_maskz_compress_epi64(above, _mm512_sub_epi64(share, mean)));
        _mm_storeu_si128(reinterpret_cast<__m128i*>(&donor[b]),
                         _mm256_cvtepi32_epi16(_mm256_maskz_compress_epi32(above, index)));
        small[k / 8] = below;
        index = _mm256_add_epi32(index, _mm256_set1_epi32(8));
        a += std::popcount(static_cast<unsigned>(below));
        b += std::popcount(static_cast<unsigned>(above));
      }
      running_sums(lack.data(), a);
      running_sums(spare.data(), b);
      _mm512_storeu_si512(&lack[a], _mm512_set1_epi64(-1));  // which no S_j reaches
      donor[b] = 0;
      std::fill_n(alias.begin(), a + 2, std::uint16_t{0});
      alias[0] = donor[0];
      n_small = a, n_large = b, i = j = 0;
    }

    // One look for S_j among eight D from i on; goes on to j + 1 if it is found.
    SGDMC_AVX512 SGDMC_INLINE void look() {
      const __m512i d = _mm512_loadu_si512(lack.data() + i);
      const unsigned passed = _mm512_cmple_epu64_mask(d, _mm512_set1_epi64(spare[j]));
      i += std::popcount(passed);
      reach[j] = static_cast<std::uint32_t>(i);
      j += passed != 0xFF;
      alias[i + 1] = donor[j];
    }

    SGDMC_AVX512 void write(std::size_t n, std::uint64_t* table) {
      const __m512i mean = _mm512_set1_epi64(kMean), own = _mm512_set1_epi64(kOwn);
      // What is kept of a large entry, in place of S. The last one has none to go on with.
      for (std::size_t k = 0; k < n_large; k += 8) {
        const __m256i at = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(&reach[k]));
        const __mmask8 emptied = _mm256_mask_cmplt_epu32_mask(
            first_lanes(n_large - 1 - k), at, _mm256_set1_epi32(static_cast<int>(n_small)));
        const __m512i d = _mm512_mask_i32gather_epi64(own, emptied, at, lack.data(), 8);
        const __m512i rest = _mm512_add_epi64(mean, _mm512_sub_epi64(_mm512_loadu_si512(&spare[k]), d));
        const __m512i entry = _mm512_or_si512(_mm512_slli_epi64(rest, 16), eight_words(&donor[k + 1]));
        _mm512_storeu_si512(&spare[k], _mm512_mask_mov_epi64(own, emptied, entry));
      }
      // Each donor stands where the first small entry is that it fills up: donors grow, so a running
      // maximum gives them all.
      running_maxima(alias.data(), n_small);
      __m512i before = _mm512_setzero_si512();
      for (std::size_t k = 0; k < n_small; k += 8) {
        const __m512i d = _mm512_loadu_si512(&lack[k]);
        const __m512i lacks = _mm512_sub_epi64(d, _mm512_alignr_epi64(d, before, 7));
        before = d;
        const __m512i kept = _mm512_slli_epi64(_mm512_sub_epi64(mean, lacks), 16);
        _mm512_storeu_si512(&keep[k], _mm512_or_si512(kept, eight_words(&alias[k])));
      }
      const std::size_t filled = n_large ? reach[n_large - 1] + std::size_t{1} : 0;
      for (std::size_t k = filled; k < n_small; ++k) keep[k] = kOwn;  // rounding left them no donor
      __m512i self = _mm512_add_epi64(_mm512_set1_epi64(~kAliasMask), _mm512_setr_epi64(0, 1, 2, 3, 4, 5, 6, 7));
      std::size_t a = 0, b = 0;
      for (std::size_t k = 0; k < n; k += 8) {
        const __mmask8 part = first_lanes(n - k), below = small[k / 8], above = part & ~below;
        __m512i entry = _mm512_maskz_expand_epi64(below, _mm512_loadu_si512(&keep[a]));
        entry = _mm512_mask_expand_epi64(entry, above, _mm512_loadu_si512(&spare[b]));
        entry = _mm512_mask_mov_epi64(entry, _mm512_cmpeq_epi64_mask(entry, own), self);
        _mm512_mask_storeu_epi64(table + k, part, entry);
        self = _mm512_add_epi64(self, _mm512_set1_epi64(8));
        a += std::popcount(static_cast<unsigned>(below));
        b += std::popcount(static_cast<unsigned>(above));
      }
    }
  };

  SGDMC_AVX512 static void running_sums(std::uint64_t* x, std::size_t n) {
    const __m512i zero = _mm512_setzero_si512(), last = _mm512_set1_epi64(7);
    __m512i carry = zero;
    for (std::size_t k = 0; k < n; k += 8) {
      __m512i s = _mm512_loadu_si512(x + k);
      s = _mm512_add_epi64(s, _mm512_alignr_epi64(s, zero, 7));
      s = _mm512_add_epi64(s, _mm512_alignr_epi64(s, zero, 6));
      s = _mm512_add_epi64(s, _mm512_alignr_epi64(s, zero, 4));
      s = _mm512_add_epi64(s, carry);
      _mm512_storeu_si512(x + k, s);
      carry = _mm512_permutexvar_epi64(last, s);
    }
  }

  SGDMC_AVX512 static void running_maxima(std::uint16_t* x, std::size_t n) {
    const __m512i zero = _mm512_setzero_si512(), last = _mm512_set1_epi16(31);
    const __m512i top = _mm512_set1_epi16(0x0F0E);  // the last word of each quarter, everywhere in it
    __m512i carry = zero;
    for (std::size_t k = 0; k < n; k += 32) {
      __m512i m = _mm512_loadu_si512(x + k);
      m = _mm512_max_epu16(m, _mm512_bslli_epi128(m, 2));
      m = _mm512_max_epu16(m, _mm512_bslli_epi128(m, 4));
      m = _mm512_max_epu16(m, _mm512_bslli_epi128(m, 8));
      m = _mm512_max_epu16(m, _mm512_alignr_epi64(_mm512_shuffle_epi8(m, top), zero, 6));
      m = _mm512_max_epu16(m, _mm512_alignr_epi64(_mm512_shuffle_epi8(m, top), zero, 4));
      m = _mm512_max_epu16(m, carry);
      _mm512_storeu_si512(x + k, m);
      carry = _mm512_permutexvar_epi16(last, m);
    }
  }

  Row row_[rows];
};
#endif

// Tables of all rows. `begin` has n + 1 offsets of rows into `p`, or is null for dense rows of length n.
// Returns whether every row is non-negative and sums to one within the tolerance; tables are complete
// only then. A row is scaled to the sum that it has.
inline bool alias_tables(const double* p, std::size_t n, const std::int64_t* begin, double tolerance,
                         std::uint64_t* table, int n_threads, Stop& stop) {
  std::size_t longest = n;
  if (begin) {
    longest = 0;
    for (std::size_t i = 0; i < n; ++i)
      longest = std::max(longest, static_cast<std::size_t>(begin[i + 1] - begin[i]));
  }
  constexpr int most = 4;
  const std::size_t rows = (16384 / longest + 1) * most;
  std::atomic<bool> good{true};
  const auto run = [&](std::size_t b, auto&& builder, std::size_t together) {
    for (std::size_t i = b * rows; i < std::min(n, (b + 1) * rows); i += together) {
      const int m = static_cast<int>(std::min(together, std::min(n, (b + 1) * rows) - i));
      const double* row[most];
      std::uint64_t* to[most];
      std::size_t length[most];
      double total[most];
      for (int r = 0; r < m; ++r) {
        const std::size_t first = begin ? begin[i + r] : (i + r) * n;
        row[r] = p + first;
        to[r] = table + first;
        length[r] = begin ? begin[i + r + 1] - begin[i + r] : n;
        if (!check_row(row[r], length[r], tolerance, total[r])) return good.store(false);
      }
      builder.build(row, length, total, to, m);
    }
  };
  parallel_for((n + rows - 1) / rows, n_threads, stop, [&](std::size_t b) {
    if (!good.load(std::memory_order_relaxed)) return;
#ifdef SGDMC_HAS_DISPATCH
    if (simd_width() == 512 && longest >= 32) return run(b, WideAliasRows(longest), WideAliasRows::rows);
#endif
    run(b, AliasSweep<most>(longest), most);
  });
  return good.load();
}

}  // namespace sgdmc
