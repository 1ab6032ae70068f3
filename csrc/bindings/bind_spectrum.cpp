// Bindings of the 'spectrum' kernels: check, convert, release the GIL, call.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <cstdint>

#include "guard.hpp"
#include "sgdmc/stationary.hpp"

namespace py = pybind11;
using namespace sgdmc::bindings;

namespace {

void check_square(const Array<double>& p) {
  if (p.ndim() != 2 || p.shape(0) != p.shape(1) || p.shape(0) < 1)
    throw py::value_error("P must be square");
}

py::tuple stationary_dense(const Array<double>& p, int n_threads) {
  check_square(p);
  Array<double> pi(p.shape(0));
  const double* x = p.data();
  double* out = pi.mutable_data();
  const std::ptrdiff_t n = p.shape(0);
  const auto bad = without_gil(
      [&](sgdmc::Stop& stop) { return sgdmc::stationary_dense(x, n, out, n_threads, stop); });
  return py::make_tuple(pi, bad);
}

py::tuple stationary_banded(const Array<double>& values, const Array<std::int32_t>& columns,
                            const Array<std::int32_t>& starts, std::int64_t lower, std::int64_t upper,
                            int n_threads) {
  const std::ptrdiff_t n = starts.size() - 1;
  if (n < 1 || columns.size() != values.size() || lower < 0 || upper < 0 || starts.data()[0] != 0 ||
      starts.data()[n] != values.size())
    throw py::value_error("stationary_banded: shapes do not fit");
  for (std::ptrdiff_t i = 0; i < n; ++i)
    if (starts.data()[i] > starts.data()[i + 1])
      throw py::value_error("stationary_banded: row starts decrease");
  Array<double> pi(n);
  const double* x = values.data();
  const std::int32_t *c = columns.data(), *s = starts.data();
  double* out = pi.mutable_data();
  const auto bad = without_gil([&](sgdmc::Stop& stop) {
    return sgdmc::stationary_banded(x, c, s, n, lower, upper, out, n_threads, stop);
  });
  return py::make_tuple(pi, bad);
}

py::tuple absorption_dense(const Array<double>& p, std::int64_t keep, int n_threads) {
  check_square(p);
  const std::ptrdiff_t n = p.shape(0);
  if (keep < 1 || keep > n) throw py::value_error("keep must lie in [1, n]");
  Array<double> result({n, static_cast<std::ptrdiff_t>(keep)});
  const double* x = p.data();
  double* out = result.mutable_data();
  const auto bad = without_gil(
      [&](sgdmc::Stop& stop) { return sgdmc::absorption_dense(x, n, keep, out, n_threads, stop); });
  return py::make_tuple(result, bad);
}

}  // namespace

void register_spectrum(py::module_& module) {
  using namespace py::literals;
  module.def("stationary_dense", &stationary_dense, "p"_a.noconvert(), "n_threads"_a);
  module.def("stationary_banded", &stationary_banded, "values"_a.noconvert(), "columns"_a.noconvert(),
             "starts"_a.noconvert(), "lower"_a, "upper"_a, "n_threads"_a);
  module.def("absorption_dense", &absorption_dense, "p"_a.noconvert(), "keep"_a, "n_threads"_a);
}
