// Bindings of the room 'transport': check, convert, release the GIL, call.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstdint>
#include <vector>

#include "guard.hpp"
#include "sgdmc/barycenter.hpp"

namespace py = pybind11;
using namespace sgdmc::bindings;

namespace {

void check_members(const Array<double>& histograms, const Array<std::int64_t>& members,
                   const Array<double>& weights) {
  if (histograms.ndim() != 2 || members.ndim() != 2 || weights.ndim() != 2 || histograms.shape(1) < 1 ||
      members.shape(1) < 1 || members.shape(0) != weights.shape(0) || members.shape(1) != weights.shape(1))
    throw py::value_error("barycenters: shapes do not fit");
  const std::int64_t* index = members.data();
  if (std::any_of(index, index + members.size(),
                  [&](std::int64_t i) { return i < 0 || i >= histograms.shape(0); }))
    throw py::value_error("barycenters: a member is no histogram");
}

py::tuple sinkhorn_barycenters(const Array<double>& histograms, const Array<std::int64_t>& members,
                               const Array<double>& weights, double reg, bool debiased, double tol,
                               std::int64_t max_iter, int n_threads) {
  check_members(histograms, members, weights);
  const std::size_t n_problems = members.shape(0), n = histograms.shape(1);
  const sgdmc::BarycenterSettings settings{n,        static_cast<std::size_t>(members.shape(1)), reg,
                                           debiased, tol, max_iter};
  Array<double> out({static_cast<py::ssize_t>(n_problems), static_cast<py::ssize_t>(n)});
  Array<std::int64_t> n_iter(static_cast<py::ssize_t>(n_problems));
  Array<double> residual(static_cast<py::ssize_t>(n_problems));
  const double *h = histograms.data(), *w = weights.data();
  const std::int64_t* index = members.data();
  double *result = out.mutable_data(), *error = residual.mutable_data();
  std::int64_t* iterations = n_iter.mutable_data();
  without_gil([&](sgdmc::Stop& stop) {
    sgdmc::sinkhorn_barycenters(settings, h, n_problems, index, w, result, iterations, error, n_threads,
                                stop);
  });
  return py::make_tuple(out, n_iter, residual);
}

Array<double> quantile_barycenters(const Array<double>& histograms, const Array<std::int64_t>& members,
                                   const Array<double>& weights) {
  check_members(histograms, members, weights);
  const std::size_t n_problems = members.shape(0), m = members.shape(1), n = histograms.shape(1);
  Array<double> out({static_cast<py::ssize_t>(n_problems), static_cast<py::ssize_t>(n)});
  const double *h = histograms.data(), *w = weights.data();
  const std::int64_t* index = members.data();
  double* result = out.mutable_data();
  without_gil([&](sgdmc::Stop&) {
    std::vector<const double*> rows(m);
    for (std::size_t p = 0; p < n_problems; ++p) {
      for (std::size_t k = 0; k < m; ++k) rows[k] = h + index[p * m + k] * n;
      sgdmc::quantile_barycenter(rows.data(), w + p * m, m, n, result + p * n);
    }
  });
  return out;
}

}  // namespace

void register_transport(py::module_& module) {
  using namespace py::literals;
  module.def("sinkhorn_barycenters", &sinkhorn_barycenters, "histograms"_a.noconvert(),
             "members"_a.noconvert(), "weights"_a.noconvert(), "reg"_a, "debiased"_a, "tol"_a, "max_iter"_a,
             "n_threads"_a);
  module.def("quantile_barycenters", &quantile_barycenters, "histograms"_a.noconvert(),
             "members"_a.noconvert(), "weights"_a.noconvert());
}
