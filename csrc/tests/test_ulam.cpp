// Ulam's method: rows are laws, every boundary keeps its mass, threads do not matter.
#include "check.hpp"
#include "sgdmc/ulam.hpp"

using namespace sgdmc;

CASE(rows_are_laws) {
  const std::vector<double> records{1, 0.5, 0.7, 0, -1, 0.3, 0.2, 0, 0.4, 2, -3, 0};  // (x0, x1, y, pad)
  const LinearModel<Link::identity, 2> problem{records.data(), 3, 4, 2};
  const std::vector<double> low{-1, -1}, scale{5, 5};
  const std::vector<double> points{0.5, 0.5, 0.1, 0.9, 0.9, 0.1}, weights{1, 1, 2};
  const std::vector<std::uint32_t> batches{0, 1, 1, 2, 2, 0};
  for (const auto boundary : {Boundary::outside, Boundary::reflect, Boundary::clip}) {
    const CellGrid grid{low.data(), scale.data(), 2, 10, boundary};
    Stop stop;
    const auto one = ulam_step(problem, grid, 0.4, 0.1, points.data(), 3, batches.data(), 3, 2,
                               weights.data(), 1, stop);
    const auto four = ulam_step(problem, grid, 0.4, 0.1, points.data(), 3, batches.data(), 3, 2,
                                weights.data(), 4, stop);
    CHECK(one.columns == four.columns);
    CHECK(one.values == four.values);
    CHECK(one.starts.size() == 101);
    for (std::size_t i = 0; i < 100; ++i) {
      double sum = 0;
      for (std::int64_t e = one.starts[i]; e < one.starts[i + 1]; ++e) {
        sum += one.values[e];
        CHECK(one.columns[e] >= 0);
        CHECK(one.columns[e] < (boundary == Boundary::outside ? 101 : 100));
      }
      CHECK(std::fabs(sum - 1) < 1e-14);
    }
  }
}

CASE(folding_and_what_is_not_a_number) {
  const std::vector<double> low{0}, scale{1};
  const double nan = std::nan(""), inf = std::numeric_limits<double>::infinity();
  const CellGrid outside{low.data(), scale.data(), 1, 10, Boundary::outside};
  const CellGrid reflect{low.data(), scale.data(), 1, 10, Boundary::reflect};
  const CellGrid clip{low.data(), scale.data(), 1, 10, Boundary::clip};
  CHECK(outside.bin(10.0, 0) == -1 && outside.bin(-1e-300, 0) == -1 && outside.bin(9.99, 0) == 9);
  CHECK(reflect.bin(-0.5, 0) == 0 && reflect.bin(10.5, 0) == 9 && reflect.bin(20.5, 0) == 0);
  CHECK(reflect.bin(-13.5, 0) == 6 && reflect.bin(1e300, 0) >= 0);
  CHECK(clip.bin(-5, 0) == 0 && clip.bin(inf, 0) == 9 && reflect.bin(-inf, 0) == 0);
  CHECK(clip.bin(nan, 0) == -1 && reflect.bin(nan, 0) == -1);
  const std::vector<double> images{nan, 3.5, 11.0, 3.2}, weights{1, 2};
  Stop stop;
  const auto rows = ulam_count(outside, images.data(), 2, 2, weights.data(), 2, stop);
  CHECK((rows.columns == std::vector<std::int32_t>{3, 10, 3, 10}));
}

int main() { return check::run(); }
