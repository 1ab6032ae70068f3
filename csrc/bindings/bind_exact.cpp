// Bindings of Ulam's method: check, convert, release the GIL, call.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <string>

#include "guard.hpp"
#include "sgdmc/ulam.hpp"
#include "with_problem.hpp"

namespace py = pybind11;
using namespace sgdmc::bindings;

namespace {

sgdmc::CellGrid grid_of(const Array<double>& low, const Array<double>& scale, std::int64_t n_states,
                        int boundary) {
  if (low.ndim() != 1 || scale.ndim() != 1 || low.size() != scale.size() || low.size() < 1 ||
      n_states < 1 || boundary < 0 || boundary > 2)
    throw py::value_error("ulam: the grid does not fit");
  double cells = 1;
  for (py::ssize_t j = 0; j < low.size(); ++j) cells *= static_cast<double>(n_states);
  if (cells > 2e9) throw py::value_error("ulam: the grid has more than 2e9 cells");
  return {low.data(), scale.data(), static_cast<std::size_t>(low.size()), n_states,
          static_cast<sgdmc::Boundary>(boundary)};
}

py::tuple as_tuple(const sgdmc::SparseRows& rows) {
  Array<std::int64_t> starts(static_cast<py::ssize_t>(rows.starts.size()));
  Array<std::int32_t> columns(static_cast<py::ssize_t>(rows.columns.size()));
  Array<double> values(static_cast<py::ssize_t>(rows.values.size()));
  std::copy(rows.starts.begin(), rows.starts.end(), starts.mutable_data());
  std::copy(rows.columns.begin(), rows.columns.end(), columns.mutable_data());
  std::copy(rows.values.begin(), rows.values.end(), values.mutable_data());
  return py::make_tuple(starts, columns, values);
}

py::tuple ulam_count(const Array<double>& images, const Array<double>& weights, const Array<double>& low,
                     const Array<double>& scale, std::int64_t n_states, int boundary, int n_threads) {
  const auto grid = grid_of(low, scale, n_states, boundary);
  if (images.ndim() != 3 || weights.size() != images.shape(1) || images.shape(2) != low.size())
    throw py::value_error("ulam_count: shapes do not fit");
  const double *x = images.data(), *w = weights.data();
  const std::int64_t n_rows = images.shape(0);
  const std::size_t n_images = images.shape(1);
  return as_tuple(without_gil([&](sgdmc::Stop& stop) {
    return sgdmc::ulam_count(grid, x, n_rows, n_images, w, n_threads, stop);
  }));
}

py::tuple ulam_step(const std::string& kind, const Array<double>& records, double l2, double step_size,
                    const Array<double>& points, const Array<std::uint32_t>& batches,
                    const Array<double>& weights, const Array<double>& low, const Array<double>& scale,
                    std::int64_t n_states, int boundary, int n_threads) {
  const auto grid = grid_of(low, scale, n_states, boundary);
  if (records.ndim() != 2 || points.ndim() != 2 || points.shape(1) != low.size() || batches.ndim() != 2 ||
      points.shape(0) < 1 || batches.shape(0) < 1 || batches.shape(1) < 1 ||
      weights.size() != batches.shape(0))
    throw py::value_error("ulam_step: shapes do not fit");
  const std::uint32_t* samples = batches.data();
  if (std::any_of(samples, samples + batches.size(), [&](std::uint32_t i) { return i >= records.shape(0); }))
    throw py::value_error("ulam_step: a batch names no sample");
  sgdmc::SparseRows rows;
  with_problem(kind, records.data(), records.shape(0), records.shape(1), grid.dim, [&](const auto& problem) {
    rows = without_gil([&](sgdmc::Stop& stop) {
      return sgdmc::ulam_step(problem, grid, step_size, l2, points.data(), points.shape(0), samples,
                              batches.shape(0), batches.shape(1), weights.data(), n_threads, stop);
    });
  });
  return as_tuple(rows);
}

}  // namespace

void register_exact(py::module_& module) {
  using namespace py::literals;
  module.def("ulam_count", &ulam_count, "images"_a.noconvert(), "weights"_a, "low"_a, "scale"_a,
             "n_states"_a, "boundary"_a, "n_threads"_a);
  module.def("ulam_step", &ulam_step, "kind"_a, "records"_a.noconvert(), "l2"_a, "step_size"_a,
             "points"_a.noconvert(), "batches"_a.noconvert(), "weights"_a, "low"_a, "scale"_a,
             "n_states"_a, "boundary"_a, "n_threads"_a);
}
