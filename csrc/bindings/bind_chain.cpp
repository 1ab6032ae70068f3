// Bindings of finite chains: check, convert, release the GIL, call.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "guard.hpp"
#include "sgdmc/chain.hpp"
#include "sgdmc/counts.hpp"

namespace py = pybind11;
using namespace sgdmc::bindings;

namespace {

// `begin` is empty for a dense matrix.
bool rows_fit(const Array<std::int64_t>& begin, std::size_t n, std::size_t entries) {
  if (begin.size() == 0) return n >= 1 && n <= sgdmc::kMaxRow && entries == n * n;
  const std::int64_t* b = begin.data();
  if (static_cast<std::size_t>(begin.size()) != n + 1 || b[0] != 0) return false;
  for (std::size_t i = 0; i < n; ++i)
    if (b[i + 1] <= b[i] || static_cast<std::size_t>(b[i + 1] - b[i]) > sgdmc::kMaxRow) return false;
  return static_cast<std::size_t>(b[n]) == entries;
}

bool alias_tables(const Array<double>& p, const Array<std::int64_t>& begin, std::size_t n, double tolerance,
                  Array<std::uint64_t> table, int n_threads) {
  if (!rows_fit(begin, n, p.size()) || table.size() != p.size())
    throw py::value_error("alias_tables: rows do not fit");
  const std::int64_t* rows = begin.size() ? begin.data() : nullptr;
  const double* values = p.data();
  std::uint64_t* to = table.mutable_data();
  return without_gil(
      [&](sgdmc::Stop& stop) { return sgdmc::alias_tables(values, n, rows, tolerance, to, n_threads, stop); });
}

template <class T>
void simulate(const Array<std::uint64_t>& table, const Array<std::int64_t>& begin,
              const Array<std::int32_t>& column, std::size_t n, std::uint64_t seed, Array<T> out,
              int n_threads) {
  const bool sparse = begin.size() != 0;
  if (!rows_fit(begin, n, table.size()) || out.ndim() != 2 || out.shape(1) < 1 ||
      (sparse && column.size() != table.size()))
    throw py::value_error("simulate: shapes do not fit");
  const std::uint64_t* entries = table.data();
  const std::int64_t* rows = begin.data();
  const std::int32_t* columns = column.data();
  T* paths = out.mutable_data();
  const std::size_t n_chains = out.shape(0), n_steps = out.shape(1) - 1;
  const bool fits = without_gil([&](sgdmc::Stop& stop) {
    for (std::size_t c = 0; c < n_chains; ++c)
      if (paths[c * (n_steps + 1)] < 0 || static_cast<std::size_t>(paths[c * (n_steps + 1)]) >= n) return false;
    const auto run = [&](const auto& tables) {
      if (!tables.inside()) return false;
      sgdmc::simulate(tables.view(), n_chains, n_steps, seed, paths, n_threads, stop);
      return true;
    };
    if (!sparse) return sgdmc::with_short_tables(entries, n, n_threads, stop, run);
    if (!sgdmc::inside(entries, rows, columns, n)) return false;
    sgdmc::simulate(sgdmc::SparseTables{entries, rows, columns}, n_chains, n_steps, seed, paths, n_threads, stop);
    return true;
  });
  if (!fits) throw py::value_error("simulate: a start, alias or column is out of range");
}

template <class T>
std::int64_t count_transitions(const Array<T>& states, std::size_t n_states, std::size_t lag,
                               Array<std::int64_t> counts, int n_threads) {
  if (states.ndim() != 2 || lag < 1 || static_cast<std::size_t>(counts.size()) != n_states * n_states)
    throw py::value_error("count_transitions: shapes do not fit");
  const T* s = states.data();
  std::int64_t* to = counts.mutable_data();
  const std::size_t n_chains = states.shape(0), length = states.shape(1);
  return without_gil([&](sgdmc::Stop& stop) {
    return sgdmc::count_transitions(s, n_chains, length, n_states, lag, to, n_threads, stop);
  });
}

template <class T>
void register_counts(py::module_& module) {
  using namespace py::literals;
  module.def("count_transitions", &count_transitions<T>, "states"_a.noconvert(), "n_states"_a, "lag"_a,
             "counts"_a.noconvert(), "n_threads"_a = 1);
}

}  // namespace

void register_chain(py::module_& module) {
  using namespace py::literals;
  module.def("alias_tables", &alias_tables, "p"_a.noconvert(), "begin"_a.noconvert(), "n_states"_a,
             "tolerance"_a, "table"_a.noconvert(), "n_threads"_a = 1);
  module.def("simulate", &simulate<std::int16_t>, "table"_a.noconvert(), "begin"_a.noconvert(),
             "column"_a.noconvert(), "n_states"_a, "seed"_a, "out"_a.noconvert(), "n_threads"_a = 1);
  module.def("simulate", &simulate<std::int32_t>, "table"_a.noconvert(), "begin"_a.noconvert(),
             "column"_a.noconvert(), "n_states"_a, "seed"_a, "out"_a.noconvert(), "n_threads"_a = 1);
  register_counts<std::int16_t>(module);
  register_counts<std::int32_t>(module);
  register_counts<std::int64_t>(module);
}
