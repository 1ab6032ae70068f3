// Finite chains: alias tables, many paths at once, transition counts.
#pragma once

#include <cmath>
#include <cstdint>
#include <memory>

#include "random.hpp"

namespace sgdmc {

// An entry of an alias table (Walker 1977): the upper 48 bits are the probability of staying with the
// entry drawn, the lower 16 the entry of the same row to take otherwise.
inline constexpr std::uint64_t kAliasMask = 0xFFFF;
inline constexpr std::size_t kMaxRow = std::size_t{1} << 16;

// Table of one row of n <= 65536 probabilities p, by one forward sweep (n additions, no stacks); `q` is
// scratch of n doubles. Each law is right up to 2^-48 an entry.
inline void alias_row(const double* p, std::size_t n, double* q, std::uint64_t* table) {
  const double size = static_cast<double>(n);
  for (std::size_t i = 0; i < n; ++i) {
    q[i] = p[i] * size;
    table[i] = ~kAliasMask | i;
  }
  std::size_t small = 0, large = 0;
  while (small < n && q[small] >= 1.0) ++small;
  while (large < n && q[large] < 1.0) ++large;
  std::size_t current = small;
  while (small < n && large < n) {
    table[current] = (static_cast<std::uint64_t>(q[current] * 0x1p48) << 16) | large;
    q[large] = (q[large] + q[current]) - 1.0;
    const bool passed = q[large] < 1.0 && large < small;
    current = large;
    if (q[large] < 1.0)
      do ++large;
      while (large < n && q[large] < 1.0);
    if (!passed) {
      do ++small;
      while (small < n && q[small] >= 1.0);
      current = small;
    }
  }
}

// Tables of all rows. `begin` has n + 1 offsets of rows into `p`, or is null for dense rows of length n.
inline void alias_tables(const double* p, std::size_t n, const std::int64_t* begin, std::uint64_t* table,
                         int n_threads, Stop& stop) {
  const std::size_t rows = begin ? 256 : std::max<std::size_t>(1, 16384 / n);
  parallel_for((n + rows - 1) / rows, n_threads, stop, [&](std::size_t b) {
    std::vector<double> q;
    for (std::size_t i = b * rows; i < std::min(n, (b + 1) * rows); ++i) {
      const std::size_t first = begin ? begin[i] : i * n;
      const std::size_t size = begin ? begin[i + 1] - begin[i] : n;
      q.resize(std::max(q.size(), size));
      alias_row(p + first, size, q.data(), table + first);
    }
  });
}

struct ChainTables {
  const std::uint64_t* table;
  std::size_t n_states;
  const std::int64_t* begin;      // null: dense
  const std::int32_t* column;     // null: dense
};

// Entry `chosen` itself or its alias, without a branch: either is as likely as not.
SGDMC_INLINE std::uint64_t keep_or_alias(std::uint64_t entry, std::uint64_t chosen, std::uint64_t rest) {
  const std::uint64_t alias = entry & kAliasMask;
  const std::uint64_t keep = -static_cast<std::uint64_t>(rest < (entry & ~kAliasMask));
  return alias ^ ((alias ^ chosen) & keep);
}

// Paths of up to L chains from `first_chain` on: out (.., n_steps + 1), the starts already in place. A
// step draws 64 bits z; the high half of z * k chooses one of the row's k entries, the low half decides
// between it and its alias. States of all chains advance together, which hides the latency of the tables.
template <int L, bool Dense, class T>
void simulate_block(const ChainTables& chain, std::uint64_t seed, std::size_t first_chain, int lanes,
                    std::size_t n_steps, T* out, Stop& stop) {
  constexpr std::size_t segment = 4096 / L;
  const std::size_t n_records = n_steps + 1;
  std::unique_ptr<std::uint64_t[]> chosen(new std::uint64_t[segment * L]), rest(new std::uint64_t[segment * L]);
  std::unique_ptr<T[]> tile(new T[segment * L]);
  alignas(64) std::uint64_t offset[L], twist[L], state[L];
  for (int l = 0; l < L; ++l) {
    const Key key = key_of(seed, first_chain + l);
    offset[l] = key.offset;
    twist[l] = key.twist;
    state[l] = static_cast<std::uint64_t>(out[std::min(l, lanes - 1) * n_records]);
  }
  const std::uint64_t n = chain.n_states;
  for (std::size_t t0 = 0; t0 < n_steps; t0 += segment) {
    if (stop.requested()) throw Interrupted();
    const std::size_t steps = std::min(segment, n_steps - t0);
    dispatch([&](auto) SGDMC_BODY {
      const auto split = [&](std::size_t i, std::uint64_t z) SGDMC_BODY {
        chosen[i] = Dense ? bounded(z, n) : z;
        rest[i] = z * n;
      };
      if constexpr (L == 1) {
        const std::uint64_t a = offset[0], b = twist[0];
        for (std::size_t t = 0; t < steps; ++t) split(t, draw_bits(a, b, std::uint64_t{t0 + t}));
      } else {
        for (std::size_t t = 0; t < steps; ++t)
          for (int l = 0; l < L; ++l)
            split(t * L + l, draw_bits(offset[l], twist[l], std::uint64_t{t0 + t}));
      }
    });
    std::uint64_t now[L];
    for (int l = 0; l < L; ++l) now[l] = state[l];
    for (std::size_t t = 0; t < steps; ++t) {
#pragma GCC unroll 8
      for (int l = 0; l < L; ++l) {
        const std::size_t i = t * L + l;
        if constexpr (Dense) {
          const std::uint64_t entry = chain.table[now[l] * n + chosen[i]];
          now[l] = keep_or_alias(entry, chosen[i], rest[i]);
        } else {
          const std::int64_t first = chain.begin[now[l]];
          const std::uint64_t size = chain.begin[now[l] + 1] - first;
          const std::uint64_t j = bounded(chosen[i], size), low = chosen[i] * size;
          const std::uint64_t entry = chain.table[first + j];
          now[l] = chain.column[first + keep_or_alias(entry, j, low)];
        }
        tile[i] = static_cast<T>(now[l]);
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
template <class T>
void simulate(const ChainTables& chain, std::size_t n_chains, std::size_t n_steps, std::uint64_t seed, T* out,
              int n_threads, Stop& stop) {
  constexpr int L = 32;
  parallel_for((n_chains + L - 1) / L, n_threads, stop, [&](std::size_t b) {
    const std::size_t first = b * L;
    const int lanes = static_cast<int>(std::min<std::size_t>(L, n_chains - first));
    T* to = out + first * (n_steps + 1);
    const auto run = [&]<int K>() {
      if (chain.begin)
        simulate_block<K, false>(chain, seed, first, lanes, n_steps, to, stop);
      else
        simulate_block<K, true>(chain, seed, first, lanes, n_steps, to, stop);
    };
    if (lanes == 1)
      run.template operator()<1>();
    else if (lanes <= 8)
      run.template operator()<8>();
    else
      run.template operator()<L>();
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
