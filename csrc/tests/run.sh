#!/bin/sh
# Builds and runs the core's own tests under ASan + UBSan, then under TSan.
set -eu
cd "$(dirname "$0")/../.."
for sanitizers in address,undefined thread; do
  build="build/core-$(echo "$sanitizers" | tr ',' '-')"
  cmake -S . -B "$build" -DSGDMC_BUILD_PYTHON=OFF -DSGDMC_BUILD_TESTS=ON \
    -DSGDMC_SANITIZE="$sanitizers" > /dev/null
  cmake --build "$build" --parallel "${SGDMC_TEST_JOBS:-2}" > "$build/build.log" 2>&1 ||
    { cat "$build/build.log"; exit 1; }
  ctest --test-dir "$build" --output-on-failure
done
