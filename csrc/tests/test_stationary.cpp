// State reduction: full and banded routes, absorption, the group inverse; the check of rows.
#include "check.hpp"
#include "sgdmc/group_inverse.hpp"
#include "sgdmc/random.hpp"
#include "sgdmc/rows.hpp"
#include "sgdmc/stationary.hpp"

using namespace sgdmc;

static std::vector<double> chain(std::ptrdiff_t n, std::ptrdiff_t lower, std::ptrdiff_t upper) {
  std::vector<double> p(n * n, 0.0);
  std::vector<std::uint64_t> bits(n * n);
  random_bits(n, 1, 0, n * n, bits.data());
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    double sum = 0;
    for (std::ptrdiff_t j = std::max<std::ptrdiff_t>(0, i - lower); j <= std::min(n - 1, i + upper); ++j)
      sum += p[i * n + j] = 0.01 + static_cast<double>(bits[i * n + j] >> 11) * 0x1p-53;
    for (std::ptrdiff_t j = 0; j < n; ++j) p[i * n + j] /= sum;
  }
  return p;
}

struct Csr {
  std::vector<double> values;
  std::vector<std::int32_t> columns, starts{0};
  Csr(const std::vector<double>& p, std::ptrdiff_t n) {
    for (std::ptrdiff_t i = 0; i < n; ++i) {
      for (std::ptrdiff_t j = 0; j < n; ++j)
        if (p[i * n + j] > 0) values.push_back(p[i * n + j]), columns.push_back(static_cast<int>(j));
      starts.push_back(static_cast<int>(values.size()));
    }
  }
};

CASE(full_and_banded_routes_agree) {
  for (const std::ptrdiff_t n : {1, 2, 31, 32, 33, 65, 150, 300})
    for (const auto& [lower, upper] : {std::pair{1, 1}, {2, 2}, {1, 2}, {3, 70}, {70, 66}, {150, 150}}) {
      const auto p = chain(n, lower, upper);
      const Csr sparse(p, n);
      std::vector<double> pi(n), banded(n);
      Stop stop;
      CHECK(stationary_dense(p.data(), n, pi.data(), 3, stop) == -1);
      CHECK(stationary_banded(sparse.values.data(), sparse.columns.data(), sparse.starts.data(), n, lower,
                              upper, banded.data(), 3, stop) == -1);
      for (std::ptrdiff_t j = 0; j < n; ++j) {
        double pushed = 0;
        for (std::ptrdiff_t i = 0; i < n; ++i) pushed += pi[i] * p[i * n + j];
        CHECK(std::fabs(pushed - pi[j]) < 1e-13);
        CHECK(std::fabs(banded[j] / pi[j] - 1) < 1e-12);
      }
    }
}

CASE(laws_beyond_the_range_of_doubles_are_rescaled) {
  constexpr std::ptrdiff_t n = 900;
  for (const std::ptrdiff_t reach : {1, 2, 3}) {  // up nine times as likely as down, by one or by `reach`
    std::vector<double> p(n * n, 0.0), pi(n);
    for (std::ptrdiff_t i = 0; i < n; ++i)
      for (const std::ptrdiff_t step : {std::ptrdiff_t{1}, reach}) {
        p[i * n + std::min(i + step, n - 1)] += 0.45;
        p[i * n + std::max<std::ptrdiff_t>(i - step, 0)] += 0.05;
      }
    const Csr sparse(p, n);
    Stop stop;
    CHECK(stationary_banded(sparse.values.data(), sparse.columns.data(), sparse.starts.data(), n, reach, reach,
                            pi.data(), 1, stop) == -1);
    CHECK(pi[0] == 0.0);  // below the smallest double
    bool balanced = true;
    for (std::ptrdiff_t j = n - 100; j < n; ++j) {
      double pushed = 0;
      for (std::ptrdiff_t i = std::max<std::ptrdiff_t>(0, j - reach); i < std::min(n, j + reach + 1); ++i)
        pushed += pi[i] * p[i * n + j];
      balanced &= std::fabs(pushed / pi[j] - 1) < 1e-13;
    }
    CHECK(balanced);
    if (reach == 1) CHECK(std::fabs(pi[n - 1] / pi[n - 2] - 9) < 1e-12);
  }
}

CASE(the_law_is_the_same_to_the_bit_for_all_widths_and_threads) {
  for (const std::ptrdiff_t n : {40, 77, 300}) {
    const auto p = chain(n, n, n);
    std::vector<double> pi(n), other(n);
    Stop stop;
    stationary_dense(p.data(), n, pi.data(), 1, stop);
    const int limit = simd_limit();
    for (const int bits : {512, 256, 128}) {
      simd_limit() = bits;
      stationary_dense(p.data(), n, other.data(), 2, stop);
      CHECK(pi == other);
    }
    simd_limit() = limit;
  }
}

CASE(absorption_sums_to_one) {
  for (const std::ptrdiff_t keep : {1, 5, 64, 100}) {
    const std::ptrdiff_t n = 140;
    auto p = chain(n, n, n);
    for (std::ptrdiff_t i = 0; i < keep; ++i)
      for (std::ptrdiff_t j = 0; j < n; ++j) p[i * n + j] = i == j;
    std::vector<double> h(n * keep);
    Stop stop;
    CHECK(absorption_dense(p.data(), n, keep, h.data(), 3, stop) == -1);
    for (std::ptrdiff_t i = 0; i < n; ++i) {
      double sum = 0;
      for (std::ptrdiff_t k = 0; k < keep; ++k) sum += h[i * keep + k];
      CHECK(std::fabs(sum - 1) < 1e-12);
    }
  }
}

CASE(a_state_without_a_way_down_is_reported) {
  const std::vector<double> p{1, 0, 0, 1};
  std::vector<double> pi(2);
  Stop stop;
  CHECK(stationary_dense(p.data(), 2, pi.data(), 1, stop) == 1);
}

CASE(krylov_space_of_the_group_inverse) {
  const std::ptrdiff_t n = 90, steps = 30;
  const auto p = chain(n, 3, 2);
  const Csr sparse(p, n);
  std::vector<double> h((steps + 1) * steps), basis((steps + 1) * n), pi(n);
  for (std::ptrdiff_t i = 0; i < n; ++i) basis[i] = std::cos(static_cast<double>(i));
  Stop stop;
  const GroupInverse inverse(ReducedBand(sparse.values.data(), sparse.columns.data(), sparse.starts.data(), n,
                                         3, 2, 1, stop),
                             pi.data());
  CHECK(inverse.reduced().bad == -1 && inverse.accurate());
  std::vector<std::ptrdiff_t> asked;
  const auto enough = [&](std::ptrdiff_t m) {
    asked.push_back(m);
    return m == 16;
  };
  CHECK(group_inverse_krylov(inverse, steps, h.data(), basis.data(), enough, stop) == 16);
  CHECK((asked == std::vector<std::ptrdiff_t>{8, 12, 16}));
  // (I - P) G v = v for v with pi v = 0: check it for the first basis vector, in the balanced length.
  std::vector<double> image(n, 0.0);
  for (std::ptrdiff_t j = 0; j < n; ++j) {
    for (std::ptrdiff_t k = 0; k < 2; ++k) image[j] += h[k * steps] * basis[k * n + j];
    image[j] /= std::sqrt(pi[j]);
  }
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    double left = 0;
    for (std::ptrdiff_t j = 0; j < n; ++j) left += ((i == j) - p[i * n + j]) * image[j];
    CHECK(std::fabs(std::sqrt(pi[i]) * left - basis[i]) < 1e-13);
  }
}

CASE(a_first_state_of_little_mass_is_not_accurate) {
  const std::ptrdiff_t n = 90;
  const auto p = chain(n, 2, 3);
  const Csr sparse(p, n);
  std::vector<double> pi(n);
  Stop stop;
  const GroupInverse inverse(ReducedBand(sparse.values.data(), sparse.columns.data(), sparse.starts.data(), n,
                                         2, 3, 1, stop),
                             pi.data());
  CHECK(!inverse.accurate() && pi[0] < 1e-9);
}

CASE(rows_are_checked_in_one_pass) {
  const std::ptrdiff_t n = 70;
  auto p = chain(n, 3, 5);
  const auto full = [&] { return check_full_rows(p.data(), n, 1e-6).good; };
  const auto sparse = [&](const Csr& m) {
    return check_sparse_rows(m.values.data(), m.columns.data(), m.starts.data(), n, 1e-6);
  };
  Csr rows(p, n);
  CHECK(full() && sparse(rows).good && sparse(rows).lower == 3 && sparse(rows).upper == 5);
  for (const double wrong : {-0.1, 0.9, std::nan(""), HUGE_VAL}) {
    const double kept = p[n + 1], other = rows.values[5];
    p[n + 1] = rows.values[5] = wrong;
    CHECK(!full() && !sparse(rows).good);
    p[n + 1] = kept, rows.values[5] = other;
  }
  rows = Csr(chain(n, 3, 5), n);
  rows.columns[0] = static_cast<int>(n);
  CHECK(!sparse(rows).good);
}

int main() { return check::run(); }
