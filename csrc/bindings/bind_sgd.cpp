// Bindings of SGD, the generator and the elementary functions: check, convert, release the GIL, call.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>

#include "guard.hpp"
#include "sgdmc/sgd.hpp"
#include "sgdmc/sgd_states.hpp"
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

// Arguments that all kinds of runs share; checked once here, so that no kernel can leave its arrays.
struct Runs {
  std::string kind;
  Array<double> records, start;
  sgdmc::SgdSettings settings;
  std::size_t dim;

  Runs(std::string name, Array<double> data, double l2, Array<double> from, double step_size,
       std::size_t n_steps, std::size_t batch_size, bool replacement, std::uint64_t seed)
      : kind(std::move(name)), records(std::move(data)), start(std::move(from)) {
    if (records.ndim() != 2 || start.ndim() != 2 || records.shape(0) < 1 || batch_size < 1 ||
        start.shape(1) < 1 || (kind != "sine" && records.shape(1) <= start.shape(1)) ||
        static_cast<std::uint64_t>(records.shape(0)) >= (std::uint64_t{1} << 32))
      throw py::value_error("run_sgd: shapes do not fit");
    dim = start.shape(1);
    settings = {step_size,  step_size * l2, static_cast<std::size_t>(start.shape(0)), n_steps, batch_size,
                replacement, seed,          0};
  }

  py::tuple go(const sgdmc::MakeSink& make_sink, int n_threads) const {
    sgdmc::Divergence divergence;
    with_problem(kind, records.data(), records.shape(0), records.shape(1), dim, [&](const auto& problem) {
      without_gil([&](sgdmc::Stop& stop) {
        sgdmc::sgd(problem, settings, start.data(), make_sink, divergence, n_threads, stop);
      });
    });
    return py::make_tuple(divergence.step, divergence.chain);
  }
};

py::tuple run_sgd(const std::string& kind, const Array<double>& records, double l2,
                  const Array<double>& start, double step_size, std::size_t n_steps,
                  std::size_t batch_size, bool replacement, std::uint64_t seed, std::size_t thin,
                  Array<double> out, int n_threads) {
  const Runs runs(kind, records, l2, start, step_size, n_steps / thin * thin, batch_size, replacement, seed);
  if (out.ndim() != 3 || out.shape(0) != start.shape(0) || out.shape(2) != start.shape(1) ||
      static_cast<std::size_t>(out.shape(1)) != n_steps / thin + 1)
    throw py::value_error("run_sgd: out does not fit");
  const std::size_t n_records = out.shape(1), dim = runs.dim;
  double* to = out.mutable_data();
  for (std::size_t c = 0; c < runs.settings.n_chains; ++c)
    std::copy_n(start.data() + c * dim, dim, to + c * n_records * dim);
  return runs.go(
      [&](std::size_t first, int L) {
        return std::make_unique<sgdmc::StoreIterates>(to + first * n_records * dim, n_records, dim, thin, L);
      },
      n_threads);
}

sgdmc::GridView grid_view(const Array<double>& low, const Array<double>& scale, int n_states, std::size_t dim) {
  if (static_cast<std::size_t>(low.size()) != dim || static_cast<std::size_t>(scale.size()) != dim ||
      n_states < 1 || n_states > 32768)
    throw py::value_error("the grid does not fit");
  return {low.data(), scale.data(), n_states};
}

py::tuple run_sgd_states(const std::string& kind, const Array<double>& records, double l2,
                         const Array<double>& start, double step_size, std::size_t n_steps,
                         std::size_t batch_size, bool replacement, std::uint64_t seed, std::size_t thin,
                         const Array<double>& low, const Array<double>& scale, int n_states,
                         Array<std::int16_t> out, int n_threads) {
  const Runs runs(kind, records, l2, start, step_size, n_steps / thin * thin, batch_size, replacement, seed);
  if (out.ndim() != 3 || out.shape(0) != start.shape(0) || out.shape(2) != start.shape(1) ||
      static_cast<std::size_t>(out.shape(1)) != n_steps / thin + 1)
    throw py::value_error("run_sgd_states: out does not fit");
  const std::size_t n_records = out.shape(1), dim = runs.dim;
  const sgdmc::GridView grid = grid_view(low, scale, n_states, dim);
  std::int16_t* to = out.mutable_data();
  for (std::size_t c = 0; c < runs.settings.n_chains; ++c)
    for (std::size_t j = 0; j < dim; ++j)
      to[c * n_records * dim + j] =
          sgdmc::state_of(start.data()[c * dim + j], grid.low[j], grid.scale[j], n_states - 1);
  return runs.go(
      [&](std::size_t first, int L) {
        return std::make_unique<sgdmc::StoreStates>(to + first * n_records * dim, n_records, dim, thin, grid, L);
      },
      n_threads);
}

template <class Count>
py::tuple count_into(const Runs& runs, const sgdmc::GridView& grid, std::size_t lag, std::int64_t* counts,
                     int n_threads) {
  const std::size_t dim = runs.dim, n = grid.n_states;
  sgdmc::CountTables<Count> tables(dim * n * n);
  const py::tuple result = runs.go(
      [&](std::size_t first, int L) {
        const std::size_t lanes = std::min<std::size_t>(L, runs.settings.n_chains - first);
        return std::make_unique<sgdmc::CountStates<Count>>(tables, grid, runs.start.data() + first * dim, lanes,
                                                           dim, lag, L);
      },
      n_threads);
  tables.add_to(counts);
  return result;
}

py::tuple count_sgd(const std::string& kind, const Array<double>& records, double l2,
                    const Array<double>& start, double step_size, std::size_t n_steps,
                    std::size_t batch_size, bool replacement, std::uint64_t seed, std::size_t lag,
                    const Array<double>& low, const Array<double>& scale, int n_states,
                    Array<std::int64_t> counts, int n_threads) {
  const Runs runs(kind, records, l2, start, step_size, n_steps, batch_size, replacement, seed);
  const sgdmc::GridView grid = grid_view(low, scale, n_states, runs.dim);
  if (lag < 1 || static_cast<std::size_t>(counts.size()) != runs.dim * n_states * n_states)
    throw py::value_error("count_sgd: counts do not fit");
  const bool small = static_cast<double>(n_steps) * static_cast<double>(runs.settings.n_chains) < 4e9;
  return small ? count_into<std::uint32_t>(runs, grid, lag, counts.mutable_data(), n_threads)
               : count_into<std::uint64_t>(runs, grid, lag, counts.mutable_data(), n_threads);
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
  module.def("run_sgd_states", &run_sgd_states, "kind"_a, "records"_a.noconvert(), "l2"_a,
             "start"_a.noconvert(), "step_size"_a, "n_steps"_a, "batch_size"_a, "replacement"_a, "seed"_a,
             "thin"_a, "low"_a, "scale"_a, "n_states"_a, "out"_a.noconvert(), "n_threads"_a = 1);
  module.def("count_sgd", &count_sgd, "kind"_a, "records"_a.noconvert(), "l2"_a, "start"_a.noconvert(),
             "step_size"_a, "n_steps"_a, "batch_size"_a, "replacement"_a, "seed"_a, "lag"_a, "low"_a,
             "scale"_a, "n_states"_a, "counts"_a.noconvert(), "n_threads"_a = 1);
}
