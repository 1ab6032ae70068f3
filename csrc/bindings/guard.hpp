// What every binding needs: arrays without copies, the GIL released, Ctrl-C heard.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <utility>

#include "sgdmc/parallel.hpp"

namespace sgdmc::bindings {

namespace py = pybind11;

// C-contiguous arrays of exactly this dtype: another dtype or layout is a TypeError, never a copy.
template <class T>
using Array = py::array_t<T, py::array::c_style>;


// Calls body(stop) without the GIL. That is safe since kernels touch only the buffers of arrays that the
// caller holds. Ctrl-C makes the kernel return early, and becomes KeyboardInterrupt here.
template <class Body>
auto without_gil(Body&& body) {
  Stop stop([] {
    const py::gil_scoped_acquire gil;
    return PyErr_CheckSignals() != 0;
  });
  try {
    const py::gil_scoped_release release;
    return body(stop);
  } catch (const Interrupted&) {
    throw py::error_already_set();
  }
}

}  // namespace sgdmc::bindings
