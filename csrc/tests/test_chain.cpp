// Alias tables, paths and counts: the laws are right, threads and widths do not matter.
#include "check.hpp"
#include "sgdmc/chain.hpp"
#include "sgdmc/counts.hpp"

using namespace sgdmc;

static std::vector<double> random_matrix(std::size_t n) {
  std::vector<std::uint64_t> bits(n * n);
  random_bits(n, 0, 0, n * n, bits.data());
  std::vector<double> p(n * n);
  for (std::size_t i = 0; i < n; ++i) {
    double sum = 0;
    for (std::size_t j = 0; j < n; ++j) {
      const double u = static_cast<double>(bits[i * n + j] >> 11) * 0x1p-53;
      sum += p[i * n + j] = u < 0.3 ? 0.0 : std::pow(u, 6) + (i == j ? 1e-9 : 0.0);
    }
    if (sum == 0) sum = p[i * n + i] = 1.0;
    for (std::size_t j = 0; j < n; ++j) p[i * n + j] /= sum;
  }
  return p;
}

static std::vector<std::uint64_t> tables_of(const std::vector<double>& p, std::size_t n, const std::int64_t* begin = nullptr) {
  Stop stop;
  std::vector<std::uint64_t> table(p.size());
  CHECK(alias_tables(p.data(), n, begin, 1e-6, table.data(), 2, stop));
  const int limit = std::exchange(simd_limit(), 128);
  std::vector<std::uint64_t> narrow(p.size());
  CHECK(alias_tables(p.data(), n, begin, 1e-6, narrow.data(), 1, stop));
  CHECK(table == narrow);
  simd_limit() = limit;
  return table;
}

CASE(tables_give_back_the_probabilities) {
  for (std::size_t n : {1, 2, 3, 17, 200, 1030}) {
    const auto p = random_matrix(n);
    const auto table = tables_of(p, n);
    Stop stop;
    CHECK(ShortTables<4>(table.data(), n, 1, stop).inside());
    double worst = 0;
    for (std::size_t i = 0; i < n; ++i) {
      std::vector<double> law(n, 0.0);
      for (std::size_t j = 0; j < n; ++j) {
        const double keep = static_cast<double>(table[i * n + j] >> 16) * 0x1p-48;
        law[j] += keep / static_cast<double>(n);
        law[table[i * n + j] & kAliasMask] += (1 - keep) / static_cast<double>(n);
      }
      for (std::size_t j = 0; j < n; ++j) worst = std::fmax(worst, std::fabs(law[j] - p[i * n + j]));
    }
    CHECK(worst < 1e-13);
  }
}

CASE(paths_step_where_probability_is_and_do_not_depend_on_threads) {
  for (std::size_t n : {1, 5, 40, 1100}) {
    const auto p = random_matrix(n);
    const auto table = tables_of(p, n);
    constexpr std::size_t chains = 70, steps = 200;
    std::vector<std::int16_t> one(chains * (steps + 1), 0), many(one);
    Stop stop;
    const auto run = [&](std::vector<std::int16_t>& out, int threads) {
      with_short_tables(table.data(), n, threads, stop, [&](const auto& tables) {
        simulate(tables.view(), chains, steps, 9, out.data(), threads, stop);
      });
    };
    run(one, 1);
    run(many, 3);
    CHECK(one == many);
    for (std::size_t c = 0; c < chains; ++c)
      for (std::size_t t = 0; t < steps; ++t)
        CHECK(p[one[c * (steps + 1) + t] * n + one[c * (steps + 1) + t + 1]] > 0);
    simulate(ShortTables<3>(table.data(), n, 1, stop).view(), chains, steps, 9, many.data(), 1, stop);
    CHECK(one == many);
    std::vector<std::int16_t> few(one.begin(), one.begin() + steps + 1);
    simulate(ShortTables<4>(table.data(), n, 1, stop).view(), 1, steps, 9, few.data(), 1, stop);
    CHECK(std::equal(few.begin(), few.end(), one.begin()));
  }
}

CASE(one_path_in_pieces_is_the_path_step_by_step) {
  constexpr std::size_t steps = 3 * kSegment + 77;
  for (std::size_t n : {2, 40, 1030})
    for (int kind = 0; kind < 3; ++kind) {  // paths that meet soon, late, never
      auto p = random_matrix(n);
      for (std::size_t i = 0; kind && i < n; ++i)
        for (std::size_t j = 0; j < n; ++j)
          p[i * n + j] = kind == 2 ? j == (i + 1) % n : (j == i ? 0.5 : 0.0) + (j == (i + 1) % n ? 0.5 : 0.0);
      const auto table = tables_of(p, n);
      Stop stop;
      const ShortTables<3> tables(table.data(), n, 1, stop);
      std::vector<std::int16_t> whole(steps + 1, 1), pieces(whole), narrow(whole);
      simulate_block<1>(tables.view(), 3, 5, 1, steps, whole.data(), stop);
      simulate_one(tables.view(), 3, 5, steps, pieces.data(), stop);
      CHECK(whole == pieces);
      const int limit = std::exchange(simd_limit(), 128);
      simulate_one(tables.view(), 3, 5, steps, narrow.data(), stop);
      CHECK(whole == narrow);
      simd_limit() = limit;
    }
}

CASE(sparse_chains_stay_on_their_band) {
  constexpr std::size_t n = 300;
  std::vector<double> p;
  std::vector<std::int32_t> column;
  std::vector<std::int64_t> begin{0};
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = i ? i - 1 : 0; j <= std::min(i + 1, n - 1); ++j) column.push_back(static_cast<std::int32_t>(j));
    begin.push_back(static_cast<std::int64_t>(column.size()));
    const std::size_t size = column.size() - p.size();
    p.resize(column.size(), 1.0 / static_cast<double>(size));
  }
  const auto table = tables_of(p, n, begin.data());
  CHECK(inside(table.data(), begin.data(), column.data(), n));
  std::vector<std::int32_t> out(9 * 501, 150);
  Stop stop;
  simulate(SparseTables{table.data(), begin.data(), column.data()}, 9, 500, 1, out.data(), 2, stop);
  for (std::size_t c = 0; c < 9; ++c)
    for (std::size_t t = 0; t < 500; ++t) CHECK(std::abs(out[c * 501 + t] - out[c * 501 + t + 1]) <= 1);
}

CASE(counts_follow_the_definition) {
  for (std::size_t n : {1, 7, 100})
    for (std::size_t length : {0, 1, 50, 40000})
      for (std::size_t lag : {1, 3, 30000}) {
        std::vector<std::uint64_t> bits(3 * length);
        random_bits(5, 0, 0, bits.size(), bits.data());
        std::vector<std::int16_t> s(bits.size());
        for (std::size_t i = 0; i < s.size(); ++i) s[i] = static_cast<std::int16_t>(bounded(bits[i], std::uint64_t{n}));
        std::vector<std::int64_t> expected(n * n, 0), counts(n * n, 0);
        for (std::size_t c = 0; c < 3; ++c)
          for (std::size_t t = lag; t < length; ++t) ++expected[s[c * length + t - lag] * n + s[c * length + t]];
        Stop stop;
        CHECK(count_transitions(s.data(), 3, length, n, lag, counts.data(), 2, stop) == -1);
        CHECK(counts == expected);
        if (length == 40000) {
          s[77777] = static_cast<std::int16_t>(n);
          s[3] = lag == 3 ? -1 : s[3];
          CHECK(count_transitions(s.data(), 3, length, n, lag, counts.data(), 2, stop) == (lag == 3 ? 3 : 77777));
        }
      }
}

CASE(counts_beyond_a_byte_are_right) {
  constexpr std::size_t n = 70, length = 60000;
  std::vector<std::int32_t> s(length);
  for (std::size_t t = 0; t < length; ++t) s[t] = static_cast<std::int32_t>(t % 7 ? 3 : t / 7 % n);
  std::vector<std::int64_t> expected(n * n, 0), counts(n * n, 0);
  for (std::size_t t = 1; t < length; ++t) ++expected[s[t - 1] * n + s[t]];
  Stop stop;
  CHECK(count_transitions(s.data(), 1, length, n, 1, counts.data(), 2, stop) == -1);
  CHECK(counts == expected);
}

int main() { return check::run(); }
