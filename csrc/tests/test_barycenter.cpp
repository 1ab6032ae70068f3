// Barycenters: laws come out, threads do not matter, hard inputs stay finite, equal rows are fixed.
#include "check.hpp"
#include "sgdmc/barycenter.hpp"

using namespace sgdmc;

static std::vector<double> histograms(std::size_t n) {
  std::vector<double> rows(5 * n, 0.0);
  rows[0] = 1.0;
  rows[n + n - 1] = 1.0;
  for (std::size_t k = 2; k < 5; ++k) {
    double sum = 0;
    for (std::size_t v = 0; v < n; ++v) {
      const double x = (static_cast<double>(v) / static_cast<double>(n) - 0.2 * static_cast<double>(k)) / 0.05;
      sum += rows[k * n + v] = std::exp(-0.5 * x * x) + (k == 4 ? 1e-9 : 0.0);
    }
    for (std::size_t v = 0; v < n; ++v) rows[k * n + v] /= sum;
  }
  return rows;
}

CASE(results_are_laws_whatever_the_threads) {
  for (const std::size_t n : {1, 2, 7, 100, 333}) {
    const auto rows = histograms(n);
    std::vector<std::int64_t> members;
    std::vector<double> weights;
    for (std::int64_t i = 0; i < 5; ++i)
      for (std::int64_t j = 0; j < 5; ++j) {
        members.insert(members.end(), {i, j});
        weights.insert(weights.end(), {0.3, 0.7});
      }
    for (const double reg : {1e-1, 1e-2, 1e-3, 1e-5})
      for (const bool debiased : {false, true}) {
        const BarycenterSettings settings{n, 2, reg, debiased, 1e-8, 7};
        std::vector<double> one(25 * n), three(25 * n), residual(25);
        std::vector<std::int64_t> n_iter(25);
        Stop stop;
        sinkhorn_barycenters(settings, rows.data(), 25, members.data(), weights.data(), one.data(),
                             n_iter.data(), residual.data(), 1, stop);
        sinkhorn_barycenters(settings, rows.data(), 25, members.data(), weights.data(), three.data(),
                             n_iter.data(), residual.data(), 3, stop);
        CHECK(one == three);
        for (std::size_t p = 0; p < 25; ++p) {
          double sum = 0;
          for (std::size_t v = 0; v < n; ++v) {
            CHECK(one[p * n + v] >= 0);
            sum += one[p * n + v];
          }
          CHECK(std::fabs(sum - 1) < 1e-12);
          if (debiased && p % 6 == 0 && n > 2)  // both members are the same row
            for (std::size_t v = 0; v < n; ++v)
              CHECK(std::fabs(one[p * n + v] - rows[(p / 5) * n + v]) < 1e-4);
        }
      }
  }
}

CASE(exponentials_and_logarithms) {
  for (const double x : {-700.0, -1.5, 0.0, 1e-9, 3.7, 700.0}) {
    const Lanes y = detail::exp(detail::all(x));
    CHECK(std::fabs(y[3] / std::exp(x) - 1) < 4e-16 * (1 + std::fabs(x)));
    CHECK(std::fabs(detail::log(y)[5] - x) < 1e-15 * (1 + std::fabs(x)));
  }
  CHECK(detail::exp(detail::all(-1e300))[0] == 0.0);
  CHECK(detail::log(Lanes{})[0] == detail::kNothing);
  CHECK(detail::pow2(detail::all(-10.0))[7] == 0x1p-10);
  CHECK(detail::pow2(detail::all(-1e300))[7] == 0.0);
}

int main() { return check::run(); }
