// Bindings of the 'spectrum' kernels: check, convert, release the GIL, call.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstdint>
#include <memory>

#include "guard.hpp"
#include "sgdmc/group_inverse.hpp"
#include "sgdmc/rows.hpp"
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

std::ptrdiff_t check_csr(const Array<double>& values, const Array<std::int32_t>& columns,
                         const Array<std::int32_t>& starts, std::int64_t lower, std::int64_t upper) {
  const std::ptrdiff_t n = starts.size() - 1;
  if (n < 1 || columns.size() != values.size() || lower < 0 || upper < 0 || starts.data()[0] != 0 ||
      starts.data()[n] != values.size() || !std::is_sorted(starts.data(), starts.data() + n + 1))
    throw py::value_error("P is no CSR matrix");
  return n;
}

py::tuple stationary_banded(const Array<double>& values, const Array<std::int32_t>& columns,
                            const Array<std::int32_t>& starts, std::int64_t lower, std::int64_t upper,
                            int n_threads) {
  const std::ptrdiff_t n = check_csr(values, columns, starts, lower, upper);
  Array<double> pi(n);
  const double* x = values.data();
  const std::int32_t *c = columns.data(), *s = starts.data();
  double* out = pi.mutable_data();
  const auto bad = without_gil([&](sgdmc::Stop& stop) {
    return sgdmc::stationary_banded(x, c, s, n, lower, upper, out, n_threads, stop);
  });
  return py::make_tuple(pi, bad);
}

py::tuple group_inverse_krylov(const Array<double>& values, const Array<std::int32_t>& columns,
                               const Array<std::int32_t>& starts, std::int64_t lower, std::int64_t upper,
                               const Array<double>& start, std::int64_t steps, const py::function& enough,
                               int n_threads) {
  const std::ptrdiff_t n = check_csr(values, columns, starts, lower, upper);
  if (start.size() != n || steps < 1) throw py::value_error("start does not fit");
  Array<double> pi(n);
  Array<double> hessenberg({static_cast<std::ptrdiff_t>(steps) + 1, static_cast<std::ptrdiff_t>(steps)});
  const auto basis = std::make_unique_for_overwrite<double[]>(static_cast<std::size_t>((steps + 1) * n));
  std::copy_n(start.data(), n, basis.get());
  const double* x = values.data();
  const std::int32_t *c = columns.data(), *s = starts.data();
  double *h = hessenberg.mutable_data(), *law = pi.mutable_data();
  const auto done = without_gil([&](sgdmc::Stop& stop) -> std::ptrdiff_t {
    const sgdmc::GroupInverse inverse(sgdmc::ReducedBand(x, c, s, n, lower, upper, n_threads, stop), law);
    if (inverse.reduced().bad >= 0) return -1 - inverse.reduced().bad;
    if (!inverse.accurate()) return 0;
    const auto ask = [&](std::ptrdiff_t m) {
      const py::gil_scoped_acquire gil;
      return enough(hessenberg, m).cast<bool>();
    };
    return sgdmc::group_inverse_krylov(inverse, steps, h, basis.get(), ask, stop);
  });
  return py::make_tuple(hessenberg, pi, done);
}

py::tuple check_full_rows(const Array<double>& p, double tolerance) {
  check_square(p);
  const auto found = sgdmc::check_full_rows(p.data(), p.shape(0), tolerance);
  return py::make_tuple(found.good, found.lower, found.upper);
}

py::tuple check_sparse_rows(const Array<double>& values, const Array<std::int32_t>& columns,
                            const Array<std::int32_t>& starts, double tolerance) {
  const std::ptrdiff_t n = check_csr(values, columns, starts, 0, 0);
  const auto found = sgdmc::check_sparse_rows(values.data(), columns.data(), starts.data(), n, tolerance);
  return py::make_tuple(found.good, found.lower, found.upper);
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
  module.def("group_inverse_krylov", &group_inverse_krylov, "values"_a.noconvert(),
             "columns"_a.noconvert(), "starts"_a.noconvert(), "lower"_a, "upper"_a, "start"_a.noconvert(),
             "steps"_a, "enough"_a, "n_threads"_a);
  module.def("check_full_rows", &check_full_rows, "p"_a.noconvert(), "tolerance"_a);
  module.def("check_sparse_rows", &check_sparse_rows, "values"_a.noconvert(), "columns"_a.noconvert(),
             "starts"_a.noconvert(), "tolerance"_a);
  module.def("absorption_dense", &absorption_dense, "p"_a.noconvert(), "keep"_a, "n_threads"_a);
}
