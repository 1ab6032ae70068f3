// The compiled core as a Python module: this file only registers; each topic has a file of its own.
#include <pybind11/pybind11.h>

namespace py = pybind11;

void register_attention(py::module_& module);
void register_chain(py::module_& module);
void register_exact(py::module_& module);
void register_grid(py::module_& module);
void register_sgd(py::module_& module);
void register_spectrum(py::module_& module);
void register_transport(py::module_& module);

PYBIND11_MODULE(native, module) {
  module.doc() = "Compiled kernels of sgdmc: arrays in, arrays out; arguments are validated in Python.";
  register_attention(module);
  register_chain(module);
  register_exact(module);
  register_grid(module);
  register_sgd(module);
  register_spectrum(module);
  register_transport(module);
}
