// Digit text: states as zero-padded numbers, ":" between the coordinates of one step, "," after it.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>

#include "parallel.hpp"

namespace sgdmc {

// Writes n numbers of three digits and a comma, each one word of 32 bits.
inline void write_words(const std::int16_t* states, std::size_t n, char* text) {
  dispatch([&](auto) SGDMC_BODY {
    const std::int16_t* from = states;
    char* to = text;
    const std::size_t count = n;
    for (std::size_t i = 0; i < count; ++i) {
      // Divisions by 100 and 10 as multiplications, exact below 1000 and below 100.
      const std::uint32_t s = static_cast<std::uint16_t>(from[i]), hundreds = s * 5243 >> 19 & 0xFF;
      const std::uint32_t rest = s - 100 * hundreds, tens = rest * 103 >> 10 & 0xFF, units = rest - 10 * tens;
      const std::uint32_t word = 0x2C303030u + hundreds + (tens << 8) + (units << 16);
      std::memcpy(to + 4 * i, &word, 4);
    }
  });
}

// Index of the first state outside [0, count), or -1.
inline std::int64_t first_outside(const std::int16_t* states, std::size_t n, unsigned count) {
  std::uint16_t largest = 0;
  dispatch([&](auto) SGDMC_BODY {
    std::uint16_t top = 0;
    for (std::size_t i = 0; i < n; ++i) top = std::max(top, static_cast<std::uint16_t>(states[i]));
    largest = top;
  });
  if (largest < count) return -1;
  std::size_t i = 0;
  while (static_cast<std::uint16_t>(states[i]) < count) ++i;
  return static_cast<std::int64_t>(i);
}

// Returns the index of the first state that has more digits, or -1; the text is meaningful only then.
template <int Digits>
std::int64_t write_digits(const std::int16_t* states, std::size_t n, std::size_t dim, char* text) {
  constexpr int count = Digits == 1 ? 10 : Digits == 2 ? 100 : 1000;
  const std::int64_t bad = first_outside(states, n, count);
  if (bad >= 0) return bad;
  if (Digits == 3 && dim == 1 && std::endian::native == std::endian::little) {
    write_words(states, n, text);
    return -1;
  }
  std::array<std::array<char, 4>, count> table{};
  for (int s = 0; s < count; ++s) {
    int rest = s;
    for (int d = Digits - 1; d >= 0; --d, rest /= 10) table[s][d] = static_cast<char>('0' + rest % 10);
    table[s][Digits] = ',';
  }
  for (std::size_t i = 0; i < n; ++i) {
    const unsigned s = static_cast<std::uint16_t>(states[i]);
    std::memcpy(text + i * (Digits + 1), table[s].data(), Digits + 1);
  }
  if (dim > 1)
    for (std::size_t i = 0; i < n; ++i)
      if ((i + 1) % dim != 0) text[i * (Digits + 1) + Digits] = ':';
  return -1;
}

// Reads n numbers of three digits and a comma, each one word of 32 bits; whether all fit.
inline bool parse_words(const char* text, std::size_t n, std::int16_t* states) {
  bool good = true;
  dispatch([&](auto) SGDMC_BODY {
    std::uint32_t wrong = 0;
    for (std::size_t i = 0; i < n; ++i) {
      std::uint32_t word;
      std::memcpy(&word, text + 4 * i, 4);
      const std::uint32_t digits = word - 0x2C303030u;  // ",000" in the order of a little-endian word
      // No byte may exceed 9, and that of the comma must be 0: adding 0x76 carries into bit 7 beyond 9.
      wrong |= ((digits + 0x00767676u) | digits) & 0xFF808080u;
      states[i] = static_cast<std::int16_t>((digits & 0xFF) * 100 + (digits >> 8 & 0xFF) * 10 + (digits >> 16 & 0xFF));
    }
    good = wrong == 0;
  });
  return good;
}

// Reads n numbers back; returns the index of the first character that does not fit, or -1.
template <int Digits>
std::int64_t parse_digits(const char* text, std::size_t n, std::size_t dim, std::int16_t* states) {
  constexpr int stride = Digits + 1;
  if (Digits == 3 && dim == 1 && std::endian::native == std::endian::little && parse_words(text, n, states))
    return -1;
  bool wrong = false;
  const auto read = [&](std::size_t i, char separator) {
    const char* c = text + i * stride;
    int value = 0;
    bool bad = false;
    for (int d = 0; d < Digits; ++d) {
      const unsigned digit = static_cast<unsigned char>(c[d]) - unsigned{'0'};
      bad |= digit > 9;
      value = value * 10 + static_cast<int>(digit);
    }
    states[i] = static_cast<std::int16_t>(value);
    return bad | (c[Digits] != separator);
  };
  for (std::size_t i = 0, j = 0; i < n; ++i) {
    j = j + 1 == dim ? 0 : j + 1;
    wrong |= read(i, j == 0 ? ',' : ':');
  }
  if (!wrong) return -1;
  for (std::size_t i = 0; i < n; ++i)
    for (int d = 0; d < stride; ++d) {
      const char c = text[i * stride + d];
      const bool fits = d < Digits ? c >= '0' && c <= '9' : c == ((i + 1) % dim == 0 ? ',' : ':');
      if (!fits) return static_cast<std::int64_t>(i * stride + d);
    }
  return -1;
}

}  // namespace sgdmc
