// Bindings of discretisation and digit text: check, convert, release the GIL, call.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <string>

#include "guard.hpp"
#include "sgdmc/grid.hpp"
#include "sgdmc/text.hpp"

namespace py = pybind11;
using namespace sgdmc::bindings;

namespace {

py::tuple min_max(const Array<double>& values, int n_threads) {
  if (values.ndim() != 2) throw py::value_error("values must have two axes");
  Array<double> low(values.shape(1)), high(values.shape(1));
  const double* x = values.data();
  const std::size_t rows = values.shape(0), dim = values.shape(1);
  double *lo = low.mutable_data(), *hi = high.mutable_data();
  const auto bad = without_gil(
      [&](sgdmc::Stop& stop) { return sgdmc::min_max(x, rows, dim, lo, hi, n_threads, stop); });
  return py::make_tuple(low, high, bad);
}

std::int64_t encode(const Array<double>& values, const Array<double>& low, const Array<double>& scale,
                    int n_states, Array<std::int16_t> out, int n_threads) {
  if (values.ndim() != 2 || low.ndim() != 1 || scale.ndim() != 1 || low.shape(0) != values.shape(1) ||
      scale.shape(0) != values.shape(1) || out.size() != values.size() || n_states < 1 ||
      n_states > 32768)
    throw py::value_error("encode: shapes do not fit");
  const double *x = values.data(), *lo = low.data(), *sc = scale.data();
  const std::size_t rows = values.shape(0), dim = values.shape(1);
  std::int16_t* s = out.mutable_data();
  return without_gil([&](sgdmc::Stop& stop) {
    return sgdmc::encode(x, rows, dim, lo, sc, n_states, s, n_threads, stop);
  });
}

py::bytes write_digits(const Array<std::int16_t>& states, int digits, std::size_t dim) {
  if (digits < 1 || digits > 3 || dim < 1) throw py::value_error("digits must be 1, 2 or 3");
  const std::size_t n = states.size();
  py::bytes text(nullptr, n * (digits + 1));
  char* buffer = PyBytes_AS_STRING(text.ptr());
  const std::int16_t* s = states.data();
  without_gil([&](sgdmc::Stop&) {
    if (digits == 1) sgdmc::write_digits<1>(s, n, dim, buffer);
    if (digits == 2) sgdmc::write_digits<2>(s, n, dim, buffer);
    if (digits == 3) sgdmc::write_digits<3>(s, n, dim, buffer);
  });
  return text;
}

py::tuple parse_digits(const py::bytes& text, int digits, std::size_t dim) {
  if (digits < 1 || digits > 3 || dim < 1) throw py::value_error("digits must be 1, 2 or 3");
  const std::string_view view = text;
  if (view.size() % (digits + 1) != 0) throw py::value_error("the text ends inside a number");
  const std::size_t n = view.size() / (digits + 1);
  Array<std::int16_t> states(static_cast<py::ssize_t>(n));
  std::int16_t* s = states.mutable_data();
  const auto bad = without_gil([&](sgdmc::Stop&) {
    return digits == 1   ? sgdmc::parse_digits<1>(view.data(), n, dim, s)
           : digits == 2 ? sgdmc::parse_digits<2>(view.data(), n, dim, s)
                         : sgdmc::parse_digits<3>(view.data(), n, dim, s);
  });
  return py::make_tuple(states, bad);
}

}  // namespace

void register_grid(py::module_& module) {
  using namespace py::literals;
  module.def("min_max", &min_max, "values"_a.noconvert(), "n_threads"_a = 1);
  module.def("encode", &encode, "values"_a.noconvert(), "low"_a, "scale"_a, "n_states"_a,
             "out"_a.noconvert(), "n_threads"_a = 1);
  module.def("write_digits", &write_digits, "states"_a.noconvert(), "digits"_a, "dim"_a);
  module.def("parse_digits", &parse_digits, "text"_a, "digits"_a, "dim"_a);
}
