// Transition counts of paths.
#pragma once

#include <cstdint>
#include <vector>

#include "parallel.hpp"

namespace sgdmc {

// Counts of one byte each, so that more of them fit in the cache; a cell is listed whenever it wraps.
struct ByteTable {
  std::vector<std::uint8_t> low;
  std::vector<std::uint32_t> wrapped;

  template <class T>
  void add(const T* from, const T* to, std::size_t count, std::uint32_t n) {
    constexpr std::size_t most = 2048;
    std::uint32_t cells[most];
    std::uint8_t* const table = low.data();
    const auto increment = [&](std::size_t t) SGDMC_BODY {
      if (__builtin_expect(++table[cells[t]] == 0, 0)) wrapped.push_back(cells[t]);
    };
    for (std::size_t t0 = 0; t0 < count; t0 += most) {
      const std::size_t steps = std::min(most, count - t0);
      dispatch([&](auto) SGDMC_BODY {
        const T *a = from + t0, *b = to + t0;
        const std::uint32_t width = n;
        const std::size_t m = steps;
        for (std::size_t t = 0; t < m; ++t)
          cells[t] = static_cast<std::uint32_t>(a[t]) * width + static_cast<std::uint32_t>(b[t]);
      });
      // Unrolled, so that the processor sees more increments ahead: it waits for the cache beyond the first.
      std::size_t t = 0;
      for (; t + 16 <= steps; t += 16) {
#pragma GCC unroll 16
        for (std::size_t k = 0; k < 16; ++k) increment(t + k);
      }
      for (; t < steps; ++t) increment(t);
    }
  }
};

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
  if (cells > total / 4 || cells >= (std::uint64_t{1} << 32)) {  // a table of one's own would not pay
    parallel_for(n_chunks, 1, stop, [&](std::size_t id) {
      each_chunk(id, [&](const T* s, std::size_t m) { add_all(s, m, counts); });
    });
    return bad.load();
  }
  const std::size_t slots = std::min<std::size_t>(std::max(n_threads, 1), n_chunks);
  if (cells <= 4096 && total < (std::uint64_t{1} << 32)) {
    // Four tables in turn: consecutive increments of one cell would wait for one another.
    std::mutex guard;
    parallel_for(slots, n_threads, stop, [&](std::size_t slot) {
      std::vector<std::uint32_t> table(4 * cells);
      std::uint32_t* const a = table.data();
      for (std::size_t id = slot; id < n_chunks; id += slots) {
        if (stop.requested()) return;
        each_chunk(id, [&](const T* s, std::size_t m) {
          std::size_t t = 0;
          for (; t + 4 <= m; t += 4)
            for (std::size_t k = 0; k < 4; ++k)
              ++a[k * cells + static_cast<std::size_t>(s[t + k]) * n + static_cast<std::size_t>(s[t + k + lag])];
          add_all(s + t, m - t, a);
        });
      }
      const std::lock_guard<std::mutex> lock(guard);
      for (std::size_t k = 0; k < 4; ++k)
        for (std::size_t i = 0; i < cells; ++i) counts[i] += a[k * cells + i];
    });
    return bad.load();
  }
  std::vector<ByteTable> tables(slots);
  parallel_for(slots, n_threads, stop, [&](std::size_t slot) {
    ByteTable& table = tables[slot];
    table.low.resize(cells);
    for (std::size_t id = slot; id < n_chunks; id += slots) {
      if (stop.requested()) return;
      each_chunk(id, [&](const T* s, std::size_t m) { table.add(s, s + lag, m, static_cast<std::uint32_t>(n)); });
    }
  });
  constexpr std::size_t part = std::size_t{1} << 17;
  parallel_for((cells + part - 1) / part, n_threads, stop, [&](std::size_t b) {
    const std::size_t from = b * part, to = std::min(cells, from + part);
    for (const ByteTable& table : tables)
      dispatch([&](auto) SGDMC_BODY {
        std::int64_t* const sum = counts;
        const std::uint8_t* const low = table.low.data();
        for (std::size_t i = from; i < to; ++i) sum[i] += low[i];
      });
  });
  for (const ByteTable& table : tables)
    for (const std::uint32_t cell : table.wrapped) counts[cell] += 256;
  return bad.load();
}

}  // namespace sgdmc
