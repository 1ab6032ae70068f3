// Bindings of the room 'transport': check, convert, release the GIL, call.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

namespace py = pybind11;

void register_transport(py::module_& module) { (void)module; }
