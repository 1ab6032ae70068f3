// State reduction: invariance of the result, full and banded routes, absorption, the group inverse.
#include "check.hpp"
#include "sgdmc/random.hpp"
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
  for (const std::ptrdiff_t n : {1, 2, 63, 64, 65, 150})
    for (const auto& [lower, upper] : {std::pair{1, 1}, {3, 70}, {70, 66}, {150, 150}}) {
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
  const std::ptrdiff_t n = 90, steps = 7;
  const auto p = chain(n, 2, 3);
  const Csr sparse(p, n);
  std::vector<double> h((steps + 1) * steps), basis((steps + 1) * n);
  for (std::ptrdiff_t i = 0; i < n; ++i) basis[i] = std::cos(static_cast<double>(i));
  Stop stop;
  CHECK(group_inverse_krylov(sparse.values.data(), sparse.columns.data(), sparse.starts.data(), n, 2, 3,
                             steps, h.data(), basis.data(), 1, stop) == steps);
  // (I - P) G v = v for centred v: check it for the first basis vector. The equation of state 0 follows
  // from the others, up to rounding over pi_0.
  std::vector<double> pi(n);
  CHECK(stationary_dense(p.data(), n, pi.data(), 1, stop) == -1);
  for (std::ptrdiff_t i = 0; i < n; ++i) {
    double left = 0;
    for (std::ptrdiff_t j = 0; j < n; ++j) {
      double image = 0;
      for (std::ptrdiff_t k = 0; k < 2; ++k) image += h[k * steps] * basis[k * n + j];
      left += ((i == j) - p[i * n + j]) * image;
    }
    CHECK(pi[i] * std::fabs(left - basis[i]) < 1e-13);
  }
}

int main() { return check::run(); }
