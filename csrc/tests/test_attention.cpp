// Attention to a shared context and along a tree, against the definition in double precision.
#include <cstring>

#include "check.hpp"
#include "sgdmc/attention.hpp"
#include "sgdmc/random.hpp"

using namespace sgdmc;

// Random queries, keys and values, heads and rows of which lie apart, and a random forest.
struct Example {
  std::ptrdiff_t n_heads, n_key_heads, n_queries, width, n_context;
  bool own;
  std::vector<float> query, key, value;
  std::vector<std::int64_t> seen, parents;

  Example(std::ptrdiff_t heads, std::ptrdiff_t key_heads, std::ptrdiff_t queries, std::ptrdiff_t w,
          std::ptrdiff_t context, bool tree)
      : n_heads(heads), n_key_heads(key_heads), n_queries(queries), width(w), n_context(context), own(tree) {
    fill(query, n_queries * n_heads * (width + 3), 1);
    fill(key, n_key_heads * (rows() + 2) * width, 2);
    fill(value, n_key_heads * (rows() + 1) * (width + 5), 3);
    for (std::ptrdiff_t i = 0; i < n_queries; ++i) {
      seen.push_back(1 + i * (n_context - 1) / n_queries);
      if (own) parents.push_back(i % 5 == 0 ? -1 : i % 5 == 3 ? i - 3 : i - 1);
    }
  }
  std::ptrdiff_t rows() const { return (own ? n_queries : 0) + n_context; }
  static void fill(std::vector<float>& x, std::size_t n, std::uint64_t seed) {
    std::vector<std::uint64_t> bits(n);
    random_bits(seed, 1, 0, n, bits.data());
    for (const std::uint64_t b : bits) x.push_back(4 * (static_cast<float>(b >> 40) * 0x1p-24f) - 2);
  }
  Attention given() const {
    const float scale = 1.0f / std::sqrt(static_cast<float>(width));
    return {query.data(),          key.data(),
            value.data(),          width + 3,
            n_heads * (width + 3), (rows() + 2) * width,
            width,                 (rows() + 1) * (width + 5),
            width + 5,             n_heads,
            n_key_heads,           n_queries,
            width,                 own ? n_queries : 0,
            seen.data(),           parents.data(),
            scale};
  }
  std::vector<float> run(int n_threads) const {
    std::vector<float> out(n_queries * n_heads * width);
    Stop stop;
    attend(given(), out.data(), n_threads, stop);
    return out;
  }
  std::vector<double> plain() const {
    const Attention g = given();
    std::vector<double> out;
    for (std::ptrdiff_t i = 0; i < n_queries; ++i)
      for (std::ptrdiff_t h = 0; h < n_heads; ++h) {
        const std::ptrdiff_t group = h / (n_heads / n_key_heads);
        std::vector<std::ptrdiff_t> sees;
        for (std::ptrdiff_t k = 0; k < seen[i]; ++k) sees.push_back(g.n_own + k);
        for (std::ptrdiff_t k = own ? i : -1; k >= 0; k = parents[k]) sees.push_back(k);
        std::vector<double> mean(width, 0.0);
        double total = 0;
        for (const std::ptrdiff_t k : sees) {
          double score = 0;
          for (std::ptrdiff_t d = 0; d < width; ++d)
            score += static_cast<double>(g.query[h * g.query_head + i * g.query_row + d]) *
                     g.key[group * g.key_head + k * g.key_row + d];
          const double weight = std::exp(static_cast<double>(g.scale) * score);
          total += weight;
          for (std::ptrdiff_t d = 0; d < width; ++d)
            mean[d] += weight * g.value[group * g.value_head + k * g.value_row + d];
        }
        for (const double x : mean) out.push_back(x / total);
      }
    return out;
  }
};

template <class Body>
void with_simd_limit(int bits, Body&& body) {
  const int limit = std::exchange(simd_limit(), bits);
  body();
  simd_limit() = limit;
}

CASE(attention_is_what_the_definition_says) {
  for (const bool own : {false, true})
    for (const std::ptrdiff_t n : {1, 16, 17, 48, 100})
      for (const auto& [heads, key_heads] : {std::pair{1, 1}, {4, 2}})
        for (const std::ptrdiff_t width : {8, 24, 64})
          for (const std::ptrdiff_t context : {1, 7, 64, 150}) {
            const Example example(heads, key_heads, n, width, context, own);
            const auto wanted = example.plain();
            for (const int bits : {128, 256, 512})
              with_simd_limit(bits, [&] {
                const auto got = example.run(1);
                double worst = 0;
                for (std::size_t i = 0; i < got.size(); ++i)
                  worst = std::max(worst, std::fabs(got[i] - wanted[i]));
                CHECK(worst < 3e-6);
              });
          }
}

CASE(attention_is_the_same_to_the_bit_for_all_threads_and_with_fused_multiply_adds) {
  const Example example(4, 2, 300, 32, 500, true);  // enough for three threads
  const auto wanted = example.run(1);
  const auto same = [&](const std::vector<float>& other) {
    return std::memcmp(wanted.data(), other.data(), wanted.size() * sizeof(float)) == 0;
  };
  CHECK(same(example.run(3)));
  if (simd_width() > 128) with_simd_limit(256, [&] { CHECK(same(example.run(2))); });
}

CASE(scores_far_apart_do_no_harm) {
  Example example(1, 1, 20, 16, 130, true);
  for (float& x : example.query) x *= 300;
  for (const int bits : {128, 256, 512})
    with_simd_limit(bits, [&] {
      for (const float x : example.run(1)) CHECK(std::fabs(x) <= 2.000001f);
    });
}

int main() { return check::run(); }
