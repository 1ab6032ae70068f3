// Ulam's method: rows of the transition matrix between cells of a product grid, counted from the images
// of points. Cells are numbered with the last coordinate fastest; one more number may stand for outside.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "sgdmc/parallel.hpp"
#include "sgdmc/problems.hpp"

namespace sgdmc {

// What becomes of an image beyond the grid: it goes to an outside state, is folded back at the edge it
// crossed, or takes the last bin on its way.
enum class Boundary { outside = 0, reflect = 1, clip = 2 };

struct CellGrid {
  const double *low, *scale;  // (dim,)
  std::size_t dim;
  std::int64_t n_states;  // on each coordinate
  Boundary boundary;

  std::int64_t n_cells() const {
    std::int64_t n = 1;
    for (std::size_t j = 0; j < dim; ++j) n *= n_states;
    return n;
  }

  // Bin of one coordinate, or -1 outside. Not a number is outside, and never inside.
  SGDMC_INLINE std::int64_t bin(double x, std::size_t j) const {
    double y = (x - low[j]) * scale[j];
    const double n = static_cast<double>(n_states);
    if (y >= 0 && y < n) return static_cast<std::int64_t>(y);
    if (boundary == Boundary::outside || std::isnan(y)) return -1;
    if (boundary == Boundary::reflect && std::isfinite(y)) {
      y = std::fmod(std::fabs(y), 2 * n);
      if (y >= n) y = 2 * n - y;
    }
    return static_cast<std::int64_t>(std::min(std::max(y, 0.0), n - 1));
  }
};

// Sparse rows in the making: a full vector of counts and the list of the cells that have any.
class RowCounter {
 public:
  explicit RowCounter(std::int64_t n) : count_(static_cast<std::size_t>(n), 0.0) {}

  SGDMC_INLINE void add(std::int64_t cell, double weight) {
    double& count = count_[static_cast<std::size_t>(cell)];
    if (count == 0.0) touched_.push_back(static_cast<std::int32_t>(cell));
    count += weight;
  }
  void flush(double total, std::vector<std::int32_t>& columns, std::vector<double>& values) {
    std::sort(touched_.begin(), touched_.end());
    for (const std::int32_t cell : touched_) {
      columns.push_back(cell);
      values.push_back(count_[static_cast<std::size_t>(cell)] / total);
      count_[static_cast<std::size_t>(cell)] = 0.0;
    }
    touched_.clear();
  }

 private:
  std::vector<double> count_;
  std::vector<std::int32_t> touched_;
};

struct SparseRows {
  std::vector<std::int64_t> starts;
  std::vector<std::int32_t> columns;
  std::vector<double> values;
};

// Calls row(counter, cell) for each cell and gathers what it counted, whose sum is `total` a cell.
template <class Row>
SparseRows gather_rows(std::int64_t n_rows, std::int64_t n_columns, double total, int n_threads,
                       Stop& stop, Row&& row) {
  constexpr std::int64_t kBlock = 64;
  struct Part {
    std::vector<std::int32_t> columns;
    std::vector<double> values;
  };
  const std::size_t n_blocks = static_cast<std::size_t>((n_rows + kBlock - 1) / kBlock);
  std::vector<Part> parts(n_blocks);
  SparseRows out;
  out.starts.assign(static_cast<std::size_t>(n_rows) + 1, 0);
  std::vector<RowCounter*> idle;
  std::vector<std::unique_ptr<RowCounter>> counters;
  std::mutex guard;
  parallel_for(n_blocks, n_threads, stop, [&](std::size_t b) {
    RowCounter* counter = nullptr;
    {
      const std::lock_guard<std::mutex> lock(guard);
      if (idle.empty()) {
        counters.push_back(std::make_unique<RowCounter>(n_columns));
        idle.push_back(counters.back().get());
      }
      counter = idle.back();
      idle.pop_back();
    }
    const std::int64_t first = static_cast<std::int64_t>(b) * kBlock;
    for (std::int64_t i = first; i < std::min(first + kBlock, n_rows); ++i) {
      row(*counter, i);
      counter->flush(total, parts[b].columns, parts[b].values);
      out.starts[static_cast<std::size_t>(i) + 1] = static_cast<std::int64_t>(parts[b].columns.size());
    }
    const std::lock_guard<std::mutex> lock(guard);
    idle.push_back(counter);
  });
  std::int64_t before = 0;
  for (std::size_t b = 0; b < n_blocks; ++b) {
    const std::size_t first = b * kBlock;
    for (std::size_t i = first; i < std::min<std::size_t>(first + kBlock, n_rows); ++i)
      out.starts[i + 1] += before;
    before += static_cast<std::int64_t>(parts[b].columns.size());
  }
  out.columns.reserve(static_cast<std::size_t>(before));
  out.values.reserve(static_cast<std::size_t>(before));
  for (Part& part : parts) {
    out.columns.insert(out.columns.end(), part.columns.begin(), part.columns.end());
    out.values.insert(out.values.end(), part.values.begin(), part.values.end());
    part = Part();
  }
  return out;
}

SGDMC_INLINE std::int64_t cell_of(const CellGrid& grid, const double* x, std::size_t stride) {
  std::int64_t cell = 0;
  for (std::size_t j = 0; j < grid.dim; ++j) {
    const std::int64_t bin = grid.bin(x[j * stride], j);
    if (bin < 0) return grid.n_cells();
    cell = cell * grid.n_states + bin;
  }
  return cell;
}

// Rows counted from given images, (n_rows, n_images, dim), each with its weight (n_images,).
inline SparseRows ulam_count(const CellGrid& grid, const double* images, std::int64_t n_rows,
                             std::size_t n_images, const double* weights, int n_threads, Stop& stop) {
  double total = 0.0;
  for (std::size_t i = 0; i < n_images; ++i) total += weights[i];
  return gather_rows(n_rows, grid.n_cells() + 1, total, n_threads, stop,
                     [&](RowCounter& counter, std::int64_t row) {
                       const double* x = images + static_cast<std::size_t>(row) * n_images * grid.dim;
                       for (std::size_t i = 0; i < n_images; ++i)
                         counter.add(cell_of(grid, x + i * grid.dim, 1), weights[i]);
                     });
}

// Rows counted from one step of SGD with each of `n_batches` batches (n_batches, batch_size), from each
// of `n_points` points of each cell, given by their place in it (n_points, dim), in [0, 1).
template <class Problem>
SparseRows ulam_step(const Problem& problem, const CellGrid& grid, double step_size, double l2,
                     const double* points, std::size_t n_points, const std::uint32_t* batches,
                     std::size_t n_batches, std::size_t batch_size, const double* weights, int n_threads,
                     Stop& stop) {
  constexpr int W = 8;
  using D = typename Simd<W>::D;
  const std::size_t dim = grid.dim;
  const double rate = step_size / static_cast<double>(batch_size), decay = step_size * l2;
  double total = 0.0;
  for (std::size_t i = 0; i < n_batches; ++i) total += weights[i];
  const auto row = [&](RowCounter& counter, std::int64_t cell) {
    struct alignas(64) Line {
      double value[W];
    };
    std::vector<Line> memory(3 * dim);
    D* const theta = reinterpret_cast<D*>(memory.data());
    D *const gradient = theta + dim, *const image = gradient + dim;
    for (std::size_t first = 0; first < n_points; first += W) {
      const std::size_t lanes = std::min<std::size_t>(W, n_points - first);
      std::int64_t rest = cell;
      for (std::size_t j = dim; j-- > 0; rest /= grid.n_states) {
        const double bin = static_cast<double>(rest % grid.n_states), width = 1.0 / grid.scale[j];
        for (std::size_t l = 0; l < W; ++l)
          theta[j][l] = grid.low[j] + (bin + points[(first + std::min(l, lanes - 1)) * dim + j]) * width;
      }
      for (std::size_t k = 0; k < n_batches; ++k) {
        dispatch([&](auto) SGDMC_BODY {
          for (std::size_t j = 0; j < dim; ++j) gradient[j] = D{};
          for (std::size_t i = 0; i < batch_size; ++i) {
            std::uint32_t sample[W];
            std::fill(sample, sample + W, batches[k * batch_size + i]);
            problem.template add<W, 1>(sample, theta, gradient);
          }
          for (std::size_t j = 0; j < dim; ++j) {
            const D g = decay != 0.0 ? rate * gradient[j] + decay * theta[j] : rate * gradient[j];
            image[j] = theta[j] - g;
          }
        });
        const double* x = reinterpret_cast<const double*>(image);
        for (std::size_t l = 0; l < lanes; ++l) counter.add(cell_of(grid, x + l, W), weights[k]);
      }
    }
  };
  return gather_rows(grid.n_cells(), grid.n_cells() + 1, total * static_cast<double>(n_points),
                     n_threads, stop, row);
}

}  // namespace sgdmc
