// The generator and the elementary functions: known answers, uniformity, the same at every width.
#include <array>

#include "check.hpp"
#include "sgdmc/elementary.hpp"
#include "sgdmc/random.hpp"

using namespace sgdmc;

__extension__ typedef unsigned __int128 Wide;

CASE(draws_are_a_function_of_seed_chain_and_counter) {
  std::vector<std::uint64_t> all(1000), part(10);
  random_bits(3, 5, 0, all.size(), all.data());
  random_bits(3, 5, 500, part.size(), part.data());
  CHECK(std::equal(part.begin(), part.end(), all.begin() + 500));
  random_bits(3, 6, 500, part.size(), part.data());
  CHECK(!std::equal(part.begin(), part.end(), all.begin() + 500));
}

CASE(bounded_is_the_high_half_of_the_product) {
  std::vector<std::uint64_t> bits(1000);
  random_bits(1, 0, 0, bits.size(), bits.data());
  bits[0] = 0;
  bits[1] = ~std::uint64_t{0};
  for (std::uint64_t bound : {std::uint64_t{1}, std::uint64_t{7}, std::uint64_t{1} << 32})
    for (std::uint64_t z : bits) {
      const auto exact = static_cast<std::uint64_t>(static_cast<Wide>(z) * bound >> 64);
      CHECK(bounded(z, bound) == exact);
    }
}

CASE(bounded_is_uniform) {
  constexpr int n = 10, draws = 1000000;
  std::array<double, n> count{};
  std::vector<std::uint64_t> bits(draws);
  random_bits(2, 1, 0, draws, bits.data());
  for (std::uint64_t z : bits) count[bounded(z, std::uint64_t{n})] += 1;
  double chi2 = 0;
  for (double c : count) chi2 += (c - draws / n) * (c - draws / n) / (draws / n);
  CHECK(chi2 < 27.9);  // 0.999 quantile at 9 degrees of freedom
}

CASE(sine_cosine_and_logistic_are_right_and_alike_at_every_width) {
  std::vector<double> x;
  for (int i = -4001; i <= 4001; ++i) x.push_back(i * 0.37);
  for (double v : {0.0, -0.0, 1e-300, 1e6, -1e6, 0x1p50}) x.push_back(v);
  const std::size_t n = x.size();
  std::vector<double> first_s(n), first_c(n), first_l(n), s(n), c(n), l(n);
  for (int limit : {512, 256, 128}) {
    simd_limit() = limit;
    sine_cosine(x.data(), n, s.data(), c.data());
    logistic(x.data(), n, l.data());
    if (limit == 512) first_s = s, first_c = c, first_l = l;
    CHECK(s == first_s && c == first_c && l == first_l);
  }
  simd_limit() = 512;
  for (std::size_t i = 0; i + 1 < n; ++i) {
    CHECK(std::fabs(s[i] - std::sin(x[i])) <= 3e-16 * std::fabs(std::sin(x[i])) + 1e-300);
    CHECK(std::fabs(c[i] - std::cos(x[i])) <= 3e-16 * std::fabs(std::cos(x[i])));
    const double exact = 1.0 / (1.0 + std::exp(-std::fmax(std::fmin(x[i], 708.0), -708.0)));
    CHECK(std::fabs(l[i] - exact) <= 6e-16 * exact);
  }
}

CASE(sine_of_what_is_no_angle_is_nan) {
  const double x[] = {0x1.1p50, -INFINITY, NAN};
  double s[3], c[3];
  sine_cosine(x, 3, s, c);
  for (int i = 0; i < 3; ++i) CHECK(std::isnan(s[i]) && std::isnan(c[i]));
}

int main() { return check::run(); }
