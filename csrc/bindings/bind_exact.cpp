// Bindings of the 'exact' kernels: check, convert, release the GIL, call.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

namespace py = pybind11;

void register_exact(py::module_& module) { (void)module; }
