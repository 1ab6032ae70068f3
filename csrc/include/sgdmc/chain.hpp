// Paths of finite chains, many at once, from alias tables.
#pragma once

#include <bit>
#include <cstdint>
#include <memory>

#include "alias.hpp"
#include "intrinsics.hpp"
#include "random.hpp"

namespace sgdmc {

// Whether every alias lies in its row and every column in 0..n-1, so that no step can leave the tables.
inline bool inside(const std::uint64_t* table, const std::int64_t* begin, const std::int32_t* column,
                   std::size_t n) {
  bool good = true;
  for (std::size_t i = 0; i < n; ++i) {
    const std::size_t first = begin[i], size = begin[i + 1] - begin[i];
    dispatch([&](auto) SGDMC_BODY {
      std::uint64_t largest = 0;
      for (std::size_t j = 0; j < size; ++j) largest = std::max(largest, table[first + j] & kAliasMask);
      good &= largest < size;
      for (std::size_t j = 0; j < size; ++j) good &= static_cast<std::uint32_t>(column[first + j]) < n;
    });
  }
  return good;
}

// Tables of a sparse matrix, as they are.
struct SparseTables {
  const std::uint64_t* table;
  const std::int64_t* begin;
  const std::int32_t* column;
  using Word = std::uint64_t;
  static constexpr bool dense = false;

  SGDMC_INLINE Word word(std::uint64_t bits) const { return bits; }

  template <class Bits>
  SGDMC_INLINE std::uint64_t step(std::uint64_t state, Word bits, const Bits&) const {
    const std::int64_t first = begin[state];
    const std::uint64_t size = begin[state + 1] - first;
    const std::uint64_t chosen = bounded(bits, size), rest = bits * size;
    const std::uint64_t entry = table[first + chosen], alias = entry & kAliasMask;
    const std::uint64_t keep = -static_cast<std::uint64_t>(rest < (entry & ~kAliasMask));
    return column[first + (alias ^ ((alias ^ chosen) & keep))];
  }
};

// Tables of a dense matrix, shortened to 2, 3 or 4 bytes an entry so that more of them fit in the cache:
// as many leading bits of the probability as there is room for, then the alias. A draw is shortened
// likewise: the leading bits of the number that decides, then the entry chosen. Whichever of the two words
// is smaller then ends in the next state. Only where their leading bits are equal is the full entry looked
// up. Rows are padded to a power of two.
template <int Bytes>
struct DenseTables {
  using Word = std::conditional_t<Bytes == 2, std::uint16_t, std::uint32_t>;
  static constexpr bool dense = true;
  static constexpr std::uint32_t all_bits = 0xFFFFFFFFu >> (32 - 8 * Bytes);
  const std::uint64_t* full;     // (n, n)
  const unsigned char* entries;  // (n, 2^bits) of so many bytes
  std::uint64_t n;
  int bits, shift;  // of the alias; of what decides, down to its leading bits

  SGDMC_INLINE std::uint32_t chosen(std::uint64_t z) const { return static_cast<std::uint32_t>(bounded(z, n)); }
  SGDMC_INLINE Word word(std::uint64_t z) const {
    return static_cast<Word>((z * n >> shift << bits) | bounded(z, n));
  }
  SGDMC_INLINE std::uint32_t entry_at(std::uint64_t place) const {
    Word entry;
    __builtin_memcpy(&entry, entries + Bytes * place, sizeof entry);
    return entry & all_bits;
  }

  template <class Bits>
  SGDMC_INLINE std::uint64_t step(std::uint64_t state, Word word, const Bits& draw) const {
    const std::uint32_t mask = (std::uint32_t{1} << bits) - 1, drawn = word;
    const std::uint32_t entry = entry_at(state << bits | (drawn & mask));
    if (__builtin_expect(((drawn ^ entry) & ~mask) == 0, 0)) {
      const std::uint64_t whole = full[state * n + (drawn & mask)];
      return draw() * n < (whole & ~kAliasMask) ? drawn & mask : whole & kAliasMask;
    }
    return std::min(drawn, entry) & mask;
  }
};

// The shortened tables and their memory; `inside` tells whether every alias lies in its row, so that no
// step can leave the tables.
template <int Bytes>
class ShortTables {
 public:
  ShortTables(const std::uint64_t* table, std::size_t n, int n_threads, Stop& stop) {
    const int bits = std::max(1, static_cast<int>(std::bit_width(n - 1)));
    const int shift = 64 - (8 * Bytes - bits);
    entries_.reset(new unsigned char[Bytes * (n << bits) + 4]);  // entries are read by 4 bytes
    view_ = {table, entries_.get(), n, bits, shift};
    const std::size_t rows = 65536 / n + 1;
    std::atomic<bool> good{true};
    parallel_for((n + rows - 1) / rows, n_threads, stop, [&](std::size_t b) {
      std::uint64_t largest = 0;
      for (std::size_t i = b * rows; i < std::min(n, (b + 1) * rows); ++i)
        dispatch([&](auto) SGDMC_BODY {
          const std::uint64_t* from = table + i * n;
          unsigned char* to = entries_.get() + Bytes * (i << bits);
          const std::size_t size = n;
          const int down = shift, up = bits;
          std::uint64_t most = 0;
          alignas(64) std::uint32_t piece[256];
          for (std::size_t j0 = 0; j0 < size; j0 += 256) {
            const std::size_t count = std::min<std::size_t>(256, size - j0);
            for (std::size_t j = 0; j < count; ++j) {
              const std::uint64_t entry = from[j0 + j];
              piece[j] = static_cast<std::uint32_t>((entry >> down << up) | (entry & kAliasMask));
              most = std::max(most, entry & kAliasMask);
            }
            put(piece, count, to + Bytes * j0);
          }
          largest = std::max(largest, most);
        });
      if (largest >= n) good.store(false);
    });
    inside_ = good.load();
  }
  const DenseTables<Bytes>& view() const { return view_; }
  bool inside() const { return inside_; }

 private:
  // The lower bytes of each entry.
  SGDMC_INLINE static void put(const std::uint32_t* from, std::size_t count, unsigned char* to) {
    std::size_t j = 0;
    if constexpr (Bytes == 3 && std::endian::native == std::endian::little) {
      using Sixteen = unsigned char __attribute__((vector_size(16)));
      for (; j + 8 <= count; j += 4) {  // twelve bytes, and four that are written over next
        Sixteen four;
        __builtin_memcpy(&four, from + j, 16);
        four = __builtin_shufflevector(four, four, 0, 1, 2, 4, 5, 6, 8, 9, 10, 12, 13, 14, 3, 7, 11, 15);
        __builtin_memcpy(to + 3 * j, &four, 16);
      }
    }
    for (; j < count; ++j) {
      const auto entry = static_cast<typename DenseTables<Bytes>::Word>(from[j]);
      __builtin_memcpy(to + Bytes * j, &entry, Bytes);
    }
  }

  std::unique_ptr<unsigned char[]> entries_;
  DenseTables<Bytes> view_;
  bool inside_ = false;
};

// Calls body(tables) with tables of the fewest bytes an entry that seldom leave a step undecided.
template <class Body>
auto with_short_tables(const std::uint64_t* table, std::size_t n, int n_threads, Stop& stop, Body&& body) {
  if (n <= 256) return body(ShortTables<2>(table, n, n_threads, stop));
  if (n <= 4096) return body(ShortTables<3>(table, n, n_threads, stop));
  return body(ShortTables<4>(table, n, n_threads, stop));
}

#ifdef SGDMC_HAS_DISPATCH
// Steps of L chains with AVX-512: sixteen entries are gathered at once; where one of them does not decide,
// its step is made again by itself. Words and states are (steps, L).
template <int L, int Bytes, class T>
SGDMC_AVX512 void wide_steps(const DenseTables<Bytes>& tables, const typename DenseTables<Bytes>::Word* words,
                             std::size_t t0, std::size_t steps, const std::uint64_t* offset, const std::uint64_t* twist,
                             std::uint32_t* state, T* tile) {
  constexpr int groups = L / 16;
  const DenseTables<Bytes> view = tables;
  const std::uint32_t low = (std::uint32_t{1} << view.bits) - 1;
  const __m512i mask = _mm512_set1_epi32(static_cast<int>(low));
  const __m512i all = _mm512_set1_epi32(static_cast<int>(view.all_bits));
  const __m512i high = _mm512_set1_epi32(static_cast<int>(view.all_bits & ~low));
  const __m128i up = _mm_cvtsi32_si128(view.bits);
  __m512i now[groups];
  for (int g = 0; g < groups; ++g) now[g] = _mm512_loadu_si512(state + 16 * g);
  for (std::size_t t = 0; t < steps; ++t)
#pragma GCC unroll 4
    for (int g = 0; g < groups; ++g) {
      const auto* from = words + t * L + 16 * g;
      __m512i word;
      if constexpr (Bytes == 2)
        word = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
      else
        word = _mm512_loadu_si512(from);
      const __m512i at = _mm512_or_si512(_mm512_sll_epi32(now[g], up), _mm512_and_si512(word, mask));
      __m512i entry;
      if constexpr (Bytes == 3)
        entry = _mm512_i32gather_epi32(_mm512_add_epi32(at, _mm512_slli_epi32(at, 1)), view.entries, 1);
      else
        entry = _mm512_i32gather_epi32(at, view.entries, Bytes);
      entry = _mm512_and_si512(entry, all);
      __m512i next = _mm512_and_si512(_mm512_min_epu32(word, entry), mask);
      const unsigned ties = _mm512_testn_epi32_mask(_mm512_xor_si512(word, entry), high);
      if (__builtin_expect(ties, 0)) {
        alignas(64) std::uint32_t place[16], fixed[16];
        _mm512_store_si512(place, at);
        _mm512_store_si512(fixed, next);
        for (unsigned left = ties; left; left &= left - 1) {
          const int l = std::countr_zero(left);
          const auto bits = [&] { return draw_bits(offset[16 * g + l], twist[16 * g + l], std::uint64_t{t0 + t}); };
          fixed[l] = static_cast<std::uint32_t>(view.step(place[l] >> view.bits, from[l], bits));
        }
        next = _mm512_load_si512(fixed);
      }
      now[g] = next;
      T* to = tile + t * L + 16 * g;
      if constexpr (sizeof(T) == 2)
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(to), _mm512_cvtepi32_epi16(next));
      else
        _mm512_storeu_si512(to, next);
    }
  for (int g = 0; g < groups; ++g) _mm512_storeu_si512(state + 16 * g, now[g]);
}
#endif

// Steps t0 to t0 + steps - 1 of L chains, in turn, which hides the latency of the tables.
template <int L, class Tables, class T>
void step_block(const Tables& tables, const typename Tables::Word* words, std::size_t t0, std::size_t steps,
                const std::uint64_t* offset, const std::uint64_t* twist, std::uint32_t* state, T* tile) {
#ifdef SGDMC_HAS_DISPATCH
  if constexpr (L % 16 == 0 && Tables::dense)
    if (simd_width() == 512) return wide_steps<L>(tables, words, t0, steps, offset, twist, state, tile);
#endif
  const Tables view = tables;  // a copy whose members stay in registers
  std::uint64_t now[L];
  for (int l = 0; l < L; ++l) now[l] = state[l];
  for (std::size_t t = 0; t < steps; ++t) {
#pragma GCC unroll 8
    for (int l = 0; l < L; ++l) {
      const auto bits = [&] { return draw_bits(offset[l], twist[l], std::uint64_t{t0 + t}); };
      now[l] = view.step(now[l], words[t * L + l], bits);
      tile[t * L + l] = static_cast<T>(now[l]);
    }
  }
  for (int l = 0; l < L; ++l) state[l] = static_cast<std::uint32_t>(now[l]);
}

// Words of the draws of steps t0 to t0 + steps - 1 of L chains: (steps, L).
template <int L, class Tables>
void draw_words(const Tables& tables, std::size_t t0, std::size_t steps, const std::uint64_t* offset,
                const std::uint64_t* twist, typename Tables::Word* words) {
  dispatch([&](auto) SGDMC_BODY {
    const Tables mine = tables;
    typename Tables::Word* const w = words;
    alignas(64) std::uint64_t a[L], b[L];  // copies, since `w` could else refer to the originals
    for (int l = 0; l < L; ++l) a[l] = offset[l], b[l] = twist[l];
    const std::uint64_t from = t0;
    const std::size_t count = steps;
    if constexpr (L == 1) {
      const std::uint64_t c = a[0], d = b[0];
      for (std::size_t t = 0; t < count; ++t) w[t] = mine.word(draw_bits(c, d, std::uint64_t{from + t}));
    } else {
      for (std::size_t t = 0; t < count; ++t)
        for (int l = 0; l < L; ++l) w[t * L + l] = mine.word(draw_bits(a[l], b[l], std::uint64_t{from + t}));
    }
  });
}

// From (steps, L) to a row for each of the first `lanes` lanes, `stride` apart.
template <int L, class T>
void lanes_to_rows(const T* tile, std::size_t steps, int lanes, T* out, std::size_t stride) {
  std::size_t whole = 0;
  if constexpr (L % 8 == 0 && sizeof(T) == 2) {  // squares of 8 x 8, in three rounds of pairs
    using Eight = std::int16_t __attribute__((vector_size(16)));
    whole = lanes == L ? steps / 8 * 8 : 0;
    for (std::size_t t = 0; t < whole; t += 8)
      for (int l = 0; l < L; l += 8) {
        Eight a[8], b[8];
        for (int k = 0; k < 8; ++k) __builtin_memcpy(&a[k], tile + (t + k) * L + l, 16);
        for (int round = 0; round < 3; ++round) {
          for (int k = 0; k < 4; ++k) {
            b[2 * k] = __builtin_shufflevector(a[k], a[k + 4], 0, 8, 1, 9, 2, 10, 3, 11);
            b[2 * k + 1] = __builtin_shufflevector(a[k], a[k + 4], 4, 12, 5, 13, 6, 14, 7, 15);
          }
          for (int k = 0; k < 8; ++k) a[k] = b[k];
        }
        for (int k = 0; k < 8; ++k) __builtin_memcpy(out + (l + k) * stride + t, &a[k], 16);
      }
  }
  for (int l = 0; l < lanes; ++l)
    for (std::size_t t = whole; t < steps; ++t) out[l * stride + t] = tile[t * L + l];
}

inline constexpr std::size_t kSegment = 4096;  // steps whose words and states stay in the cache

// Words and states of a segment.
template <class Word, class T>
struct Segment {
  std::unique_ptr<Word[]> words{new Word[kSegment]};
  std::unique_ptr<T[]> tile{new T[kSegment]};
};

// Paths of up to L chains from `first_chain` on: out (.., n_steps + 1), the starts already in place. A
// step draws 64 bits z; the high half of z * k chooses one of the row's k entries, the low half decides
// between it and its alias.
template <int L, class Tables, class T>
void simulate_block(const Tables& tables, std::uint64_t seed, std::size_t first_chain, int lanes,
                    std::size_t n_steps, T* out, Stop& stop) {
  const std::size_t n_records = n_steps + 1;
  const Segment<typename Tables::Word, T> segment;
  alignas(64) std::uint64_t offset[L], twist[L];
  alignas(64) std::uint32_t state[L];
  for (int l = 0; l < L; ++l) {
    const Key key = key_of(seed, first_chain + l);
    offset[l] = key.offset;
    twist[l] = key.twist;
    state[l] = static_cast<std::uint32_t>(out[std::min(l, lanes - 1) * n_records]);
  }
  for (std::size_t t0 = 0; t0 < n_steps; t0 += kSegment / L) {
    if (stop.requested()) throw Interrupted();
    const std::size_t steps = std::min(kSegment / L, n_steps - t0);
    draw_words<L>(tables, t0, steps, offset, twist, segment.words.get());
    step_block<L>(tables, segment.words.get(), t0, steps, offset, twist, state, segment.tile.get());
    lanes_to_rows<L>(segment.tile.get(), steps, lanes, out + 1 + t0, n_records);
  }
}

// The path of one chain. Its steps wait for one another, unless pieces of it are made side by side from
// guessed starts, as if they were chains: two paths with the same draws meet at the first draw whose
// entry both stay with, and are one from there on. A piece whose guess was wrong is made again up to
// there. Where paths do not meet soon, most segments are made step by step.
template <class Tables, class T>
void simulate_one(const Tables& tables, std::uint64_t seed, std::size_t chain, std::size_t n_steps, T* out,
                  Stop& stop) {
  constexpr int L = 32;
  constexpr std::size_t piece = kSegment / L;
  const Key key = key_of(seed, chain);
  const Segment<typename Tables::Word, T> segment;
  const Tables view = tables;
  alignas(64) std::uint64_t offset[L], twist[L];
  alignas(64) std::uint32_t state[L], guess[L];
  int by_steps = 0;  // segments to make step by step before pieces are tried again
  for (std::size_t t0 = 0; t0 < n_steps; t0 += kSegment) {
    if (stop.requested()) throw Interrupted();
    T* const to = out + 1 + t0;
    const std::size_t steps = std::min(kSegment, n_steps - t0);
    if (steps < kSegment || by_steps-- > 0) {
      state[0] = static_cast<std::uint32_t>(to[-1]);
      draw_words<1>(tables, t0, steps, &key.offset, &key.twist, segment.words.get());
      step_block<1>(tables, segment.words.get(), t0, steps, &key.offset, &key.twist, state, to);
      continue;
    }
    for (std::size_t l = 0; l < L; ++l) {
      offset[l] = key.offset + l * piece * kWeyl;  // so that counters of all pieces start at t0
      twist[l] = key.twist;
      state[l] = static_cast<std::uint32_t>(to[-1]);
      if (l > 0) state[l] = view.chosen(draw_bits(key.offset, key.twist, std::uint64_t{t0 + l * piece - 1}));
      guess[l] = state[l];
    }
    draw_words<L>(tables, t0, piece, offset, twist, segment.words.get());
    step_block<L>(tables, segment.words.get(), t0, piece, offset, twist, state, segment.tile.get());
    lanes_to_rows<L>(segment.tile.get(), piece, L, to, piece);
    std::size_t wrong = 0;
    for (std::size_t l = 0; l < L; ++l) {
      T* const from = to + l * piece;
      std::uint64_t now = static_cast<std::uint64_t>(from[-1]);
      if (now == guess[l]) continue;
      for (std::size_t t = 0; t < piece; ++t, ++wrong) {
        const auto bits = [&] { return draw_bits(offset[l], twist[l], std::uint64_t{t0 + t}); };
        now = view.step(now, segment.words[t * L + l], bits);
        if (static_cast<std::uint64_t>(from[t]) == now) break;
        from[t] = static_cast<T>(now);
      }
    }
    by_steps = wrong > kSegment / 2 ? 15 : 0;
  }
}

// Simulates n_chains paths into out (n_chains, n_steps + 1), whose first column holds the starts.
template <class Tables, class T>
void simulate(const Tables& tables, std::size_t n_chains, std::size_t n_steps, std::uint64_t seed, T* out,
              int n_threads, Stop& stop) {
  constexpr int L = 32;
  parallel_for((n_chains + L - 1) / L, n_threads, stop, [&](std::size_t b) {
    const std::size_t first = b * L;
    const int lanes = static_cast<int>(std::min<std::size_t>(L, n_chains - first));
    T* to = out + first * (n_steps + 1);
    if constexpr (Tables::dense)
      if (lanes == 1) return simulate_one(tables, seed, first, n_steps, to, stop);
    if (lanes <= 8)
      simulate_block<8>(tables, seed, first, lanes, n_steps, to, stop);
    else
      simulate_block<L>(tables, seed, first, lanes, n_steps, to, stop);
  });
}

}  // namespace sgdmc
