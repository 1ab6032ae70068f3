// A counter-based generator: draw (seed, chain, counter) is a pure function, so that results depend
// neither on the number of threads, nor on the order of blocks, nor on the width of vectors.
//
// It is splitmix64 (Steele, Lea, Flood 2014) with two keys a chain: one offsets the Weyl sequence, one
// is mixed in between the two multiplications, so that chains whose sequences overlap still differ.
#pragma once

#include <bit>
#include <cstdint>
#include <vector>

#include "parallel.hpp"

namespace sgdmc {

inline constexpr std::uint64_t kWeyl = 0x9E3779B97F4A7C15u;
inline constexpr std::uint64_t kMix1 = 0xBF58476D1CE4E5B9u;
inline constexpr std::uint64_t kMix2 = 0x94D049BB133111EBu;

SGDMC_INLINE constexpr std::uint64_t mix64(std::uint64_t z) {
  z = (z ^ (z >> 30)) * kMix1;
  z = (z ^ (z >> 27)) * kMix2;
  return z ^ (z >> 31);
}

struct Key {
  std::uint64_t offset, twist;
};

SGDMC_INLINE constexpr Key key_of(std::uint64_t seed, std::uint64_t chain) {
  const std::uint64_t base = mix64(seed + kWeyl);
  return {mix64(base + (2 * chain + 1) * kWeyl), mix64(base + (2 * chain + 2) * kWeyl)};
}

// 64 uniform bits; `U` is std::uint64_t or a vector of them.
template <class U>
SGDMC_INLINE U draw_bits(U offset, U twist, std::uint64_t counter) {
  U z = offset + counter * kWeyl;
  z = (z ^ (z >> 30)) * kMix1 ^ twist;
  z = (z ^ (z >> 27)) * kMix2;
  return z ^ (z >> 31);
}

// Uniform integer in [0, bound), bound <= 2^32, by the high half of bits * bound: each value has
// probability 1/bound up to a relative error of bound * 2^-64. Written with products of 32 bits.
template <class U>
SGDMC_INLINE U bounded(U bits, std::uint64_t bound) {
  return ((bits >> 32) * bound + (((bits & 0xFFFFFFFFu) * bound) >> 32)) >> 32;
}

// Draws `first` to `first + n - 1` of one chain.
inline void random_bits(std::uint64_t seed, std::uint64_t chain, std::uint64_t first, std::size_t n,
                        std::uint64_t* out) {
  const Key key = key_of(seed, chain);
  dispatch([&](auto) SGDMC_BODY {
    // Copies, since what is written could else be what the lambda refers to.
    const std::uint64_t a = key.offset, b = key.twist, from = first;
    std::uint64_t* const to = out;
    const std::size_t count = n;
    for (std::size_t i = 0; i < count; ++i) to[i] = draw_bits(a, b, from + i);
  });
}

}  // namespace sgdmc
