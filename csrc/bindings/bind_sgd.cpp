// Bindings of SGD, the generator and the elementary functions: check, convert, release the GIL, call.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>

#include "guard.hpp"
#include "sgdmc/sgd.hpp"
#include "with_problem.hpp"

namespace py = pybind11;
using namespace sgdmc::bindings;

namespace {

Array<std::uint64_t> random_bits(std::uint64_t seed, std::uint64_t chain, std::uint64_t first,
                                 std::size_t n) {
  Array<std::uint64_t> out(static_cast<py::ssize_t>(n));
  sgdmc::random_bits(seed, chain, first, n, out.mutable_data());
  return out;
}

py::tuple sine_cosine(const Array<double>& x) {
  Array<double> s(x.size()), c(x.size());
  sgdmc::sine_cosine(x.data(), x.size(), s.mutable_data(), c.mutable_data());
  return py::make_tuple(s, c);
}

Array<double> logistic(const Array<double>& x) {
  Array<double> out(x.size());
  sgdmc::logistic(x.data(), x.size(), out.mutable_data());
  return out;
}

py::tuple run_sgd(const std::string& kind, const Array<double>& records, double l2,
                  const Array<double>& start, double step_size, std::size_t n_steps,
                  std::size_t batch_size, bool replacement, std::uint64_t seed, std::size_t thin,
                  Array<double> out, int n_threads) {
  if (records.ndim() != 2 || start.ndim() != 2 || out.ndim() != 3 || records.shape(0) < 1 ||
      batch_size < 1 || thin < 1 || start.shape(1) < 1 || out.shape(0) != start.shape(0) ||
      out.shape(2) != start.shape(1) || static_cast<std::size_t>(out.shape(1)) != n_steps / thin + 1 ||
      (kind != "sine" && records.shape(1) <= start.shape(1)))
    throw py::value_error("run_sgd: shapes do not fit");
  const std::size_t n_chains = start.shape(0), dim = start.shape(1), n_records = out.shape(1);
  const sgdmc::SgdSettings settings{step_size,  step_size * l2, n_chains, n_steps / thin * thin,
                                    batch_size, replacement,    seed,     0};
  const double* from = start.data();
  double* to = out.mutable_data();
  sgdmc::Divergence divergence;
  with_problem(kind, records.data(), records.shape(0), records.shape(1), dim, [&](const auto& problem) {
    without_gil([&](sgdmc::Stop& stop) {
      const auto make_sink = [&](std::size_t first, int L) {
        return sgdmc::StoreIterates{to + first * n_records * dim, n_records, dim, thin, L};
      };
      for (std::size_t c = 0; c < n_chains; ++c)
        for (std::size_t j = 0; j < dim; ++j) to[c * n_records * dim + j] = from[c * dim + j];
      sgdmc::sgd(problem, settings, from, make_sink, divergence, n_threads, stop);
    });
  });
  return py::make_tuple(divergence.step, divergence.chain);
}

}  // namespace

void register_sgd(py::module_& module) {
  using namespace py::literals;
  module.def("random_bits", &random_bits, "seed"_a, "chain"_a, "first"_a, "n"_a);
  module.def("sine_cosine", &sine_cosine, "x"_a.noconvert());
  module.def("logistic", &logistic, "x"_a.noconvert());
  module.def("run_sgd", &run_sgd, "kind"_a, "records"_a.noconvert(), "l2"_a, "start"_a.noconvert(),
             "step_size"_a, "n_steps"_a, "batch_size"_a, "replacement"_a, "seed"_a, "thin"_a,
             "out"_a.noconvert(), "n_threads"_a = 1);
}
