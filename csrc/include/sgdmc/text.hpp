// Digit text: states as zero-padded numbers, ":" between the coordinates of one step, "," after it.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cstdint>
#include <cstring>

#include "intrinsics.hpp"
#include "parallel.hpp"

namespace sgdmc {

// Numbers of three digits and a comma are words of 32 bits, the hundreds in the lowest byte.
inline constexpr std::uint32_t kZeroWord = 0x2C303030;  // "000,"

#ifdef SGDMC_HAS_DISPATCH
// The words of n states, a multiple of 32. Divisions by 100 and 10 are multiplications, exact below 1000 and
// below 100; a word is two halves, hundreds and tens, units and comma.
SGDMC_AVX512 inline void write_words_512(const std::int16_t* states, std::size_t n, char* text) {
  const __m512i zeros = _mm512_set1_epi16(kZeroWord & 0xFFFF), comma = _mm512_set1_epi16(kZeroWord >> 16);
  const __m512i first = _mm512_setr_epi64(0, 1, 8, 9, 2, 3, 10, 11);
  const __m512i second = _mm512_setr_epi64(4, 5, 12, 13, 6, 7, 14, 15);
  for (std::size_t i = 0; i < n; i += 32) {
    const __m512i s = _mm512_loadu_si512(states + i);
    const __m512i hundreds = _mm512_srli_epi16(_mm512_mulhi_epu16(s, _mm512_set1_epi16(5243)), 3);
    const __m512i rest = _mm512_sub_epi16(s, _mm512_mullo_epi16(hundreds, _mm512_set1_epi16(100)));
    const __m512i tens = _mm512_mulhi_epu16(rest, _mm512_set1_epi16(6554));
    const __m512i units = _mm512_sub_epi16(rest, _mm512_mullo_epi16(tens, _mm512_set1_epi16(10)));
    const __m512i front = _mm512_add_epi16(_mm512_add_epi16(hundreds, _mm512_slli_epi16(tens, 8)), zeros);
    const __m512i back = _mm512_add_epi16(units, comma);
    const __m512i low = _mm512_unpacklo_epi16(front, back), high = _mm512_unpackhi_epi16(front, back);
    _mm512_storeu_si512(text + 4 * i, _mm512_permutex2var_epi64(low, first, high));
    _mm512_storeu_si512(text + 4 * i + 64, _mm512_permutex2var_epi64(low, second, high));
  }
}

// The same for a multiple of 16.
SGDMC_AVX2 inline void write_words_256(const std::int16_t* states, std::size_t n, char* text) {
  const __m256i zeros = _mm256_set1_epi16(kZeroWord & 0xFFFF), comma = _mm256_set1_epi16(kZeroWord >> 16);
  for (std::size_t i = 0; i < n; i += 16) {
    const __m256i s = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(states + i));
    const __m256i hundreds = _mm256_srli_epi16(_mm256_mulhi_epu16(s, _mm256_set1_epi16(5243)), 3);
    const __m256i rest = _mm256_sub_epi16(s, _mm256_mullo_epi16(hundreds, _mm256_set1_epi16(100)));
    const __m256i tens = _mm256_mulhi_epu16(rest, _mm256_set1_epi16(6554));
    const __m256i units = _mm256_sub_epi16(rest, _mm256_mullo_epi16(tens, _mm256_set1_epi16(10)));
    const __m256i front = _mm256_add_epi16(_mm256_add_epi16(hundreds, _mm256_slli_epi16(tens, 8)), zeros);
    const __m256i back = _mm256_add_epi16(units, comma);
    const __m256i low = _mm256_unpacklo_epi16(front, back), high = _mm256_unpackhi_epi16(front, back);
    auto* const to = reinterpret_cast<__m256i*>(text + 4 * i);
    _mm256_storeu_si256(to, _mm256_permute2x128_si256(low, high, 0x20));
    _mm256_storeu_si256(to + 1, _mm256_permute2x128_si256(low, high, 0x31));
  }
}

// The states of n words, a multiple of 16; whether all fit. Less "000,", which is an exclusive or for bytes
// that fit, no byte may exceed 9 9 9 0; products with 100 10 1 0 are added two by two.
SGDMC_AVX512 inline bool parse_words_512(const char* text, std::size_t n, std::int16_t* states) {
  const __m512i zero = _mm512_set1_epi32(kZeroWord), most = _mm512_set1_epi32(0x00090909);
  const __m512i places = _mm512_set1_epi32(0x00010A64), ones = _mm512_set1_epi16(1);
  __mmask64 wrong = 0;
  for (std::size_t i = 0; i < n; i += 16) {
    const __m512i digits = _mm512_xor_si512(_mm512_loadu_si512(text + 4 * i), zero);
    wrong |= _mm512_cmpgt_epu8_mask(digits, most);
    const __m512i s = _mm512_madd_epi16(_mm512_maddubs_epi16(digits, places), ones);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(states + i), _mm512_cvtepi32_epi16(s));
  }
  return wrong == 0;
}

SGDMC_AVX2 inline bool parse_words_256(const char* text, std::size_t n, std::int16_t* states) {
  const __m256i zero = _mm256_set1_epi32(kZeroWord), most = _mm256_set1_epi32(0x00090909);
  const __m256i places = _mm256_set1_epi32(0x00010A64), ones = _mm256_set1_epi16(1);
  __m256i excess = _mm256_setzero_si256();
  for (std::size_t i = 0; i < n; i += 16) {
    __m256i s[2];
    for (int k = 0; k < 2; ++k) {
      const auto* from = reinterpret_cast<const __m256i*>(text + 4 * i + 32 * k);
      const __m256i digits = _mm256_xor_si256(_mm256_loadu_si256(from), zero);
      excess = _mm256_or_si256(excess, _mm256_subs_epu8(digits, most));
      s[k] = _mm256_madd_epi16(_mm256_maddubs_epi16(digits, places), ones);
    }
    const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(s[0], s[1]), 0xD8);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(states + i), packed);
  }
  return _mm256_testz_si256(excess, excess) != 0;
}
#endif

// Writes n numbers of three digits and a comma.
inline void write_words(const std::int16_t* states, std::size_t n, char* text) {
  std::size_t i = 0;
#ifdef SGDMC_HAS_DISPATCH
  const int width = simd_width();
  if (width == 512) write_words_512(states, i = n & ~std::size_t{31}, text);
  if (width == 256) write_words_256(states, i = n & ~std::size_t{15}, text);
#endif
  for (; i < n; ++i) {
    const std::uint32_t s = static_cast<std::uint16_t>(states[i]), hundreds = s / 100, tens = s / 10 % 10;
    const std::uint32_t word = kZeroWord + hundreds + (tens << 8) + (s % 10 << 16);
    std::memcpy(text + 4 * i, &word, 4);
  }
}

// Reads n numbers of three digits and a comma; whether all fit.
inline bool parse_words(const char* text, std::size_t n, std::int16_t* states) {
  std::size_t i = 0;
  bool good = true;
#ifdef SGDMC_HAS_DISPATCH
  const int width = simd_width();
  if (width == 512) good = parse_words_512(text, i = n & ~std::size_t{15}, states);
  if (width == 256) good = parse_words_256(text, i = n & ~std::size_t{15}, states);
#endif
  std::uint32_t wrong = 0;
  for (; i < n; ++i) {
    std::uint32_t word;
    std::memcpy(&word, text + 4 * i, 4);
    const std::uint32_t digits = word ^ kZeroWord;
    // No byte may exceed 9, and that of the comma must be 0: adding 0x76 carries into bit 7 beyond 9.
    wrong |= (((digits & 0x007F7F7Fu) + 0x00767676u) | digits) & 0xFF808080u;
    states[i] = static_cast<std::int16_t>((digits & 0xFF) * 100 + (digits >> 8 & 0xFF) * 10 + (digits >> 16 & 0xFF));
  }
  return good && wrong == 0;
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
