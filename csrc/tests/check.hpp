// The least a test needs: named cases, checks that say where they failed, an exit status.
#pragma once

#include <cmath>
#include <cstdio>
#include <functional>
#include <string>
#include <utility>
#include <vector>

namespace check {

inline int failures = 0;

inline void that(bool good, const char* text, const char* file, int line) {
  if (good) return;
  ++failures;
  std::printf("%s:%d: failed: %s\n", file, line, text);
}

inline std::vector<std::pair<std::string, std::function<void()>>>& cases() {
  static std::vector<std::pair<std::string, std::function<void()>>> all;
  return all;
}

struct Register {
  Register(const char* name, std::function<void()> body) { cases().emplace_back(name, std::move(body)); }
};

inline int run() {
  for (const auto& [name, body] : cases()) {
    const int before = failures;
    body();
    std::printf("%s %s\n", failures == before ? "ok    " : "FAILED", name.c_str());
  }
  return failures == 0 ? 0 : 1;
}

}  // namespace check

#define CHECK(condition) check::that((condition), #condition, __FILE__, __LINE__)
#define CASE(name)                                            \
  static void name();                                         \
  static const check::Register register_##name(#name, &name); \
  static void name()
