// SGD: the recursion one chain at a time, every width and number of threads, divergence, states.
#include "check.hpp"
#include "sgdmc/sgd_states.hpp"

using namespace sgdmc;

static std::vector<double> numbers(std::size_t n, std::uint64_t seed) {
  std::vector<std::uint64_t> bits(n);
  random_bits(seed, 0, 0, n, bits.data());
  std::vector<double> values(n);
  for (std::size_t i = 0; i < n; ++i) values[i] = static_cast<double>(bits[i] >> 11) * 0x1p-52 - 1.0;
  return values;
}

// One chain of least squares by the definition, records (x_0 .. x_{d-1}, y, ..) of `stride` doubles.
static std::vector<double> plain(const std::vector<double>& records, std::size_t n, std::size_t stride,
                                 std::size_t dim, const SgdSettings& s, const double* start, std::size_t chain) {
  std::vector<double> path(start, start + dim), theta(path);
  const Key key = key_of(s.seed, chain);
  std::vector<std::uint32_t> order(n);
  for (std::size_t t = 0; t < s.n_steps; ++t) {
    std::vector<double> g(dim, 0.0);
    for (std::size_t k = 0; k < s.batch_size; ++k) {
      const std::uint64_t number = t * s.batch_size + k, z = draw_bits(key.offset, key.twist, number);
      std::size_t i = bounded(z, std::uint64_t{n});
      if (!s.replacement) {
        const std::uint64_t position = number % n;
        if (position == 0)
          for (std::size_t m = 0; m < n; ++m) order[m] = static_cast<std::uint32_t>(m);
        std::swap(order[position], order[position + bounded(z, n - position)]);
        i = order[position];
      }
      const double* x = records.data() + i * stride;
      double m = x[0] * theta[0];
      for (std::size_t j = 1; j < dim; ++j) m += x[j] * theta[j];
      for (std::size_t j = 0; j < dim; ++j) g[j] += (m - x[dim]) * x[j];
    }
    for (std::size_t j = 0; j < dim; ++j) theta[j] -= s.step_size / static_cast<double>(s.batch_size) * g[j];
    path.insert(path.end(), theta.begin(), theta.end());
  }
  return path;
}

template <int Dim>
static void compare(std::size_t dim, std::size_t stride) {
  const std::size_t n = 13;
  const auto records = numbers(n * stride, 3);
  const LinearModel<Link::identity, Dim> problem{records.data(), n, stride, dim};
  for (int limit : {512, 256, 128})
    for (std::size_t chains : {1, 2, 5, 50})
      for (bool replacement : {true, false})
        for (std::size_t batch : {1, 30}) {
          simd_limit() = limit;
          const std::size_t steps = 75;
          const SgdSettings s{0.1, 0.0, chains, steps, batch, replacement, 8, 0};
          const auto start = numbers(chains * dim, 4);
          std::vector<double> out(chains * (steps + 1) * dim);
          for (std::size_t c = 0; c < chains; ++c)
            std::copy_n(start.data() + c * dim, dim, out.data() + c * (steps + 1) * dim);
          Divergence divergence;
          Stop stop;
          const auto make = [&](std::size_t first, int L) {
            return std::make_unique<StoreIterates>(out.data() + first * (steps + 1) * dim, steps + 1, dim, 1, L);
          };
          sgd(problem, s, start.data(), make, divergence, 2, stop);
          CHECK(divergence.step == -1);
          const std::size_t chain = chains - 1;
          const auto expected = plain(records, n, stride, dim, s, start.data() + chain * dim, chain);
          CHECK(std::equal(expected.begin(), expected.end(), out.data() + chain * (steps + 1) * dim));
        }
  simd_limit() = 512;
}

CASE(least_squares_in_the_plane_is_the_recursion) { compare<2>(2, 4); }
CASE(least_squares_in_any_dimension_is_the_recursion) {
  compare<0>(1, 2);
  compare<0>(5, 6);
}

CASE(divergence_names_the_earliest_step) {
  const double records[] = {1.0, 0.0};
  const LinearModel<Link::identity, 0> problem{records, 1, 2, 1};
  std::vector<double> start(40, 0.0), out(40 * 101);
  start[37] = 1.0;
  start[39] = 2.0;
  const SgdSettings s{12.0, 0.0, 40, 100, 1, true, 1, 0};  // factor -11 a step
  Divergence divergence;
  Stop stop;
  const auto make = [&](std::size_t first, int L) {
    return std::make_unique<StoreIterates>(out.data() + first * 101, 101, 1, 1, L);
  };
  sgd(problem, s, start.data(), make, divergence, 2, stop);
  CHECK(divergence.step == 12 && divergence.chain == 37);  // 11^12 > 1e12
}

CASE(states_and_counts_agree_with_the_iterates) {
  const auto records = numbers(2 * 13, 3), start = numbers(2 * 35, 4);
  const SineModel problem{records.data(), 13};
  const std::size_t chains = 35, steps = 90, lag = 4;
  const SgdSettings s{0.1, 0.0, chains, steps, 1, true, 8, 0};
  const double low[] = {-1.0, -0.8}, scale[] = {5.0, 5.0};
  const GridView grid{low, scale, 10};
  std::vector<double> theta(chains * (steps + 1) * 2);
  std::vector<std::int16_t> states(chains * steps * 2), recorded(chains * (steps + 1) * 2, 0);
  Divergence divergence;
  Stop stop;
  sgd(problem, s, start.data(), [&](std::size_t f, int L) {
    return std::make_unique<StoreIterates>(theta.data() + f * (steps + 1) * 2, steps + 1, 2, 1, L); }, divergence, 1, stop);
  sgd(problem, s, start.data(), [&](std::size_t f, int L) {
    return std::make_unique<StoreStates>(recorded.data() + f * (steps + 1) * 2, steps + 1, 2, 1, grid, L); }, divergence, 2, stop);
  CountTables<std::uint32_t> tables(2 * 100);
  sgd(problem, s, start.data(), [&](std::size_t f, int L) {
    return std::make_unique<CountStates<std::uint32_t>>(tables, grid, start.data() + f * 2,
                                                        std::min<std::size_t>(L, chains - f), 2, lag, L); }, divergence, 2, stop);
  std::vector<std::int64_t> counts(200, 0), expected(200, 0);
  tables.add_to(counts.data());
  for (std::size_t c = 0; c < chains; ++c)
    for (std::size_t t = 0; t <= steps; ++t)
      for (std::size_t j = 0; j < 2; ++j) {
        if (t == 0) std::copy_n(start.data() + 2 * c, 2, theta.data() + c * (steps + 1) * 2);
        const auto state = [&](std::size_t at) {
          return state_of(theta[(c * (steps + 1) + at) * 2 + j], low[j], scale[j], 9);
        };
        if (t > 0) CHECK(recorded[(c * (steps + 1) + t) * 2 + j] == state(t));
        if (t >= lag) ++expected[j * 100 + state(t - lag) * 10 + state(t)];
      }
  CHECK(counts == expected);
}

int main() { return check::run(); }
