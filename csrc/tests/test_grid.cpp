// Discretisation and digit text against the definition, one value at a time.
#include <cstring>
#include <string>
#include <vector>

#include "check.hpp"
#include "sgdmc/grid.hpp"
#include "sgdmc/random.hpp"
#include "sgdmc/text.hpp"

using namespace sgdmc;

static std::vector<double> numbers(std::size_t n) {
  std::vector<std::uint64_t> bits(n);
  random_bits(7, 0, 0, n, bits.data());
  std::vector<double> values(n);
  for (std::size_t i = 0; i < n; ++i) values[i] = static_cast<double>(bits[i] >> 11) * 0x1p-51 - 1.0;
  return values;
}

CASE(states_follow_the_definition_at_every_width) {
  for (int limit : {512, 256, 128}) {
    simd_limit() = limit;
    for (std::size_t dim : {1, 2, 3, 33})
      for (std::size_t rows : {0, 1, 17, 2000}) {
        const auto x = numbers(rows * dim);
        std::vector<double> low(dim), scale(dim);
        for (std::size_t j = 0; j < dim; ++j) low[j] = 0.01 * static_cast<double>(j), scale[j] = 50.0 - static_cast<double>(j);
        std::vector<std::int16_t> s(rows * dim);
        Stop stop;
        CHECK(encode(x.data(), rows, dim, low.data(), scale.data(), 100, s.data(), 2, stop) == -1);
        bool same = true;
        for (std::size_t i = 0; i < x.size(); ++i) {
          const double v = std::floor((x[i] - low[i % dim]) * scale[i % dim]);
          same &= s[i] == std::fmin(std::fmax(v, 0.0), 99.0);
        }
        CHECK(same);
      }
  }
  simd_limit() = 512;
}

CASE(extremes_and_the_first_bad_entry) {
  auto x = numbers(30000);
  double low[2], high[2];
  Stop stop;
  CHECK(min_max(x.data(), 15000, 2, low, high, 2, stop) == -1);
  for (std::size_t i = 0; i < x.size(); ++i) CHECK(x[i] >= low[i % 2] && x[i] <= high[i % 2]);
  x[29999] = INFINITY;
  x[20001] = NAN;
  CHECK(min_max(x.data(), 15000, 2, low, high, 2, stop) == 20001);
  std::vector<std::int16_t> s(x.size());
  const double scale[2] = {1.0, 1.0};
  CHECK(encode(x.data(), 15000, 2, low, scale, 10, s.data(), 2, stop) == 20001);
}

CASE(text_goes_both_ways) {
  const std::int16_t states[] = {0, 9, 10, 99, 100, 999};
  char text[24];
  CHECK(write_digits<3>(states, 6, 2, text) == -1);
  CHECK(std::string(text, 24) == "000:009,010:099,100:999,");
  std::int16_t back[6];
  CHECK(parse_digits<3>(text, 6, 2, back) == -1);
  CHECK(std::memcmp(states, back, sizeof states) == 0);
  text[5] = 'x';
  CHECK(parse_digits<3>(text, 6, 2, back) == 5);
  CHECK(parse_digits<3>("000,", 1, 2, back) == 3);
  const std::int16_t outside[] = {5, 99, 100, -1};
  CHECK(write_digits<3>(outside, 4, 2, text) == 3);
  CHECK(write_digits<2>(outside, 4, 1, text) == 2);
}

CASE(words_of_three_digits_at_every_width) {
  for (int limit : {512, 256, 128}) {
    simd_limit() = limit;
    for (std::size_t n : {1, 15, 16, 17, 31, 33, 1000}) {
      std::vector<std::int16_t> states(n), back(n);
      for (std::size_t i = 0; i < n; ++i) states[i] = static_cast<std::int16_t>(n == 1000 ? i : 997 * i % 1000);
      std::string text(4 * n, ' '), expected;
      for (const int s : states) expected += std::to_string(1000 + s).substr(1) + ",";
      CHECK(write_digits<3>(states.data(), n, 1, text.data()) == -1);
      CHECK(text == expected);
      CHECK(parse_digits<3>(text.data(), n, 1, back.data()) == -1);
      CHECK(back == states);
    }
    // Every character in every place of a number, in vectors and behind them: what does not fit is found.
    for (std::size_t i : {0, 3, 31, 32})
      for (int place = 0; place < 4; ++place)
        for (int c = 0; c < 256; ++c) {
          std::string text;
          for (int k = 0; k < 33; ++k) text += "042,";
          text[4 * i + place] = static_cast<char>(c);
          std::int16_t back[33];
          const bool fits = place < 3 ? c >= '0' && c <= '9' : c == ',';
          const auto bad = parse_digits<3>(text.data(), 33, 1, back);
          CHECK(bad == (fits ? -1 : static_cast<std::int64_t>(4 * i + place)));
          if (fits) CHECK(back[i] == std::stoi(text.substr(4 * i, 3)));
        }
  }
  simd_limit() = 512;
}

int main() { return check::run(); }
