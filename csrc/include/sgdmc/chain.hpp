// Finite chains: alias tables, many paths at once, transition counts.
#pragma once

#include <bit>
#include <cstdint>
#include <memory>

#include "random.hpp"

namespace sgdmc {

// An entry of an alias table (Walker 1977): the upper 48 bits are the probability of staying with the
// entry drawn, the lower 16 the entry of the same row to take otherwise.
inline constexpr std::uint64_t kAliasMask = 0xFFFF;
inline constexpr std::uint64_t kMean = std::uint64_t{1} << 48;  // 1/n in units of the sweep below
inline constexpr std::size_t kMaxRow = std::size_t{1} << 15;    // so that 1 fits in 63 bits of them

// Tables of up to Rows rows of n <= 32768 probabilities each, in the place of the probabilities. A row's
// entries, in units of 2^-48 / n, are listed as small (below the mean) or large; the current small one is
// filled up from the current large one, which becomes the current small one when it drops below the mean
// itself. Arithmetic is in integers, rows advance together, and nothing branches on their numbers: that
// hides the latency of this chain.
template <int Rows>
class AliasBuilder {
 public:
  explicit AliasBuilder(std::size_t longest)
      : longest_(longest), share_(Rows * (longest + 1)), order_(2 * Rows * (longest + 2)) {}

  void build(double* const* row, const std::size_t* length, int n_rows) {
    Sweep sweep[Rows];
    for (int r = 0; r < Rows; ++r) sweep[r] = begin(r, row[std::min(r, n_rows - 1)], r < n_rows ? length[r] : 0);
    for (bool busy = true; busy;) {
      busy = false;
#pragma GCC unroll 8
      for (int r = 0; r < Rows; ++r) busy |= advance(sweep[r]);
    }
  }

 private:
  struct Sweep {
    const std::uint64_t* share;
    double* table;
    const std::uint32_t *small, *large;  // next of each
    std::uint64_t need, have;            // what the current small and large ones hold
    std::uint32_t current, donor, end;
  };

  Sweep begin(int r, double* p, std::size_t n) {
    std::uint64_t* share = share_.data() + r * (longest_ + 1);
    std::uint32_t* small = order_.data() + 2 * r * (longest_ + 2);
    std::uint32_t* large = small + longest_ + 2;
    const double unit = static_cast<double>(n) * static_cast<double>(kMean);
    dispatch([&](auto) SGDMC_BODY {
      for (std::size_t i = 0; i < n; ++i) share[i] = static_cast<std::uint64_t>(static_cast<std::int64_t>(p[i] * unit));
      for (std::size_t i = 0; i < n; ++i) p[i] = std::bit_cast<double>(~kAliasMask | i);
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
    return {share, p, small + 1, large + 1, share[small[0]], share[large[0]], small[0], large[0], end};
  }

  SGDMC_INLINE static bool advance(Sweep& s) {
    if (s.current == s.end || s.donor == s.end) return false;
    s.table[s.current] = std::bit_cast<double>(s.need << 16 | s.donor);
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

// Overwrites the probabilities of all rows by their tables. `begin` has n + 1 offsets of rows into `p`, or
// is null for dense rows of length n.
inline void alias_tables(double* p, std::size_t n, const std::int64_t* begin, int n_threads, Stop& stop) {
  constexpr int together = 4;
  std::size_t longest = n;
  if (begin) {
    longest = 0;
    for (std::size_t i = 0; i < n; ++i)
      longest = std::max(longest, static_cast<std::size_t>(begin[i + 1] - begin[i]));
  }
  const std::size_t rows = (16384 / longest + 1) * together;
  parallel_for((n + rows - 1) / rows, n_threads, stop, [&](std::size_t b) {
    AliasBuilder<together> builder(longest);
    for (std::size_t i = b * rows; i < std::min(n, (b + 1) * rows); i += together) {
      const int m = static_cast<int>(std::min<std::size_t>(together, n - i));
      double* row[together];
      std::size_t length[together];
      for (int r = 0; r < m; ++r) {
        row[r] = p + (begin ? begin[i + r] : (i + r) * n);
        length[r] = begin ? begin[i + r + 1] - begin[i + r] : n;
      }
      builder.build(row, length, m);
    }
  });
}

// Whether every alias lies in its row and every column in 0..n-1, so that no step can leave the tables.
inline bool inside(const std::uint64_t* table, const std::int64_t* begin, const std::int32_t* column,
                   std::size_t n, bool sparse) {
  bool good = true;
  for (std::size_t i = 0; i < n; ++i) {
    const std::size_t first = sparse ? begin[i] : i * n;
    const std::size_t size = sparse ? begin[i + 1] - begin[i] : n;
    dispatch([&](auto) SGDMC_BODY {
      std::uint64_t largest = 0;
      for (std::size_t j = 0; j < size; ++j) largest = std::max(largest, table[first + j] & kAliasMask);
      good &= largest < size;
      for (std::size_t j = 0; sparse && j < size; ++j)
        good &= static_cast<std::uint32_t>(column[first + j]) < n;
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

// Tables of a dense matrix, shortened to 16 or 32 bits an entry so that more of them fit in the cache: as
// many leading bits of the probability as there is room for, then the alias. A draw is shortened likewise:
// the leading bits of the number that decides, then the entry chosen. Whichever of the two words is
// smaller then ends in the next state. Only where their leading bits are equal is the full entry looked
// up. Rows are padded to a power of two.
template <class Short>
struct DenseTables {
  using Word = Short;
  const std::uint64_t* full;  // (n, n)
  const Short* entries;       // (n, 2^bits)
  std::uint64_t n;
  int bits, shift;  // of the alias; of what decides, down to its leading bits

  SGDMC_INLINE Word word(std::uint64_t z) const {
    return static_cast<Word>((z * n >> shift << bits) | bounded(z, n));
  }

  template <class Bits>
  SGDMC_INLINE std::uint64_t step(std::uint64_t state, Word word, const Bits& draw) const {
    const std::uint64_t mask = (std::uint64_t{1} << bits) - 1;
    const Short entry = entries[state << bits | (word & mask)];
    if (__builtin_expect(((word ^ entry) & ~mask) == 0, 0)) {
      const std::uint64_t whole = full[state * n + (word & mask)];
      return draw() * n < (whole & ~kAliasMask) ? word & mask : whole & kAliasMask;
    }
    return std::min(word, entry) & mask;
  }
};

// The shortened tables and their memory.
template <class Short>
class ShortTables {
 public:
  ShortTables(const std::uint64_t* table, std::size_t n, int n_threads, Stop& stop) {
    const int bits = std::max(1, static_cast<int>(std::bit_width(n - 1)));
    const int shift = 64 - (8 * static_cast<int>(sizeof(Short)) - bits);
    entries_.reset(new Short[n << bits]);
    view_ = {table, entries_.get(), n, bits, shift};
    const std::size_t rows = 65536 / n + 1;
    parallel_for((n + rows - 1) / rows, n_threads, stop, [&](std::size_t b) {
      for (std::size_t i = b * rows; i < std::min(n, (b + 1) * rows); ++i)
        dispatch([&](auto) SGDMC_BODY {
          const std::uint64_t* from = table + i * n;
          Short* to = entries_.get() + (i << bits);
          const std::size_t size = n;
          const int down = shift, up = bits;
          for (std::size_t j = 0; j < size; ++j)
            to[j] = static_cast<Short>((from[j] >> down << up) | (from[j] & kAliasMask));
        });
    });
  }
  const DenseTables<Short>& view() const { return view_; }

 private:
  std::unique_ptr<Short[]> entries_;
  DenseTables<Short> view_;
};

// Paths of up to L chains from `first_chain` on: out (.., n_steps + 1), the starts already in place. A
// step draws 64 bits z; the high half of z * k chooses one of the row's k entries, the low half decides
// between it and its alias. Chains advance together, which hides the latency of the tables.
template <int L, class Tables, class T>
void simulate_block(const Tables& tables, std::uint64_t seed, std::size_t first_chain, int lanes,
                    std::size_t n_steps, T* out, Stop& stop) {
  constexpr std::size_t segment = 4096 / L;
  const std::size_t n_records = n_steps + 1;
  std::unique_ptr<typename Tables::Word[]> words(new typename Tables::Word[segment * L]);
  std::unique_ptr<T[]> tile(new T[segment * L]);
  alignas(64) std::uint64_t offset[L], twist[L], state[L];
  for (int l = 0; l < L; ++l) {
    const Key key = key_of(seed, first_chain + l);
    offset[l] = key.offset;
    twist[l] = key.twist;
    state[l] = static_cast<std::uint64_t>(out[std::min(l, lanes - 1) * n_records]);
  }
  for (std::size_t t0 = 0; t0 < n_steps; t0 += segment) {
    if (stop.requested()) throw Interrupted();
    const std::size_t steps = std::min(segment, n_steps - t0);
    dispatch([&](auto) SGDMC_BODY {
      const Tables mine = tables;
      typename Tables::Word* const w = words.get();
      if constexpr (L == 1) {
        const std::uint64_t a = offset[0], b = twist[0], from = t0;
        const std::size_t count = steps;
        for (std::size_t t = 0; t < count; ++t) w[t] = mine.word(draw_bits(a, b, std::uint64_t{from + t}));
      } else {
        alignas(64) std::uint64_t a[L], b[L];  // copies, since `w` could else refer to the originals
        for (int l = 0; l < L; ++l) a[l] = offset[l], b[l] = twist[l];
        const std::uint64_t from = t0;
        const std::size_t count = steps;
        for (std::size_t t = 0; t < count; ++t)
          for (int l = 0; l < L; ++l) w[t * L + l] = mine.word(draw_bits(a[l], b[l], std::uint64_t{from + t}));
      }
    });
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
    for (int l = 0; l < L; ++l) state[l] = now[l];
    for (int l = 0; l < lanes; ++l) {
      T* to = out + l * n_records + 1 + t0;
      for (std::size_t t = 0; t < steps; ++t) to[t] = tile[t * L + l];
    }
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
    if (lanes == 1)
      simulate_block<1>(tables, seed, first, lanes, n_steps, to, stop);
    else if (lanes <= 8)
      simulate_block<8>(tables, seed, first, lanes, n_steps, to, stop);
    else
      simulate_block<L>(tables, seed, first, lanes, n_steps, to, stop);
  });
}

// Adds the transitions (s_t, s_{t + lag}) of each row of states (n_chains, length) to counts (n, n).
// Returns the flat index of the first state outside 0..n-1, or -1; counts are meaningful only then.
template <class T>
std::int64_t count_transitions(const T* states, std::size_t n_chains, std::size_t length,
                               std::size_t n_states, std::size_t lag, std::int64_t* counts, int n_threads,
                               Stop& stop) {
  using Unsigned = std::make_unsigned_t<T>;
  const std::size_t total = n_chains * length, n = n_states, cells = n * n;
  // Chunks of about 16384 states, cut along a chain or between chains.
  const std::size_t chunk = 16384;
  const std::size_t pieces = length > chunk ? (length + chunk - 1) / chunk : 1;
  const std::size_t group = length > chunk ? 1 : std::max<std::size_t>(1, chunk / std::max<std::size_t>(length, 1));
  const std::size_t n_chunks = (n_chains + group - 1) / group * pieces;
  std::atomic<std::int64_t> bad{-1};
  // States are checked chunk by chunk before they index anything; the chunk then is in the cache.
  const auto each_chunk = [&](std::size_t id, auto&& add) {
    const std::size_t first = id / pieces * group, last = std::min(n_chains, first + group);
    const std::size_t from = id % pieces * chunk, to = pieces == 1 ? length : std::min(length, from + chunk);
    // A transition belongs to the chunk of its earlier state; the later one may lie in the next.
    const std::size_t reach = std::min(length, to + lag);
    for (std::size_t c = first; c < last; ++c) {
      const T* s = states + c * length;
      bool wrong = false;
      dispatch([&](auto) SGDMC_BODY {
        Unsigned largest = 0;
        for (std::size_t t = from; t < reach; ++t)
          largest = std::max(largest, static_cast<Unsigned>(s[t]));
        wrong = largest >= n;
      });
      if (wrong) {
        std::size_t t = from;
        while (static_cast<Unsigned>(s[t]) < n) ++t;
        lower_index(bad, static_cast<std::int64_t>(c * length + t));
        return;
      }
      if (length > lag) add(s + from, std::min(to, length - lag) - std::min(from, length - lag));
    }
  };
  const auto add_all = [&](const T* s, std::size_t m, auto* table) {
    for (std::size_t t = 0; t < m; ++t)
      ++table[static_cast<std::size_t>(s[t]) * n + static_cast<std::size_t>(s[t + lag])];
  };
  if (cells > total / 4 || total >= (std::uint64_t{1} << 32)) {  // a table of one's own would not pay
    parallel_for(n_chunks, 1, stop, [&](std::size_t id) {
      each_chunk(id, [&](const T* s, std::size_t m) { add_all(s, m, counts); });
    });
    return bad.load();
  }
  // Four tables in turn while they fit in the cache: consecutive increments of one cell would wait for
  // one another.
  const std::size_t copies = cells <= 4096 ? 4 : 1;
  const std::size_t slots = std::min<std::size_t>(std::max(n_threads, 1), n_chunks);
  std::mutex guard;
  parallel_for(slots, n_threads, stop, [&](std::size_t slot) {
    std::vector<std::uint32_t> table(cells * copies);
    std::uint32_t* const a = table.data();
    for (std::size_t id = slot; id < n_chunks; id += slots) {
      if (stop.requested()) return;
      each_chunk(id, [&](const T* s, std::size_t m) {
        if (copies == 1) return add_all(s, m, a);
        std::size_t t = 0;
        for (; t + 4 <= m; t += 4)
          for (std::size_t k = 0; k < 4; ++k)
            ++a[k * cells + static_cast<std::size_t>(s[t + k]) * n + static_cast<std::size_t>(s[t + k + lag])];
        add_all(s + t, m - t, a);
      });
    }
    const std::lock_guard<std::mutex> lock(guard);
    for (std::size_t k = 0; k < copies; ++k)
      for (std::size_t i = 0; i < cells; ++i) counts[i] += a[k * cells + i];
  });
  return bad.load();
}

}  // namespace sgdmc
