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

py::tuple write_digits(const Array<std::int16_t>& states, int digits, std::size_t dim) {
  if (digits < 1 || digits > 3 || dim < 1) throw py::value_error("digits must be 1, 2 or 3");
  const std::size_t n = states.size();
  // Written in place: a new string that nobody else has seen may be filled.
  const auto text = py::reinterpret_steal<py::object>(PyUnicode_New(static_cast<Py_ssize_t>(n * (digits + 1)), 127));
  if (!text) throw py::error_already_set();
  char* buffer = reinterpret_cast<char*>(PyUnicode_1BYTE_DATA(text.ptr()));
  const std::int16_t* s = states.data();
  const auto bad = n == 0 ? -1 : without_gil([&](sgdmc::Stop&) {
    return digits == 1   ? sgdmc::write_digits<1>(s, n, dim, buffer)
           : digits == 2 ? sgdmc::write_digits<2>(s, n, dim, buffer)
                         : sgdmc::write_digits<3>(s, n, dim, buffer);
  });
  if (bad >= 0) return py::make_tuple(py::str(), bad);
  return py::make_tuple(text, bad);
}

// A string of characters below 128 is read where it lies; others do not fit anyway, wherever they are.
std::int64_t parse_digits(const py::str& text, int digits, std::size_t dim, Array<std::int16_t> out) {
  if (digits < 1 || digits > 3 || dim < 1) throw py::value_error("digits must be 1, 2 or 3");
  py::object plain = text;
  if (!PyUnicode_IS_ASCII(text.ptr())) {
    const py::object encoded = text.attr("encode")("ascii", "replace");
    plain = encoded.attr("decode")("ascii");
  }
  const char* from = reinterpret_cast<const char*>(PyUnicode_1BYTE_DATA(plain.ptr()));
  const std::size_t length = PyUnicode_GET_LENGTH(plain.ptr()), n = out.size();
  if (length != n * (digits + 1)) throw py::value_error("parse_digits: the text does not fit");
  std::int16_t* s = out.mutable_data();
  return without_gil([&](sgdmc::Stop&) {
    return digits == 1   ? sgdmc::parse_digits<1>(from, n, dim, s)
           : digits == 2 ? sgdmc::parse_digits<2>(from, n, dim, s)
                         : sgdmc::parse_digits<3>(from, n, dim, s);
  });
}

}  // namespace

void register_grid(py::module_& module) {
  using namespace py::literals;
  module.def("min_max", &min_max, "values"_a.noconvert(), "n_threads"_a = 1);
  module.def("encode", &encode, "values"_a.noconvert(), "low"_a, "scale"_a, "n_states"_a,
             "out"_a.noconvert(), "n_threads"_a = 1);
  module.def("write_digits", &write_digits, "states"_a.noconvert(), "digits"_a, "dim"_a);
  module.def("parse_digits", &parse_digits, "text"_a, "digits"_a, "dim"_a,
             "out"_a.noconvert());
}
